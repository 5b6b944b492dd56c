package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// lot is n bytes of lines that are all different.
func lot(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(strings.Repeat(string(rune('a'+i%26)), 10+i%990))
		b.WriteByte('\n')
	}
	return b.String()
}

// readAll reads what a far end is sent until it hangs up or says nothing more for a while.
func readAll(c net.Conn) string {
	var all bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			return all.String()
		}
	}
}

// TestSlowReader: who reads nothing makes the other side wait, in little memory, and gets every byte in
// the end.
func TestSlowReader(t *testing.T) {
	text := lot(4 << 20)
	for _, to := range []string{"client", "server"} {
		t.Run(to, func(t *testing.T) {
			sockets(t, func(t *testing.T, m mode) {
				t.Parallel()
				r := newRig(t, m, &lines{}, "", "")
				from, at := r.client, r.server
				if to == "client" {
					from, at = r.server, r.client
				}
				go io.WriteString(from, text)
				stuck(t, r.obs)
				out, in := r.obs.seen()
				if n := len(out) + len(in); n > 2<<20 {
					t.Errorf("%d bytes were taken in that nobody reads", n)
				}
				r.read(at, text)
				if to == "client" {
					r.write(r.client, "still here\n")
					r.read(r.server, "still here\n")
				}
			})
		})
	}
}

// TestBothWaysAtOnce: bytes arrive in order and whole, however they are cut and whoever reads how fast.
func TestBothWaysAtOnce(t *testing.T) {
	text := lot(256 << 10)
	each(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		r.client.SetDeadline(time.Now().Add(time.Minute))
		r.server.SetDeadline(time.Now().Add(time.Minute))
		var all sync.WaitGroup
		for i, way := range [][2]net.Conn{{r.client, r.server}, {r.server, r.client}} {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			all.Go(func() {
				for rest := text; rest != ""; {
					n := min(1+random.IntN(1<<random.IntN(17)), len(rest))
					io.WriteString(way[0], rest[:n])
					rest = rest[n:]
				}
			})
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 8))
				for rest := text; rest != ""; {
					b := make([]byte, min(1+random.IntN(1<<random.IntN(17)), len(rest)))
					if _, err := io.ReadFull(way[1], b); err != nil || string(b) != rest[:len(b)] {
						t.Errorf("read something else %d bytes before the end: %v", len(rest), err)
						way[0].Close()
						return
					}
					rest = rest[len(b):]
				}
			})
		}
		all.Wait()
		if out, in := r.obs.seen(); out != text || in != text {
			t.Errorf("observed %d and %d bytes", len(out), len(in))
		}
		all.Go(func() { // a chunk is counted when it has been forwarded
			for until := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				from, to := r.relay.Moved()
				if n := uint64(len(text)); from == n && to == n {
					return
				}
				if time.Now().After(until) {
					t.Errorf("moved %d and %d bytes", from, to)
					return
				}
			}
		})
		all.Wait()
	})
}

// TestRemainder: what a side has not taken when ctx ends does not go to the server any more; the client
// gets it before its last words, for it has its beginning.
func TestRemainder(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		sockets(t, func(t *testing.T, m mode) {
			r := newRig(t, m, &lines{}, "", "")
			text := lot(4 << 20)
			go io.WriteString(r.client, text)
			stuck(t, r.obs)
			r.cancel(errOver)
			r.ended(Context, errOver)
			got := readAll(r.server)
			out, _ := r.obs.seen()
			if len(got) >= len(out) || !strings.HasPrefix(text, got) {
				t.Errorf("the server got %d bytes of %d that were observed", len(got), len(out))
			}
		})
	})
	t.Run("client", func(t *testing.T) {
		sockets(t, func(t *testing.T, m mode) {
			r := newRig(t, m, &lines{}, "", "")
			text := lot(4 << 20)
			go io.WriteString(r.server, text)
			stuck(t, r.obs)
			r.cancel(errOver)
			r.ended(Context, errOver)
			told := make(chan bool, 1)
			go func() { told <- r.relay.Tell([]byte("farewell\n"), 5*time.Second) }()
			got := readAll(r.client)
			_, in := r.obs.seen()
			body, ok := strings.CutSuffix(got, "farewell\n")
			if !<-told || !ok {
				t.Fatal("the client was not told")
			}
			if !strings.HasPrefix(in, body) || !strings.HasSuffix(body, "\n") {
				t.Errorf("the client got %d bytes of %d that were observed", len(body), len(in))
			}
		})
	})
}

// TestServerHangsUpAmidAMessage: a server that takes no more has said why; the client reads that.
func TestServerHangsUpAmidAMessage(t *testing.T) {
	sockets(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		go io.WriteString(r.client, lot(8<<20))
		stuck(t, r.obs)
		r.write(r.server, "too much for me\n")
		r.server.Close() // with much unread: a reset
		r.read(r.client, "too much for me\n")
		r.ended(Server, nil)
	})
	for _, words := range []string{"", "too much for me\n"} {
		sockets(t, func(t *testing.T, m mode) {
			nearC, farC := pair(t, m)
			nearS, farS := pair(t, m)
			halfClose(nearS) // writing fails, and reading waits
			r := &rig{t: t, obs: &lines{waits: m == onGoroutines}, client: farC, end: make(chan End, 1)}
			r.relay = New(nearC, nearS, nil, nil, &Loops{}, r.obs)
			go func() { r.end <- r.relay.Run(t.Context()) }()
			r.write(r.client, "anything\n")
			for out := ""; out == ""; out, _ = r.obs.seen() {
				time.Sleep(time.Millisecond)
			}
			if words != "" {
				r.write(farS, words)
				r.read(r.client, words)
			}
			r.ended(Server, nil)
		})
	}
}

// TestHalfClose: a client that has said all it will say is answered to the end if it said goodbye, and has
// left if it did not.
func TestHalfClose(t *testing.T) {
	sockets(t, func(t *testing.T, m mode) {
		text := lot(1 << 20)
		r := newRig(t, m, &lines{}, "", "")
		r.write(r.client, "bye\n")
		halfClose(r.client)
		r.read(r.server, "bye\n")
		go func() {
			io.WriteString(r.server, text)
			r.server.Close()
		}()
		r.read(r.client, text)
		r.ended(Server, io.EOF)

		rude := newRig(t, m, &lines{}, "", "")
		rude.write(rude.client, "unfinished\n")
		halfClose(rude.client)
		rude.read(rude.server, "unfinished\n")
		rude.ended(Client, io.EOF)
	})
}

// states are where a session may be when it is ended. Each gets the session there; what is returned lets
// go of an observer that hangs.
func states() map[string]func(t *testing.T, r *rig) (release func()) {
	none := func() {}
	return map[string]func(t *testing.T, r *rig) func(){
		"idle": func(t *testing.T, r *rig) func() { return none },
		"amid a message of the client": func(t *testing.T, r *rig) func() {
			r.write(r.client, "whole\nhal")
			r.read(r.server, "whole\n")
			return none
		},
		"amid a message of the server": func(t *testing.T, r *rig) func() {
			r.write(r.server, "whole\nhal")
			r.read(r.client, "whole\n")
			return none
		},
		"the server reads nothing": func(t *testing.T, r *rig) func() {
			go io.WriteString(r.client, lot(4<<20))
			stuck(t, r.obs)
			return none
		},
		"the client reads nothing": func(t *testing.T, r *rig) func() {
			go io.WriteString(r.server, lot(4<<20))
			stuck(t, r.obs)
			return none
		},
		"too many requests": func(t *testing.T, r *rig) func() {
			r.obs.busy.Store(2)
			r.write(r.client, "request\n")
			for r.obs.busy.Load() > 0 {
				time.Sleep(time.Millisecond)
			}
			r.obs.busy.Store(1 << 20)
			return none
		},
		"the client has gone in order": func(t *testing.T, r *rig) func() {
			r.write(r.client, "bye\n")
			r.read(r.server, "bye\n")
			r.client.Close()
			return none
		},
		"what the client says hangs": func(t *testing.T, r *rig) func() {
			r.write(r.client, "hang\n")
			<-r.obs.hanging
			return func() { close(r.obs.hangOut) }
		},
		"what the server says hangs": func(t *testing.T, r *rig) func() {
			r.write(r.server, "hang\n")
			<-r.obs.hanging
			return func() { close(r.obs.hangOut) }
		},
	}
}

// TestEndInEveryState: wherever a session is, the end of ctx ends it at once, the server gets nothing more,
// and what it still says is observed.
func TestEndInEveryState(t *testing.T) {
	for name, reach := range states() {
		t.Run(name, func(t *testing.T) {
			sockets(t, func(t *testing.T, m mode) {
				t.Parallel()
				r := newRig(t, m, &lines{hangOut: make(chan struct{}), hanging: make(chan struct{})}, "", "")
				release := reach(t, r)
				began := time.Now()
				r.cancel(errOver)
				r.ended(Context, errOver)
				if took := time.Since(began); took > time.Second {
					t.Errorf("that took %s", took)
				}
				before := readAll(r.server)
				go io.WriteString(r.client, "too late\n") // it may wait behind what nobody reads
				go func() {
					io.WriteString(r.server, "\nlate\n")
					halfClose(r.server)
				}()
				if strings.HasPrefix(name, "what the server") {
					if r.relay.Drain(10*time.Millisecond) == nil {
						t.Error("it was drained while the observer hangs")
					}
				}
				r.relay.Tell([]byte("farewell\n"), 50*time.Millisecond) // what is not taken by then is given up
				release()
				if err := r.relay.Drain(5 * time.Second); err != nil {
					t.Error(err)
				}
				if _, in := r.obs.seen(); !strings.HasSuffix(in, "\nlate\n") && in != "late\n" {
					t.Errorf("observed %d bytes, and not the last", len(in))
				}
				if after := readAll(r.server); after != "" {
					t.Errorf("the server got %d bytes and then %q", len(before), after)
				}
			})
		})
	}
}

// TestConnsComeBack: after Run both connections are there to be used and closed.
func TestConnsComeBack(t *testing.T) {
	each(t, func(t *testing.T, m mode) {
		r := newRig(t, m, &lines{}, "", "")
		r.write(r.client, "one\n")
		r.read(r.server, "one\n")
		r.cancel(errOver)
		r.ended(Context, errOver)
		client, server := r.relay.Conns()
		for far, near := range map[net.Conn]net.Conn{r.client: client, r.server: server} {
			if near.RemoteAddr().String() != far.LocalAddr().String() {
				t.Errorf("it is connected with %s, not %s", near.RemoteAddr(), far.LocalAddr())
			}
			near.Close()
			if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Error("it is not closed:", err)
			}
		}
	})
}

// passing is an observer of a protocol without messages, which allocates nothing.
type passing struct{ waits bool }

func (passing) Outbound(b []byte) (int, []byte, error) { return len(b), b, nil }
func (passing) Inbound(b []byte) (int, []byte, error)  { return len(b), b, nil }
func (passing) Whole() bool                            { return true }
func (passing) Goodbye() bool                          { return false }
func (p passing) Waits() bool                          { return p.waits }

// TestNoAllocations: nothing is allocated for a message, but for a few bytes by crypto/tls itself, at both ends of
// each leg: for who waits for a record.
func TestNoAllocations(t *testing.T) {
	if raced {
		t.Skip("a pool forgets things on purpose under the race detector")
	}
	sockets(t, func(t *testing.T, m mode) {
		nearC, client := pair(t, m)
		nearS, server := pair(t, m)
		r := New(nearC, nearS, nil, nil, &Loops{}, passing{waits: m == onGoroutines})
		done := make(chan End, 1)
		go func() { done <- r.Run(t.Context()) }()
		ask, answer := []byte("a question\n"), bytes.Repeat([]byte("an answer\n"), 100)
		buf := make([]byte, len(answer))
		round := func() {
			client.Write(ask)
			io.ReadFull(server, buf[:len(ask)])
			server.Write(answer)
			if _, err := io.ReadFull(client, buf); err != nil {
				t.Error(err)
			}
		}
		round()
		most := 0.0
		if m == onLoopTLS {
			most = 8
		}
		if n := testing.AllocsPerRun(500, round); n > most {
			t.Errorf("%v allocations a round", n)
		}
		client.Close()
		<-done
	})
}
