package recorder

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// Of two statements that are written together, neither is kept when that write fails.
func TestAFailedWriteFailsAllInIt(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var l *Library
	var mu sync.Mutex
	writes := 0
	l = openLibrary(t, t.TempDir(), Options{FS: func(op Op, _ string, do func() error) error {
		if op != OpWrite {
			return do()
		}
		mu.Lock()
		writes++
		n := writes
		mu.Unlock()
		switch n {
		case 2: // the first after the header
			close(entered)
			<-release
		case 3:
			return errInjected
		}
		return do()
	}})
	w := create(t, l, "s1")
	first, others := make(chan error, 1), make(chan error, 2)
	go func() { first <- w.Record(statement(1, "select 1")) }()
	<-entered
	go func() { others <- w.Record(statement(2, "select 2")) }()
	go func() { others <- w.Record(statement(3, "select 3")) }()
	for {
		w.mu.Lock()
		n := w.tree.Count()
		w.mu.Unlock()
		if n == 4 {
			break
		}
		runtime.Gosched()
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the write before: %v", err)
	}
	for range 2 {
		if err := <-others; !errors.Is(err, errInjected) {
			t.Errorf("in the failed write: %v", err)
		}
	}
	if err := l.Err(); !errors.Is(err, errInjected) {
		t.Errorf("the library says %v", err)
	}
	s, err := w.Seal(End{Code: EndRecord})
	if err != nil || s.Count != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

// Every operation fails once, in each of three ways; whatever happens, Record's word holds: what it
// said is kept is in the sealed recording, and that verifies.
func TestEveryOperationFailsOnce(t *testing.T) {
	ops := []Op{OpMkdir, OpCreate, OpWrite, OpSync, OpSyncDir, OpRead, OpCreateSealed, OpWriteSealed, OpSyncSealed, OpRename, OpRemove}
	for _, d := range []Durability{Process, Disk} {
		for _, op := range ops {
			for _, how := range []string{"not stored", "stored", "torn"} {
				if how == "torn" && op != OpWrite {
					continue
				}
				for n, hit := 1, true; hit; n++ {
					b := &breaker{op: op, n: n, stored: how == "stored", torn: how == "torn"}
					t.Run(fmt.Sprintf("%s/%s/%s/%d", d, op, how, n), func(t *testing.T) { failOnce(t, d, b) })
					hit = b.hits >= n
				}
			}
		}
	}
}

func failOnce(t *testing.T, d Durability, b *breaker) {
	dir := t.TempDir()
	l, err := Open(dir, Options{Durability: d, FS: b.fs})
	if err != nil {
		if b.hits < b.n {
			t.Fatal(err)
		}
		return // nothing was promised
	}
	defer l.Close()
	acked := map[uint64]string{}
	var moved []TreeState
	w, err := l.Create(testHeader("s1"))
	if err == nil {
		failed := false
		for id := uint64(1); id <= 4; id++ {
			text := fmt.Sprint("select ", id)
			switch err := w.Record(statement(id, text), result(id)); {
			case err == nil && failed:
				t.Error("a broken Writer mended itself")
			case err == nil:
				acked[id] = text
			default:
				failed = true
				if w.Record(result(id)) == nil {
					t.Error("a broken Writer takes results")
				}
			}
			moved = append(moved, l.Moved()...)
		}
		end := End{Code: EndClient}
		if failed {
			end.Code = EndRecord
		}
		s, err := w.Seal(end)
		if err != nil {
			s, err = w.Seal(end) // one fault only: the second attempt works
		}
		if err != nil {
			t.Fatalf("second Seal: %v", err)
		}
		if s.Interrupted || s.End.Code != end.Code {
			t.Errorf("sealed with %+v", s.End)
		}
		n := b.n
		b.n = 0
		verify(t, l, s, moved...)
		b.n = n
		nothingOpen(t, l)
	}
	l.Close()

	// Whatever the first life left, the next one finds it whole.
	l = openLibrary(t, dir, Options{})
	known := []string{}
	if w != nil {
		known = append(known, "s1")
	}
	healed, err := l.Heal(context.Background(), known)
	if err != nil {
		t.Fatal(err)
	}
	nothingOpen(t, l)
	if w == nil {
		return
	}
	if len(healed) != 1 || healed[0].Lost {
		t.Fatalf("healed: %+v", healed)
	}
	verify(t, l, healed[0].Sealed, moved...)
	_, events := content(t, l, "s1")
	got := texts(events)
	for id, text := range acked {
		if got[id] != text {
			t.Errorf("statement %d was said to be kept and is %q", id, got[id])
		}
	}
}
