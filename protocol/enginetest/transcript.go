package enginetest

import (
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// transcript: what a client sees through Curfew is what it sees without, and what is on record is what was
// said. Both legs log in as the same account, so that not even its name differs.
func transcript(t *testing.T, s *suite) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t, func(l *protocol.Level) { l.LocalInfile = true })
	first, _ := g.dial(t)
	c, ss := g.dial(t)
	direct, err := g.past(t, g.ownPassword(t, first))
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, l := range s.kit.Dialect.Dialogue {
		before := len(ss.sink.all())
		want := direct.run(l)
		got := c.run(l)
		if got != want {
			t.Errorf("%s\ndirect:\n%s\nthrough Curfew:\n%s", short([]byte(l.SQL)), want, got)
		}
		compared += len(want)
		var lines []string
		for _, e := range whole(ss.sink.all()[before:]) {
			lines = append(lines, show(e, l.SQL))
		}
		if records := strings.Join(lines, "; "); records != l.Records {
			t.Errorf("%s\nis on record as\n%s\nwant\n%s", short([]byte(l.SQL)), records, l.Records)
		}
	}
	if compared < 1000 {
		t.Errorf("the dialogue has not much in it: %d bytes", compared)
	}
	c.bye()
	wait(t, "the session ends", ss.done)
	if ss.err != nil {
		t.Errorf("Relay returned %v", ss.err)
	}
	if got := len(ss.sink.of(recorder.TypeAttached)); got != 1 || ss.sink.all()[0].Type != recorder.TypeAttached {
		t.Error("the first event is not attached")
	}
	if ss.login.User != g.spec.Grant || ss.login.Mechanism == "" || ss.login.Database != s.kit.Dialect.Database || ss.login.Address == "" {
		t.Errorf("login %+v", ss.login)
	}
}
