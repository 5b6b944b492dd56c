package enginetest

import (
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// residue: what a person leaves behind is known, harmless, and in nobody's way.
func residue(t *testing.T, s *suite) {
	for _, left := range s.kit.Dialect.Leftovers {
		t.Run(left.Name, func(t *testing.T) { s.leftover(t, left) })
	}
	t.Run("two-phase commit", s.twoPhase)
	t.Run("two-phase commit by level only", s.twoPhaseRefused)
}

// as logs in to the server itself.
func (s *suite) login(t *testing.T, l Login) *client {
	t.Helper()
	c, err := s.connect(t, s.direct, l.User, l.Password)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *suite) leftover(t *testing.T, left Leftover) {
	n := s.node(t)
	g := n.grant(t)
	undo := func() { s.dba(t, left.Undo...) }
	t.Cleanup(undo)
	c, ss := g.dial(t)
	c.must(left.Make...)
	c.bye()
	wait(t, "the session ends", ss.done)
	stranger := s.login(t, s.kit.Stranger)
	for _, sql := range left.Closed {
		if err := stranger.exec(sql); err != nil {
			t.Errorf("it does no harm in the first place: %s: %v", sql, err)
		}
	}
	var clean protocol.Clean
	if left.Stays {
		clean = s.stays(t, g, undo)
	} else {
		_, clean = g.finish(t)
	}
	i := slices.IndexFunc(clean.Residue, func(r protocol.Residue) bool {
		return r.Kind == left.Kind && strings.Contains(r.Object, left.Object)
	})
	if i < 0 {
		t.Fatalf("no %s like %q among %+v", left.Kind, left.Object, clean.Residue)
	}
	if r := clean.Residue[i]; r.Alert != left.Alert || r.Owner == "" || r.Action == "" || r.Database != s.kit.Dialect.Database {
		t.Errorf("%+v", r)
	}
	for _, sql := range left.Closed {
		if stranger.exec(sql) == nil {
			t.Errorf("a stranger still can %s", sql)
		}
	}
	app := s.login(t, s.kit.App)
	for _, sql := range left.Open {
		if err := app.exec(sql); err != nil {
			t.Errorf("the application can't %s: %v", sql, err)
		}
	}
}

// stays wants Clean to fail for what only a DBA can take away, with the account locked, and to succeed then.
func (s *suite) stays(t *testing.T, g *grant, undo func()) protocol.Clean {
	t.Helper()
	if _, err := g.account.Cut(g.soon()); err != nil {
		t.Fatal(err)
	}
	clean, err := g.account.Clean(g.soon())
	if err == nil {
		t.Error("Clean succeeded, and it is still there")
	}
	if _, err := g.try(t, g.password); err == nil {
		t.Error("the account is open while it waits for a DBA")
	}
	undo()
	g.finish(t)
	return clean
}

// twoPhase: what this grant prepared is rolled back, and nobody else's.
func (s *suite) twoPhase(t *testing.T) {
	n := s.node(t)
	g := n.grant(t, func(l *protocol.Level) { l.PreparedTransactions = true })
	ours, theirs, later := s.mark("ours"), s.mark("theirs"), s.mark("later")
	insert := func(mark string) string { return "INSERT INTO marks (what) VALUES ('" + mark + "')" }
	c, ss := g.dial(t)
	c.must(s.kit.Dialect.Prepare(ours, insert(ours))...)
	app := s.login(t, s.kit.App)
	app.must(s.kit.Dialect.Prepare(theirs, insert(theirs))...)
	app.bye() // or it is still its connection's
	t.Cleanup(func() { s.dba(t, s.kit.Dialect.RollBack(theirs)) })
	var ids []string
	for _, e := range ss.sink.all() {
		if len(e.Prepares) > 0 {
			ids = append(ids, string(e.Prepares))
		}
	}
	if len(ids) != 1 {
		t.Errorf("prepared, by the record: %q", ids)
	}
	if got := s.prepared(t); !slices.Contains(got, ours) || !slices.Contains(got, theirs) {
		t.Fatalf("prepared: %q", got)
	}
	c.bye()
	wait(t, "the session ends", ss.done)
	_, clean := g.finish(t)
	if got := s.prepared(t); slices.Contains(got, ours) || !slices.Contains(got, theirs) {
		t.Errorf("after the end these are prepared: %q", got)
	}
	if !slices.Equal(clean.RolledBack, ids) {
		t.Errorf("rolled back %q, on record %q", clean.RolledBack, ids)
	}

	// After a crash the ids come from the recordings.
	g = n.grant(t, func(l *protocol.Level) { l.PreparedTransactions = true })
	c, ss = g.dial(t)
	c.must(s.kit.Dialect.Become...)
	c.must(s.kit.Dialect.Prepare(later, insert(later))...)
	for _, e := range ss.sink.all() {
		if len(e.Prepares) > 0 {
			g.spec.Prepared = append(g.spec.Prepared, string(e.Prepares))
		}
	}
	g.end(refusal(recorder.EndExpired))
	wait(t, "the session ends", ss.done)
	g.account = s.stray(t, as(n.installation)).engine.Recall(g.spec)
	g.finish(t)
	if got := s.prepared(t); slices.Contains(got, later) || !slices.Contains(got, theirs) {
		t.Errorf("after a crash and the end these are prepared: %q", got)
	}
	for _, mark := range []string{ours, theirs, later} {
		if s.rows(t, mark) != 0 {
			t.Errorf("%s is there", mark)
		}
	}
}

// twoPhaseRefused: a level that does not say so can't prepare; the refusal is on record, the session lives.
func (s *suite) twoPhaseRefused(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t, func(l *protocol.Level) { l.PreparedTransactions = false })
	c, ss := g.dial(t)
	gid := s.mark("refused")
	var failed error
	for _, sql := range s.kit.Dialect.Prepare(gid, "INSERT INTO marks (what) VALUES ('"+gid+"')") {
		if failed = c.exec(sql); failed != nil {
			break
		}
	}
	if failed == nil || !strings.Contains(failed.Error(), "access level") {
		t.Errorf("the client read %v", failed)
	}
	_ = c.exec("ROLLBACK") // where a transaction was begun
	c.must("SELECT 1")
	if slices.Contains(s.prepared(t), gid) || s.rows(t, gid) != 0 {
		t.Error("it is prepared")
	}
	if got := ss.sink.of(recorder.TypeBlocked); len(got) != 1 || got[0].Reason == "" {
		t.Errorf("blocked, by the record: %+v", got)
	}
}
