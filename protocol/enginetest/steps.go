package enginetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// life is the story that calls every step an engine has: an account is made, used and littered with, taken
// over, used again, cut and cleaned; another is made, littered with, forgotten and swept up.
type life struct {
	kept, lost protocol.AccountSpec
	marks      []string // of rows that must never be there
}

// life makes the intents.
func (s *suite) life(n *node) *life {
	prepares := func(l *protocol.Level) { l.PreparedTransactions = true }
	return &life{kept: n.spec(prepares), lost: n.spec(prepares)}
}

// undo removes what the story leaves in quarantine.
func (s *suite) undo(t *testing.T, l *life) {
	for _, spec := range []protocol.AccountSpec{l.kept, l.lost} {
		s.dba(t, s.kit.Dialect.Leave(spec.Name, "left_"+spec.Grant).Undo...)
	}
}

// live tells the story. do runs one call of the engine, as often as it takes.
func (l *life) live(t *testing.T, n *node, do func(what string, call func() error)) {
	t.Helper()
	var g *grant
	provision := func(spec protocol.AccountSpec) func() error {
		return func() (err error) { g, err = n.provision(spec); return err }
	}
	do("provision", provision(l.kept))
	l.litter(t, g)
	l.prepare(t, g)
	l.busy(t, g)
	do("adopt", provision(l.kept))
	kept := g
	ss, answer := l.busy(t, kept)
	do("provision another", provision(l.lost))
	l.litter(t, g)
	lostSession, lostAnswer := l.busy(t, g)
	kept.end(refusal(recorder.EndRevoked))
	do("cut", func() error { _, err := kept.account.Cut(n.soon()); return err })
	if got := n.backends(t, kept.spec.Name); got != 0 {
		t.Errorf("after Cut %d backends are there", got)
	}
	if err := wait(t, "the statement ends", answer); err == nil {
		t.Error("a statement came to its end after Cut")
	}
	wait(t, "the session ends", ss.done)
	do("clean", func() error { _, err := kept.account.Clean(n.soon()); return err })
	kept.gone(t)
	do("sweep", func() error { return sweepAll(n) })
	wait(t, "the leftover's statement ends", lostAnswer)
	wait(t, "the leftover's session ends", lostSession.done)
	g.gone(t)
}

// sweepAll sweeps without any grant; an account that could not be ended is an error.
func sweepAll(n *node) error {
	findings, err := n.engine.Sweep(n.soon(), func(string) bool { return false })
	for _, f := range findings {
		if f.Severity == "error" {
			err = errors.Join(err, errors.New(f.What))
		}
	}
	return err
}

// litter leaves something behind for each step of cleaning.
func (l *life) litter(t *testing.T, g *grant) {
	t.Helper()
	leave := g.kit.Dialect.Leave(g.spec.Name, "left_"+g.spec.Grant)
	c, ss := g.dial(t)
	c.must(leave.Own...)
	g.dba(t, leave.DBA...)
	c.bye()
	wait(t, "the session ends", ss.done)
}

// prepare leaves a prepared transaction. Only an account with an intent does in this story: a database need
// not know whose one is, and then it is known from the recordings alone.
func (l *life) prepare(t *testing.T, g *grant) {
	t.Helper()
	c, ss := g.dial(t)
	mark := "prepared-" + g.spec.Grant
	c.must(g.kit.Dialect.Prepare(mark, "INSERT INTO marks (what) VALUES ('"+mark+"')")...)
	l.marks = append(l.marks, mark)
	c.bye()
	wait(t, "the session ends", ss.done)
}

// busy opens a session with a statement in flight.
func (l *life) busy(t *testing.T, g *grant) (*session, <-chan error) {
	t.Helper()
	c, ss := g.dial(t)
	mark := fmt.Sprintf("busy-%d-%s", len(l.marks), g.spec.Grant)
	l.marks = append(l.marks, mark)
	answer := c.start(g.kit.Dialect.InsertThenSleep(mark, 60))
	eventually(t, "the server has written", func() bool {
		select {
		case err := <-answer:
			t.Fatalf("the statement ended before its time: %v", err)
		default:
		}
		return g.ask(t, g.kit.Dialect.Written(g.spec.Name)) > 0
	})
	return ss, answer
}

// over wants nothing of the story to be left.
func (l *life) over(t *testing.T, n *node) {
	t.Helper()
	if left := n.ask(t, n.kit.Dialect.Accounts("curfew_"+n.installation+"_")); left != 0 {
		t.Errorf("%d accounts are left", left)
	}
	for _, spec := range []protocol.AccountSpec{l.kept, l.lost} {
		if left := n.backends(t, spec.Name); left != 0 {
			t.Errorf("%d backends of %s are left", left, spec.Name)
		}
	}
	for _, gid := range n.prepared(t) {
		if strings.HasSuffix(gid, l.kept.Grant) || strings.HasSuffix(gid, l.lost.Grant) {
			t.Errorf("%s is prepared", gid)
		}
	}
	for _, mark := range l.marks {
		if n.rows(t, mark) != 0 {
			t.Errorf("%s was committed", mark)
		}
	}
}

// dryRun tells the story undisturbed and gives the steps in the order of their calls.
func (s *suite) dryRun(t *testing.T) []string {
	t.Helper()
	var mu sync.Mutex
	var names []string
	n := s.node(t, stepping(func(name string) error {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, name)
		return nil
	}))
	l := s.life(n)
	t.Cleanup(func() { s.undo(t, l) })
	l.live(t, n, func(what string, call func() error) {
		if err := call(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	})
	l.over(t, n)
	mu.Lock()
	defer mu.Unlock()
	for _, must := range []string{"provision.", "cut.", "clean."} {
		if !strings.Contains(strings.Join(names, " "), must) {
			t.Errorf("no step %s… among %q: an engine that does not say what it does can't be tested", must, names)
		}
	}
	return names
}

var errStep = errors.New("this step fails once")

// steps: the story with each call of each step failing once. Whoever called learns of it, and the next try
// ends in the same place.
func steps(t *testing.T, s *suite) {
	for i, name := range s.dryRun(t) {
		t.Run(fmt.Sprintf("%02d %s", i, name), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			calls, failed := 0, false
			n := s.node(t, stepping(func(string) error {
				mu.Lock()
				defer mu.Unlock()
				calls++
				if calls-1 == i {
					failed = true
					return errStep
				}
				return nil
			}))
			fired := func() bool {
				mu.Lock()
				defer mu.Unlock()
				return failed
			}
			l := s.life(n)
			t.Cleanup(func() { s.undo(t, l) })
			l.live(t, n, func(what string, call func() error) {
				before := fired()
				err := call()
				if now := fired(); (err != nil) != (now && !before) {
					t.Errorf("%s: the step failed: %t; the error: %v", what, now && !before, err)
				}
				if err != nil {
					err = call()
				}
				if err != nil {
					t.Fatalf("%s, once more: %v", what, err)
				}
			})
			if !fired() {
				t.Error("the step was never reached")
			}
			l.over(t, n)
		})
	}
}
