package postgres

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// looks is how often the server was told so far to terminate somebody's backends.
func looks() int { return strings.Count(server.Log(), ": -- Every backend of an account") }

// locks is how often it was told to lock an account.
func locks(account string) int {
	return strings.Count(server.Log(), `ALTER ROLE "`+account+`" NOLOGIN`)
}

// queuing counts who has got so far as to wait: each looks once whether it need wait no longer.
type queuing struct {
	context.Context
	n *atomic.Int32
}

func (q queuing) Done() <-chan struct{} { q.n.Add(1); return q.Context.Done() }

// TestCrowd: many sessions of one grant end together, by their own links or with the account, without each
// of them asking the server for itself; and each has its outcome. Who is not meant stays.
func TestCrowd(t *testing.T) {
	const many = 20
	e := newEngine(t, nil)
	spec := newSpec(0)
	spec.Level.Sessions = many + 5
	for _, cut := range []bool{false, true} {
		a := provision(t, e, spec)
		var crowd []*fakeSession
		enter := func(backend uint32, statement uint64) {
			f := &fakeSession{statement: statement}
			f.backend.Store(backend)
			if _, err := a.Join(f); err != nil {
				t.Fatal(err)
			}
			crowd = append(crowd, f)
		}
		for range many {
			enter(login(t, a, "orders").PgConn().PID(), 0)
		}
		stays := login(t, a, "orders")
		join(t, a, stays)
		enter(1<<30, 7) // its backend has ended by itself
		before := looks()
		var all sync.WaitGroup
		var waiting atomic.Int32
		outcomes := make([]protocol.Outcome, len(crowd))
		if err := a.Killing.Take(t.Context()); err != nil { // until all of them wait
			t.Fatal(err)
		}
		for i, f := range crowd {
			all.Go(func() {
				var err error
				if outcomes[i], err = a.kill(queuing{t.Context(), &waiting}, f); err != nil {
					t.Error(err)
				}
			})
		}
		eventually(t, "all are to be terminated", func() bool {
			return int(waiting.Load()) == len(crowd)
		})
		if cut {
			a.Shut()
		}
		began := time.Now()
		a.Killing.Give()
		all.Wait()
		// One drain looks until nobody is left, with pauses of 10 ms at most.
		if n, most := looks()-before, 6+int(time.Since(began)/pollMost); n == 0 || n > most || most < many && n >= many {
			t.Errorf("%d sessions ended, and the server was asked %d times", len(crowd), n)
		}
		for i, f := range crowd {
			want := protocol.FateNone
			if f.statement > 0 {
				want = protocol.FateUnknown
			}
			if o := outcomes[i]; o.Backend != strconv.Itoa(int(f.Backend())) || o.Fate != want || o.InFlight != f.statement || o.Foreign {
				t.Errorf("session %d of backend %d: %+v", i, f.Backend(), o)
			}
		}
		if alive := stays.Ping(t.Context()) == nil; alive == cut {
			t.Errorf("closing: %t, the one that was not meant is there: %t", cut, alive)
		}
		finish(t, a)
	}
}

// TestAfterTheCut: once the account was emptied its sessions have their outcome without a question, and
// cleaning locks it again only if somebody has unlocked it.
func TestAfterTheCut(t *testing.T) {
	for _, unlocked := range []bool{false, true} {
		e := newEngine(t, nil)
		a := provision(t, e, newSpec(0))
		killed, gone := join(t, a, login(t, a, "orders")), &fakeSession{statement: 7}
		gone.backend.Store(1 << 30)
		if _, err := a.Join(gone); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := looks()
		for f, want := range map[*fakeSession]string{killed: protocol.FateNone, gone: protocol.FateUnknown} {
			o, err := a.kill(t.Context(), f)
			if err != nil || o.Fate != want || o.InFlight != f.statement || o.Backend == "" {
				t.Errorf("%+v %v", o, err)
			}
		}
		if n := looks() - before; n != 0 {
			t.Errorf("asked %d times for what was known", n)
		}
		want := 1
		if unlocked {
			want = 2
			admin(t, "orders", "ALTER ROLE "+a.Name()+" LOGIN PASSWORD 'known' VALID UNTIL 'infinity' CONNECTION LIMIT 5")
			a.secret = "known"
		}
		inside := func() int { return looks() + strings.Count(server.Log(), "-- How many backends an account") }
		after := inside()
		if unlocked {
			login(t, a, "billing")
		}
		if _, err := a.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := locks(a.Name()); n != want {
			t.Errorf("unlocked: %t; locked %d times, want %d", unlocked, n, want)
		}
		if inside() == after {
			t.Error("cleaned without a look at who is in")
		}
	}
}

// TestSpares: a connection to another database is used again for a moment, if it is sound, and then hung up.
func TestSpares(t *testing.T) {
	e := newEngine(t, nil)
	pid := func(f func(*spare)) (pid uint32) {
		t.Helper()
		s, err := e.spares.take(t.Context(), e.broker, "billing")
		if err != nil {
			t.Fatal(err)
		}
		defer e.spares.give(t.Context(), s)
		if f != nil {
			f(s)
		}
		return s.conn.PgConn().PID()
	}
	first := pid(nil)
	if pid(nil) != first {
		t.Error("a sound one is not used again")
	}
	admin(t, "postgres", "SELECT pg_terminate_backend("+strconv.Itoa(int(first))+", 5000)")
	second := pid(func(s *spare) {
		if _, err := s.conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Error("a dead one is used again:", err)
		}
	})
	third := pid(nil)
	if third == second {
		t.Error("one that is in a transaction is used again")
	}
	there := func() string {
		return super(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'billing' AND usename = 'curfew_broker'")
	}
	eventually(t, "it is hung up", func() bool { return there() == "0" })
	idle := func() int {
		e.spares.mu.Lock()
		defer e.spares.mu.Unlock()
		return len(e.spares.idle)
	}
	pid(func(s *spare) { s.made = time.Now().Add(-spareLife) })
	if idle() != 0 {
		t.Error("an old one is kept")
	}
	var held []*spare
	for range spareMost + 1 {
		s, err := e.spares.take(t.Context(), e.broker, "billing")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
	}
	for _, s := range held {
		e.spares.give(context.WithoutCancel(t.Context()), s)
	}
	if n := idle(); n != spareMost {
		t.Errorf("%d are kept, want %d", n, spareMost)
	}
	e.Close()
	eventually(t, "all are hung up", func() bool { return there() == "0" })
}

// TestNothingLeft: of an account that leaves nothing, no catalog is gone through for what must be made harmless.
func TestNothingLeft(t *testing.T) {
	asked := func() int { return strings.Count(server.Log(), ": -- The statements that make harmless") }
	a := provision(t, newEngine(t, nil), newSpec(0))
	exec(t, login(t, a, "orders"), "SELECT 1")
	before := asked()
	if _, clean := finish(t, a); len(clean.Residue) > 0 || asked() != before {
		t.Errorf("%d questions, residue %+v", asked()-before, clean.Residue)
	}
	b := provision(t, newEngine(t, nil), newSpec(0))
	exec(t, login(t, b, "orders"), "CREATE TABLE left_alone (n int)")
	if finish(t, b); asked() == before {
		t.Error("what was left was not asked for")
	}
	admin(t, "orders", "DROP TABLE left_alone")
}
