package enginetest

import (
	"regexp"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// together: the sessions of one grant are one account's.
func together(t *testing.T, s *suite) {
	t.Run("one session finds what another made", s.shareObjects)
	t.Run("they end together", s.endTogether)
	t.Run("no more of them than the level allows", s.limit)
}

func (s *suite) shareObjects(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	table := "made_" + g.spec.Grant
	t.Cleanup(func() { s.dba(t, "DROP TABLE IF EXISTS "+table) })
	first, ss := g.dial(t)
	first.must("CREATE TABLE "+table+" (a int)", "INSERT INTO "+table+" VALUES (1)")
	second, _ := g.dial(t)
	second.must("INSERT INTO " + table + " VALUES (2)")
	first.bye()
	wait(t, "the first session ends", ss.done)
	third, _ := g.dial(t)
	third.must("UPDATE "+table+" SET a = a + 1", "DROP TABLE "+table)
}

func (s *suite) endTogether(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	why := refusal(recorder.EndRevoked)
	var answers []<-chan error
	var sessions []*session
	for range 3 {
		c, ss := g.dial(t)
		mark := s.mark("together")
		answers, sessions = append(answers, c.start(s.kit.Dialect.Sleep(mark, 60))), append(sessions, ss)
		s.running(t, g.spec.Name, mark)
	}
	g.end(why)
	cut, _ := g.finish(t)
	if len(cut.Outcomes) != len(sessions) {
		t.Errorf("cut: %+v", cut)
	}
	for i, ss := range sessions {
		if err := wait(t, "the client is told", answers[i]); !told(err, why) {
			t.Errorf("a client read %v", err)
		}
		wait(t, "the session ends", ss.done)
		if took := ss.relayed.Sub(sessions[0].relayed).Abs(); took > 3*time.Second {
			t.Errorf("one session ended %s after another", took)
		}
	}
}

// tooMany is how a server or an engine says that there are too many sessions.
var tooMany = regexp.MustCompile(`(?i)too many|limit|more than|max|no connection left`)

func (s *suite) limit(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t, func(l *protocol.Level) { l.Sessions = 2 })
	first, ss := g.dial(t)
	second, _ := g.dial(t)
	first.must("SELECT 1")
	for range 3 {
		third, err := g.try(t, g.password)
		if err == nil { // an engine may let one more in for cancelling alone
			err = third.exec("SELECT 1")
		}
		if err == nil || !tooMany.MatchString(err.Error()) {
			t.Fatalf("the third of two sessions read %v", err)
		}
		third.bye()
	}
	second.must("SELECT 1")
	first.bye()
	wait(t, "the first session ends", ss.done)
	eventually(t, "there is room again", func() bool {
		third, err := g.try(t, g.password)
		defer third.bye()
		return err == nil && third.alive()
	})
}
