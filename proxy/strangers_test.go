package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// from is a connection that says it comes from somewhere.
type fromConn struct {
	net.Conn
	addr   net.Addr
	closed chan struct{}
	once   sync.Once
}

func (c *fromConn) RemoteAddr() net.Addr { return c.addr }
func (c *fromConn) Close() error         { c.once.Do(func() { close(c.closed) }); return nil }

// room is a place for strangers and who has been let in.
type room struct {
	*strangers
	lists   sync.Mutex // held to add to what follows; read it behind synctest.Wait
	in, out []*stranger
}

func newRoom(places, share, line int) *room {
	r := &room{}
	r.strangers = newStrangers(places, share, line, func(s *stranger) { r.add(&r.out, s) })
	return r
}

func (r *room) add(to *[]*stranger, s *stranger) {
	r.lists.Lock()
	defer r.lists.Unlock()
	*to = append(*to, s)
}

func (r *room) arrive(ip string) *stranger {
	addr := &net.TCPAddr{IP: net.ParseIP(ip), Port: 4000}
	s := newStranger(context.Background(), &fromConn{addr: addr, closed: make(chan struct{})}, func(s *stranger) { r.add(&r.in, s) })
	r.come(s)
	return s
}

func hungUpOn(s *stranger) bool {
	select {
	case <-s.conn.(*fromConn).closed:
		return errors.Is(context.Cause(s.ctx), errCrowded)
	default:
		return false
	}
}

// queued is how many wait. Timers change it on goroutines of their own.
func (r *room) queued() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

func (r *room) empty(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.crowds) != 0 || r.inside != 0 || r.waiting != 0 {
		t.Errorf("left: %d addresses, %d inside, %d waiting", len(r.crowds), r.inside, r.waiting)
	}
}

// An address has its share and no more; who comes beyond that waits, and gets the place of one that leaves,
// first come first served. Others notice nothing of it.
func TestAnAddressHasItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(8, 2, 100)
		var all []*stranger
		for range 5 {
			all = append(all, r.arrive("10.0.0.1"))
		}
		if len(r.in) != 2 {
			t.Fatalf("%d are in", len(r.in))
		}
		if other := r.arrive("10.0.0.2"); r.in[2] != other {
			t.Error("another address has to wait")
		}
		if !r.leave(all[1]) || len(r.in) != 4 || r.in[3] != all[2] {
			t.Error("who waited longest did not get the place")
		}
		for _, s := range []*stranger{all[0], all[2], all[3], all[4], r.in[2]} {
			if !r.leave(s) {
				t.Error("it had no place")
			}
		}
		r.empty(t)
		if len(r.out) != 0 {
			t.Errorf("%d were hung up on", len(r.out))
		}
	})
}

// When all places are taken, a newcomer has the oldest place of the address with the most, so that nobody is
// kept out by few addresses.
func TestAFullHouseMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(6, 3, 100)
		var a, b []*stranger
		for range 3 {
			a = append(a, r.arrive("10.0.0.1"))
		}
		for range 2 {
			b = append(b, r.arrive("10.0.0.2"))
		}
		c := r.arrive("10.0.0.3")
		d := r.arrive("10.0.0.4")
		if len(r.in) != 7 || r.in[6] != d || !hungUpOn(a[0]) {
			t.Fatalf("%d are in, the oldest of the heaviest is hung up on: %v", len(r.in), hungUpOn(a[0]))
		}
		if r.leave(a[0]) {
			t.Error("it still has its place")
		}
		if r.inside != 6 {
			t.Errorf("%d places are taken", r.inside)
		}
		// Who has as many as anybody waits like anybody.
		if r.arrive("10.0.0.1"); len(r.in) != 7 || r.queued() != 1 {
			t.Error("somebody was thrown out for one who has no fewer")
		}
		for _, s := range []*stranger{a[1], a[2], b[0], b[1], c, d} {
			if hungUpOn(s) {
				t.Error("one more was hung up on")
			}
			r.leave(s)
		}
		r.leave(r.in[7])
		r.empty(t)
	})
}

// The line is not endless, waiting is not either, and neither is one address's to fill.
func TestTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(2, 1, 3)
		first := r.arrive("10.0.0.1")
		var line []*stranger
		for range 4 {
			line = append(line, r.arrive("10.0.0.1"))
		}
		if !hungUpOn(line[3]) || hungUpOn(line[2]) || r.queued() != 3 {
			t.Errorf("beyond the line: %d wait", r.queued())
		}
		second := r.arrive("10.0.0.2")
		third := r.arrive("10.0.0.2")
		if !hungUpOn(line[2]) || hungUpOn(third) || r.queued() != 3 {
			t.Errorf("a full line of one address: %d wait", r.queued())
		}
		time.Sleep(acceptTimeout + time.Second)
		synctest.Wait()
		if r.queued() != 0 || !hungUpOn(line[0]) || !hungUpOn(third) || len(r.out) != 5 {
			t.Errorf("%d still wait, %d were hung up on", r.queued(), len(r.out))
		}
		r.leave(first)
		r.leave(second)
		r.empty(t)
	})
}

// A node that stops keeps nobody waiting.
func TestTheLineOfANodeThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(1, 1, 3)
		in, waits := r.arrive("10.0.0.1"), r.arrive("10.0.0.1")
		r.close()
		if !hungUpOn(waits) || hungUpOn(in) {
			t.Error("the waiting one waits on, or the other was hung up on")
		}
		if late := r.arrive("10.0.0.3"); !hungUpOn(late) {
			t.Error("somebody was let in")
		}
		r.leave(in)
		r.empty(t)
	})
}

func TestSource(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::9": "2001:db8:1:2::/64", "2001:db8:1:3::9": "2001:db8:1:3::/64",
	} {
		if got := source(&net.TCPAddr{IP: net.ParseIP(text), Port: 1}); got.String() != want {
			t.Errorf("%s is of %s, want %s", text, got, want)
		}
	}
	if got := source(&net.UnixAddr{Name: "x"}); got != (netip.Prefix{}) {
		t.Errorf("a local socket is of %s", got)
	}
}

// slowFront is a front that never hears enough; a word from the client lets it in.
type slowFront struct{}

func (slowFront) Accept(ctx context.Context, conn net.Conn, d protocol.Doorman) (protocol.Client, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return nil, err
	}
	return nil, protocol.ErrHandled
}

// pipes is a listener for net.Pipe, whose connections come from where they say.
type pipes struct{ c chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.c
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p.c); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

type pipeFrom struct {
	net.Conn
	addr net.Addr
}

func (c pipeFrom) RemoteAddr() net.Addr { return c.addr }

func (p pipes) dial(ip string) net.Conn {
	near, far := net.Pipe()
	p.c <- pipeFrom{near, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}
	return far
}

// A thousand that say nothing from one address keep nobody else waiting for a moment, and are all gone when
// their time is up.
func TestAFloodOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := serverFor(w)
		l := pipes{make(chan net.Conn)}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, Listener{Listener: l, Front: slowFront{}, Engine: "fake"}) }()
		var flood []net.Conn
		for range 1000 {
			flood = append(flood, l.dial("10.0.0.1"))
		}
		began := time.Now()
		good := l.dial("10.0.0.2")
		if _, err := good.Write([]byte{1}); err != nil {
			t.Error(err)
		}
		if _, err := good.Read(make([]byte, 1)); err == nil || time.Since(began) > 0 {
			t.Errorf("another address waited %s: %v", time.Since(began), err)
		}
		time.Sleep(2*acceptTimeout + time.Second)
		for i, c := range flood {
			if _, err := c.Write([]byte{1}); err == nil {
				t.Fatalf("stranger %d is still there", i)
			}
		}
		s.strangers.mu.Lock()
		if n := len(s.strangers.crowds); n != 0 {
			t.Errorf("%d addresses are remembered", n)
		}
		s.strangers.mu.Unlock()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		w.end(draining())
	})
}

// ask is a login: what the doorman gives, and how it ends.
func ask(t *testing.T, g *guesses, ip, user, password string) (let bool) {
	t.Helper()
	w := &book{}
	d := &doorman{Doorman: w, guesses: g, from: netip.PrefixFrom(netip.MustParseAddr(ip), 32)}
	v, err := d.Verifier(t.Context(), user)
	if err != nil || w.asked != 1 {
		t.Fatalf("the real doorman was asked %d times: %v", w.asked, err)
	}
	if string(v) == password {
		d.right()
		return true
	}
	d.wrong()
	return false
}

// book is a doorman who knows every name; the password is "right".
type book struct {
	protocol.Doorman // who is asked about tokens here by nobody
	asked            int
}

func (b *book) Verifier(context.Context, string) ([]byte, error) {
	b.asked++
	return []byte("right"), nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A guesser is not looked at after a few tries, and is again when time has passed; the rightful holder from
// elsewhere never notices.
func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(quiet())
		for range pairMost {
			ask(t, g, "10.0.0.1", "g1", "wrong")
		}
		if ask(t, g, "10.0.0.1", "g1", "right") {
			t.Error("still looked at after as many as may be wrong")
		}
		if !ask(t, g, "10.0.0.2", "g1", "right") {
			t.Error("the rightful holder is locked out from another address")
		}
		if !ask(t, g, "10.0.0.1", "g2", "right") {
			t.Error("somebody else is locked out from the guesser's address")
		}
		time.Sleep(pairLoses)
		if !ask(t, g, "10.0.0.1", "g1", "right") {
			t.Error("not looked at when time has passed")
		}
	})
}

// What is not looked at counts for nothing, so a client that goes on with an old password keeps itself out no
// longer than it takes, and keeps nobody else out.
func TestAProgramWithAnOldPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(quiet())
		for range 24 * 3600 {
			ask(t, g, "10.0.0.1", "old", "wrong")
			time.Sleep(time.Second)
		}
		if !ask(t, g, "10.0.0.1", "g1", "right") {
			t.Error("it keeps others out")
		}
		time.Sleep(pairLoses)
		if !ask(t, g, "10.0.0.1", "old", "right") {
			t.Error("it is kept out for more than it takes")
		}
	})
}

// Many names from one address: those that have logged in from there still can.
func TestGuessingManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(quiet())
		ask(t, g, "10.0.0.1", "regular", "right")
		for i := range addressMost {
			ask(t, g, "10.0.0.1", fmt.Sprint("name", i), "wrong")
		}
		if ask(t, g, "10.0.0.1", "g1", "right") {
			t.Error("any number of names can be tried")
		}
		if !ask(t, g, "10.0.0.1", "regular", "right") {
			t.Error("who has logged in from there is locked out")
		}
		time.Sleep(knownFor + time.Hour)
		for i := range addressMost {
			ask(t, g, "10.0.0.1", fmt.Sprint("name", i), "wrong")
		}
		if ask(t, g, "10.0.0.1", "regular", "right") {
			t.Error("a login counts for ever")
		}
	})
}

// One name from many addresses: each has one try, and the rightful holder's first is looked at.
func TestGuessingFromManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(quiet())
		for i := range nameMost {
			ask(t, g, fmt.Sprintf("10.0.1.%d", i), "g1", "wrong")
		}
		ask(t, g, "10.0.2.1", "g1", "wrong")
		if ask(t, g, "10.0.2.1", "g1", "right") {
			t.Error("a second try of an address was looked at")
		}
		if !ask(t, g, "10.0.2.2", "g1", "right") {
			t.Error("the rightful holder is locked out")
		}
	})
}

// Whatever strangers do, what is remembered of them is bounded, and a guesser can't be forgotten by it.
func TestGuessesAreBounded(t *testing.T) {
	g := newGuesses(quiet())
	for range pairMost {
		ask(t, g, "10.0.0.1", "g1", "wrong")
	}
	for i := range 3 * tallyMost {
		ip := fmt.Sprintf("10.%d.%d.%d", 1+i>>16, i>>8&255, i&255)
		ask(t, g, ip, fmt.Sprint("name", i), "wrong")
		ask(t, g, ip, fmt.Sprint("holder", i), "right")
	}
	if a, b, c, d := len(g.pairs.marks), len(g.from.marks), len(g.names.marks), len(g.known); max(a, b, c, d) > tallyMost {
		t.Errorf("%d pairs, %d addresses, %d names, %d known", a, b, c, d)
	}
	if ask(t, g, "10.0.0.1", "g1", "right") {
		t.Error("the guesser was forgotten")
	}
}
