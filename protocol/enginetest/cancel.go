package enginetest

import (
	"strings"
	"testing"

	"github.com/curfewdb/curfew/recorder"
)

// cancel: a stock client's cancel ends the statement and nothing else, stands on the right record, and
// nobody cancels what another grant runs.
func cancel(t *testing.T, s *suite) {
	t.Parallel()
	n := s.node(t)
	g, other := n.grant(t), n.grant(t)
	victim, err := s.kit.Cancellable(n.ctx, n.toNode, g.spec.Grant, g.password, s.kit.Dialect.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer victim.DB.Close()
	ss := wait(t, "the session begins", g.began)
	beside, besideSession := g.dial(t)
	strange, _ := other.dial(t)
	strange.must("SELECT 1")

	mark, besideMark := s.mark("cancel"), s.mark("beside")
	done := make(chan error, 1)
	go func() {
		_, err := victim.DB.ExecContext(n.ctx, s.kit.Dialect.Sleep(mark, 60))
		done <- err
	}()
	quiet := beside.start(s.kit.Dialect.Sleep(besideMark, 60))
	s.running(t, g.spec.Name, mark)
	s.running(t, g.spec.Name, besideMark)
	if err := victim.Forge(n.ctx, other.spec.Grant, other.password); err != nil {
		t.Errorf("the forged cancel: %v", err)
	}
	if s.ask(t, s.kit.Dialect.Running(g.spec.Name, mark)) != 1 || s.ask(t, s.kit.Dialect.Running(g.spec.Name, besideMark)) != 1 {
		t.Error("a forged cancel has ended a statement")
	}
	if got := len(ss.sink.of(recorder.TypeCancel)); got != 0 {
		t.Errorf("%d forged cancels are on record as cancels", got)
	}
	id := ss.sink.statement(mark)
	if err := victim.Cancel(n.ctx); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, "the statement ends", done); err == nil {
		// Some servers answer an interrupted sleep with a value; what runs is what counts.
		t.Log("the statement's answer is no error")
	}
	if got := s.ask(t, s.kit.Dialect.Running(g.spec.Name, besideMark)); got != 1 {
		t.Error("another session's statement was cancelled, too")
	}
	if _, err := victim.DB.ExecContext(n.ctx, "INSERT INTO marks (what) VALUES ('"+mark+"')"); err != nil {
		t.Errorf("the session does not live on: %v", err)
	}
	if s.rows(t, mark) != 1 {
		t.Error("what came after the cancel was not done")
	}
	cancels := ss.sink.of(recorder.TypeCancel)
	if len(cancels) != 1 || cancels[0].Of != id || !strings.HasPrefix(cancels[0].From, "127.0.0.1:") {
		t.Errorf("on the record of who was cancelled: %+v", cancels)
	}
	if got := len(besideSession.sink.of(recorder.TypeCancel)); got != 0 {
		t.Errorf("%d cancels on another session's record", got)
	}
	select {
	case err := <-quiet:
		t.Errorf("another session's statement ended: %v", err)
	default:
	}
	g.end(refusal(recorder.EndReleased))
	wait(t, "the other session ends", quiet)
}
