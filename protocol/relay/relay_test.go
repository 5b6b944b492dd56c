package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is an observer of a protocol whose messages are lines.
type lines struct {
	mu       sync.Mutex
	out, in  []string
	busy     atomic.Int32 // this many calls of Outbound say ErrBusy
	bye      atomic.Bool
	hangOut  chan struct{} // when set, "hang" waits for it
	hanging  chan struct{} // told when it does
	broken   error         // Outbound's answer to "break"
	stubborn bool          // deals with nothing
	waits    bool          // asks for goroutines of its own
}

func (l *lines) Outbound(b []byte) (int, []byte, error) {
	if l.stubborn {
		return 0, nil, nil
	}
	n := bytes.LastIndexByte(b, '\n') + 1
	if l.busy.Load() > 0 && n > 0 {
		l.busy.Add(-1)
		return 0, nil, ErrBusy
	}
	text := string(b[:n])
	if l.hangOut != nil && strings.Contains(text, "hang") {
		close(l.hanging)
		<-l.hangOut
	}
	if strings.Contains(text, "break") {
		return n, nil, l.broken
	}
	if strings.Contains(text, "bye") {
		l.bye.Store(true)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = append(l.out, text)
	return n, b[:n], nil
}

func (l *lines) Inbound(b []byte) (int, []byte, error) {
	n := bytes.LastIndexByte(b, '\n') + 1
	if n == 0 && len(b) == BufferSize {
		n = len(b)
	}
	text := string(b[:n])
	if l.hangOut != nil && strings.Contains(text, "hang") {
		close(l.hanging)
		<-l.hangOut
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in = append(l.in, text)
	return n, b[:n], nil
}

func (l *lines) Whole() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.in[len(l.in)-1]
	return last == "" || last[len(last)-1] == '\n'
}

func (l *lines) Goodbye() bool { return l.bye.Load() }

func (l *lines) Waits() bool { return l.waits }

func (l *lines) seen() (out, in string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.out, ""), strings.Join(l.in, "")
}

// rig is a relay between two connections whose far ends the test holds.
type rig struct {
	t              testing.TB
	relay          *Relay
	obs            *lines
	client, server net.Conn // the far ends
	cancel         context.CancelCauseFunc
	end            chan End
}

var errOver = errors.New("over")

// pair gives both ends of a connection.
func pair(t testing.TB, m mode) (near, far net.Conn) {
	t.Helper()
	if m == overPipes {
		near, far = net.Pipe()
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		if near, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		for _, end := range []net.Conn{near, far} { // so that little is on its way where nobody reads
			end.(*net.TCPConn).SetReadBuffer(128 << 10)
			end.(*net.TCPConn).SetWriteBuffer(128 << 10)
		}
	}
	if m == onLoopTLS {
		near, far = secured(t, near, far)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	far.SetDeadline(time.Now().Add(10 * time.Second))
	return near, far
}

// secured puts TLS over both ends.
func secured(t testing.TB, near, far net.Conn) (net.Conn, net.Conn) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := tls.Server(Under(near, nil), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
	client := tls.Client(Under(far, nil), &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- client.HandshakeContext(t.Context()) }()
	if err := errors.Join(server.HandshakeContext(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// halfClose hangs up on one direction, below TLS if there is any.
func halfClose(conn net.Conn) { Bare(conn).(*net.TCPConn).CloseWrite() }

func newRig(t testing.TB, m mode, obs *lines, fromClient, fromServer string) *rig {
	t.Helper()
	return newRigOn(t, &Loops{}, m, obs, fromClient, fromServer)
}

// newRigOn is the same for sessions that share what sessions share.
func newRigOn(t testing.TB, loops *Loops, m mode, obs *lines, fromClient, fromServer string) *rig {
	t.Helper()
	obs.waits = m == onGoroutines
	r := &rig{t: t, obs: obs, end: make(chan End, 1)}
	nearC, farC := pair(t, m)
	nearS, farS := pair(t, m)
	r.client, r.server = farC, farS
	ctx, cancel := context.WithCancelCause(t.Context())
	r.cancel = cancel
	r.relay = New(nearC, nearS, []byte(fromClient), []byte(fromServer), loops, obs)
	over := make(chan struct{})
	go func() {
		defer close(over)
		r.end <- r.relay.Run(ctx)
	}()
	t.Cleanup(func() { // until it is over the connections are its own
		cancel(errOver)
		<-over
	})
	return r
}

func (r *rig) read(c net.Conn, want string) {
	r.t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		r.t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func (r *rig) write(c net.Conn, s string) {
	r.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) ended(side Side, err error) {
	r.t.Helper()
	select {
	case end := <-r.end:
		if end.Side != side || err != nil && !errors.Is(end.Err, err) {
			r.t.Fatalf("ended by %s: %v", end.Side, end.Err)
		}
	case <-time.After(10 * time.Second):
		r.t.Fatal("it does not end")
	}
}

// mode is how a session's bytes are moved.
type mode string

const (
	onLoop       mode = "loop"
	onLoopTLS    mode = "loop, TLS" // on both legs; elsewhere than on Linux it is on goroutines, too
	onGoroutines mode = "goroutines"
	overPipes    mode = "pipes" // which can't be waited on without a buffer
)

// each runs a test in every mode.
func each(t *testing.T, f func(t *testing.T, m mode)) {
	for _, m := range []mode{onLoop, onLoopTLS, onGoroutines, overPipes} {
		t.Run(string(m), func(t *testing.T) { f(t, m) })
	}
}

// sockets runs a test in those modes whose connections hold some bytes by themselves.
func sockets(t *testing.T, f func(t *testing.T, m mode)) {
	for _, m := range []mode{onLoop, onLoopTLS, onGoroutines} {
		t.Run(string(m), func(t *testing.T) { f(t, m) })
	}
}

func TestForward(t *testing.T) {
	each(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "early\nhal", "greeting\n")
		r.read(r.server, "early\n")
		r.read(r.client, "greeting\n")
		r.write(r.client, "f\n")
		r.read(r.server, "half\n")
		long := strings.Repeat("0123456789", 20_000) + "\n"
		go io.WriteString(r.server, long)
		r.read(r.client, long)
		r.server.Close()
		r.ended(Server, nil)
		if out, in := r.obs.seen(); out != "early\nhalf\n" || in != "greeting\n"+long {
			t.Errorf("observed %q and %d bytes", out, len(in))
		}
	})
}

// TestStop: when ctx ends nothing is forwarded any more; the client can be told, between two messages.
func TestStop(t *testing.T) {
	each(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		r.write(r.client, "one\n")
		r.read(r.server, "one\n")
		r.cancel(errOver)
		r.ended(Context, errOver)
		go r.relay.Tell([]byte("farewell\n"), time.Second)
		r.read(r.client, "farewell\n")
		if r.relay.Tell([]byte("again\n"), 50*time.Millisecond) {
			t.Error("last words were said twice")
		}
		go func() {
			io.WriteString(r.server, "late\n")
			r.server.Close()
		}()
		if err := r.relay.Drain(5 * time.Second); err != nil {
			t.Error(err)
		}
		if _, in := r.obs.seen(); in != "late\n" {
			t.Errorf("observed %q", in)
		}
		r.client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, _ := r.client.Read(make([]byte, 10)); n > 0 {
			t.Error("something was forwarded")
		}
	})
}

// TestHungObserver: an observer that hangs holds nobody up, and forwards nothing when it comes back.
func TestHungObserver(t *testing.T) {
	sockets(t, func(t *testing.T, m mode) {
		obs := &lines{hangOut: make(chan struct{}), hanging: make(chan struct{})}
		r := newRig(t, m, obs, "", "")
		r.write(r.client, "hang\n")
		<-obs.hanging
		r.cancel(errOver)
		r.ended(Context, errOver)
		if !r.relay.Tell([]byte("farewell\n"), time.Second) {
			t.Error("the client was not told")
		}
		close(obs.hangOut)
		r.server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, _ := r.server.Read(make([]byte, 10)); n > 0 {
			t.Error("something was forwarded after Run had returned")
		}
	})
}

// TestDeafServer: neither does a server that reads nothing.
func TestDeafServer(t *testing.T) {
	each(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		go func() {
			for {
				if _, err := io.WriteString(r.client, strings.Repeat("x", 1000)+"\n"); err != nil {
					return
				}
			}
		}()
		stuck(t, r.obs)
		r.cancel(errOver)
		r.ended(Context, errOver)
		r.client.Close()
	})
}

// stuck waits until nothing moves any more.
func stuck(t *testing.T, obs *lines) {
	t.Helper()
	last, since := 0, time.Now()
	for time.Since(since) < 100*time.Millisecond {
		out, in := obs.seen()
		if n := len(out) + len(in); n != last || n == 0 {
			last, since = n, time.Now()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestDeafClient: a client that reads nothing can't be told, and is given up within the time.
func TestDeafClient(t *testing.T) {
	sockets(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		go func() {
			for {
				if _, err := io.WriteString(r.server, strings.Repeat("x", 1000)+"\n"); err != nil {
					return
				}
			}
		}()
		stuck(t, r.obs)
		r.cancel(errOver)
		r.ended(Context, errOver)
		began := time.Now()
		if r.relay.Tell(bytes.Repeat([]byte("farewell\n"), 1<<17), 100*time.Millisecond) { // more than the kernel takes
			t.Error("it was told")
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("that took %s", took)
		}
		r.server.Close()
	})
}

// TestBusy: what can't be taken now is taken after the server has answered.
func TestBusy(t *testing.T) {
	sockets(t, func(t *testing.T, m mode) {
		obs := &lines{}
		obs.busy.Store(3)
		r := newRig(t, m, obs, "", "")
		r.write(r.client, "request\n")
		for obs.busy.Load() > 1 {
			time.Sleep(time.Millisecond) // it tries once more by itself
		}
		for obs.busy.Load() > 0 {
			r.write(r.server, "answer\n")
			r.read(r.client, "answer\n")
		}
		go func() {
			for range 3 {
				io.WriteString(r.server, "answer\n")
			}
		}()
		r.read(r.server, "request\n")
		obs.busy.Store(1000)
		r.write(r.client, "request\n")
		r.cancel(errOver)
		r.ended(Context, errOver)
	})
}

func TestEnds(t *testing.T) {
	sockets(t, func(t *testing.T, m mode) {
		t.Run("client vanishes", func(t *testing.T) {
			r := newRig(t, m, &lines{}, "", "")
			r.client.Close()
			r.ended(Client, io.EOF)
		})
		t.Run("goodbye", func(t *testing.T) {
			r := newRig(t, m, &lines{}, "", "")
			r.write(r.client, "bye\n")
			r.client.Close()
			r.read(r.server, "bye\n")
			r.write(r.server, strings.Repeat("the rest\n", 20_000)) // it is observed, though nobody reads it
			r.server.Close()
			r.ended(Server, io.EOF)
			if _, in := r.obs.seen(); len(in) != 20_000*len("the rest\n") {
				t.Errorf("observed %d bytes", len(in))
			}
		})
		t.Run("observer fails", func(t *testing.T) {
			r := newRig(t, m, &lines{broken: errOver}, "", "")
			r.write(r.client, "fine\nbreak\n")
			r.ended(Watcher, errOver)
			r.server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, _ := r.server.Read(make([]byte, 10)); n > 0 {
				t.Error("something was forwarded")
			}
		})
		t.Run("observer makes no progress", func(t *testing.T) {
			r := newRig(t, m, &lines{stubborn: true}, "", "")
			go io.WriteString(r.client, strings.Repeat("x", 2*BufferSize))
			r.ended(Watcher, errNoProgress)
		})
	})
}

// TestNotify: a message beside the stream comes between two messages of it.
func TestNotify(t *testing.T) {
	sockets(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		r.relay.Notify([]byte("<idle>\n"))
		r.read(r.client, "<idle>\n")
		half := strings.Repeat("x", BufferSize)
		r.write(r.server, half)
		r.read(r.client, half)
		r.relay.Notify([]byte("<note>\n"))
		r.write(r.server, "x\n")
		r.read(r.client, "x\n<note>\n")
	})
}

// TestIdleHoldsNoBuffer: a session that has nothing in flight has no buffer.
func TestIdleHoldsNoBuffer(t *testing.T) {
	each(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		for range 3 {
			r.write(r.client, "ping\n")
			r.read(r.server, "ping\n")
			r.write(r.server, "pong\n")
			r.read(r.client, "pong\n")
		}
		r.cancel(errOver)
		r.ended(Context, errOver)
		if err := r.relay.Drain(time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) { // whoever read has stopped
			t.Fatal(err)
		}
		if r.relay.in.buf != nil {
			t.Error("a buffer is held")
		}
	})
}

// tardy is a context that has ended before anybody was woken by it.
type tardy struct {
	context.Context
	over atomic.Bool
}

func (c *tardy) Err() error {
	if c.over.Load() {
		return context.Canceled
	}
	return c.Context.Err()
}

// TestOverBeforeItIsHeard: what either side says after the end is not forwarded, even if the goroutine
// that stops the loops has not run yet. Else a client would read the database's word for being cut off,
// and not the reason.
func TestOverBeforeItIsHeard(t *testing.T) {
	each(t, func(t *testing.T, m mode) {
		for _, says := range []Side{Client, Server} {
			nearC, farC := pair(t, m)
			nearS, farS := pair(t, m)
			base, hear := context.WithCancel(t.Context())
			ctx := &tardy{Context: base}
			r := &rig{t: t, obs: &lines{waits: m == onGoroutines}, client: farC, server: farS, end: make(chan End, 1)}
			r.relay = New(nearC, nearS, nil, nil, &Loops{}, r.obs)
			go func() { r.end <- r.relay.Run(ctx) }()
			from, to := r.server, r.client
			if says == Client {
				from, to = r.client, r.server
			}
			r.write(from, "before\n")
			r.read(to, "before\n")
			ctx.over.Store(true)
			r.write(from, "too late\n")
			for out, in := "", ""; !strings.Contains(out+in, "too late"); out, in = r.obs.seen() {
				time.Sleep(time.Millisecond)
			}
			to.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, _ := to.Read(make([]byte, 10)); n > 0 {
				t.Error("something was forwarded")
			}
			hear()
			r.ended(Context, nil)
			go r.relay.Tell([]byte("why\n"), time.Second)
			r.client.SetReadDeadline(time.Now().Add(10 * time.Second))
			r.read(r.client, "why\n")
		}
	})
}
