package enginetest

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// state is what a session is in the middle of.
type state struct {
	name    string
	running bool // a statement is in flight
	enter   func(t *testing.T, c *client, mark string) (answer func() error)
}

func (s *suite) states() []state {
	inTransaction := func(t *testing.T, c *client, mark string) func() error {
		c.must("BEGIN", "INSERT INTO marks (what) VALUES ('"+mark+"')")
		return func() error { return c.exec("COMMIT") }
	}
	return []state{
		{"statement", true, func(t *testing.T, c *client, mark string) func() error {
			done := c.start(s.kit.Dialect.InsertThenSleep(mark, 60))
			return func() error { return wait(t, "the statement ends", done) }
		}},
		{"transaction", false, inTransaction},
		{"become", false, func(t *testing.T, c *client, mark string) func() error {
			c.must(s.kit.Dialect.Become...)
			return inTransaction(t, c, mark)
		}},
		{"bulk", true, func(t *testing.T, c *client, mark string) func() error {
			data := &endless{line: mark + "\n", stop: make(chan struct{})}
			done := make(chan error, 1)
			go func() { done <- s.kit.Bulk(c.ctx, c.conn, mark, data) }()
			return func() error {
				defer close(data.stop)
				return wait(t, "the bulk load ends", done)
			}
		}},
	}
}

// endless is a bulk load's data, as much as the other side takes.
type endless struct {
	line string
	stop chan struct{}
}

func (e *endless) Read(b []byte) (int, error) {
	select {
	case <-e.stop:
		return 0, io.ErrUnexpectedEOF
	case <-time.After(time.Millisecond): // a load is no flood
	}
	n := 0
	for n+len(e.line) <= len(b) && n < 4096 {
		n += copy(b[n:], e.line)
	}
	return n, nil
}

// ends: every end of a session in every state. Nothing of it is committed, the backend is gone, what became
// of it is known, and who still listens reads why.
func ends(t *testing.T, s *suite) {
	for _, st := range s.states() {
		t.Run("expired in a "+st.name, func(t *testing.T) { s.endsByContext(t, st, recorder.EndExpired, false) })
		t.Run("revoked and cut in a "+st.name, func(t *testing.T) { s.endsByContext(t, st, recorder.EndRevoked, true) })
		t.Run("vanished in a "+st.name, func(t *testing.T) { s.vanishes(t, st) })
	}
	t.Run("goodbye", s.goodbye)
	t.Run("goodbye in a transaction", s.goodbyeInTransaction)
	t.Run("the server ends it", s.serverEndsIt)
}

// entered opens a session and brings it into a state.
func (s *suite) entered(t *testing.T, g *grant, st state, p *tap) (ss *session, c *client, mark string, answer func() error) {
	t.Helper()
	c, ss = g.dial(t)
	mark = s.mark(st.name)
	answer = st.enter(t, c, mark)
	switch st.name {
	case "statement":
		s.written(t, g.spec.Name)
	case "bulk":
		eventually(t, "data reaches the server", func() bool { return p.saw(mark + "\n" + mark + "\n") })
	}
	return ss, c, mark, answer
}

// endsByContext: the grant ends, with or without its account being cut at the same time.
func (s *suite) endsByContext(t *testing.T, st state, code string, cut bool) {
	t.Parallel()
	p, broker := newTap(t, s.broker)
	n := s.node(t, through(broker))
	g := n.grant(t)
	ss, c, mark, answer := s.entered(t, g, st, p)
	if code == recorder.EndRevoked { // another one, so that the cut has more than one to end
		idle, _ := g.dial(t)
		idle.must("SELECT 1")
	}
	why := refusal(code)
	began := time.Now()
	g.end(why)
	if cut {
		got, err := g.account.Cut(n.soon())
		if err != nil {
			t.Fatalf("cut: %v", err)
		}
		if s.backends(t, g.spec.Name) != 0 || len(got.Outcomes) != 2 {
			t.Errorf("cut: %+v", got)
		}
	}
	if !st.running {
		wait(t, "forwarding stops", ss.stopped) // or what comes next may still be in time
	}
	err := answer()
	wait(t, "the session ends", ss.done)
	if !slices.Contains(s.kit.Dialect.Deaf, st.name) && !told(err, why) {
		t.Errorf("the client read %v", err)
	}
	if took := ss.relayed.Sub(began); took > 5*time.Second {
		t.Errorf("Relay returned after %s", took)
	}
	if !errors.Is(ss.err, why) {
		t.Errorf("Relay returned %v", ss.err)
	}
	s.overAndDone(t, g, ss, st, mark)
	if c.alive() {
		t.Error("the session lives on")
	}
}

// vanishes: the client is gone without a word.
func (s *suite) vanishes(t *testing.T, st state) {
	t.Parallel()
	p, broker := newTap(t, s.broker)
	n := s.node(t, through(broker))
	g := n.grant(t)
	ss, c, mark, answer := s.entered(t, g, st, p)
	c.vanish()
	wait(t, "the session ends", ss.done)
	if err := answer(); err == nil {
		t.Error("the client read a success")
	}
	var end *protocol.EndError
	if !errors.As(ss.err, &end) || end.Code != recorder.EndVanished {
		t.Errorf("Relay returned %v", ss.err)
	}
	s.overAndDone(t, g, ss, st, mark)
}

// overAndDone wants nothing of what was in flight to be left, and all of it to be known.
func (s *suite) overAndDone(t *testing.T, g *grant, ss *session, st state, mark string) {
	t.Helper()
	if ss.killed != nil || s.backends(t, g.spec.Name) != 0 {
		t.Errorf("kill: %v; %d backends", ss.killed, s.backends(t, g.spec.Name))
	}
	if got := s.rows(t, mark); got != 0 {
		t.Errorf("%d rows were committed", got)
	}
	last := ss.sink.of(recorder.TypeStatement)
	id := uint64(0)
	if st.running && len(last) > 0 {
		id = last[len(last)-1].ID
	}
	o := ss.outcome
	attached := ss.sink.of(recorder.TypeAttached)
	if o.InFlight != id || o.Foreign || len(attached) != 1 || o.Backend != attached[0].Attached.Backend {
		t.Errorf("in flight was statement %d; the outcome is %+v, attached %+v", id, o, attached)
	}
	switch {
	case st.name == "bulk": // whether it has written anything is the server's secret
		if o.Fate == protocol.FateCommitted {
			t.Errorf("fate %+v", o)
		}
	case s.kit.Dialect.Fates:
		if o.Fate != protocol.FateAborted || o.TxID == "" {
			t.Errorf("fate %+v", o)
		}
	case o.Fate != protocol.FateAborted && o.Fate != protocol.FateUnknown:
		t.Errorf("fate %+v", o)
	}
	if st.running && s.kit.Dialect.LastWords {
		ended := func(e recorder.Event) bool { return e.Of == id && len(e.Code) > 0 }
		if !slices.ContainsFunc(ss.sink.of(recorder.TypeResult), ended) {
			t.Errorf("how statement %d ended is not on record", id)
		}
	}
	if st.name == "bulk" && len(ss.sink.of(recorder.TypeCopy)) != 1 {
		t.Error("what was loaded is not on record")
	}
}

// goodbye: what was done stays done, and the end is the client's.
func (s *suite) goodbye(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	c, ss := g.dial(t)
	mark := s.mark("goodbye")
	c.must("INSERT INTO marks (what) VALUES ('" + mark + "')")
	c.bye()
	wait(t, "the session ends", ss.done)
	if ss.err != nil {
		t.Errorf("Relay returned %v", ss.err)
	}
	eventually(t, "the backend is gone", func() bool { return s.backends(t, g.spec.Name) == 0 })
	if got := s.rows(t, mark); got != 1 {
		t.Errorf("%d rows", got)
	}
}

// goodbyeInTransaction: what was not committed is not, by the server's own rules.
func (s *suite) goodbyeInTransaction(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	c, ss := g.dial(t)
	mark := s.mark("goodbye")
	c.must("BEGIN", "INSERT INTO marks (what) VALUES ('"+mark+"')")
	c.bye()
	wait(t, "the session ends", ss.done)
	if ss.err != nil {
		t.Errorf("Relay returned %v", ss.err)
	}
	eventually(t, "the backend is gone", func() bool { return s.backends(t, g.spec.Name) == 0 })
	if got := s.rows(t, mark); got != 0 {
		t.Errorf("%d rows", got)
	}
}

// serverEndsIt: the DBA ends the account's backends; the session ends as the server's doing.
func (s *suite) serverEndsIt(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	st := s.states()[0]
	ss, c, mark, answer := s.entered(t, g, st, nil)
	c.raw.linger(ss.done) // a driver hangs up when it reads the server's last words
	// A second process of the same installation that recalls the account is the nearest thing to a DBA.
	if _, err := s.stray(t, as(n.installation)).engine.Recall(g.spec).Cut(n.soon()); err != nil {
		t.Fatal(err)
	}
	if err := answer(); err == nil || strings.Contains(err.Error(), "internal error") {
		t.Errorf("the client read %v", err)
	}
	wait(t, "the session ends", ss.done)
	var end *protocol.EndError
	if !errors.As(ss.err, &end) || end.Code != recorder.EndServer {
		t.Errorf("Relay returned %v", ss.err)
	}
	if s.rows(t, mark) != 0 || s.backends(t, g.spec.Name) != 0 {
		t.Errorf("%d rows, %d backends", s.rows(t, mark), s.backends(t, g.spec.Name))
	}
}

// restart: the server crashes under sessions and comes back.
func restart(t *testing.T, s *suite) {
	t.Parallel()
	own := start(t, s.kit)
	n := own.node(t)
	g := n.grant(t)
	st := own.states()
	first, _, mark, answer := own.entered(t, g, st[0], nil)
	second, _, other, commit := own.entered(t, g, st[1], nil)
	own.admin.SetMaxIdleConns(0) // what is connected now will be dead
	if err := own.server.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{answer(), commit()} {
		if err == nil {
			t.Error("a client read a success")
		}
	}
	for _, ss := range []*session{first, second} {
		wait(t, "the session ends", ss.done)
		var end *protocol.EndError
		if !errors.As(ss.err, &end) || end.Code != recorder.EndServer {
			t.Errorf("Relay returned %v", ss.err)
		}
	}
	if err := own.server.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{mark, other} {
		if got := own.rows(t, m); got != 0 {
			t.Errorf("%d rows of %s", got, m)
		}
	}
	var c *client
	eventually(t, "the grant goes on after the restart", func() (in bool) {
		var err error
		c, err = g.try(t, g.password)
		return err == nil
	})
	c.must("SELECT 1")
	g.end(refusal(recorder.EndReleased))
	eventually(t, "what was connected before is made anew", func() bool {
		_, err := g.account.Cut(n.soon())
		if err == nil {
			_, err = g.account.Clean(n.soon())
		}
		return err == nil
	})
	g.gone(t)
}
