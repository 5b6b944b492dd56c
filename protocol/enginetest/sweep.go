package enginetest

import (
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// sweep: a process that comes up ends what no intent stands for, and nothing else.
func sweep(t *testing.T, s *suite) {
	t.Parallel()
	crashed, other := s.stray(t), s.node(t)
	lost, kept, foreign := crashed.grant(t), crashed.grant(t), other.grant(t)
	mark := s.mark("lost")
	c, _ := lost.dial(t)
	c.must("BEGIN", "INSERT INTO marks (what) VALUES ('"+mark+"')")
	password := lost.ownPassword(t, s.second(t, lost))
	k, _ := kept.dial(t)
	f, _ := foreign.dial(t)

	n := s.stray(t, as(crashed.installation))
	findings, err := n.engine.Sweep(n.soon(), func(account string) bool { return account == kept.spec.Name })
	if err != nil {
		t.Fatal(err)
	}
	lost.gone(t)
	if c.alive() || s.rows(t, mark) != 0 {
		t.Error("the leftover's session lives on")
	}
	if _, err := lost.past(t, password); err == nil {
		t.Error("somebody can log in to the leftover")
	}
	k.must("SELECT 1")
	f.must("SELECT 1")
	said := text(findings)
	if !strings.Contains(said, "warning: "+lost.spec.Name) || strings.Contains(said, kept.spec.Name) ||
		!strings.Contains(said, "note: "+foreign.spec.Name) {
		t.Errorf("findings:\n%s", said)
	}
	// The one that was kept is ended by the next pass, when its intent is gone.
	if _, err := n.engine.Sweep(n.soon(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	kept.gone(t)
	f.must("SELECT 1")
}

// second is one more session.
func (s *suite) second(t *testing.T, g *grant) *client {
	t.Helper()
	c, _ := g.dial(t)
	return c
}

func text(findings []protocol.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		b.WriteString(f.Severity + ": " + f.What + "\n")
	}
	return b.String()
}

// adoption: after a crash a live grant's account is taken over: nobody is left in it, no secret of before
// opens it, and it keeps what it owns.
func adoption(t *testing.T, s *suite) {
	t.Parallel()
	crashed := s.stray(t)
	g := crashed.grant(t)
	c, _ := g.dial(t)
	table, mark := "kept_"+g.spec.Grant, s.mark("adopted")
	t.Cleanup(func() { s.dba(t, "DROP TABLE IF EXISTS "+table) })
	c.must("CREATE TABLE " + table + " (a int)")
	password := g.ownPassword(t, c)
	direct, err := g.past(t, password)
	if err != nil {
		t.Fatal(err)
	}
	c.must("BEGIN", "INSERT INTO marks (what) VALUES ('"+mark+"')")

	n := s.node(t, as(crashed.installation))
	adopted, err := n.provision(g.spec)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "no backend is adopted", func() bool { return s.backends(t, g.spec.Name) == 0 })
	if c.alive() || direct.alive() || s.rows(t, mark) != 0 {
		t.Error("a session of before lives on")
	}
	if _, err := g.past(t, password); err == nil {
		t.Error("the password that the account gave itself still opens it")
	}
	if again, err := g.try(t, g.password); err == nil {
		t.Errorf("the secret of before still opens the account: alive %t", again.alive())
	}
	d, _ := adopted.dial(t)
	d.must("INSERT INTO " + table + " VALUES (1)")
	_, clean := adopted.finish(t)
	found := func(r protocol.Residue) bool { return strings.Contains(r.Object, table) }
	if s.kit.Dialect.Owns && !slices.ContainsFunc(clean.Residue, found) {
		t.Errorf("the adopted account's table is not among %+v", clean.Residue)
	}
}

// watch: a login past the proxy is found and killed, and Curfew's own sessions never are.
func watch(t *testing.T, s *suite) {
	t.Parallel()
	n := s.node(t)
	g, other := n.grant(t), n.grant(t, func(l *protocol.Level) { l.Sessions = 60 })
	own, _ := g.dial(t)
	quiet, _ := other.dial(t)
	password := g.ownPassword(t, own)
	if found, err := n.engine.Watch(n.soon()); err != nil || len(found) != 0 {
		t.Fatalf("before anything is wrong: %+v %v", found, err)
	}
	direct, err := g.past(t, password)
	if err != nil {
		t.Fatal(err)
	}
	direct.must("SELECT 1")
	// While Watch looks, own sessions come and go.
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			c, err := other.try(t, other.password)
			if err == nil {
				<-other.began // there is no room for all that may come while a busy server is looked at
				err = c.exec("SELECT 1")
			}
			c.bye()
			if err != nil {
				stopped <- err
				return
			}
		}
	}()
	found, err := n.engine.Watch(n.soon())
	if err != nil || len(found) != 1 || found[0].Account != g.spec.Name || !found[0].Killed || !strings.HasPrefix(found[0].Address, "127.0.0.1") {
		t.Errorf("found %+v %v", found, err)
	}
	if found, err = n.engine.Watch(n.soon()); err != nil || len(found) != 0 {
		t.Errorf("afterwards: %+v %v", found, err)
	}
	close(stop)
	if err := wait(t, "the others stop", stopped); err != nil {
		t.Errorf("one of Curfew's own sessions: %v", err)
	}
	if direct.alive() {
		t.Error("the login past the proxy lives on")
	}
	own.must("SELECT 1")
	quiet.must("SELECT 1")
	cut, _ := g.finish(t)
	if !slices.ContainsFunc(cut.Outcomes, func(o protocol.Outcome) bool { return o.Foreign }) {
		t.Errorf("the receipt does not tell of the login past the proxy: %+v", cut.Outcomes)
	}
}
