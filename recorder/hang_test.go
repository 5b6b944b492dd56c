package recorder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

const testStall = 300 * time.Millisecond // a disk that others use, too, may take a tenth of a second

// wall is a disk that hangs at some operations until it is let go.
type wall struct {
	mu      sync.Mutex
	ops     map[Op]string // what hangs, and what part of a path it takes for it
	torn    bool          // a write that hung is torn when it returns
	entered chan Op       // told of each that begins to hang
	freed   chan struct{} // closed when it is let go
}

func newWall() *wall { return &wall{ops: map[Op]string{}, entered: make(chan Op, 64)} }

func (d *wall) hang(path string, ops ...Op) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range ops {
		d.ops[op] = path
	}
	d.freed = make(chan struct{})
}

func (d *wall) free() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.ops)
	close(d.freed)
}

func (d *wall) fs(op Op, path string, do func() error) error {
	d.mu.Lock()
	part, hangs := d.ops[op]
	freed, torn := d.freed, d.torn
	d.mu.Unlock()
	if !hangs || !strings.Contains(path, part) {
		return do()
	}
	d.entered <- op
	<-freed
	if torn && op == OpWrite {
		before, _ := os.Stat(path)
		do()
		after, _ := os.Stat(path)
		return os.Truncate(path, (before.Size()+after.Size())/2)
	}
	return do()
}

// within waits for what may take a while on a busy machine, and no longer than it must.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 10 s: " + what)
		}
	}
}

func lost(t *testing.T, w *Writer) {
	t.Helper()
	select {
	case <-w.Lost():
	case <-time.After(10 * time.Second):
		t.Fatal("the recording was not given up")
	}
	var hang *HangError
	if !errors.As(w.Err(), &hang) {
		t.Fatalf("it was given up for %v", w.Err())
	}
}

// A write or a sync that hangs breaks its recording. What comes back later is refused, and the sealed
// recording says so; what was kept before is as it was.
func TestAHangBreaksTheRecording(t *testing.T) {
	for _, c := range []struct {
		durability Durability
		op         Op
		torn       bool
	}{{Process, OpWrite, false}, {Process, OpWrite, true}, {Disk, OpWrite, false}, {Disk, OpSync, false}} {
		t.Run(fmt.Sprintf("%s/%s/torn=%v", c.durability, c.op, c.torn), func(t *testing.T) {
			t.Parallel()
			d := newWall()
			d.torn = c.torn
			l := openLibrary(t, t.TempDir(), Options{Durability: c.durability, Stall: testStall, FS: d.fs})
			w, other := create(t, l, "s1"), create(t, l, "s2")
			record(t, w, statement(1, "select 1"), result(1))
			moved := l.Moved()
			d.hang("s1.jsonl", c.op)
			began := time.Now()
			hung := make(chan error, 1)
			go func() { hung <- w.Record(statement(2, "select 2"), statement(3, "select 3")) }()
			lost(t, w)
			if took := time.Since(began); took < testStall {
				t.Errorf("given up after %s", took)
			}
			if l.Err() == nil {
				t.Error("the library is well")
			}
			if err := w.Record(statement(4, "select 4")); err == nil {
				t.Error("a recording that was given up goes on")
			}
			record(t, other, statement(1, "select 1")) // nobody else is held up
			verify(t, l, seal(t, other))
			select {
			case err := <-hung:
				t.Fatalf("the hung Record returned %v", err)
			default:
			}
			sealed := make(chan Sealed, 1)
			go func() {
				s, err := w.Seal(End{Code: EndRecord, Reason: "the disk hangs", InFlight: 2, Fate: "none"})
				if err != nil {
					t.Error(err)
				}
				sealed <- s
			}()
			time.Sleep(2 * testStall) // it waits for the hung write; if it did not, the file would be torn under it
			d.free()
			if err := <-hung; err == nil {
				t.Error("what was given up is said to be kept")
			}
			s := <-sealed
			rep := verify(t, l, s, append(moved, w.State())...)
			if s.End.Code != EndRecord || s.End.InFlight != 0 || s.Interrupted {
				t.Errorf("the end: %+v", s.End)
			}
			_, events := content(t, l, "s1")
			blocked, kept := map[uint64]string{}, texts(events)
			for _, e := range events {
				if e.Type == TypeBlocked {
					blocked[e.Of] = e.Reason
				}
			}
			delete(kept, 1)
			if len(blocked) != len(kept) || blocked[1] != "" || c.torn == (len(kept) == 2) || rep.Statements != uint64(len(kept))+1 {
				t.Errorf("blocked %v, kept %v, %d statements", blocked, kept, rep.Statements)
			}
			within(t, "the library is well again", func() bool { return l.Err() == nil })
			nothingOpen(t, l)
		})
	}
}

// What hangs while the recording gets its end, and is not known to hang, is refused when it comes back, and
// the recording says so.
func TestWhatComesTooLateIsMarked(t *testing.T) {
	d := newWall()
	l := openLibrary(t, t.TempDir(), Options{FS: d.fs})
	w := create(t, l, "s1")
	record(t, w, statement(1, "select 1"), statement(2, "select 2"))
	d.hang("s1", OpWrite)
	hung, sealed := make(chan error, 1), make(chan Sealed, 1)
	go func() { hung <- w.Record(statement(3, "select 3"), statement(4, "select 4"), result(1)) }()
	<-d.entered
	go func() {
		s, err := w.Seal(End{Code: EndRevoked, InFlight: 3})
		if err != nil {
			t.Error(err)
		}
		sealed <- s
	}()
	within(t, "the recording gets its end", func() bool { return w.acked.Load() == sealing })
	d.free()
	if err := <-hung; !errors.Is(err, ErrSealed) {
		t.Errorf("Record returned %v", err)
	}
	s := <-sealed
	if rep := verify(t, l, s); rep.Count != 9 || s.End.InFlight != 0 || s.End.Code != EndRevoked {
		t.Errorf("%+v", s)
	}
	_, events := content(t, l, "s1")
	for i, id := range []uint64{3, 4} {
		if e := events[6+i]; e.Type != TypeBlocked || e.Of != id || e.Reason != notKept {
			t.Errorf("event %d: %+v", 6+i, e)
		}
	}
}

// Whatever of a refused chunk reached the file is marked as refused, and marked once, although mending
// fails in between.
func TestWhatWasRefusedIsMarked(t *testing.T) {
	b := &breaker{op: OpWrite, n: 3, stored: true}
	l := openLibrary(t, t.TempDir(), Options{FS: b.fs})
	w := create(t, l, "s1")
	long := statement(2, "insert into")
	long.More = true
	record(t, w, statement(1, "select 1"), result(1), long)
	rest := Event{Type: TypePart, Of: 2, Field: FieldText, Text: []byte(" orders")}
	err := w.Record(rest, statement(3, "select 3"), Event{Type: TypeBlocked, Of: 3, Reason: "not allowed"}, statement(4, "select 4"))
	if !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	b.op, b.n, b.hits = OpSync, 1, 0 // of the repaired file
	if _, err := w.Seal(End{Code: EndRecord, InFlight: 4}); err == nil {
		t.Fatal("the failed sync went unnoticed")
	}
	os.Truncate(l.openPath("s1"), openSize(t, l, "s1")-10) // which had not kept its end
	s, err := w.Seal(End{Code: EndRecord, InFlight: 4})
	if err != nil || s.End.InFlight != 0 || s.End.Statements != 4 {
		t.Fatalf("%+v, %v", s.End, err)
	}
	verify(t, l, s)
	_, events := content(t, l, "s1")
	var blocked []string
	for _, e := range events {
		if e.Type == TypeBlocked {
			blocked = append(blocked, fmt.Sprint(e.Of, " ", e.Reason))
		}
	}
	if want := []string{"3 not allowed", "2 " + notKept, "4 " + notKept}; fmt.Sprint(blocked) != fmt.Sprint(want) {
		t.Errorf("blocked %q, want %q", blocked, want)
	}
}

// A disk that is slow breaks nothing.
func TestSlowIsNotHung(t *testing.T) {
	d := newWall()
	l := openLibrary(t, t.TempDir(), Options{Stall: time.Minute, FS: d.fs})
	w := create(t, l, "s1")
	for id := uint64(1); id <= 3; id++ {
		d.hang("s1", OpWrite)
		done := make(chan error, 1)
		go func() { done <- w.Record(statement(id, "select 1")) }()
		<-d.entered
		l.look(time.Now())
		l.look(time.Now().Add(59 * time.Second))
		d.free()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	// The same number of turns seen twice is no hang while nothing is under way.
	l.look(time.Now().Add(time.Hour))
	l.look(time.Now().Add(2 * time.Hour))
	if w.Err() != nil || l.Err() != nil {
		t.Error(w.Err(), l.Err())
	}
}

// When syncs hang, every recording that waits for one is given up, also those whose turn has not come;
// when they are only slow, none is.
func TestHungSyncs(t *testing.T) {
	t.Parallel()
	for _, hung := range []bool{true, false} {
		d := newWall()
		l := openLibrary(t, t.TempDir(), Options{Stall: time.Minute, FS: d.fs})
		var ws []*Writer
		for i := range 6 {
			ws = append(ws, create(t, l, fmt.Sprint("s", i)))
		}
		d.hang("", OpSync)
		for _, w := range ws {
			record(t, w, statement(1, "select 1"))
		}
		for range cap(l.syncs) {
			<-d.entered
		}
		within(t, "all want to sync", func() bool {
			n := 0
			for _, w := range ws {
				if w.queued.turns.Load() > 0 {
					n++
				}
			}
			return n == len(ws)
		})
		now := time.Now()
		l.look(now)
		if !hung { // the syncs that were under way go on, and are others at the next look
			for _, w := range ws {
				if w.syncs.turns.Load()%2 == 1 {
					w.syncs.turns.Add(2)
				}
			}
		}
		l.look(now.Add(2 * time.Minute))
		for i, w := range ws {
			if (w.Err() != nil) != hung {
				t.Errorf("syncs hang: %v; recording %d: %v", hung, i, w.Err())
			}
		}
		d.free()
		for _, w := range ws {
			verify(t, l, seal(t, w))
		}
		l.Close()
	}
}

// What hangs beside the writes turns the library red, for as long as it hangs, and nobody who asks waits.
func TestHungOperations(t *testing.T) {
	for _, op := range []Op{OpCreate, OpSyncDir, OpRename, OpWriteSealed, OpSyncSealed, OpRemove} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			d := newWall()
			l := openLibrary(t, t.TempDir(), Options{Stall: testStall, FS: d.fs})
			w := create(t, l, "s1")
			record(t, w, statement(1, "select 1"))
			d.hang("", op, OpProbe)
			done := make(chan error, 1)
			go func() {
				if op == OpCreate {
					_, err := l.Create(testHeader("s2"))
					done <- err
					return
				}
				_, err := w.Seal(End{Code: EndClient})
				done <- err
			}()
			var hang *HangError
			within(t, "the library is red", func() bool { return errors.As(l.Err(), &hang) })
			if hang.Op != op {
				t.Errorf("it says %v", hang)
			}
			if _, err := l.Create(testHeader("s3")); !errors.As(err, &hang) { // at once: the disk is not asked
				t.Errorf("another recording: %v", err)
			}
			l.failed(errInjected) // so that it is asked, and hangs in that, too
			d.free()
			if err := <-done; err != nil {
				t.Error(err)
			}
			within(t, "the library is well again", func() bool { return l.Err() == nil })
		})
	}
}

// A disk that hangs when it is asked whether it is well keeps nobody waiting.
func TestHungProbe(t *testing.T) {
	d := newWall()
	l := openLibrary(t, t.TempDir(), Options{Stall: testStall, FS: d.fs})
	d.hang("", OpProbe)
	l.failed(errInjected)
	<-d.entered
	var hang *HangError
	within(t, "the library is red for the hang", func() bool { return errors.As(l.Err(), &hang) })
	d.free()
	within(t, "the library is well again", func() bool { return l.Err() == nil })
}

// A library on a disk that hangs is closed all the same, as a crash would.
func TestCloseDoesNotWaitForAHungDisk(t *testing.T) {
	d := newWall()
	l := openLibrary(t, t.TempDir(), Options{Stall: testStall, FS: d.fs})
	w := create(t, l, "s1")
	d.hang("s1.jsonl", OpWrite)
	done := make(chan error, 1)
	go func() { done <- w.Record(statement(1, "select 1")) }()
	<-d.entered
	if err := l.Close(); err == nil {
		t.Error("it is said to be closed in order")
	}
	d.free()
	<-done
	within(t, "the file is closed", func() bool { w.writing.Lock(); defer w.writing.Unlock(); return w.file == nil })
}

// A recording under which nothing was begun can be taken back; one that holds a statement can't.
func TestDiscard(t *testing.T) {
	b := &breaker{}
	l := openLibrary(t, t.TempDir(), Options{FS: b.fs})
	w, used := create(t, l, "s1"), create(t, l, "s2")
	record(t, w, Event{Type: TypeAttached, Attached: &Attached{}})
	record(t, used, statement(1, "select 1"))
	if err := used.Discard(); err == nil {
		t.Error("a statement was taken back")
	}
	for _, op := range []Op{OpRemove, OpSyncDir} {
		b.op, b.n, b.hits = op, 1, 0
		if err := w.Discard(); !errors.Is(err, errInjected) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if err := w.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Open("s1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it can still be read: %v", err)
	}
	if _, err := w.Seal(End{Code: EndFailed}); err == nil {
		t.Error("it can still be sealed")
	}
	if s := seal(t, used); s.Interrupted || verify(t, l, s).Count != 3 {
		t.Errorf("the other one: %+v", s)
	}
	nothingOpen(t, l)
}

// What comes back after its recording was given up is refused, although it is on the disk by then, and nobody has
// sealed that yet.
func TestWhatComesBackIsRefused(t *testing.T) {
	t.Parallel()
	for durability, op := range map[Durability]Op{Process: OpWrite, Disk: OpSync} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			d := newWall()
			l := openLibrary(t, t.TempDir(), Options{Stall: testStall, FS: d.fs, Durability: durability})
			w := create(t, l, "s1")
			d.hang("s1", op)
			hung := make(chan error, 1)
			go func() { hung <- w.Record(statement(1, "select 1")) }()
			lost(t, w)
			d.free()
			var hang *HangError
			if err := <-hung; !errors.As(err, &hang) {
				t.Errorf("Record returned %v", err)
			}
			verify(t, l, seal(t, w))
		})
	}
}
