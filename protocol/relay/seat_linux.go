//go:build amd64 || arm64

package relay

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A session's two legs, by who is at the other end.
const (
	clientLeg = 0
	serverLeg = 1
)

// seat is a session's place on a loop.
type seat struct {
	*Relay
	loop   *loop
	number int
	ends   chan End // has room for one

	mu      sync.Mutex // held over reads and writes, none of which waits; never while the observer is called
	legs    [2]leg
	stopped bool          // nothing is read or forwarded any more
	inDone  chan struct{} // closed when stopped is set and Inbound is not running
	whole   bool          // the client has seen whole messages only
	broken  bool          // a write to the client failed: its stream can't be gone on with
	mute    bool          // the last words were said
	parting *time.Timer   // set when the server can't be written to any more: it is only listened to until then
}

// takeSeat moves r's connections to a loop. It returns nil if they are no plain sockets, or there are no
// descriptors left.
func takeSeat(r *Relay) carrier {
	client, server, ok := detach(r.client, r.server)
	if !ok {
		return nil
	}
	s := &seat{Relay: r, ends: make(chan End, 1), inDone: make(chan struct{}), whole: true}
	s.legs[clientLeg] = leg{fd: client, held: &r.out, all: r.loops, fresh: r.out.n > 0}
	s.legs[serverLeg] = leg{fd: server, held: &r.in, all: r.loops, fresh: r.in.n > 0}
	for side, conn := range []net.Conn{r.client, r.server} {
		l := &s.legs[side]
		if l.tls, l.under = standing(conn); l.tls != nil {
			l.under.leg, l.deeper = l, true
		}
	}
	if r.loops.join(s) != nil {
		s.giveBack()
		return nil
	}
	return s
}

func (s *seat) run() (end End) {
	s.mu.Lock()
	s.arm()
	s.mu.Unlock()
	select {
	case end = <-s.ends:
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	s.stop()
	s.giveBack()
	s.legs[serverLeg].unpark()
	s.mu.Unlock()
	s.loops.leave(s)
	if s.ctx.Err() != nil {
		end = End{Context, context.Cause(s.ctx)}
	}
	return end
}

// giveBack puts the sockets into Go's hands again; mu is held, or nobody else knows the seat yet.
func (s *seat) giveBack() {
	s.client, s.server = s.legs[clientLeg].giveBack(s.client), s.legs[serverLeg].giveBack(s.server)
}

// over says whether nothing may be forwarded any more; mu is held.
func (s *seat) over() bool {
	if !s.stopped && s.ctx.Err() != nil {
		s.stop() // run is about to be woken
	}
	return s.stopped
}

// stop takes the session out of the epoll set; mu is held.
func (s *seat) stop() {
	if s.stopped {
		return
	}
	s.stopped = true
	if s.parting != nil {
		s.parting.Stop()
	}
	s.arm()
	if !s.legs[serverLeg].busy {
		close(s.inDone)
	}
}

// finish ends the session; mu is held.
func (s *seat) finish(side Side, err error) {
	if s.stopped {
		return
	}
	s.stop()
	s.ends <- End{side, err}
}

// arm has the epoll set wait for what can be dealt with; mu is held.
func (s *seat) arm() {
	for side := range s.legs {
		l := &s.legs[side]
		want := s.wants(side)
		if want == l.events {
			continue
		}
		op := unix.EPOLL_CTL_MOD
		switch {
		case l.events == 0:
			op = unix.EPOLL_CTL_ADD
		case want == 0: // or it would go on to say that the peer has hung up
			op = unix.EPOLL_CTL_DEL
		}
		l.events = want
		err := unix.EpollCtl(s.loop.epoll, op, l.fd, &unix.EpollEvent{Events: want, Fd: int32(s.number<<1 | side)})
		if err != nil { // no memory, or too many watches
			l.events = 0
			s.finish([]Side{Client, Server}[side], err)
		}
	}
}

func (s *seat) wants(side int) (events uint32) {
	l := &s.legs[side]
	if s.stopped {
		return 0
	}
	if s.readable(side) && !l.lost {
		events |= unix.EPOLLIN
	}
	ready := l.fresh || l.deeper && s.readable(side)
	if len(l.parked) > 0 || ready && !l.lost { // a socket that can be written to wakes the loop at once
		events |= unix.EPOLLOUT
	}
	return events
}

// readable says whether more may be read from a side.
func (s *seat) readable(side int) bool {
	l := &s.legs[side]
	return !l.done && !l.wait && len(s.legs[1-side].parked) == 0 && (side == serverLeg || s.parting == nil)
}

// lose notes that the driver that has a side in hand has lost the loop.
func (s *seat) lose(side int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := &s.legs[side]; l.busy { // else it has just come back
		l.lost = true
		s.arm()
	}
}

// step reads once from a side, and has what there is observed and forwarded.
func (d *driver) step(s *seat, side int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.legs[side]
	if s.stopped || l.busy {
		return
	}
	buf, n := l.held.buf, l.held.n
	if buf == nil {
		buf = d.buf
	}
	if l.fresh {
		l.fresh = false
	} else {
		if !s.readable(side) {
			return
		}
		got, err := l.read(buf[n:])
		switch {
		case err == syscall.EAGAIN:
			s.arm()
			return
		case err != nil:
			s.hungUp(side, err)
			return
		}
		n += got
	}
	l.busy = true
	for again := true; again; {
		n, again = d.observe(s, side, buf, n)
		if l.held.buf != nil {
			buf = l.held.buf
		}
	}
	l.busy, l.lost = false, false
	if s.stopped && side == serverLeg {
		close(s.inDone)
	}
	s.arm()
}

// hungUp deals with the end of what a side sends; mu is held.
func (s *seat) hungUp(side int, err error) {
	switch {
	case side == serverLeg:
		s.finish(Server, err)
	case s.obs.Goodbye():
		s.legs[side].done = true
		s.arm()
	default:
		s.finish(Client, err)
	}
}

// observe has buf[:n], which a side sent, observed and forwards it. rest is what is held of it afterwards;
// again says that it is to be observed once more. mu is held, but not while the observer is called.
func (d *driver) observe(s *seat, side int, buf *[BufferSize]byte, n int) (rest int, again bool) {
	var used int
	var out []byte
	var err error
	s.mu.Unlock()
	d.enter(s, side)
	if side == clientLeg {
		used, out, err = s.obs.Outbound(buf[:n])
	} else {
		used, out, err = s.obs.Inbound(buf[:n])
	}
	d.left()
	s.mu.Lock()
	l := &s.legs[side]
	var werr error
	switch {
	case s.over():
	case side == clientLeg && len(out) > 0:
		werr = s.legs[serverLeg].write(out)
	case side == serverLeg && len(out) > 0 && err == nil:
		werr = s.toClient(out)
	}
	l.keep(buf, used, n)
	if side == clientLeg {
		s.fromClient.Add(uint64(used))
		again = s.sent(l, err, werr)
	} else {
		s.fromServer.Add(uint64(used))
		s.answered(l, err, werr)
	}
	return l.held.n, again && !s.stopped
}

// sent ends a call of Outbound. When that can take no more it is called once again at once, because an
// answer may have come just before the flag was raised that asks for one.
func (s *seat) sent(l *leg, err, werr error) (again bool) {
	switch {
	case werr != nil:
		s.part(werr)
	case err == nil && l.held.full():
		s.finish(Watcher, errNoProgress)
	case err == nil:
		l.wait = false
	case err == ErrBusy:
		again, l.wait = !l.wait, true
	default:
		s.finish(Watcher, err)
	}
	if l.fresh && !s.stopped { // answered meanwhile
		l.fresh, again = false, true
	}
	return again
}

// answered ends a call of Inbound. A client that has said goodbye and left is not missed: what the server
// still says is observed all the same.
func (s *seat) answered(l *leg, err, werr error) {
	if c := &s.legs[clientLeg]; c.wait {
		c.wait, c.fresh = false, true
	}
	switch {
	case err != nil:
		s.finish(Watcher, err)
	case werr != nil && !s.obs.Goodbye():
		s.finish(Client, werr)
	case l.held.full():
		s.finish(Watcher, errNoProgress)
	}
}

// part gives a server that can't be written to any more the time to be heard to its end; mu is held.
func (s *seat) part(why error) {
	if s.stopped || s.parting != nil {
		return
	}
	s.parting = time.AfterFunc(partingTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finish(Server, why)
	})
}

// flush writes what is parked for a side.
func (s *seat) flush(side int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.legs[side]
	if len(l.parked) == 0 || s.over() {
		return
	}
	n, err := transmit(l.fd, l.parked)
	switch {
	case err == syscall.EAGAIN:
		return
	case err != nil && side == serverLeg:
		s.part(err)
		n = len(l.parked)
	case err != nil:
		s.broken = true
		if !s.obs.Goodbye() {
			s.finish(Client, err)
		}
		n = len(l.parked) // nobody will read it
	}
	if l.parked = l.parked[n:]; len(l.parked) == 0 {
		l.unpark()
	}
	s.arm()
}

// toClient forwards to the client, and adds what waits for a boundary; mu is held.
func (s *seat) toClient(b []byte) error {
	s.whole = s.obs.Whole()
	if err := s.writeClient(b); err != nil {
		return err
	}
	if s.noted.Load() {
		return s.writeNotes()
	}
	return nil
}

func (s *seat) writeClient(b []byte) error {
	if s.broken {
		return io.ErrClosedPipe
	}
	err := s.legs[clientLeg].write(b)
	s.broken = err != nil
	return err
}

// writeNotes shows the client what waits for a boundary, if it is at one; mu is held.
func (s *seat) writeNotes() error {
	if !s.whole || s.mute {
		return nil
	}
	if notes := s.takeNotes(); len(notes) > 0 {
		return s.writeClient(notes)
	}
	return nil
}

func (s *seat) nudge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over() {
		return
	}
	s.writeNotes() // if it fails, the next write fails too and ends the session
	s.arm()
}

func (s *seat) tell(msg []byte, within time.Duration) bool {
	s.mu.Lock()
	l := &s.legs[clientLeg]
	rest, may := l.parked, s.whole && !s.mute && !s.broken
	s.mute = s.mute || may
	s.mu.Unlock()
	if !may {
		return false
	}
	s.client.SetWriteDeadline(time.Now().Add(within))
	if len(rest) > 0 { // the end of what the client has the beginning of
		if _, err := Bare(s.client).Write(rest); err != nil {
			return false
		}
	}
	_, err := s.client.Write(msg)
	return err == nil
}

func (s *seat) drain(within time.Duration) error {
	deadline := time.Now().Add(within)
	if err := awaitObserver(s.inDone, within); err != nil {
		return err
	}
	var rest stream
	rest.init(s.server, &s.in)
	return rest.drain(s.obs, deadline)
}
