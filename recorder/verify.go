package recorder

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Report is what [VerifyFile] found in a sealed recording, whether or not it is what it should be.
type Report struct {
	Sealed              // recomputed from the bytes; File is that of the Sealed it was held against
	Header     *Header  // nil if it can't be read or was erased
	HeaderHash string   // hash of leaf 0, hex
	Statements uint64   // highest statement number
	Latest     int64    // Micros of the last statement
	Prepares   []string // transactions prepared for two-phase commit
	Erased     int      // events of which only the hash is left
}

// MismatchError says in what a recording differs from what the ledger keeps of it.
type MismatchError struct {
	Field string // "length", "sha256", "count", "root", "session", "end", "interrupted", "prefix 12"
	Want  string // what the ledger says
	Got   string // what the file says
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("recording: %s is %s, the ledger says %s", e.Field, e.Got, e.Want)
}

// VerifyFile reads the bytes of a sealed file and holds them against what the ledger keeps of it:
// length and digest of the file; count and root recomputed from the lines; session and end. prefixes
// are earlier states of the same recording (sessions.moved): each must be its beginning. The error
// joins a *MismatchError for each difference and a *FormatError where the content is damaged; nil means
// that the recording is, to the byte, the one that was sealed.
func VerifyFile(r io.Reader, s Sealed, prefixes ...TreeState) (Report, error) {
	return VerifyEvents(r, s, nil, prefixes...)
}

// VerifyEvents is VerifyFile, and shows each event as it passes, right or not.
func VerifyEvents(r io.Reader, s Sealed, see func(*Event), prefixes ...TreeState) (Report, error) {
	var wrong []error
	differ := func(field, want, got string) {
		if want != got {
			wrong = append(wrong, &MismatchError{Field: field, Want: want, Got: got})
		}
	}
	roots := make(map[uint64]string, len(prefixes))
	for _, p := range prefixes {
		roots[p.Count] = ""
	}
	sum, length, sha, err := scanSealed(r, func(_ []byte, e *Event, t *Tree) error {
		if see != nil {
			see(e)
		}
		if _, asked := roots[t.Count()]; asked {
			root := t.Root()
			roots[t.Count()] = hex.EncodeToString(root[:])
		}
		return nil
	})
	if err != nil {
		wrong = append(wrong, fmt.Errorf("recording %s: %w", s.File, err))
	}
	rep := Report{
		Sealed: sum.sealed(s.File, length, sha), Header: sum.header, HeaderHash: hex.EncodeToString(sum.leaf0[:]),
		Statements: sum.statements, Latest: sum.latest, Prepares: sum.prepares, Erased: sum.erased,
	}
	if sum.backwards > 0 {
		wrong = append(wrong, fmt.Errorf("recording %s: event %d is earlier than one before it", s.File, sum.backwards))
	}
	differ("length", fmt.Sprint(s.Length), fmt.Sprint(length))
	differ("sha256", s.SHA256, sha)
	differ("count", fmt.Sprint(s.Count), fmt.Sprint(rep.Count))
	differ("root", s.Root, rep.Root)
	if sum.header != nil {
		differ("session", s.Session, sum.header.Session)
	}
	differ("interrupted", fmt.Sprint(s.Interrupted), fmt.Sprint(sum.end == nil))
	if sum.end != nil && !s.Interrupted {
		differ("end", fmt.Sprintf("%+v", s.End), fmt.Sprintf("%+v", *sum.end))
	}
	for _, p := range prefixes {
		got := roots[p.Count]
		if got == "" {
			got = "missing"
		}
		differ(fmt.Sprintf("prefix %d", p.Count), p.Root, got)
	}
	return rep, errors.Join(wrong...)
}
