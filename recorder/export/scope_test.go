package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

func recordings(members []file) (names []string) {
	for _, f := range members {
		if strings.HasPrefix(f.name, recordingsDir) {
			names = append(names, strings.TrimPrefix(f.name, recordingsDir))
		}
	}
	return names
}

func TestScope(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	for name, c := range map[string]struct {
		scope  Scope
		want   string // recordings
		hidden []string
	}{
		"session":       {Scope{Session: "s1"}, "s1.jsonl.zst", []string{"ticket 2", "carol", `"s2","grant`}},
		"grant":         {Scope{Grant: "g1"}, "s1.jsonl.zst s2.jsonl.zst", []string{"ticket 2", "carol"}},
		"person":        {Scope{Person: "carol@example.test"}, "s3.jsonl", []string{"ticket 1", "alice"}},
		"subject":       {Scope{Person: "3"}, "s3.jsonl", []string{"ticket 1", "alice"}},
		"person's key":  {Scope{Person: key(carol)}, "s3.jsonl", []string{"ticket 1", "alice"}},
		"target":        {Scope{Target: "orders"}, "s1.jsonl.zst s2.jsonl.zst s3.jsonl", nil},
		"no such":       {Scope{Target: "billing"}, "", []string{"ticket", "alice", "carol", "bob"}},
		"both of two":   {Scope{Grant: "g1", Person: "carol@example.test"}, "", []string{"alice", "carol"}},
		"before it all": {Scope{To: w.start}, "", []string{"ticket", "alice"}},
		"after it all":  {Scope{From: w.start.Add(90 * time.Minute)}, "s3.jsonl", []string{"ticket 1", "alice"}},
	} {
		path := w.bundle(c.scope)
		members := unpack(t, path)
		if got := strings.Join(recordings(members), " "); got != c.want {
			t.Errorf("%s: recordings %q, want %q", name, got, c.want)
		}
		text := string(get(t, members, ledgerName))
		for _, hidden := range c.hidden {
			if strings.Contains(text, hidden) {
				t.Errorf("%s: the ledger tells %q", name, hidden)
			}
		}
		r := verify(t, path, w.VerifierKey(), anchor(t, w))
		if !r.OK() || r.Scope != c.scope || r.Anchored != r.Entries || (name != "target" && r.Withheld == 0) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// A bundle with a scope proves as much of what it shows as a whole one.
func TestTamperedScope(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	members := unpack(t, w.bundle(Scope{Session: "s1"}))
	for name, changed := range tamperLines(get(t, members, ledgerName)) {
		dir := lay(t, withFile(members, ledgerName, func([]byte) []byte { return changed }))
		if r := verify(t, dir, w.VerifierKey(), ""); r.OK() {
			t.Errorf("%s: not found: %+v", name, r.Findings)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	dir := lay(t, withFile(members, "recordings/s1.jsonl.zst", func([]byte) []byte { return nil }))
	if r := verify(t, dir, w.VerifierKey(), ""); !says(r, SeverityError, "session s1: its recording is missing") {
		t.Errorf("without its recording: %+v", r.Findings)
	}
}

// What can't be read is left out, told, and found.
func TestWriteLeavesOutWhatIsLost(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	src := w.source()
	src.Recordings = lossy{w.lib}
	var b bytes.Buffer
	var lost []string
	check(t, Write(t.Context(), &b, src, Scope{}, func(p Progress) {
		if p.Err != nil {
			lost = append(lost, p.Session)
		}
		if p.Total != 3 {
			t.Errorf("progress %+v", p)
		}
	}))
	if !reflect.DeepEqual(lost, []string{"s1", "s3"}) {
		t.Errorf("left out %v", lost)
	}
	path := t.TempDir() + "/b"
	check(t, os.WriteFile(path, b.Bytes(), 0o600))
	r := verify(t, path, w.VerifierKey(), "")
	if !says(r, SeverityError, "session s1: its recording is missing") || !says(r, SeverityError, "session s3: its recording is missing") {
		t.Errorf("%+v", r.Findings)
	}
}

type lossy struct{ *recorder.Library }

func (l lossy) File(s recorder.Sealed) (*os.File, error) {
	if s.Session == "s1" {
		return nil, os.ErrNotExist
	}
	return l.Library.File(s)
}

func (l lossy) Open(session string) (io.ReadCloser, error) {
	if session == "s3" {
		return nil, os.ErrNotExist
	}
	return l.Library.Open(session)
}

type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return 0, errors.New("disk full")
	}
	f.left -= len(p)
	return len(p), nil
}

func TestWriteFails(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	for _, left := range []int{0, 100, 1000} {
		if err := Write(t.Context(), &full{left}, w.source(), Scope{}, nil); err == nil {
			t.Errorf("no error with %d bytes of room", left)
		}
		if err := JSONL(t.Context(), &full{left}, w.source(), Scope{}, nil); err == nil {
			t.Errorf("no error with %d bytes of room", left)
		}
	}
}

func TestJSONL(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	var b bytes.Buffer
	seen := 0
	check(t, JSONL(t.Context(), &b, w.source(), Scope{Grant: "g1"}, func(p Progress) {
		if seen++; p.Err != nil || p.Total != 2 || p.Done != seen {
			t.Errorf("progress %+v", p)
		}
	}))
	trees := map[string]*recorder.Tree{}
	began := map[string]time.Time{}
	for line := range bytes.Lines(b.Bytes()) {
		var v struct {
			joined
			At     time.Time        `json:"at"`
			Seq    uint64           `json:"seq"`
			Micros time.Duration    `json:"us"`
			Type   string           `json:"type"`
			Text   string           `json:"text"`
			Header *recorder.Header `json:"header"`
		}
		check(t, json.Unmarshal(line, &v))
		if v.Header != nil {
			began[v.Session] = v.Header.Began
		}
		if !v.At.Equal(began[v.Session].Add(v.Micros * time.Microsecond)) {
			t.Errorf("%s is not when it was: %s", v.At, line)
		}
		if v.Grant != "g1" || v.Request != "r1" || v.Person != alice.Email || v.Target != "orders" || v.Level != "writer" ||
			v.Account != "curfew_abc123_g1" || v.At.Before(w.start) || v.Type == "" {
			t.Errorf("line %s", line)
		}
		if v.Type == "statement" && !strings.HasPrefix(v.Text, "update orders set note = '") {
			t.Errorf("text %q", v.Text)
		}
		// Lossless: the event's own line is still in it, and hashes to its leaf.
		_, own, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(`"seq":`))
		if !ok {
			t.Fatalf("line %s", line)
		}
		if trees[v.Session] == nil {
			trees[v.Session] = &recorder.Tree{}
		}
		trees[v.Session].Append(recorder.LeafHash(append([]byte(`{"seq":`), own...)))
	}
	c, err := survey(t.Context(), w, int64(len(w.lines)), Scope{})
	check(t, err)
	if len(trees) != 2 {
		t.Fatalf("%d sessions", len(trees))
	}
	for id, tree := range trees {
		root := tree.Root()
		if sealed := c.sessions[id].sealed; sealed.Root != hex.EncodeToString(root[:]) || sealed.Count != tree.Count() {
			t.Errorf("session %s can't be told from its lines", id)
		}
	}
}

// The names that JSONL adds must never hide one of an event.
func TestJSONLNames(t *testing.T) {
	names := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[joined]()) {
		names[f.Tag.Get("json")] = true
	}
	w := newWorld(t, newKey(t))
	s := w.session("s9", "2", carol, w.start)
	check(t, s.Record(
		recorder.Event{Type: recorder.TypeStatement, ID: 1, Kind: recorder.KindBind, Of: 1, Name: []byte("n"), Portal: []byte("p"),
			MaxRows: 1, Params: []recorder.Param{{Type: "int4", Value: []byte("1")}}, Prepares: []byte("x")},
		recorder.Event{Type: recorder.TypeResult, Of: 1, N: 1, Tag: []byte("t"), Rows: 1, Bytes: 1, Duration: time.Second,
			FirstRow: time.Second, Code: []byte("c"), Message: []byte("m"), Tx: recorder.TxIdle},
		recorder.Event{Type: recorder.TypeCopy, Of: 1, Direction: "in", SHA256: make([]byte, sha256.Size)},
		recorder.Event{Type: recorder.TypeNotice, From: "server", Severity: []byte("s"), Message: []byte("m")},
		recorder.Event{Type: recorder.TypeBlocked, Of: 1, Reason: "r"},
		recorder.Event{Type: recorder.TypeAttached, Attached: &recorder.Attached{Backend: "1"}},
		recorder.Event{Type: recorder.TypePart, Of: 1, Text: []byte("t"), Field: "param", Index: 1, More: true},
	))
	w.seal(s, "2")
	r, err := w.lib.Open("s9")
	check(t, err)
	defer r.Close()
	for lines := recorder.NewReader(r); ; {
		line, _, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		check(t, err)
		own := map[string]json.RawMessage{}
		check(t, json.Unmarshal(line, &own))
		for name := range own {
			if names[name] {
				t.Errorf("%q is in both", name)
			}
		}
	}
}
