package enginetest

import (
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// transcript: what a client sees through Curfew is what it sees without, and what is on record is what was
// said. Both legs log in as the same account, so that not even its name differs.
func transcript(t *testing.T, s *suite) {
	t.Run("dialogue", s.dialogue)
	t.Run("notices", s.notices)
}

func (s *suite) dialogue(t *testing.T) {
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
		want := direct.run(l)
		got := c.run(l)
		if got != want {
			t.Errorf("%s\ndirect:\n%s\nthrough Curfew:\n%s", short([]byte(l.SQL)), want, got)
		}
		compared += len(want)
	}
	if compared < 1000 {
		t.Errorf("the dialogue has not much in it: %d bytes", compared)
	}
	c.bye()
	wait(t, "the session ends", ss.done)
	s.golden(t, whole(ss.sink.all()))
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

// golden compares what is on record with what the dialogue says of each of its lines. What a driver sends
// after a line's end (the closing of a statement) is that line's.
func (s *suite) golden(t *testing.T, events []recorder.Event) {
	t.Helper()
	begins := func(e recorder.Event, l Line) bool {
		return e.Type == recorder.TypeStatement && (e.Kind == recorder.KindSimple || e.Kind == recorder.KindPrepare) && string(e.Text) == l.SQL
	}
	dialogue := s.kit.Dialect.Dialogue
	for i, l := range dialogue {
		first := slices.IndexFunc(events, func(e recorder.Event) bool { return begins(e, l) })
		if first < 0 {
			t.Errorf("%s is not on record", short([]byte(l.SQL)))
			continue
		}
		events = events[first:]
		next := len(events)
		if i+1 < len(dialogue) {
			if n := slices.IndexFunc(events[1:], func(e recorder.Event) bool { return begins(e, dialogue[i+1]) }); n >= 0 {
				next = n + 1
			}
		}
		var words []string
		for _, e := range events[:next] {
			words = append(words, show(e, l.SQL))
		}
		if got := strings.Join(words, "; "); got != l.Records {
			t.Errorf("%s\nis on record as\n%s\nwant\n%s", short([]byte(l.SQL)), got, l.Records)
		}
		events = events[next:]
	}
}

// notices: what Curfew says beside the results is on record, and disturbs no result, wherever it comes.
func (s *suite) notices(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	c, ss := g.dial(t)
	c.must("SELECT 1")
	line := Line{SQL: "SELECT a.what, b.what FROM marks a JOIN marks b ON a.what <> b.what LIMIT 20000"}
	s.dba(t, "INSERT INTO marks (what) VALUES ('"+s.mark("notice")+"'), ('"+s.mark("notice")+"')")
	want := c.run(line)
	done := make(chan string, 1)
	go func() { done <- c.run(line) }()
	for range 20 {
		ss.link.Notify("your grant ends in 5 minutes")
	}
	got := wait(t, "the result comes to its end", done)
	if len(strings.Split(got, "\n")) != len(strings.Split(want, "\n")) || strings.Contains(got, "error") {
		t.Errorf("with notices: %d bytes, without %d", len(got), len(want))
	}
	c.must("SELECT 1")
	said := ss.sink.of(recorder.TypeNotice)
	if len(said) != 20 || said[0].From != "curfew" || string(said[0].Message) != "your grant ends in 5 minutes" {
		t.Errorf("on record: %d notices", len(said))
	}
}
