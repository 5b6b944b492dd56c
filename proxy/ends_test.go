package proxy

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// untilOver is a relay that goes on until its context ends.
func untilOver(ctx context.Context, _ protocol.Sink) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// broke is a relay that one of the two sides ends.
func broke(code string) func(context.Context, protocol.Sink) error {
	return func(context.Context, protocol.Sink) error {
		return &protocol.EndError{Code: code, Err: errBroken}
	}
}

// begin has a session go on until the engine relays; ended gives its end when there is one.
func begin(s *Server, w *world) (ended func() recorder.End, told *error) {
	var why error
	done := make(chan struct{})
	go func() {
		s.serve(context.Background(), Listener{Engine: "fake"}, toldClient{client{w}, &why})
		close(done)
	}()
	synctest.Wait()
	return func() recorder.End {
		<-done
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.ends[0]
	}, &why
}

type toldClient struct {
	client
	why *error
}

func (c toldClient) Close(why error) {
	*c.why = why
	c.client.Close(why)
}

// Every end of a session there is: the backend is terminated, what became of it is known, the recording
// says how it ended, and so do the metrics; the grant goes on unless it was the grant that ended.
func TestEveryEnd(t *testing.T) {
	refused := func(code string) error { return &protocol.Refusal{Code: code, Public: "because of " + code} }
	cases := map[string]struct {
		relay    func(context.Context, protocol.Sink) error // untilOver, if there is none
		end      func(s *Server, w *world)                  // what ends it from outside
		says     string                                     // what the client is told, or the recording has
		goodbye  bool                                       // nothing is left to terminate
		cut      bool                                       // the account is locked, too
		grantToo bool                                       // the grant is over
	}{
		recorder.EndClient:    {relay: func(context.Context, protocol.Sink) error { return nil }, says: "the client closed", goodbye: true},
		recorder.EndVanished:  {relay: broke(recorder.EndVanished), says: "broken on purpose"},
		recorder.EndServer:    {relay: broke(recorder.EndServer), says: "broken on purpose"},
		recorder.EndViolation: {relay: broke(recorder.EndViolation), says: "broken on purpose"},
		recorder.EndFailed:    {relay: func(context.Context, protocol.Sink) error { return errBroken }, says: "internal error"},
		recorder.EndRecord:    {end: func(_ *Server, w *world) { close(w.lost) }, says: "can't be recorded any more"},
		recorder.EndIdle:      {end: func(*Server, *world) { time.Sleep(31 * time.Minute) }, says: "did nothing for 30m, and writer allows no more"},
		recorder.EndKilled:    {end: func(s *Server, w *world) { s.Kill(s.roll.all()[0].header.Session, "bob says so") }, says: "bob says so"},
		recorder.EndExpired:   {end: func(_ *Server, w *world) { w.end(refused(recorder.EndExpired)) }, says: "because of expired", cut: true, grantToo: true},
		recorder.EndRevoked:   {end: func(_ *Server, w *world) { w.end(refused(recorder.EndRevoked)) }, says: "because of revoked", cut: true, grantToo: true},
		recorder.EndReleased:  {end: func(_ *Server, w *world) { w.end(refused(recorder.EndReleased)) }, says: "because of released", cut: true, grantToo: true},
		recorder.EndForeign: {end: func(s *Server, w *world) {
			s.tenures.of("curfew_i_g1").betray(context.Background(), protocol.Foreign{})
		},
			says: "used past Curfew", cut: true, grantToo: true},
	}
	for code, c := range cases {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.grant.Can.Idle, w.lost = 30*time.Minute, make(chan struct{})
				if w.relay = c.relay; c.relay == nil {
					w.relay = untilOver
				}
				s := serverFor(w)
				ctx, stop := context.WithCancel(t.Context())
				tended := make(chan struct{})
				go func() { s.every(ctx, func() time.Duration { s.roll.attend(); return attendEvery }); close(tended) }()
				ended, told := begin(s, w)
				if c.end != nil {
					c.end(s, w)
				}
				end := ended()
				log := strings.Fields(w.happened())
				kill, seal := slices.Index(log, "kill"), slices.Index(log, "seal")
				if end.Code != code || !strings.Contains(end.Reason, c.says) {
					t.Errorf("it ended as %s: %s", end.Code, end.Reason)
				}
				if c.goodbye != (kill < 0) || seal < kill {
					t.Errorf("what happened: %v", log)
				}
				if !c.goodbye && (end.InFlight != 3 || end.Fate != protocol.FateAborted) {
					t.Errorf("the outcome is not known: %+v", end)
				}
				if c.cut != slices.Contains(log, "cut") {
					t.Errorf("the account: %v", log)
				}
				if c.end != nil && (*told == nil || !strings.Contains((*told).Error(), c.says)) {
					t.Errorf("the client was told %v", *told)
				}
				if got := testutil.ToFloat64(s.metrics.ended.WithLabelValues("orders", "writer", code)); got != 1 || len(s.roll.all()) != 0 {
					t.Errorf("counted %v times; on the roll %d", got, len(s.roll.all()))
				}
				if over := s.tenures.byID("g1") == nil || w.held.Err() != nil; over != c.grantToo {
					t.Errorf("the grant is over: %v", over)
				}
				stop()
				<-tended
				w.end(draining())
				time.Sleep(time.Minute)
			})
		})
	}
	// Those that the table can't play: a node that stops (TestDrain), a crash (recorder), nothing begun.
	for _, code := range []string{recorder.EndDrained, recorder.EndInterrupted} {
		if _, twice := cases[code]; twice {
			t.Errorf("%s is here and there", code)
		}
	}
}

// What idles is a session without a byte either way and without a request that waits; whatever it holds
// open. Anything that moves begins the time anew.
func TestIdle(t *testing.T) {
	const most = 10 * time.Minute
	for name, c := range map[string]struct {
		most  time.Duration
		usage func(since time.Duration) protocol.Usage
		ends  time.Duration // 0: not in three hours
	}{
		"nothing moves":            {most, func(time.Duration) protocol.Usage { return protocol.Usage{FromClient: 7} }, most},
		"a level without a limit":  {0, func(time.Duration) protocol.Usage { return protocol.Usage{} }, 0},
		"a request waits for ever": {most, func(time.Duration) protocol.Usage { return protocol.Usage{InFlight: true} }, 0},
		"and has its answer after one": {most, func(since time.Duration) protocol.Usage {
			return protocol.Usage{InFlight: since < time.Hour}
		}, time.Hour + most},
		"the client types now and then": {most, func(since time.Duration) protocol.Usage {
			return protocol.Usage{FromClient: uint64(since / (most - time.Second))}
		}, 0},
		"the server tells now and then": {most, func(since time.Duration) protocol.Usage {
			return protocol.Usage{FromServer: uint64(since / (most - time.Second))}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.grant.Can.Idle, w.relay = c.most, untilOver
				began := time.Now()
				w.usage = func() protocol.Usage { return c.usage(time.Since(began)) }
				s := serverFor(w)
				ctx, stop := context.WithCancel(t.Context())
				go s.every(ctx, func() time.Duration { s.roll.attend(); return attendEvery })
				begin(s, w)
				const slack = 2 * attendEvery
				if c.ends > 0 {
					time.Sleep(c.ends - slack)
				} else {
					time.Sleep(3 * time.Hour)
				}
				if n := len(s.roll.all()); n != 1 {
					t.Errorf("it ended early")
				}
				if c.ends > 0 {
					time.Sleep(2 * slack)
					if n := len(s.roll.all()); n != 0 {
						t.Errorf("it goes on")
					}
				}
				w.end(draining())
				stop()
				time.Sleep(time.Minute)
			})
		})
	}
}

// A session that is killed while its account is being made, or while it logs in, ends with that reason, and
// the grant's next one begins as if nothing had been.
func TestKilledBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.deaf = true
		s := serverFor(w)
		ended, told := begin(s, w)
		if !s.Kill(s.roll.all()[0].header.Session, "bob says so") {
			t.Error("it is not on the roll")
		}
		if end := ended(); end.Code != recorder.EndKilled || *told == nil || (*told).Error() != "bob says so" {
			t.Errorf("%+v, told %v", end, *told)
		}
		if s.Kill("s0", "nobody") {
			t.Error("killed what is not there")
		}
		w.mu.Lock()
		w.deaf = false
		w.mu.Unlock()
		run(s, w)
		if got := w.happened(); !strings.HasSuffix(got, "provision attach relay seal sealed hangup") && !strings.Contains(got, "relay") {
			t.Error(got)
		}
		w.end(draining())
		time.Sleep(time.Minute)
	})
}

// The same for one whose login at the database takes for ever.
func TestKilledWhileItLogsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.slow = true
		s := serverFor(w)
		ended, told := begin(s, w)
		s.Kill(s.roll.all()[0].header.Session, "bob says so")
		if end := ended(); end.Code != recorder.EndKilled || *told == nil || (*told).Error() != "bob says so" {
			t.Errorf("%+v, told %v", end, *told)
		}
		w.end(draining())
		time.Sleep(time.Minute)
	})
}

// Two reasons at once are one: the first.
func TestFirstReasonStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.relay = untilOver
		s := serverFor(w)
		ended, told := begin(s, w)
		l := s.roll.all()[0]
		if !s.Kill(l.header.Session, "bob says so") || s.Kill(l.header.Session, "dana says so") {
			t.Error("who was the first?")
		}
		w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
		if end := ended(); end.Code != recorder.EndKilled || (*told).Error() != "bob says so" {
			t.Errorf("%+v, told %v", end, *told)
		}
		time.Sleep(time.Minute)
	})
}

// Live shows what a session has moved, and for how long it has not.
func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		usage := protocol.Usage{FromClient: 10, FromServer: 2000}
		w.usage = func() protocol.Usage { w.mu.Lock(); defer w.mu.Unlock(); return usage }
		w.relay = func(ctx context.Context, sink protocol.Sink) error {
			for range 40 {
				sink.Record(recorder.Event{Type: recorder.TypeStatement}, recorder.Event{Type: recorder.TypeResult})
			}
			sink.Record(recorder.Event{Type: recorder.TypeStatement}, recorder.Event{Type: recorder.TypeBlocked})
			w.mu.Lock()
			w.fail["record"] = 1
			w.mu.Unlock()
			sink.Record(recorder.Event{Type: recorder.TypeNotice})
			return untilOver(ctx, sink)
		}
		s := serverFor(w)
		begin(s, w)
		id := s.roll.all()[0].header.Session
		s.roll.attend()
		time.Sleep(time.Minute)
		s.roll.attend()
		got, ok := s.Live(id)
		if want := (Live{Session: id, Grant: "g1", FromClient: 10, FromServer: 2000, Statements: 41, Idle: time.Minute}); !ok || got != want {
			t.Errorf("%+v", got)
		}
		w.mu.Lock()
		usage.FromServer += 500
		w.mu.Unlock()
		if got, _ := s.Live(id); got.Idle != 0 || got.FromServer != 2500 {
			t.Errorf("%+v", got)
		}
		w.end(draining())
		time.Sleep(time.Minute)
		if _, ok := s.Live(id); ok {
			t.Error("it is over and on the roll")
		}
		for name, c := range map[string]struct {
			counted prometheus.Collector
			want    float64
		}{
			"bytes of the client": {s.metrics.bytes.WithLabelValues("orders", "client"), 10},
			"bytes of the server": {s.metrics.bytes.WithLabelValues("orders", "server"), 2500},
			"statements":          {s.metrics.statements.WithLabelValues("orders"), 41},
			"blocked":             {s.metrics.blocked.WithLabelValues("orders"), 1},
			"failures":            {s.metrics.recordFailed, 1},
		} {
			if got := testutil.ToFloat64(c.counted); got != c.want {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	})
}

// tardy tells the sessions of the grant's end only once its account is cut, and the tenure at once: any order is
// possible where each holds the grant by itself.
type tardy struct {
	*world
	first sync.Once
}

func (g *tardy) Hold(ctx context.Context, id string) (context.Context, func(), error) {
	session := false
	g.first.Do(func() { session = true }) // it holds the grant before its tenure does
	if !session {
		return g.world.Hold(ctx, id)
	}
	held, cancel := context.WithCancelCause(ctx)
	return held, func() { cancel(nil) }, nil
}

// Before anything is cut every session of the grant is over, with the grant's reason, so that its client does not
// read the database's word for it.
func TestSessionsAreOverBeforeTheCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		over := make(chan struct{})
		w.relay = func(ctx context.Context, _ protocol.Sink) error {
			context.AfterFunc(ctx, func() { close(over) })
			return untilOver(ctx, nil)
		}
		w.hang["cut"] = make(chan struct{})
		s := serverFor(w)
		s.cfg.Grants = &tardy{world: w}
		s.tenures.cfg.Grants = s.cfg.Grants
		ended, told := begin(s, w)
		w.end(&protocol.Refusal{Code: recorder.EndRevoked, Public: "bob says so"})
		synctest.Wait() // the cut is about to be made, and can't be yet
		select {
		case <-over:
		default:
			t.Error("the account is being cut, and the session goes on")
		}
		if got := w.happened(); strings.Contains(got, "kill") {
			t.Errorf("the session does not wait for the cut: %s", got)
		}
		close(w.hang["cut"])
		end := ended()
		if end.Code != recorder.EndRevoked || (*told) == nil || !strings.Contains((*told).Error(), "bob says so") {
			t.Errorf("it ended as %+v, and the client was told %v", end, *told)
		}
	})
}

// A session that comes to its recording when the tenure has heard of the end already is over at once.
func TestAdmittedTooLate(t *testing.T) {
	held, cancel := context.WithCancelCause(t.Context())
	cancel(&protocol.Refusal{Code: recorder.EndExpired, Public: "late"})
	own, end := context.WithCancelCause(t.Context())
	ten := &tenure{held: held, here: map[*life]struct{}{}}
	leave := ten.admit(&life{own: own, end: end})
	if err := context.Cause(own); err == nil || err != context.Cause(held) {
		t.Errorf("it goes on: %v", err)
	}
	if leave(); len(ten.here) != 0 {
		t.Error("it is still here")
	}
}

type nowhere struct{ Recording }

func (nowhere) Record(...recorder.Event) error { return nil }

// What counts statements is on the way of every one: it allocates nothing, and asks for the time once in
// so many.
func TestMeterAllocatesNothing(t *testing.T) {
	m := &meter{Recording: nowhere{}, metrics: newMetrics(prometheus.NewRegistry())}
	events := []recorder.Event{{Type: recorder.TypeStatement, Text: []byte("select 1")}, {Type: recorder.TypeResult}}
	if n := testing.AllocsPerRun(1000, func() {
		if m.Record(events...) != nil {
			t.Error("not recorded")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(m.metrics.record)
	all, err := reg.Gather()
	if err != nil || len(all) != 1 {
		t.Fatalf("%d histograms, %v", len(all), err)
	}
	timed := all[0].Metric[0].Histogram.GetSampleCount()
	if statements := m.statements.Load(); timed != statements/recordEvery {
		t.Errorf("%d of %d were timed", timed, statements)
	}
}

func BenchmarkMeter(b *testing.B) {
	m := &meter{Recording: nowhere{}, metrics: newMetrics(prometheus.NewRegistry())}
	events := []recorder.Event{{Type: recorder.TypeStatement, Text: []byte("select 1")}, {Type: recorder.TypeResult}}
	b.ReportAllocs()
	for b.Loop() {
		m.Record(events...)
	}
}
