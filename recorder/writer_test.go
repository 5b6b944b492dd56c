package recorder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A statement is in the file when Record returns, one write for all that a call brings.
func TestStatementIsWrittenBeforeRecordReturns(t *testing.T) {
	b := &breaker{}
	l := openLibrary(t, t.TempDir(), Options{FS: b.fs})
	w := create(t, l, "s1")
	record(t, w, result(0), Event{Type: TypeNotice, Message: []byte("n")})
	before := len(b.seen)
	record(t, w, statement(1, "select 1"), statement(2, "select 2"), Event{Type: TypeBlocked, Of: 2, Reason: "no"})
	if got := b.seen[before:]; len(got) != 1 || got[0] != OpWrite {
		t.Errorf("operations: %v, want one write", got)
	}
	text, err := os.ReadFile(l.openPath("s1"))
	if err != nil {
		t.Fatal(err)
	}
	if count(text, "\n") != 6 || text[len(text)-1] != '\n' || !bytes.Contains(text, []byte(`"text":"select 2"`)) {
		t.Errorf("the file holds %s", text)
	}
	for _, e := range []Event{
		{Type: TypePart, Of: 1, Field: FieldText, Text: []byte("x")}, {Type: TypeCancel}, {Type: TypeCopy, Direction: "in"},
		{Type: TypeStatement, ID: 3, Kind: KindBind},
	} {
		size := openSize(t, l, "s1")
		record(t, w, e)
		if openSize(t, l, "s1") == size {
			t.Errorf("%s was not written at once", e.Type)
		}
	}
}

func TestResultsAreWrittenWithin100ms(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := openLibrary(t, dir, Options{})
		w := create(t, l, "s1")
		for round := range 3 {
			size := openSize(t, l, "s1")
			record(t, w, result(1))
			time.Sleep(99 * time.Millisecond)
			synctest.Wait()
			if openSize(t, l, "s1") != size {
				t.Fatalf("round %d: written early", round)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if openSize(t, l, "s1") == size {
				t.Fatalf("round %d: not written after 100 ms", round)
			}
		}
		seal(t, w)
	})
}

// What the ledger may be told is what was synced, no more.
func TestStateCoversSyncedLeavesOnly(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &breaker{}
		l := openLibrary(t, dir, Options{FS: b.fs})
		w := create(t, l, "s1")
		if s := w.State(); s.Count != 1 || s.Root != w.HeaderHash() || s.Session != "s1" {
			t.Fatalf("after Create: %+v", s)
		}
		if m := l.Moved(); len(m) != 0 {
			t.Fatalf("moved by its header alone: %v", m)
		}
		record(t, w, statement(1, "select 1"), result(1))
		if s := w.State(); s.Count != 1 {
			t.Fatalf("unsynced leaves in %+v", s)
		}
		if m := l.Moved(); len(m) != 0 {
			t.Fatalf("moved by unsynced leaves: %v", m)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		m := l.Moved()
		if len(m) != 1 || m[0].Count != 3 || m[0] != w.State() {
			t.Fatalf("after a second: %v", m)
		}
		if m := l.Moved(); len(m) != 0 {
			t.Fatalf("told twice: %v", m)
		}
		b.op, b.n, b.hits = OpSync, 1, 0
		record(t, w, statement(2, "select 2"))
		time.Sleep(time.Second)
		synctest.Wait()
		if s := w.State(); s.Count != 3 {
			t.Fatalf("a failed sync moved it: %+v", s)
		}
		if err := w.Record(statement(3, "select 3")); !errors.Is(err, errInjected) {
			t.Fatalf("after a failed sync: %v", err)
		}
		sealed := seal(t, w)
		verify(t, l, sealed, m...)
	})
}

// What is recorded while a sync is under way is not covered by it.
func TestSyncCoversWhatWasWrittenBefore(t *testing.T) {
	var w *Writer
	l := openLibrary(t, t.TempDir(), Options{Durability: Disk, FS: func(op Op, _ string, do func() error) error {
		if op == OpSync && w != nil {
			if err := w.Record(result(1)); err != nil {
				t.Error(err)
			}
		}
		return do()
	}})
	created := create(t, l, "s1")
	w = created
	record(t, w, statement(1, "select 1"))
	if s := w.State(); s.Count != 2 {
		t.Errorf("state is %+v", s)
	}
	w = nil
	s := seal(t, created)
	verify(t, l, s, created.State())
}

// With Disk, Record waits for the disk, and those who wait together are served together.
func TestDiskGroupCommit(t *testing.T) {
	var mu sync.Mutex
	syncs := 0
	entered, release := make(chan struct{}, 100), make(chan struct{})
	held := false
	l := openLibrary(t, t.TempDir(), Options{Durability: Disk, FS: func(op Op, _ string, do func() error) error {
		mu.Lock()
		wait := held && op == OpSync
		mu.Unlock()
		if wait {
			entered <- struct{}{}
			<-release
			mu.Lock()
			syncs++
			mu.Unlock()
		}
		return do()
	}})
	w := create(t, l, "s1")
	mu.Lock()
	held = true
	mu.Unlock()

	done := make(chan error, 21)
	go func() { done <- w.Record(statement(1, "select 1")) }()
	<-entered // the first is at the disk
	for i := range 20 {
		go func() { done <- w.Record(statement(uint64(i+2), "select")) }()
	}
	for { // until all of them have their lines in memory, waiting for the first
		w.mu.Lock()
		n := w.tree.Count()
		w.mu.Unlock()
		if n == 22 {
			break
		}
		runtime.Gosched()
	}
	select {
	case err := <-done:
		t.Fatalf("Record returned before the disk: %v", err)
	default:
	}
	close(release)
	for range 21 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	if syncs != 2 {
		t.Errorf("%d syncs for 21 statements, want 2", syncs)
	}
	mu.Unlock()
	if s := w.State(); s.Count != 22 {
		t.Errorf("state is %+v", s)
	}
}

// A result must not wait for a disk that hangs.
func TestResultsDontWaitForTheDisk(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hang := false
	l := openLibrary(t, t.TempDir(), Options{FS: func(op Op, _ string, do func() error) error {
		if op == OpWrite && hang {
			once.Do(func() { close(entered); <-release })
		}
		return do()
	}})
	w := create(t, l, "s1")
	hang = true
	done := make(chan error)
	go func() { done <- w.Record(statement(1, "select 1")) }()
	<-entered
	record(t, w, result(1)) // would block for ever
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	seal(t, w)
}

func TestLongStatementsComeInParts(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	text, value := repeatText(1<<20), repeatText(300_000)
	raw := bytes.Repeat([]byte{0, 1, 0xff}, 50_000)
	many := make([]Param, 65535)
	for i := range many {
		many[i] = Param{Type: "int4", Value: []byte("12345")}
	}
	record(t, w,
		statement(1, text),
		Event{Type: TypeStatement, ID: 2, Kind: KindBind, Params: []Param{
			{Type: "int4", Value: []byte("1")}, {Type: "text", Value: []byte(value)}, {Type: "bytea", Value: raw, Hex: true},
			{Type: "text", Null: true}, {Type: "int4", Value: []byte("2")}}},
		Event{Type: TypeStatement, ID: 3, Kind: KindBind, Params: many},
	)
	// the producer's own parts: the text continues, and each part is longer than a line takes
	record(t, w, Event{Type: TypeStatement, ID: 4, Kind: KindPrepare, Text: []byte(text[:500_000]), More: true})
	record(t, w, Event{Type: TypePart, ID: 4, Field: FieldText, Text: []byte(text[500_000:]), More: false})
	s := seal(t, w)
	verify(t, l, s)

	lines, events := content(t, l, "s1")
	for i, line := range lines {
		if len(line) > 6*maxPart && events[i].Kind != KindBind {
			t.Errorf("line %d has %d bytes", i, len(line))
		}
	}
	got := texts(events)
	if got[1] != text || got[4] != text {
		t.Errorf("texts of %d and %d bytes, want %d", len(got[1]), len(got[4]), len(text))
	}
	values, more := map[uint64][]string{}, map[string]bool{}
	for _, e := range events {
		if e.Type == TypeStatement && e.Kind == KindBind {
			for i, p := range e.Params {
				values[e.ID] = append(values[e.ID], string(p.Value))
				more[fmt.Sprint(e.ID, i)] = p.More
			}
		}
		if e.Type == TypePart && e.Field == FieldParam {
			values[e.Of][e.Index] += string(e.Text)
			if !more[fmt.Sprint(e.Of, e.Index)] {
				t.Errorf("a part of parameter %d that was not announced", e.Index)
			}
			more[fmt.Sprint(e.Of, e.Index)] = e.More
		}
	}
	for key, m := range more {
		if m {
			t.Errorf("parameter %s has no last part", key)
		}
	}
	if v := values[2]; v[0] != "1" || v[1] != value || v[2] != string(raw) || v[4] != "2" {
		t.Error("parameters of statement 2 differ")
	}
	for i, v := range values[3] {
		if v != "12345" {
			t.Fatalf("parameter %d of statement 3 is %q", i, v)
		}
	}
}

// A statement of any size takes bounded memory, and a secret is found wherever the parts divide it.
func TestStreamedStatement(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	const secret, rounds = "hunter2hunter2", 150
	chunk := []byte(strings.Repeat("-- filler, filler, filler, filler\n", 1900))
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	before := ms.HeapAlloc
	record(t, w, Event{Type: TypeStatement, ID: 1, Kind: KindSimple, Text: []byte("CREATE ROLE a PASS"), More: true})
	for range rounds {
		record(t, w, Event{Type: TypePart, Of: 1, Field: FieldText, Text: []byte("WORD\n"), More: true})
		record(t, w, Event{Type: TypePart, Of: 1, Field: FieldText, Text: chunk, More: true})
		record(t, w, Event{Type: TypePart, Of: 1, Field: FieldText, Text: []byte(" '" + secret[:5]), More: true})
		record(t, w, Event{Type: TypePart, Of: 1, Field: FieldText, Text: []byte(secret[5:] + "' PASS"), More: true})
	}
	runtime.GC()
	runtime.ReadMemStats(&ms)
	if grown := int64(ms.HeapAlloc) - int64(before); grown > 2<<20 {
		t.Errorf("10 MB of text took %d bytes of memory", grown)
	}
	record(t, w, Event{Type: TypePart, Of: 1, Field: FieldText, Text: []byte("; SELECT 1")})
	seal(t, w)
	_, events := content(t, l, "s1")
	redacted := 0
	for _, e := range events {
		redacted += e.Redacted
	}
	text := texts(events)[1]
	if redacted != rounds || strings.Contains(text, secret[:5]) || strings.Contains(text, secret[5:]) || strings.Count(text, "'***'") != rounds {
		t.Errorf("%d secrets redacted, want %d", redacted, rounds)
	}
	if want := rounds*(len("WORD\n")+len(chunk)+len(" '***' PASS")) + len("CREATE ROLE a PASS; SELECT 1"); len(text) != want {
		t.Errorf("%d bytes of text, want %d", len(text), want)
	}
}

func TestPasswordsAreNeverOnDisk(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	long := "ALTER ROLE a PASSWORD 'hunter2' " + repeatText(200_000)
	record(t, w, statement(1, "ALTER ROLE a PASSWORD 'hunter2'; SELECT 'kept'"), statement(2, "SELECT 'kept'"), statement(3, long))
	text, err := os.ReadFile(l.openPath("s1"))
	if err != nil {
		t.Fatal(err)
	}
	if count(text, "hunter2") != 0 || count(text, "'kept'") != 2 || count(text, `"redacted":1`) != 2 {
		t.Error("not redacted, or not said to be")
	}
}

// Every event that is recorded again and again costs no allocation.
func TestRecordDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("allocations can't be counted under the race detector")
	}
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	events := benchEvents()
	for range 2000 { // the tree's levels, the buffers
		record(t, w, events...)
	}
	if n := testing.AllocsPerRun(2000, func() { w.Record(events...) }); n != 0 {
		t.Errorf("%v allocations for a query", n)
	}
	redacted := []Event{statement(1, "ALTER ROLE a PASSWORD 'hunter2'"), result(1)}
	record(t, w, redacted...)
	if n := testing.AllocsPerRun(500, func() { w.Record(redacted...) }); n != 0 {
		t.Errorf("%v allocations for a redacted statement", n)
	}
}

func benchEvents() []Event {
	return []Event{
		{Type: TypeStatement, ID: 2, Kind: KindBind, Of: 1, Name: []byte("s1"), Params: []Param{{Type: "int4", Value: []byte("42")}, {Type: "text", Value: []byte("some text ✓")}}},
		{Type: TypeStatement, ID: 3, Kind: KindExecute, Of: 2, Text: []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 17")},
		result(3),
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, c := range []struct {
		name   string
		events []Event
	}{
		{"query", []Event{statement(1, "SELECT abalance FROM pgbench_accounts WHERE aid = 17;")}},
		{"result", []Event{result(1)}},
		{"bind+execute+result", benchEvents()},
		{"64 KiB", []Event{statement(1, repeatText(64<<10))}},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := openLibrary(b, b.TempDir(), Options{})
			w := create(b, l, "s1")
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Record(c.events...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestConcurrentRecords(t *testing.T) {
	for _, d := range []Durability{Process, Disk} {
		l := openLibrary(t, t.TempDir(), Options{Durability: d})
		w := create(t, l, "s1")
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 50 {
					id := uint64(g*50 + i + 1)
					if err := w.Record(statement(id, fmt.Sprint("select ", id))); err != nil {
						t.Error(err)
					}
					if err := w.Record(result(id)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		s := seal(t, w)
		rep := verify(t, l, s)
		if rep.Count != 802 || rep.Statements != 400 {
			t.Errorf("%s: %d leaves, %d statements", d, rep.Count, rep.Statements)
		}
		l.Close()
	}
}

func TestSealIsIdempotent(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{Node: "n7"})
	h := testHeader("s1")
	h.Node, h.Began = "", time.Time{}
	w, err := l.Create(h)
	if err != nil {
		t.Fatal(err)
	}
	record(t, w, statement(1, "select 1"), result(1))
	s := seal(t, w)
	again, err := w.Seal(End{Code: EndFailed})
	if err != nil || again != s {
		t.Errorf("second Seal: %+v, %v", again, err)
	}
	if err := w.Record(result(1)); !errors.Is(err, ErrSealed) {
		t.Errorf("Record after Seal: %v", err)
	}
	if rep := verify(t, l, s); rep.Header.Node != "n7" || rep.Header.Began.IsZero() || rep.HeaderHash != w.HeaderHash() {
		t.Errorf("header is %+v", rep.Header)
	}
	if dir := filepath.Dir(s.File); dir != "sealed/"+time.Now().UTC().Format("2006/01/02") {
		t.Errorf("sealed in %s", dir)
	}
	nothingOpen(t, l)
}

func TestRecordRefusesWhatIsTheWriters(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	for _, typ := range []Type{TypeHeader, TypeEnd, ""} {
		if err := w.Record(Event{Type: typ}); err == nil {
			t.Errorf("%q was recorded", typ)
		}
	}
	if err := w.Record(statement(1, ""), Event{Type: TypeNotice, Tag: bytes.Repeat([]byte{'x'}, MaxLine)}); err == nil {
		t.Error("an endless line was recorded")
	}
	verify(t, l, seal(t, w))
}

func TestCreateRefuses(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	create(t, l, "s1")
	if _, err := l.Create(testHeader("s1")); err == nil {
		t.Error("one session, two recordings")
	}
	for _, name := range []string{"", "../x", "a/b", ".", "a b", strings.Repeat("x", 65)} {
		if _, err := l.Create(testHeader(name)); err == nil {
			t.Errorf("%q names a recording", name)
		}
		if _, err := l.Open(name); err == nil {
			t.Errorf("%q was opened", name)
		}
	}
	if _, err := l.File(Sealed{File: "../../etc/passwd"}); err == nil {
		t.Error("a file outside was opened")
	}
	if _, err := Open(l.dir, Options{}); err == nil {
		t.Error("two libraries in one directory")
	}
	l.Close()
	if _, err := l.Create(testHeader("s2")); err == nil {
		t.Error("a closed library began a recording")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A live recording can be read while it grows, up to its last whole line.
func TestOpenWhileLive(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	record(t, w, statement(1, "select 1"), result(1))
	record(t, w, result(1)) // still buffered
	if _, events := content(t, l, "s1"); len(events) != 4 {
		t.Errorf("%d events", len(events))
	}
	f, err := os.OpenFile(l.openPath("s1"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"seq":4,"us":`)
	f.Close()
	if _, events := content(t, l, "s1"); len(events) != 4 {
		t.Errorf("%d events with a torn tail", len(events))
	}
}

func TestPrepares(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	a, b := statement(1, "PREPARE TRANSACTION 'a'"), statement(2, "PREPARE TRANSACTION 'b'")
	a.Prepares, b.Prepares = []byte("a"), []byte("b")
	record(t, w, a, b)
	check := func() {
		t.Helper()
		if p, err := l.Prepares("s1"); err != nil || fmt.Sprint(p) != "[a b]" {
			t.Errorf("%v, %v", p, err)
		}
	}
	check()
	seal(t, w)
	check()
}

func TestErrComesAndGoes(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		l := openLibrary(t, dir, Options{FS: func(op Op, _ string, do func() error) error {
			if !well.Load() && (op == OpCreate || op == OpProbe) {
				return errInjected
			}
			return do()
		}})
		if err := l.Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Create(testHeader("s1")); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		for range 3 {
			if err := l.Err(); !errors.Is(err, errInjected) {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		well.Store(true)
		time.Sleep(time.Second)
		synctest.Wait()
		if err := l.Err(); err != nil {
			t.Fatalf("the disk is back: %v", err)
		}
	})
}
