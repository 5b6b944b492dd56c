package proxy

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/curfewdb/curfew/protocol"
)

// A peer that is gone without a word is found within a minute: the kernel is told to ask, on every connection.
func TestPeersAreAskedWhetherTheyLive(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan [4]int, 1)
	look := scripted{func(_ context.Context, conn net.Conn, _ protocol.Doorman) (protocol.Client, error) {
		var got [4]int
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				got[0], _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
				for i, option := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
					got[i+1], _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option)
				}
			})
		}
		if err != nil {
			t.Error(err)
		}
		asked <- got
		return nil, protocol.ErrHandled
	}}
	w := newWorld()
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serverFor(w).Serve(ctx, Listener{Listener: ln, Front: look, Engine: "fake"}) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := <-asked; got[0] == 0 || got[1]+got[2]*got[3] > 60 || got[1] == 0 || got[2] == 0 || got[3] == 0 {
		t.Errorf("keep-alive %d: asked after %d s, every %d s, %d times", got[0], got[1], got[2], got[3])
	}
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
