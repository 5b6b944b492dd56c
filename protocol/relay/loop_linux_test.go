//go:build amd64 || arm64

package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWhoIsOnALoop: plain sockets and TLS over them are, unless the observer waits for a disk.
func TestWhoIsOnALoop(t *testing.T) {
	each(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		r.write(r.client, "one\n")
		r.read(r.server, "one\n")
		if _, ok := (*r.relay.carrier.Load()).(*seat); ok != (m == onLoop || m == onLoopTLS) {
			t.Errorf("it is moved by %T", *r.relay.carrier.Load())
		}
	})
}

// TestHangHoldsUpNobody: an observer that hangs does not hold up the other sessions of its loop, nor what
// comes from the other side of its own. When it comes back the session goes on.
func TestHangHoldsUpNobody(t *testing.T) {
	var loops Loops
	for _, side := range []string{"client", "server"} {
		hung := newRigOn(t, &loops, onLoop, &lines{hangOut: make(chan struct{}), hanging: make(chan struct{})}, "", "")
		other := newRigOn(t, &loops, onLoop, &lines{}, "", "")
		if most() == 1 && hung.loop() != other.loop() {
			t.Fatal("they share no loop")
		}
		says, hears := hung.client, hung.server
		if side == "server" {
			says, hears = hears, says
		}
		hung.write(says, "hang\n")
		<-hung.obs.hanging
		for range 10 {
			other.write(other.client, "ping\n")
			other.read(other.server, "ping\n")
			other.write(other.server, "pong\n")
			other.read(other.client, "pong\n")
		}
		hung.write(hears, "meanwhile\n")
		hung.read(says, "meanwhile\n")
		hung.write(says, "behind\n")
		close(hung.obs.hangOut)
		hung.read(hears, "hang\nbehind\n")
		hung.write(hears, "answer\n")
		hung.read(says, "answer\n")
	}
}

// loop is the loop that a session is on.
func (r *rig) loop() *loop {
	r.t.Helper()
	for {
		if c := r.relay.carrier.Load(); c != nil {
			return (*c).(*seat).loop
		}
		runtime.Gosched()
	}
}

// TestNoBufferIsKept: whatever a session on a loop needed a buffer for, it has none once that is over.
func TestNoBufferIsKept(t *testing.T) {
	r := newRig(t, onLoop, &lines{}, "be", "fo") // read before
	r.write(r.client, "gun\n")
	r.read(r.server, "begun\n")
	r.write(r.server, "re\n")
	r.read(r.client, "fore\n")
	text := lot(4 << 20)
	for _, way := range [][2]net.Conn{{r.client, r.server}, {r.server, r.client}} { // what is not taken at once
		go io.WriteString(way[0], text)
		stuck(t, r.obs)
		r.read(way[1], text)
	}
	s := (*r.relay.carrier.Load()).(*seat)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.legs {
		if l := &s.legs[i]; l.held.buf != nil || l.buf != nil || l.parked != nil {
			t.Errorf("leg %d has kept a buffer", i)
		}
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestNothingIsLeft: a thousand sessions, ended in all the ways there are, leave no descriptor, no loop and
// no goroutine behind.
func TestNothingIsLeft(t *testing.T) {
	const sessions = 1000
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	var loops Loops
	var all sync.WaitGroup
	limit := make(chan struct{}, 250)
	for i := range sessions {
		limit <- struct{}{}
		all.Go(func() {
			defer func() { <-limit }()
			r := newRigOn(t, &loops, onLoop, &lines{broken: errOver}, "", "")
			line := fmt.Sprintf("session %d\n", i)
			for range 3 {
				r.client.Write([]byte(line))
				r.read(r.server, line)
			}
			switch i % 4 {
			case 0:
				r.cancel(errOver)
			case 1:
				r.client.Close()
			case 2:
				r.server.Close()
			case 3:
				r.client.Write([]byte("break\n"))
			}
			<-r.end
			client, server := r.relay.Conns()
			for _, c := range []net.Conn{client, server, r.client, r.server} {
				c.Close()
			}
		})
	}
	all.Wait()
	if len(loops.live) != 0 {
		t.Errorf("%d loops are left", len(loops.live))
	}
	for range 500 {
		if descriptors(t) <= before && runtime.NumGoroutine() <= goroutines {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	t.Errorf("%d descriptors where %d were, %d goroutines where %d were\n%s", descriptors(t), before,
		runtime.NumGoroutine(), goroutines, strings.ReplaceAll(string(stacks), "\n\n", "\n"))
}

// TestLoopsAreShared: there are as many loops as there may be, and their sessions are spread evenly.
func TestLoopsAreShared(t *testing.T) {
	var loops Loops
	on := map[*loop]int{}
	n := 4 * most()
	for range n {
		on[newRigOn(t, &loops, onLoop, &lines{}, "", "").loop()]++
	}
	if len(on) != most() {
		t.Errorf("there are %d loops", len(on))
	}
	for _, sessions := range on {
		if sessions != n/most() {
			t.Errorf("a loop has %d sessions of %d", sessions, n)
		}
	}
}

// TestTLSThatHasReadAhead: what TLS took from the socket before the loop had it is forwarded, though the socket has
// nothing to tell.
func TestTLSThatHasReadAhead(t *testing.T) {
	nearC, client := pair(t, onLoopTLS)
	nearS, server := pair(t, onLoopTLS)
	read := make([]byte, len("one\n"))
	for _, way := range [][2]net.Conn{{client, nearC}, {server, nearS}} {
		// Two records in one segment: with the first TLS has the second.
		below := &gathering{Conn: Bare(way[0])}
		way[0].(*tls.Conn).NetConn().(*under).Conn = below
		io.WriteString(way[0], "one\n")
		io.WriteString(way[0], "two\n")
		below.Conn.Write(below.all)
		way[0].(*tls.Conn).NetConn().(*under).Conn = below.Conn
		if _, err := io.ReadFull(way[1], read); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{t: t, obs: &lines{}, client: client, server: server, end: make(chan End, 1)}
	r.relay = New(nearC, nearS, read, read, &Loops{}, r.obs)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { r.end <- r.relay.Run(ctx) }()
	r.read(r.server, "one\ntwo\n")
	r.read(r.client, "one\ntwo\n")
	cancel(errOver)
	r.ended(Context, errOver)
}

// gathering keeps what is written.
type gathering struct {
	net.Conn
	all []byte
}

func (g *gathering) Write(b []byte) (int, error) {
	g.all = append(g.all, b...)
	return len(b), nil
}
