package export

import (
	"fmt"
	"time"
)

// Severity says how bad a finding is.
type Severity string

const (
	SeverityError Severity = "error" // the evidence was changed, or what it shows broke a rule
	SeverityOpen  Severity = "open"  // something that should have happened by then has not
	SeverityNote  Severity = "note"  // worth reading; nothing is wrong with the evidence
)

// Finding is one thing that a reader of the evidence should know.
type Finding struct {
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Where    string   `json:"where"` // "ledger.jsonl line 6", "grant g…", "recordings/s….jsonl.zst"
}

// Report is what Verify found.
type Report struct {
	Installation string    `json:"installation"`
	Entries      int64     `json:"entries"`  // of the ledger, as signed
	Root         string    `json:"root"`     // as recomputed from the bundle
	Withheld     int64     `json:"withheld"` // entries of which the bundle has only the hash
	Anchored     int64     `json:"anchored"` // how many entries the latest anchor covers; 0 without one
	First        time.Time `json:"first"`    // of the entries in the bundle
	Last         time.Time `json:"last"`
	Scope        Scope     `json:"scope"` // as the bundle claims; unsigned

	Requests   int    `json:"requests"`
	Grants     int    `json:"grants"`
	Sessions   int    `json:"sessions"`
	Recordings int    `json:"recordings"` // files checked against the ledger
	Events     uint64 `json:"events"`     // leaves in them
	Statements uint64 `json:"statements"`

	Intended []Intended `json:"intended,omitempty"` // of grants with recordings here, whose request names the SQL that it is for

	Findings []Finding `json:"findings"`
}

// OK reports whether nothing was changed and no rule was broken; findings that are open or notes may
// still be there.
func (r Report) OK() bool { return r.count(SeverityError) == 0 }

func (r Report) count(s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// maxFindings bounds a report about a bundle made to fill memory with findings.
const maxFindings = 1000

func (r *Report) add(s Severity, where, format string, args ...any) {
	switch n := len(r.Findings); {
	case n < maxFindings:
		r.Findings = append(r.Findings, Finding{Severity: s, What: fmt.Sprintf(format, args...), Where: where})
	case n == maxFindings:
		r.Findings = append(r.Findings, Finding{Severity: SeverityError, What: "there are more findings than a report holds", Where: "bundle"})
	}
}

func (r *Report) bad(where, format string, args ...any)  { r.add(SeverityError, where, format, args...) }
func (r *Report) open(where, format string, args ...any) { r.add(SeverityOpen, where, format, args...) }
func (r *Report) note(where, format string, args ...any) { r.add(SeverityNote, where, format, args...) }
