package enginetest

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// strangers: what comes in from people who don't prove who they are ends their connection and nothing else.
// That no goroutine is left of it is looked at when the whole suite is over.
func strangers(t *testing.T, s *suite) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	c, _ := g.dial(t)
	t.Run("garbage", func(t *testing.T) { s.garbage(t, n) })
	t.Run("half open", func(t *testing.T) { s.halfOpen(t) })
	t.Run("cut off at every byte", func(t *testing.T) { s.cutOff(t, n, g) })
	c.must("SELECT 1")
	if err := s.connectOnce(t, g); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func (s *suite) connectOnce(t *testing.T, g *grant) error {
	c, err := g.try(t, g.password)
	if err == nil {
		err = c.exec("SELECT 1")
		c.bye()
	}
	return err
}

func (s *suite) garbage(t *testing.T, n *node) {
	random := make([]byte, 1<<16)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	for name, b := range map[string][]byte{
		"nothing": nil, "a zero": {0}, "zeros": make([]byte, 4096), "ones": []byte(strings.Repeat("\xff", 4096)),
		"HTTP": []byte("GET / HTTP/1.1\r\nHost: db\r\n\r\n"), "TLS": {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"random": random, "short random": random[:37], "a long text": []byte(strings.Repeat("x", 1<<20)),
	} {
		conn, err := n.toNode(n.ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(b) // it may have been hung up on already
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 4096)
		total := 0
		for err == nil {
			var got int
			got, err = conn.Read(buf)
			total += got
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: not hung up on", name)
		}
		conn.Close()
		if total > 4096 {
			t.Errorf("%s: answered with %d bytes", name, total)
		}
		if err := wait(t, "it is turned away", n.turned); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// halfOpen: who says nothing, or stops half-way, is let go when the time for strangers is up.
func (s *suite) halfOpen(t *testing.T) {
	n := s.node(t, strangersHave(300*time.Millisecond))
	g := n.grant(t)
	length := s.handshake(t, g)
	for _, most := range []int{0, 1, length / 2, length - 1} {
		conn, err := n.toNode(n.ctx)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = s.connect(t, func(context.Context) (net.Conn, error) { return &stalled{wire{Conn: conn, most: most}}, nil }, g.spec.Grant, g.password)
		if err == nil {
			t.Errorf("in after %d bytes", most)
		}
		if err := wait(t, "it is turned away", n.turned); err == nil {
			t.Errorf("accepted after %d bytes", most)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("after %d bytes it took %s", most, took)
		}
	}
}

// stalled is a client that stops sending.
type stalled struct{ wire }

func (w *stalled) Write(b []byte) (int, error) {
	if left := w.most - w.sent; len(b) > left {
		if _, err := w.Conn.Write(b[:left]); err != nil {
			return 0, err
		}
		w.sent = w.most
		return len(b), nil // so it believes
	}
	n, err := w.Conn.Write(b)
	w.sent += n
	return n, err
}

// handshake gives how many bytes a driver sends until it is in.
func (s *suite) handshake(t *testing.T, g *grant) int {
	t.Helper()
	c, ss := g.dial(t)
	sent, _ := c.raw.counts()
	c.bye()
	wait(t, "the session ends", ss.done)
	return sent
}

// cutOff: a login that breaks off at any byte is that connection's misfortune.
func (s *suite) cutOff(t *testing.T, n *node, g *grant) {
	length := s.handshake(t, g)
	for most := range length {
		_, err := s.connect(t, func(ctx context.Context) (net.Conn, error) {
			conn, err := n.toNode(ctx)
			return &wire{Conn: conn, most: most}, err
		}, g.spec.Grant, g.password)
		if err == nil {
			t.Fatalf("in after %d of %d bytes", most, length)
		}
	}
	for range length {
		if err := wait(t, "it is turned away", n.turned); err == nil {
			t.Error("accepted")
		}
	}
}
