package mysql

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// selects is how many questions the server has been asked so far.
func selects(t *testing.T) int {
	t.Helper()
	return counted(t, "select")
}

// counted is how many statements of a kind the server has been sent so far.
func counted(t *testing.T, kind string) int {
	t.Helper()
	text := "SELECT variable_value FROM information_schema.global_status WHERE variable_name = CONCAT('Com_', ?)"
	if !testServer.IsMariaDB() {
		text = "SELECT count_star FROM performance_schema.events_statements_summary_global_by_event_name WHERE event_name = CONCAT('statement/sql/', ?)"
	}
	n, err := strconv.Atoi(super(t, "", text, kind))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// questions is how many messages the server has been sent so far.
func questions(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(super(t, "", "SELECT variable_value FROM "+map[bool]string{true: "information_schema", false: "performance_schema"}[testServer.IsMariaDB()]+
		".global_status WHERE variable_name = 'Questions'"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestBusyCrowd: a cut of many sessions that all run something takes no time for each.
func TestBusyCrowd(t *testing.T) {
	const many = 25
	spec := newSpec(0)
	spec.Level.Sessions = many
	a := provision(t, newEngine(t, nil), spec)
	for range many {
		c := direct(t, a, "orders")
		join(t, a, c)
		go func() { _, _ = c.ExecContext(t.Context(), "DO SLEEP(600)") }()
	}
	eventually(t, "all run", func() bool {
		return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'DO SLEEP(600)' AND user = ?", spec.Name) == strconv.Itoa(many)
	})
	before, gaps := kills(t), counted(t, "do")
	began := time.Now()
	finish(t, a)
	// Each is told once or a few times by its id; KILL USER counts as one, and is slow.
	if n := kills(t) - before; n < many {
		t.Errorf("%d sessions were ended by %d KILLs", many, n)
	}
	if n := counted(t, "do") - gaps; testServer.IsMariaDB() && n < many {
		t.Errorf("%d sessions left SLEEP() with %d moments between them", many, n)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

// kills is how many KILLs the server has been sent so far.
func kills(t *testing.T) int {
	t.Helper()
	return counted(t, "kill")
}

// calm is a session that knows of no transaction of its own.
type calm struct{ *fakeSession }

func (calm) transaction() bool { return false }

// queuing counts who has got so far as to wait: each looks once whether it need wait no longer.
type queuing struct {
	context.Context
	n *atomic.Int32
}

func (q queuing) Done() <-chan struct{} { q.n.Add(1); return q.Context.Done() }

// TestCrowd: many sessions of one grant end together, by their own links or with the account, without each
// of them asking the server for itself; and each has its outcome. Who is not meant stays.
func TestCrowd(t *testing.T) {
	const many = 24
	e := newEngine(t, nil)
	spec := newSpec(0)
	spec.Level.Sessions = many + 5
	for _, cut := range []bool{false, true} {
		a := provision(t, e, spec)
		var crowd []calm
		enter := func(backend uint32, statement uint64) {
			f := calm{&fakeSession{statement: statement}}
			f.backend.Store(backend)
			if _, err := a.add(f); err != nil {
				t.Fatal(err)
			}
			crowd = append(crowd, f)
		}
		for range many {
			enter(direct(t, a, "orders").id, 0)
		}
		stays := direct(t, a, "orders")
		join(t, a, stays)
		enter(1<<30, 7) // its backend has ended by itself
		before, sent := selects(t), questions(t)
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
		eventually(t, "all are to be killed", func() bool {
			return int(waiting.Load()) == len(crowd)
		})
		if cut {
			a.Shut()
		}
		a.Killing.Give()
		all.Wait()
		if asked := selects(t) - before; asked > many {
			t.Errorf("%d sessions ended, and the server was asked %d questions", len(crowd), asked)
		}
		if asked := questions(t) - sent; testServer.IsMariaDB() && asked > many {
			t.Errorf("%d sessions ended by %d messages to the server", len(crowd), asked)
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
		if stays.alive(t) == cut {
			t.Errorf("closing: %t, the one that was not meant is there: %t", cut, !cut)
		}
		finish(t, a)
		e.forget(a)
	}
}

// TestGarbledStatement: a backend whose statement is in no character set can be seen and killed, and it hides
// no other, from nobody who looks.
func TestGarbledStatement(t *testing.T) {
	e := newEngine(t, nil)
	a, other := provision(t, e, newSpec(0)), provision(t, e, newSpec(0))
	garble := func(a *account) (ended chan error) {
		c := direct(t, a, "orders")
		join(t, a, c)
		do(t, c, "SET NAMES binary")
		ended = make(chan error, 1)
		go func() { _, err := c.ExecContext(t.Context(), "SELECT '\xfc\xe9', SLEEP(600)"); ended <- err }()
		eventually(t, "it runs", func() bool {
			return super(t, "", "SELECT COUNT(*) FROM "+map[bool]string{true: processlist, false: processlistRaw}[testServer.IsMariaDB()]+
				" WHERE user = ? AND state = 'User sleep'", a.spec.Name) == "1"
		})
		return ended
	}
	ended, still := garble(a), garble(other)
	cut, _ := finish(t, a) // while the other's runs
	if len(cut.Outcomes) != 1 {
		t.Errorf("%+v", cut)
	}
	if err := <-ended; err == nil {
		t.Error("it ran to its end")
	}
	<-e.closing.turn
	e.closing.hangUp()
	e.closing.turn <- struct{}{}
	if err := e.closing.do(t.Context(), func(context.Context, *conn) error { return nil }); err != nil {
		t.Error("the line is not made anew: ", err)
	}
	finish(t, other)
	<-still
}
