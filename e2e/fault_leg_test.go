package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// leg is a piece of network with faults: a cable that can be cut in several ways, and toxiproxy behind it.
type leg struct {
	addr    string
	toxic   *toxiproxy.Proxy
	address string // of toxiproxy

	mu    sync.Mutex // guards pairs
	pairs map[*net.TCPConn]*net.TCPConn
}

func newLeg(t *testing.T, upstream string) *leg {
	t.Helper()
	l := &leg{address: must(harness.FreeAddr())(t), pairs: map[*net.TCPConn]*net.TCPConn{}}
	l.toxic = toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), t.Name(), l.address, upstream)
	if err := l.toxic.Start(); err != nil {
		t.Fatal(err)
	}
	near := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	l.addr = near.Addr().String()
	t.Cleanup(func() {
		_ = near.Close()
		l.each(func(near, far *net.TCPConn) { _, _ = near.Close(), far.Close() })
		l.toxic.Stop()
	})
	go func() {
		for {
			c, err := near.Accept()
			if err != nil {
				return
			}
			go l.lay(c.(*net.TCPConn))
		}
	}()
	return l
}

// lay joins one connection to its far end.
func (l *leg) lay(near *net.TCPConn) {
	c, err := net.Dial("tcp", l.address)
	if err != nil {
		_ = near.Close()
		return
	}
	far := c.(*net.TCPConn)
	l.mu.Lock()
	l.pairs[near] = far
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { pump(far, near) })
	both.Go(func() { pump(near, far) })
	both.Wait()
	_, _ = near.Close(), far.Close()
	l.mu.Lock()
	delete(l.pairs, near)
	l.mu.Unlock()
}

// pump copies until one side ends, and passes that on.
func pump(to, from *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_ = to.CloseWrite()
			return
		}
	}
}

func (l *leg) each(f func(near, far *net.TCPConn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for near, far := range l.pairs {
		f(near, far)
	}
}

// reset breaks every connection as a firewall does.
func (l *leg) reset() {
	l.each(func(near, far *net.TCPConn) {
		_, _ = near.SetLinger(0), far.SetLinger(0)
		_, _ = near.Close(), far.Close()
	})
}

// half has the near end (false: the far end) hear that the other will say no more; it may go on itself.
func (l *leg) half(near bool) {
	l.each(func(n, f *net.TCPConn) {
		if near {
			_ = n.CloseWrite()
		} else {
			_ = f.CloseWrite()
		}
	})
}

// ail gives every connection, of now and to come, a fault in both directions.
func (l *leg) ail(t *testing.T, kind string, attributes map[string]any) {
	t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		text := must(json.Marshal(map[string]any{"type": kind, "stream": stream, "attributes": attributes}))(t)
		if _, err := l.toxic.Toxics.AddToxicJson(bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// hole: whatever is sent vanishes.
func (l *leg) hole(t *testing.T) { t.Helper(); l.ail(t, "timeout", map[string]any{"timeout": 0}) }

// heal takes the faults away. Connections that were in a hole are broken afterwards.
func (l *leg) heal(t *testing.T) { l.toxic.Toxics.ResetToxics(t.Context()) }

// addr is where the stage's server listens.
func (s *stage) addr() string {
	if s.pg != nil {
		return s.pg.Addr
	}
	return s.my.Addr
}

// loginBy is login over connections of the story's own making.
func (s *stage) loginBy(ctx context.Context, creds harness.Credentials, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (conn, error) {
	if s.my != nil {
		return myDial(creds.MySQL(ctx, func(cfg *mysql.Config) { cfg.DialFunc = dial }))
	}
	cfg, err := pgx.ParseConfig(creds.URL())
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = dial
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return pgConn{c}, nil
}

// wired is a Curfew with a leg on each side of it; the other stage's target is reached as usual.
type wired struct {
	*town
	front, back *leg
	other       *town
}

func (s *town) wire(t *testing.T) *wired {
	t.Helper()
	w := &wired{back: newLeg(t, s.addr())}
	through := *s.stage
	through.url = strings.Replace(s.url, s.addr(), w.back.addr, 1)
	neighbour := shop
	if s.stage == shop.stage {
		neighbour = shared
	}
	w.town = s.apart(t, &through, neighbour.url)
	w.other = w.on(neighbour.stage)
	w.front = newLeg(t, w.listen())
	return w
}

// apart is a Curfew of a story's own, for a stage and more targets.
func (s *town) apart(t *testing.T, on *stage, more ...string) *town {
	t.Helper()
	dir := t.TempDir()
	st := &town{dir: dir, bin: s.bin, stage: on}
	st.curfew = must(harness.NewCurfew(s.bin, filepath.Join(dir, "data"), append([]string{on.url}, more...)...))(t)
	st.curfew.Ops = must(harness.FreeAddr())(t)
	if err := st.curfew.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("curfew's log:\n%s", st.curfew.Log())
		}
		if err := st.curfew.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := st.logins(t.Context()); err != nil {
		t.Fatal(err)
	}
	return st
}

// listen is where the stage's clients connect to.
func (s *town) listen() string {
	_, addr, found := strings.Cut(s.curfew.Listen[0], "=")
	if !found {
		return s.curfew.Listen[0]
	}
	return addr
}

// over gives credentials by which clients come over the front leg.
func (w *wired) over(t *testing.T, creds harness.Credentials) harness.Credentials {
	t.Helper()
	host, port, err := net.SplitHostPort(w.front.addr)
	if err != nil {
		t.Fatal(err)
	}
	creds.Host = host
	creds.Port = must(strconv.Atoi(port))(t)
	return creds
}

// joined is a grant and a connection under it, over the front leg.
func (w *wired) joined(t *testing.T, level string) (api.Grant, harness.Credentials, conn) {
	t.Helper()
	g := must(w.alice.Granted(t.Context(), w.target, level, 10*time.Minute, w.bob))(t)
	creds := w.over(t, must(w.alice.Credentials(t.Context(), g.ID))(t))
	return g, creds, w.enter(t, creds)
}

// closedLate waits for the receipt of an end that was held up, and checks the rest of what it must say.
func (s *town) closedLate(t *testing.T, grant, code string, patience time.Duration) receipt {
	t.Helper()
	var r receipt
	s.waitFor(t, patience, func(ctx context.Context) error {
		g, err := s.sam.Grant(ctx, grant)
		if err != nil {
			return err
		}
		if g.Receipt == nil || len(g.Receipt.Clean) == 0 {
			return fmt.Errorf("the receipt is not whole: %+v", g.Receipt)
		}
		r = receipt{Receipt: *g.Receipt}
		return errors.Join(json.Unmarshal(r.Receipt.Cut, &r.Cut), json.Unmarshal(r.Receipt.Clean, &r.Clean))
	})
	if r.Code != code || r.Cut.Left != 0 || r.Clean.Proof == "" {
		t.Errorf("receipt: %+v", r)
	}
	if left := must(s.server.Leftovers(t.Context(), r.Account))(t); len(left) > 0 {
		t.Errorf("left in the database: %v", left)
	}
	return r
}

// waitFor waits until check has nothing to say against it.
func (s *town) waitFor(t *testing.T, patience time.Duration, check func(context.Context) error) {
	t.Helper()
	if err := harness.Eventually(t.Context(), patience, check); err != nil {
		t.Fatal(err)
	}
}

// sealed waits until the only session of a grant has ended and is sealed.
func (s *town) sealed(t *testing.T, grant string) api.Session {
	t.Helper()
	var one api.Session
	s.waitFor(t, 30*time.Second, func(ctx context.Context) error {
		sessions, err := s.sam.Sessions(ctx, grant)
		if err != nil {
			return err
		}
		if len(sessions) != 1 || sessions[0].Ended.IsZero() || sessions[0].Root == "" {
			return fmt.Errorf("sessions: %+v", sessions)
		}
		one = sessions[0]
		return nil
	})
	return one
}

// gone waits until no backend of a grant's account is left in the database.
func (s *town) gone(t *testing.T, grant string, patience time.Duration) {
	t.Helper()
	s.waitFor(t, patience, func(ctx context.Context) error {
		left, err := s.server.Ask(ctx, s.target, s.open(grant))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("backends: %q", left)
		}
		return err
	})
}
