package proxy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

func (a account) Extend(_ context.Context, end time.Time) error {
	if err := a.w.do("extend"); err != nil {
		return err
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.w.specs = append(a.w.specs, protocol.AccountSpec{End: end})
	return nil
}

func (w *world) lastSpec() protocol.AccountSpec {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.specs[len(w.specs)-1]
}

func (w *world) count(step string) (n int) {
	for _, s := range strings.Fields(w.happened()) {
		if s == step {
			n++
		}
	}
	return n
}

// stays is a client that stays until its session is ended, or leave is called.
func (w *world) stays() (leave func()) {
	gone := make(chan struct{})
	w.relay = func(ctx context.Context, _ protocol.Sink) error {
		select {
		case <-gone:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return sync.OnceFunc(func() { close(gone) })
}

// A session goes on past the end that its grant had: it is warned before the new one, and the account follows,
// however often that fails first.
func TestASessionGoesOnAfterAnExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		leave := w.stays()
		s := serverFor(w)
		go run(s, w)
		synctest.Wait()
		w.fail["extend"] = 2
		end := w.grant.End.Add(time.Hour)
		s.Extended("g1", end)
		s.Extended("g1", end)                // known
		s.Extended("g1", end.Add(-1))        // nobody moves it back
		s.Extended("g7", end.Add(time.Hour)) // somebody else's
		time.Sleep(time.Second)
		if got := w.lastSpec(); !got.End.Equal(end) || w.count("extend") != 1 || w.count("extend!") != 2 {
			t.Errorf("%v: %s", got.End, w.happened())
		}
		time.Sleep(time.Until(w.grant.End.Add(time.Second)))
		if n := w.count("notify"); n != 0 {
			t.Errorf("%d warnings of an end that it is not", n)
		}
		time.Sleep(time.Until(end.Add(-time.Second)))
		if n := w.count("notify"); n != 2 {
			t.Errorf("%d warnings before the end", n)
		}
		leave()
		synctest.Wait()
		w.end(draining())
	})
}

// An account that is made after an extension is made with the new end; and one whose extension came between
// the look at the grant and the tenure's begin is not forgotten.
func TestAnAccountIsMadeWithTheEndOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.grant.Longest = 3 * time.Hour
		leave := w.stays()
		s := serverFor(w)
		old := w.grant
		w.grant.End = w.grant.End.Add(time.Hour) // Recall's, while the session has found the old one
		tenure, out, err := s.tenures.enter(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := tenure.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.lastSpec(); !got.End.Equal(w.grant.End) || got.Longer != 3*time.Hour {
			t.Errorf("made with the end %v and %v more, want %v", got.End, got.Longer, w.grant.End)
		}
		leave()
		out(true)
		w.end(draining())
		synctest.Wait()
	})
}

// A grant that ends with its last session ends when that is closed by its client, not when it is lost or when
// another one goes on; who comes in that very moment is refused.
func TestWithTheLastSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.grant.WithLastSession = true
		s := serverFor(w)
		enter := func() func(bool) {
			t.Helper()
			_, leave, err := s.tenures.enter(t.Context(), w.grant)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		first, second := enter(), enter()
		first(true)
		second(false) // lost: it may come back
		third := enter()
		if w.count("end:released") != 0 {
			t.Errorf("released: %s", w.happened())
		}
		third(true)
		synctest.Wait()
		if w.count("end:released") != 1 {
			t.Errorf("not released: %s", w.happened())
		}
		if _, _, err := s.tenures.enter(t.Context(), w.grant); err == nil {
			t.Error("somebody came in after the last one had left")
		}
	})
	synctest.Test(t, func(t *testing.T) { // and a rule that says nothing of the kind
		w := newWorld()
		run(serverFor(w), w)
		synctest.Wait()
		if w.count("end:released") != 0 {
			t.Errorf("released: %s", w.happened())
		}
		w.end(draining())
	})
	synctest.Test(t, func(t *testing.T) { // a session whose client says goodbye
		w := newWorld()
		w.grant.WithLastSession = true
		run(serverFor(w), w)
		synctest.Wait()
		if !strings.HasSuffix(w.happened(), "end:released cut receipt.cut clean receipt.clean release") && w.count("end:released") != 1 {
			t.Errorf("%s", w.happened())
		}
	})
	synctest.Test(t, func(t *testing.T) { // one whose connection broke
		w := newWorld()
		w.grant.WithLastSession = true
		w.relay = func(context.Context, protocol.Sink) error {
			return &protocol.EndError{Code: recorder.EndVanished, Err: errBroken}
		}
		run(serverFor(w), w)
		synctest.Wait()
		if w.count("end:released") != 0 {
			t.Errorf("%s", w.happened())
		}
		w.end(draining())
	})
}

func TestLimitsOfARule(t *testing.T) {
	w := newWorld()
	w.grant.Limits = policy.Limits{Rows: 10, Bytes: 1000}
	var sink protocol.Sink
	w.relay = func(_ context.Context, s protocol.Sink) error {
		sink = s
		limiter, ok := s.(protocol.Limiter)
		if !ok {
			return errors.New("no limits")
		}
		if err := errors.Join(limiter.Read(10, 1000), s.Record(recorder.Event{})); err != nil {
			return err
		}
		return &protocol.EndError{Code: recorder.EndLimit, Err: limiter.Read(11, 1000)}
	}
	run(serverFor(w), w)
	if got := w.ends[0]; got.Code != recorder.EndLimit || !strings.Contains(got.Reason, "a session read 10 rows") || !strings.Contains(got.Reason, "your grant goes on until") {
		t.Errorf("%+v", got)
	}
	if err := sink.(protocol.Limiter).Read(0, 1001); err == nil || !strings.Contains(err.Error(), "1000 bytes") {
		t.Errorf("%v", err)
	}
	w.end(draining())

	level := policy.Level{Sessions: 5, Idle: time.Minute}
	for _, c := range []struct {
		limits   policy.Limits
		sessions int
		idle     time.Duration
		by       string
	}{
		{policy.Limits{}, 5, time.Minute, "writer"},
		{policy.Limits{Sessions: 2, Idle: time.Second}, 2, time.Second, "rule"},
		{policy.Limits{Sessions: 9, Idle: time.Hour}, 5, time.Minute, "writer"},
	} {
		g := policy.Grant{Level: "writer", Can: level, Terms: policy.Terms{Limits: c.limits}}
		if idle := idleOf(g); sessionsOf(g) != c.sessions || idle.most != c.idle || !strings.Contains(idle.by, c.by) {
			t.Errorf("%+v: %d sessions, idle %+v", c.limits, sessionsOf(g), idle)
		}
	}
	if idle := idleOf(policy.Grant{Terms: policy.Terms{Limits: policy.Limits{Idle: time.Hour}}}); idle.most != time.Hour {
		t.Errorf("a level without an idle time: %+v", idle)
	}
}
