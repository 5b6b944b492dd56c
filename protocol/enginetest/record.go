package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// record: no record, no query. A story that uses every way to run something is told once to learn which
// kinds of events it makes; then again for each kind, with a sink that fails at the first of it, and with
// one that hangs there. What the server was given, by the tap's word, and what it did, by its own, must be
// on record.
func record(t *testing.T, s *suite) {
	kinds := s.kindsOfEvents(t)
	for _, kind := range kinds {
		t.Run("fails at "+kind, func(t *testing.T) { s.recordFails(t, kind) })
		t.Run("hangs at "+kind, func(t *testing.T) { s.recordHangs(t, kind) })
	}
}

// kindOf names an event's kind.
func kindOf(e recorder.Event) string {
	name := string(e.Type)
	for _, more := range []string{string(e.Kind), e.Field, e.Direction} {
		if more != "" {
			name += " " + more
		}
	}
	return name
}

// work is one way to run something; its mark stands at the very end of what is sent.
type work struct {
	mark string
	do   func(*client) error
}

// works are all of them, with marks of their own.
func (s *suite) works(t *testing.T) (story string, list []work) {
	story = s.mark("story")
	add := func(do func(mark string) func(*client) error) {
		mark := fmt.Sprintf("%s-%d.", story, len(list)) // so that none is the beginning of another
		list = append(list, work{mark, do(mark)})
	}
	ph := s.kit.Dialect.Placeholder
	text := func(sql string) func(string) func(*client) error {
		return func(mark string) func(*client) error {
			return func(c *client) error { return c.exec(strings.ReplaceAll(sql, "MARK", mark)) }
		}
	}
	value := func(sql, before string) func(string) func(*client) error {
		return func(mark string) func(*client) error {
			return func(c *client) error {
				return c.exec(strings.ReplaceAll(sql, "LENGTH", fmt.Sprint(len(mark))), before+mark)
			}
		}
	}
	add(text("INSERT INTO marks (what) VALUES ('MARK')"))
	add(value("INSERT INTO marks (what) VALUES ("+ph(1)+")", ""))
	add(func(mark string) func(*client) error {
		return func(c *client) error {
			st, err := c.conn.PrepareContext(c.ctx, "INSERT INTO marks (what) VALUES ("+ph(1)+")")
			if err != nil {
				return err
			}
			defer st.Close()
			_, err = st.ExecContext(c.ctx, mark)
			return err
		}
	})
	add(text("INSERT INTO marks (what) /* " + strings.Repeat("long ", 40000) + "*/ VALUES ('MARK')"))
	add(value("INSERT INTO marks (what) VALUES (right("+ph(1)+", LENGTH))", strings.Repeat("long ", 40000)))
	add(func(mark string) func(*client) error {
		return func(c *client) error {
			return s.kit.Bulk(c.ctx, c.conn, mark, strings.NewReader(mark+"\n"))
		}
	})
	add(func(mark string) func(*client) error {
		return func(c *client) error {
			if err := c.exec("BEGIN"); err != nil {
				return err
			}
			if err := c.exec("INSERT INTO marks (what) VALUES ('" + mark + "')"); err != nil {
				return err
			}
			return c.exec("COMMIT")
		}
	})
	add(text("INSERT INTO marks (what) SELECT 'MARK' FROM no_such_table"))
	add(text("INSERT INTO marks (what) VALUES ('MARK')"))
	return story, list
}

// kindsOfEvents tells the story once, undisturbed.
func (s *suite) kindsOfEvents(t *testing.T) []string {
	t.Helper()
	n := s.node(t)
	g := n.grant(t)
	c, ss := g.dial(t)
	story, list := s.works(t)
	for i, w := range list {
		if err := w.do(c); (err != nil) != (i == len(list)-2) {
			t.Fatalf("%s: %v", w.mark, err)
		}
	}
	c.bye()
	wait(t, "the session ends", ss.done)
	if ss.err != nil {
		t.Errorf("the client said goodbye, and the session ended with %v", ss.err)
	}
	if got := s.ask(t, "SELECT count(*) FROM marks WHERE what LIKE '"+story+"-%'"); got != len(list)-1 {
		t.Errorf("%d rows, want %d", got, len(list)-1)
	}
	kinds := map[string]bool{}
	for _, e := range ss.sink.all() {
		kinds[kindOf(e)] = true
	}
	if !kinds[string(recorder.TypeAttached)] || !kinds["copy in"] || !kinds["part text"] || !kinds["part param"] {
		t.Errorf("the story makes only these events: %v", kinds)
	}
	return slices.Sorted(maps.Keys(kinds))
}

// tell runs the story until something of it fails.
func tell(c *client, list []work) {
	for i, w := range list {
		if err := w.do(c); err != nil && i != len(list)-2 {
			return
		}
	}
}

func (s *suite) recordFails(t *testing.T, kind string) {
	t.Parallel()
	p, broker := newTap(t, s.broker)
	n := s.node(t, through(broker))
	g := n.grant(t)
	failed := make(chan struct{})
	var once sync.Once
	g.before = func(e recorder.Event) error {
		select {
		case <-failed:
			return errors.New("disk full")
		default:
		}
		if kindOf(e) != kind {
			return nil
		}
		once.Do(func() { close(failed) })
		return errors.New("disk full")
	}
	_, list := s.works(t)
	c, err := g.try(t, g.password)
	ss := wait(t, "the session begins", g.began)
	if err == nil {
		tell(c, list)
	}
	wait(t, "the session ends", ss.done)
	var end *protocol.EndError
	if !errors.As(ss.err, &end) || end.Code != recorder.EndRecord {
		t.Errorf("Relay returned %v", ss.err)
	}
	if ss.killed != nil || s.backends(t, g.spec.Name) != 0 {
		t.Errorf("kill: %v, %d backends", ss.killed, s.backends(t, g.spec.Name))
	}
	s.onRecord(t, p, list, ss.sink.all())
}

func (s *suite) recordHangs(t *testing.T, kind string) {
	t.Parallel()
	p, broker := newTap(t, s.broker)
	n := s.node(t, through(broker))
	g := n.grant(t)
	hangs, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g.before = func(e recorder.Event) error {
		if kindOf(e) == kind {
			once.Do(func() {
				close(hangs)
				<-release
			})
		}
		return nil
	}
	_, list := s.works(t)
	told := make(chan struct{})
	ctx, stop := context.WithCancel(n.ctx)
	defer stop()
	go func() {
		defer close(told)
		c, err := g.try(t, g.password)
		if err == nil {
			c.ctx = ctx
			tell(c, list)
		}
	}()
	ss := wait(t, "the session begins", g.began)
	wait(t, "the sink hangs", hangs)
	kept := ss.sink.all()
	if kind != string(recorder.TypeAttached) { // there the session has not begun
		time.Sleep(20 * time.Millisecond) // for what must not happen there is nothing to wait for
		s.onRecord(t, p, list, kept)
		began := time.Now()
		g.end(refusal(recorder.EndExpired))
		eventually(t, "no backend is left although the sink hangs", func() bool { return s.backends(t, g.spec.Name) == 0 })
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("with a sink that hangs the end took %s", took)
		}
	} else {
		g.end(refusal(recorder.EndExpired))
	}
	close(release)
	wait(t, "the session ends", ss.done)
	stop()
	wait(t, "the story ends", told)
	s.onRecord(t, p, list, kept)
}

// onRecord wants everything that reached the server to be among these events.
func (s *suite) onRecord(t *testing.T, p *tap, list []work, events []recorder.Event) {
	t.Helper()
	for _, w := range list {
		switch recorded := holds(events, w.mark); {
		case recorded:
		case p.saw(w.mark):
			t.Errorf("the server was sent %s, which is not on record", w.mark)
		case s.rows(t, w.mark) != 0:
			t.Errorf("the server ran %s, which is not on record", w.mark)
		}
	}
}
