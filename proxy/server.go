package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// How long each side may keep the other waiting.
const (
	acceptTimeout = 10 * time.Second // a stranger, from the first byte to proven identity
	endTimeout    = 5 * time.Second  // one step of a session's end
	drainTimeout  = 20 * time.Second // all of them, when this node stops
)

// keepAlive finds a peer that is gone without a word within a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// waitingMost is how many strangers wait for each place.
const waitingMost = 8

// Config is what a Server is made of. All fields but Metrics and Step are required.
type Config struct {
	Node         string
	Installation string
	Engines      map[string]protocol.Engine // by target
	EngineNames  map[string]string          // by target
	Doorman      protocol.Doorman
	Grants       Grants
	Recordings   Recordings
	Sessions     Sessions
	Accounts     Accounts
	FailedLogin  func(address string)  // counts a stranger that was turned away
	FailedToken  func(address string)  // the same for one whose token was refused; nil: FailedLogin
	MaxStrangers int                   // connections in mid-handshake at once; 0 = 256
	MaxShare     int                   // how many of them from one address; 0 = a quarter. All come from one behind a balancer
	Metrics      prometheus.Registerer // nil: nobody reads them
	Log          *slog.Logger
	Step         protocol.Step
}

// Listener is one address that clients connect to.
type Listener struct {
	net.Listener
	Front  protocol.Front
	Engine string // only grants on targets of this engine can log in here
	Target string // and only those on this one; empty: on any
}

// serves reports whether grants on a target of an engine can log in here.
func (l Listener) serves(target, engine string) bool {
	return l.Engine == engine && (l.Target == "" || l.Target == target)
}

// Server accepts connections and keeps the tenures of grants on this node.
type Server struct {
	cfg       Config
	tenures   *tenures
	roll      *roll
	reach     *reach
	pulse     pulse
	draining  atomic.Bool
	metrics   *metrics
	strangers *strangers
	guesses   *guesses
}

// New makes a server. Resume must have run once before Serve.
func New(cfg Config) *Server {
	if cfg.MaxStrangers == 0 {
		cfg.MaxStrangers = 256
	}
	if cfg.MaxShare == 0 {
		cfg.MaxShare = max(1, cfg.MaxStrangers/4)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	s := &Server{cfg: cfg, metrics: newMetrics(cfg.Metrics), guesses: newGuesses(cfg.Log)}
	s.strangers = newStrangers(cfg.MaxStrangers, cfg.MaxShare, waitingMost*cfg.MaxStrangers, s.crowded())
	s.metrics.targets(cfg.Engines)
	s.roll, s.reach = newRoll(s.metrics), newReach(s.metrics)
	s.tenures = newTenures(&s.cfg, s.metrics)
	cfg.Metrics.MustRegister(s)
	return s
}

// Draining is what clients read when the node stops.
func draining() *protocol.Refusal {
	return &protocol.Refusal{Code: recorder.EndDrained,
		Public: "Curfew is being stopped on this node; your grant is unchanged: connect again in a moment"}
}

// Serve accepts connections on every listener until ctx ends; then it stops accepting, ends the sessions and
// beside that locks the accounts of live grants until Curfew is back, and returns. Grants that end
// while that goes on are closed in order. It returns nil after a drain, or the first listener's error.
func (s *Server) Serve(ctx context.Context, listeners ...Listener) error {
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var loops, sessions sync.WaitGroup
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		loops.Go(func() {
			if err := s.accept(work, l, &sessions); err != nil {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.draining.Store(true)
	for _, l := range listeners {
		l.Close()
	}
	loops.Wait()
	s.strangers.close()
	stop(draining())
	s.tenures.leave()
	if !waitFor(&sessions, drainTimeout) {
		s.cfg.Log.Error("sessions did not end in time; their backends are terminated with the accounts")
	}
	s.Drain()
	return err
}

// Drain locks the accounts of live grants until Curfew is back, and gives those of grants that are over
// the time to be closed. Serve ends with it; call it after Resume when Serve can't be reached.
func (s *Server) Drain() {
	s.tenures.drain()
}

// accept takes connections off one listener until it is closed.
func (s *Server) accept(ctx context.Context, l Listener, sessions *sync.WaitGroup) error {
	begin := func(st *stranger) {
		sessions.Go(func() { s.receive(ctx, l, st) })
	}
	for {
		conn, err := l.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.As(err, &temporary) && temporary.Temporary(): // out of descriptors: others will end
			s.cfg.Log.Error("accept", "listener", l.Addr().String(), "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		case err != nil:
			return err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetKeepAliveConfig(keepAlive) // it works without
		}
		s.strangers.come(newStranger(ctx, conn, begin))
	}
}

// crowded counts the strangers that were hung up on before a word was said.
func (s *Server) crowded() func(*stranger) {
	var bell alarm
	return func(st *stranger) {
		s.metrics.refuse(errCrowded)
		if n, now := bell.ring(); now {
			s.cfg.Log.Warn("ALERT more connections wait to log in than may; some are hung up on", "from", st.from.String(), "since_the_last", n)
		}
	}
}

// receive lets a stranger become a session.
func (s *Server) receive(ctx context.Context, l Listener, st *stranger) {
	defer st.conn.Close()
	client, err := s.greet(l, st)
	if !s.strangers.leave(st) && err == nil {
		client.Close(nil) // too late: it was hung up on
		return
	}
	if err == nil {
		s.serve(ctx, l, client)
	}
}

// greet lets the front find out who a stranger is. The front has told the stranger when it fails.
func (s *Server) greet(l Listener, st *stranger) (protocol.Client, error) {
	ctx, cancel := context.WithTimeout(st.ctx, acceptTimeout)
	defer cancel()
	door := &doorman{Doorman: s.cfg.Doorman, guesses: s.guesses, from: st.from, at: l}
	client, err := l.Front.Accept(ctx, st.conn, door)
	switch {
	case err == nil:
		door.right()
		return client, nil
	case errors.Is(err, protocol.ErrHandled):
		return nil, err
	}
	address := st.conn.RemoteAddr().String()
	var refusal *protocol.Refusal
	if errors.As(err, &refusal) && (refusal.Code == protocol.RefuseLogin || refusal.Code == protocol.RefuseToken) {
		door.wrong()
		if refusal.Code == protocol.RefuseToken && s.cfg.FailedToken != nil {
			s.cfg.FailedToken(address)
		} else {
			s.cfg.FailedLogin(address)
		}
	}
	if st.ctx.Err() != nil {
		err = context.Cause(st.ctx)
	}
	s.metrics.refuse(err)
	s.cfg.Log.Info("connection refused", "client", address, "error", err)
	return nil, err
}

// waitFor waits for the group, but no longer than d.
func waitFor(g *sync.WaitGroup, d time.Duration) bool {
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}
