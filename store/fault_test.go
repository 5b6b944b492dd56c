package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// note appends an entry that tests count.
func note(s *Store, what string) error {
	ctx, cancel := context.WithTimeout(s.base, 2*time.Second)
	defer cancel()
	return s.Degraded(ctx, ledger.RecorderDegraded{Node: "n1", Error: what})
}

// noted gives what is on the ledger of it.
func noted(t *testing.T, s *Store) (all []string) {
	t.Helper()
	for _, e := range entries(t, s) {
		if e.Type != ledger.TypeRecorderDegraded {
			continue
		}
		var d ledger.RecorderDegraded
		if err := e.Into(&d); err != nil {
			t.Fatal(err)
		}
		all = append(all, d.Error)
	}
	return all
}

// Whoever reads while the store is moved away makes no empty one in its place, for SQLite removes the log
// beside that: what was taken and is in the log only would be gone with the process.
func TestReadersMakeNoStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := note(s, "before"); err != nil {
		t.Fatal(err)
	}
	path, away := filepath.Join(dir, "store.db"), filepath.Join(dir, "elsewhere")
	if err := os.Rename(path, away); err != nil {
		t.Fatal(err)
	}
	for range 4 { // one of them has been open since the start
		if c, err := s.read.Conn(t.Context()); err == nil {
			defer c.Close()
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("there is an empty store")
	}
	if err := os.Rename(away, path); err != nil {
		t.Fatal(err)
	}
	if err := note(s, "after"); err != nil {
		t.Fatal(err)
	}
	if all := noted(t, s); !slices.Equal(all, []string{"before", "after"}) {
		t.Errorf("on the ledger: %q", all)
	}
}

// What a store that is lost, full or locked refuses is nowhere, what it took before is still there, time goes
// on, and when it is back it is written again, without a restart and after one.
func TestABadStore(t *testing.T) {
	move := func(from, to string) func(*testing.T, string, *Store) {
		return func(t *testing.T, dir string, _ *Store) {
			if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		breaks, mends func(t *testing.T, dir string, s *Store)
		want          string
	}{
		"moved":         {move("store.db", "elsewhere"), move("elsewhere", "store.db"), ErrLost.Error()},
		"without a log": {move("store.db-wal", "elsewhere"), move("elsewhere", "store.db-wal"), ErrLost.Error()},
		"without its directory": {
			func(t *testing.T, dir string, s *Store) { move("../data", "../elsewhere")(t, dir, s) },
			func(t *testing.T, dir string, s *Store) {
				if err := os.Rename(filepath.Join(filepath.Dir(dir), "elsewhere"), dir); err != nil {
					t.Fatal(err)
				}
			}, ErrLost.Error()},
		"replaced by an older copy": {
			func(t *testing.T, dir string, s *Store) {
				copied := crash(t, dir)
				move("store.db", "elsewhere")(t, dir, s)
				if err := os.Rename(filepath.Join(copied, "store.db"), filepath.Join(dir, "store.db")); err != nil {
					t.Fatal(err)
				}
			}, move("elsewhere", "store.db"), "was replaced"},
		"full": { // SQLite's own limit, which fails as a full disk does
			func(t *testing.T, _ string, s *Store) { pages(t, s, "(SELECT page_count FROM pragma_page_count)") },
			func(t *testing.T, _ string, s *Store) { pages(t, s, "1000000") }, "full"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir)
			if err := note(s, "before"); err != nil {
				t.Fatal(err)
			}
			c.breaks(t, dir, s)
			was := s.Now()
			// Some of what a full store is given still fits.
			var err error
			kept := 0
			for ; err == nil && kept < 100; kept++ {
				err = note(s, strings.Repeat("x", 8<<10))
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("it takes writes: %v", err)
			}
			if !s.Now().After(was) {
				t.Error("time stands still")
			}
			c.mends(t, dir, s)
			if err := note(s, "after"); err != nil {
				t.Fatalf("when it is back: %v", err)
			}
			check := func(s *Store) {
				t.Helper()
				if all := noted(t, s); len(all) != kept+1 || all[0] != "before" || all[kept] != "after" {
					t.Errorf("on the ledger: %d entries, %d were kept", len(all), kept+1)
				}
			}
			check(s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			check(open(t, dir))
		})
	}
}

func pages(t *testing.T, s *Store, n string) {
	t.Helper()
	if n[0] == '(' {
		var now int
		if err := s.write.QueryRow(n[1 : len(n)-1]).Scan(&now); err != nil {
			t.Fatal(err)
		}
		n = fmt.Sprint(now + 2)
	}
	if _, err := s.write.Exec("PRAGMA max_page_count = " + n); err != nil {
		t.Fatal(err)
	}
}

// Somebody else's transaction keeps the store from being written, not from being read, and no longer than it
// lasts.
func TestALockedStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	other := open2(t, dir)
	if _, err := other.write.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Degraded(ctx, ledger.RecorderDegraded{Error: "locked out"}); err == nil {
		t.Error("it takes writes")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("whoever had 300 ms waited %s", took)
	}
	if got := noted(t, s); len(got) != 0 {
		t.Errorf("on the ledger: %q", got)
	}
	if _, err := other.write.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := note(s, "after"); err != nil {
		t.Fatal(err)
	}
}

// open2 is another program at the same file.
func open2(t *testing.T, dir string) *Store {
	t.Helper()
	db, err := openSQL(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return &Store{write: db}
}

// Every operation fails once, before and after it has happened: what was reported as failed is there whole or
// not at all, and the next write works.
func TestEverySeamFailsOnce(t *testing.T) {
	broken := errors.New("injected")
	for _, op := range []Op{OpBegin, OpCommit, OpView} {
		for _, stored := range []bool{false, true} {
			hit := false
			dir := t.TempDir()
			o := options(dir)
			armed := false
			o.Seam = func(at Op, do func() error) error {
				if !armed || hit || at != op {
					return do()
				}
				hit = true
				if stored {
					if err := do(); err != nil {
						return err
					}
				}
				return broken
			}
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			armed = true
			want := 1
			switch err := note(s, "one"); {
			case op == OpView:
				if err != nil {
					t.Fatal(err)
				}
				want = 2
				if err := s.View(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, broken) {
					t.Errorf("View: %v", err)
				}
			case !errors.Is(err, broken):
				t.Errorf("%s, stored %v: %v", op, stored, err)
			case op == OpCommit && stored:
				want = 2
			}
			if err := note(s, "two"); err != nil {
				t.Fatalf("%s, stored %v: the next write: %v", op, stored, err)
			}
			if got := noted(t, s); len(got) != want || got[want-1] != "two" {
				t.Errorf("%s, stored %v: on the ledger: %q", op, stored, got)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			open(t, dir) // it adds up
		}
	}
}

// A wall clock that steps ahead, as it does when the machine wakes up, takes time along at once; one that steps
// back takes nothing back, now or after a restart.
func TestTheClockSteps(t *testing.T) {
	dir := t.TempDir()
	var off time.Duration
	o := options(dir)
	o.Wall = func() time.Time { return time.Now().Add(off) }
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	began := s.Now()
	off = time.Hour
	ahead := s.Now()
	if ahead.Sub(began) < time.Hour {
		t.Errorf("an hour's sleep moved time by %s", ahead.Sub(began))
	}
	off = -time.Hour
	if now := s.Now(); now.Before(ahead) {
		t.Errorf("time went back by %s", ahead.Sub(now))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if now := s.Now(); now.Before(ahead) || now.Sub(ahead) > time.Minute {
		t.Errorf("after a restart it is %s, it was %s", now, ahead)
	}
	if err := s.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, ledger.TypeClockSetBack); n != 2 { // once in each life
		t.Errorf("%d entries say that the clock was set back", n)
	}
}

// A store that hangs keeps nobody waiting who has no time left, and what it does in the end is settled before
// anything else is written.
func TestAHungStore(t *testing.T) {
	for _, op := range []Op{OpBegin, OpCommit} {
		for _, stored := range []bool{false, true} {
			dir := t.TempDir()
			o := options(dir)
			var armed atomic.Bool
			hangs, freed := make(chan struct{}), make(chan struct{})
			o.Seam = func(at Op, do func() error) (err error) {
				if at != op || !armed.CompareAndSwap(true, false) {
					return do()
				}
				if stored {
					err = do()
				}
				close(hangs)
				<-freed
				if !stored {
					err = do()
				}
				return err
			}
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			armed.Store(true)
			for _, what := range []string{"hung", "behind it"} {
				var over atomic.Pointer[time.Time]
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					<-hangs
					time.AfterFunc(50*time.Millisecond, func() { now := time.Now(); over.Store(&now); cancel() })
				}()
				if err := s.Degraded(ctx, ledger.RecorderDegraded{Error: what}); !errors.Is(err, context.Canceled) {
					t.Fatalf("%s: %v", what, err)
				}
				if took := time.Since(*over.Load()); took > 5*time.Second {
					t.Errorf("whoever had no time left waited %s", took)
				}
			}
			close(freed)
			if err := note(s, "after"); err != nil {
				t.Fatal(err)
			}
			want := 1
			if op == OpCommit && stored {
				want = 2
			}
			if got := noted(t, s); len(got) != want || got[want-1] != "after" {
				t.Errorf("%s, stored %v: on the ledger: %q", op, stored, got)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			open(t, dir) // it adds up
		}
	}
}
