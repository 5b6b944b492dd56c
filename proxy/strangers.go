package proxy

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// Connections that have not proved who they are cost a place each, and there are only so many. A place
// is had for acceptTimeout at most. What keeps one address from having them all:
//
//   - an address has at most its share of them; who comes beyond that waits in the address's own line,
//     which costs a descriptor and nothing else;
//   - when all are taken, whoever comes from an address with fewer takes the place of the one that has
//     been in longest of the address with the most.
//
// An address is one of IPv4, or an IPv6 /64, which one customer has whole.

// errCrowded ends a stranger whose place somebody else is given.
var errCrowded = &protocol.Refusal{Code: protocol.RefuseLimit, Public: "too many connections that have not logged in"}

// stranger is one connection in mid-handshake, or waiting for that to begin.
type stranger struct {
	conn   net.Conn
	from   netip.Prefix
	begin  func(*stranger) // called once, when there is a place
	ctx    context.Context // ends when the place is somebody else's
	cancel context.CancelCauseFunc
	bored  *time.Timer // ends the waiting
}

func newStranger(ctx context.Context, conn net.Conn, begin func(*stranger)) *stranger {
	s := &stranger{conn: conn, from: source(conn.RemoteAddr()), begin: begin}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// away hangs up on a stranger, wherever the conversation is.
func (s *stranger) away() {
	s.cancel(errCrowded)
	s.conn.Close()
}

// crowd is who is there from one address, in the order in which they came.
type crowd struct {
	inside, waiting []*stranger
}

// strangers gives out the places.
type strangers struct {
	places, share, line int
	hungUp              func(*stranger) // told of those that never had a place

	mu      sync.Mutex // guards what follows
	crowds  map[netip.Prefix]*crowd
	inside  int
	waiting int
	closed  bool
}

// newStrangers: no more than places at once, share of them for one address, line waiting for one.
func newStrangers(places, share, line int, hungUp func(*stranger)) *strangers {
	return &strangers{places: places, share: share, line: line, hungUp: hungUp, crowds: map[netip.Prefix]*crowd{}}
}

// come gives a stranger a place, or has it wait for one, or hangs up on it. It never waits itself.
func (s *strangers) come(st *stranger) {
	s.mu.Lock()
	c := s.crowds[st.from]
	if c == nil {
		c = &crowd{}
		s.crowds[st.from] = c
	}
	var evicted, out *stranger
	enter := false
	switch {
	case s.closed:
		out = st
	case len(c.inside) < s.share && s.inside < s.places:
		enter = true
	case len(c.inside) < s.share && s.heaviest(insideOf) > len(c.inside)+1:
		evicted, enter = s.evict(), true
	default:
		out = s.queue(c, st)
	}
	if enter {
		s.enter(c, st)
	}
	s.tidy(st.from)
	s.mu.Unlock()
	if evicted != nil {
		evicted.away()
	}
	if out != nil {
		out.away()
		s.hungUp(out)
	}
	if enter {
		st.begin(st)
	}
}

func insideOf(c *crowd) int  { return len(c.inside) }
func waitingOf(c *crowd) int { return len(c.waiting) }

// heaviest is the most that any address has.
func (s *strangers) heaviest(of func(*crowd) int) int {
	most := 0
	for _, c := range s.crowds {
		most = max(most, of(c))
	}
	return most
}

// pick gives an address that has n.
func (s *strangers) pick(of func(*crowd) int, n int) *crowd {
	for _, c := range s.crowds {
		if of(c) == n {
			return c
		}
	}
	return nil
}

func (s *strangers) enter(c *crowd, st *stranger) {
	c.inside = append(c.inside, st)
	s.inside++
}

// evict takes the place of the one that has been in longest of the address with the most.
func (s *strangers) evict() *stranger {
	c := s.pick(insideOf, s.heaviest(insideOf))
	out := c.inside[0]
	c.inside = slices.Delete(c.inside, 0, 1)
	s.inside--
	s.tidy(out.from)
	return out
}

// queue has a stranger wait in its address's line. When the line is full the last one of the longest is
// sent away, which may be this one.
func (s *strangers) queue(c *crowd, st *stranger) (out *stranger) {
	if s.waiting >= s.line {
		longest := s.heaviest(waitingOf)
		if longest <= len(c.waiting)+1 {
			return st
		}
		other := s.pick(waitingOf, longest)
		out = other.waiting[longest-1]
		s.unqueue(out)
	}
	c.waiting = append(c.waiting, st)
	s.waiting++
	st.bored = time.AfterFunc(acceptTimeout, func() { s.giveUp(st) })
	return out
}

// unqueue reports whether a stranger was waiting and does no more.
func (s *strangers) unqueue(st *stranger) bool {
	c := s.crowds[st.from]
	if c == nil {
		return false
	}
	i := slices.Index(c.waiting, st)
	if i < 0 {
		return false
	}
	st.bored.Stop()
	c.waiting = slices.Delete(c.waiting, i, i+1)
	s.waiting--
	s.tidy(st.from)
	return true
}

// giveUp ends a stranger that has waited as long as it would have had for the login itself.
func (s *strangers) giveUp(st *stranger) {
	s.mu.Lock()
	waited := s.unqueue(st)
	s.mu.Unlock()
	if waited {
		st.away()
		s.hungUp(st)
	}
}

// leave gives a place back, and to whoever waits for it. It reports false when somebody else was given the
// place already, and the connection is of no use.
func (s *strangers) leave(st *stranger) bool {
	defer st.cancel(nil)
	s.mu.Lock()
	i := -1
	if c := s.crowds[st.from]; c != nil {
		if i = slices.Index(c.inside, st); i >= 0 {
			c.inside = slices.Delete(c.inside, i, i+1)
			s.inside--
			s.tidy(st.from)
		}
	}
	next := s.next()
	s.mu.Unlock()
	if next != nil {
		next.begin(next)
	}
	return i >= 0
}

// next lets in who has waited longest at the address with the fewest inside.
func (s *strangers) next() *stranger {
	if s.closed || s.inside >= s.places {
		return nil
	}
	var best *crowd
	for _, c := range s.crowds {
		if len(c.waiting) > 0 && len(c.inside) < s.share && (best == nil || len(c.inside) < len(best.inside)) {
			best = c
		}
	}
	if best == nil {
		return nil
	}
	st := best.waiting[0]
	s.enter(best, st)
	s.unqueue(st)
	return st
}

// tidy forgets an address that nobody is there from.
func (s *strangers) tidy(from netip.Prefix) {
	if c := s.crowds[from]; c != nil && len(c.inside)+len(c.waiting) == 0 {
		delete(s.crowds, from)
	}
}

// close hangs up on everybody who waits, and on whoever comes.
func (s *strangers) close() {
	s.mu.Lock()
	s.closed = true
	var out []*stranger
	for _, c := range s.crowds {
		out = append(out, c.waiting...)
	}
	for _, st := range out {
		s.unqueue(st)
	}
	s.mu.Unlock()
	for _, st := range out {
		st.away()
	}
}

// alarm keeps what happens a thousand times a second from being said more than once a minute.
type alarm struct {
	mu   sync.Mutex // guards what follows
	last time.Time
	n    int
}

// ring says whether to say it now, and how often it has happened since it was said last.
func (a *alarm) ring() (n int, now bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	if !a.last.IsZero() && time.Since(a.last) < time.Minute {
		return 0, false
	}
	n, a.n, a.last = a.n, 0, time.Now()
	return n, true
}

// source is the address that a connection counts for.
func source(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{} // a socket on this machine
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
