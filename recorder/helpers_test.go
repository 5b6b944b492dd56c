package recorder

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testHeader(session string) Header {
	return Header{
		Session: session, Grant: "g0123456789", Request: "r0123456789", Installation: "abc123", Node: "n1",
		Began:    time.Date(2026, 8, 11, 9, 30, 0, 0, time.UTC),
		Identity: Person{Issuer: "https://id.example.test", Subject: "1", Email: "alice@example.test", Groups: []string{"developers"}},
		Target:   "orders", Level: "writer", Policy: "sha256:00", Engine: "postgres",
		Account: "curfew_abc123_g0123456789", Database: "orders", Client: "127.0.0.1:50000",
	}
}

// program finds a tool that the test can't do without. CI has them all (.ci/deps), and skips nothing.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("%s is not installed", name)
	default:
		t.Skipf("%s is not installed", name)
	}
	return path
}

// openLibrary opens dir for the length of the test. It may be called again on the same dir after
// abandon.
func openLibrary(t testing.TB, dir string, o Options) *Library {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// abandon leaves a library as a killed process would: nothing is written, only its descriptors close.
func abandon(l *Library) {
	l.mu.Lock()
	if !l.closed {
		close(l.watch.stop)
	}
	l.closed = true
	writers := l.writers
	l.writers = nil
	l.mu.Unlock()
	for _, w := range writers {
		w.stop()
		w.mu.Lock()
		w.pending = nil
		w.mu.Unlock()
		w.closeFile()
	}
	l.watch.running.Wait()
	l.lockFile.Close()
}

func statement(id uint64, text string) Event {
	return Event{Type: TypeStatement, ID: id, Kind: KindSimple, Text: []byte(text)}
}

func result(of uint64) Event {
	return Event{Type: TypeResult, Of: of, Tag: []byte("SELECT 1"), Rows: 1, Bytes: 4, Duration: 1500 * time.Microsecond, Tx: TxIdle}
}

func create(t testing.TB, l *Library, session string) *Writer {
	t.Helper()
	w, err := l.Create(testHeader(session))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func record(t testing.TB, w *Writer, events ...Event) {
	t.Helper()
	if err := w.Record(events...); err != nil {
		t.Fatal(err)
	}
}

func seal(t testing.TB, w *Writer) Sealed {
	t.Helper()
	s, err := w.Seal(End{Code: EndClient, Reason: "client closed"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// content reads all lines of a recording.
func content(t testing.TB, l *Library, session string) ([]string, []Event) {
	t.Helper()
	r, err := l.Open(session)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines, events, err := readAll(NewReader(r))
	if err != nil {
		t.Fatal(err)
	}
	return lines, events
}

func readAll(r *Reader) (lines []string, events []Event, err error) {
	for {
		line, e, err := r.Next()
		if err == io.EOF {
			return lines, events, nil
		}
		if err != nil {
			return lines, events, err
		}
		lines, events = append(lines, string(line)), append(events, e)
	}
}

// texts gives the statements' texts, parts joined.
func texts(events []Event) map[uint64]string {
	parts := map[uint64][]byte{}
	for _, e := range events {
		switch {
		case e.Type == TypeStatement:
			parts[e.ID] = append(parts[e.ID], e.Text...)
		case e.Type == TypePart && e.Field == FieldText:
			parts[e.Of] = append(parts[e.Of], e.Text...)
		}
	}
	out := map[uint64]string{}
	for id, text := range parts {
		out[id] = string(text)
	}
	return out
}

func verify(t testing.TB, l *Library, s Sealed, prefixes ...TreeState) Report {
	t.Helper()
	f, err := l.File(s)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rep, err := VerifyFile(f, s, prefixes...)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func openSize(t testing.TB, l *Library, session string) int64 {
	t.Helper()
	st, err := os.Stat(l.openPath(session))
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// nothingOpen checks that no open recording or temporary file is left over.
func nothingOpen(t testing.TB, l *Library) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(l.dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left over: %s", e.Name())
	}
}

var errInjected = errors.New("injected")

// breaker fails the n-th operation of one kind, before or after it has happened.
type breaker struct {
	op     Op
	n      int  // counted from 1; 0 breaks none
	stored bool // it happens, and is reported as failed
	torn   bool // half of it happens
	hits   int
	seen   []Op
}

func (b *breaker) fs(op Op, path string, do func() error) error {
	b.seen = append(b.seen, op)
	if op != b.op {
		return do()
	}
	b.hits++
	if b.hits != b.n {
		return do()
	}
	if b.torn {
		before, _ := os.Stat(path)
		do()
		after, err := os.Stat(path)
		if err == nil && before != nil {
			os.Truncate(path, (before.Size()+after.Size())/2)
		}
		return errInjected
	}
	if b.stored {
		do()
	}
	return errInjected
}

func repeatText(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString("INSERT INTO orders VALUES (1, 'Ünïcödé ✓ 語'); ")
	}
	return b.String()[:n]
}

func count(b []byte, s string) int { return bytes.Count(b, []byte(s)) }
