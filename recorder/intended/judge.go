package intended

import (
	"bytes"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

// Verdict says where a statement stands.
type Verdict string

// The verdicts.
const (
	Inside      Verdict = "inside"       // the intended SQL has this statement
	Outside     Verdict = "outside"      // it has not
	NotExecuted Verdict = "not executed" // the database was not given it, or did not come to it
)

// Report holds what was executed under a grant against what was intended.
type Report struct {
	Request     string `json:"request"`
	SQL         string `json:"sql" doc:"What was intended, in the requester's words"`
	Sessions    int    `json:"sessions" doc:"Whose recordings were looked at"`
	Executed    uint64 `json:"executed" doc:"Statements that the database was given: those inside and those outside"`
	Inside      uint64 `json:"inside" doc:"Of them, those that are in the intended SQL"`
	Outside     uint64 `json:"outside" doc:"Of them, those that are not"`
	NotExecuted uint64 `json:"not_executed" doc:"Statements that were sent, and that the database was not given or did not come to"`
	Erased      uint64 `json:"erased,omitempty" doc:"Events that were erased: what they held can't be compared"`
	Planned     []Plan `json:"planned" doc:"The statements of the intended SQL"`
	Statements  []Line `json:"statements" doc:"Those outside, and the others, each up to a number"`
	LeftOut     uint64 `json:"left_out,omitempty" doc:"How many statements are not listed"`
	listed      [2]int
}

// Plan is a statement of the intended SQL.
type Plan struct {
	Text     string  `json:"text"`
	Executed uint64  `json:"executed" doc:"How often"`
	Verdict  Verdict `json:"verdict" enum:"inside,not executed" doc:"inside: it was executed"`
}

// Line is one statement that was sent.
type Line struct {
	Session string    `json:"session"`
	ID      uint64    `json:"id" doc:"The recording's number of it"`
	At      time.Time `json:"at"`
	Text    string    `json:"text" doc:"Its first 200 bytes, as far as they are text"`
	Verdict Verdict   `json:"verdict" enum:"inside,outside,not executed"`
	Error   string    `json:"error,omitempty" doc:"What the database refused it with: SQLSTATE"`
}

const (
	maxLines = 1000
	shown    = 200 // bytes of a statement's text
)

// Judge makes a Report of the recordings of a grant, one after another.
type Judge struct {
	Lines int // how many statements outside are listed at most, and how many others

	report   Report
	dialects map[string]recorder.Dialect
	sets     map[recorder.Dialect]map[string][]int // what the intended SQL has, by key
}

// NewJudge judges by a request's intended SQL, which is read in the dialect of the engine.
func NewJudge(request, sql string, dialects map[string]recorder.Dialect) *Judge {
	return &Judge{Lines: maxLines, dialects: dialects, report: Report{Request: request, SQL: sql, Planned: []Plan{}, Statements: []Line{}}, sets: map[recorder.Dialect]map[string][]int{}}
}

// prepare reads the intended SQL in a dialect; all sessions of a grant are of one.
func (j *Judge) prepare(d recorder.Dialect) map[string][]int {
	if keys, ok := j.sets[d]; ok {
		return keys
	}
	keys := map[string][]int{}
	j.sets[d] = keys
	text := recorder.Redact(d, []byte(j.report.SQL))
	var every []int
	for _, s := range plan(d, text) {
		n := len(j.report.Planned)
		j.report.Planned = append(j.report.Planned, Plan{Text: string(s.text), Verdict: NotExecuted})
		keys[s.key] = append(keys[s.key], n)
		every = append(every, n)
	}
	if whole := split(d, text); len(whole) == 1 && len(every) > 1 { // sent as one, and not told apart
		keys[whole[0].key] = every
	}
	return keys
}

// Report gives what was found so far. The engine is that of the grant's target, for where there was no session.
func (j *Judge) Report(engine string) Report {
	if len(j.sets) == 0 {
		j.prepare(j.dialects[engine])
	}
	return j.report
}

// add counts a statement that is decided.
func (j *Judge) add(l Line, plans []int) {
	r := &j.report
	kind := 1
	switch l.Verdict {
	case NotExecuted:
		r.NotExecuted++
	case Inside:
		r.Executed++
		r.Inside++
		for _, n := range plans {
			r.Planned[n].Executed++
			r.Planned[n].Verdict = Inside
		}
	case Outside:
		r.Executed++
		r.Outside++
		kind = 0
	}
	if r.listed[kind] >= j.Lines {
		r.LeftOut++
		return
	}
	r.listed[kind]++
	r.Statements = append(r.Statements, l)
}

func beginning(text []byte) string {
	if len(text) > shown {
		text = append(bytes.ToValidUTF8(text[:shown], nil), "…"...)
	}
	return string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
}
