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
	MaxStrangers int                   // connections in mid-handshake at once; 0 = 256
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
	strangers chan struct{}
}

// New makes a server. Resume must have run once before Serve.
func New(cfg Config) *Server {
	if cfg.MaxStrangers == 0 {
		cfg.MaxStrangers = 256
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	s := &Server{cfg: cfg, metrics: newMetrics(cfg.Metrics), strangers: make(chan struct{}, cfg.MaxStrangers)}
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

// Serve accepts connections on every listener until ctx ends; then it stops accepting, ends the
// sessions, locks the accounts of live grants until Curfew is back, and returns. Grants that end
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
	stop(draining())
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

// accept takes connections off one listener until it is closed. A full house makes the next stranger
// wait in the kernel's queue, not in our memory.
func (s *Server) accept(ctx context.Context, l Listener, sessions *sync.WaitGroup) error {
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
		s.strangers <- struct{}{}
		sessions.Go(func() {
			defer conn.Close()
			client, err := s.greet(ctx, l, conn)
			<-s.strangers
			if err == nil {
				s.serve(ctx, l, client)
			}
		})
	}
}

// greet lets the front find out who a stranger is. The front has told the stranger when it fails.
func (s *Server) greet(ctx context.Context, l Listener, conn net.Conn) (protocol.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTimeout)
	defer cancel()
	client, err := l.Front.Accept(ctx, conn, s.cfg.Doorman)
	if err == nil || errors.Is(err, protocol.ErrHandled) {
		return client, err
	}
	address := conn.RemoteAddr().String()
	var refusal *protocol.Refusal
	if errors.As(err, &refusal) && refusal.Code == protocol.RefuseLogin {
		s.cfg.FailedLogin(address)
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
