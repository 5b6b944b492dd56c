package export

import (
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

// Format is the version of bundles that this package writes and reads.
const Format = 1

// Names of a bundle's members, in the order in which they come in a .tar.zst.
const (
	manifestName   = "bundle.json"
	checkpointName = "checkpoint"
	ledgerName     = "ledger.jsonl"
	recordingsDir  = "recordings/"
	sealedSuffix   = ".jsonl.zst"
	openSuffix     = ".jsonl"
)

// Ledger is what a bundle's ledger is made from; *store.Store is one.
type Ledger interface {
	Installation() string
	VerifierKey() string
	Checkpoint(ctx context.Context) ([]byte, error)
	Entries(ctx context.Context, from int64, fn func(line []byte) error) error
}

// Recordings gives the recordings; *recorder.Library is one.
type Recordings interface {
	File(s recorder.Sealed) (*os.File, error)
	Open(session string) (io.ReadCloser, error)
}

// Source is where the evidence is.
type Source struct {
	Ledger     Ledger
	Recordings Recordings
	Dialects   map[string]recorder.Dialect // by engine: JSONL says by them what was inside the intended SQL; nil: it says nothing
}

// Progress is told after each recording; Err says that one could not be read and was left out, which
// Verify will find.
type Progress struct {
	Session     string
	Done, Total int
	Err         error
}

// Scope selects sessions, and with them the grants and requests that they stand on. Fields that are
// set must all match; without any, the scope is everything.
type Scope struct {
	Session string    `json:"session,omitempty"`
	Grant   string    `json:"grant,omitempty"`
	Target  string    `json:"target,omitempty"`
	Person  string    `json:"person,omitempty"` // e-mail, subject, or "issuer#subject"
	From    time.Time `json:"from,omitzero"`    // what ended before is out
	To      time.Time `json:"to,omitzero"`      // what began at or after it is out
}

// All reports whether the scope is everything.
func (s Scope) All() bool { return s == Scope{} }

// manifest is bundle.json.
type manifest struct {
	Format       int    `json:"format"`
	Installation string `json:"installation"`
	Key          string `json:"key"` // never trusted: whoever changes a bundle can change this too
	Scope        Scope  `json:"scope"`
}

// withheld is a line of ledger.jsonl that stands for an entry out of scope.
type withheld struct {
	Index int64  `json:"n"`
	Hash  string `json:"hash"` // leaf hash, hex
}

var sessionName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// recordingName gives the member's name, or "" for a session id that is no file name.
func recordingName(session string, sealed bool) string {
	switch {
	case !sessionName.MatchString(session):
		return ""
	case sealed:
		return recordingsDir + session + sealedSuffix
	}
	return recordingsDir + session + openSuffix
}

// recordingOf is the inverse of recordingName.
func recordingOf(name string) (session string, sealed, ok bool) {
	rest, ok := strings.CutPrefix(name, recordingsDir)
	if !ok {
		return "", false, false
	}
	if session, ok = strings.CutSuffix(rest, sealedSuffix); ok {
		return session, true, sessionName.MatchString(session)
	}
	session, ok = strings.CutSuffix(rest, openSuffix)
	return session, false, ok && sessionName.MatchString(session)
}
