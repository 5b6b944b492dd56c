//go:build amd64 || arm64

package relay

import (
	"context"
	"io"
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

// leg is one of a session's sockets, and the direction of what is read from it. seat.mu guards it, but for
// held while busy is set.
type leg struct {
	fd     int
	events uint32 // what the epoll set waits for; 0: it is not in the set
	held   *held
	fresh  bool // held is to be observed before anything is read
	busy   bool // a driver has what was read in hand
	lost   bool // and for so long that it has lost its loop
	wait   bool // the server is to answer first (ErrBusy)
	done   bool // the client has said goodbye and has gone

	parked []byte            // what could not be written to it yet; nothing is read from the other side then
	buf    *[BufferSize]byte // where parked is
}

// takeSeat moves r's connections to a loop. It returns nil if they are no plain sockets, or there are no
// descriptors left.
func takeSeat(r *Relay) carrier {
	client, server, ok := detach(r.client, r.server)
	if !ok {
		return nil
	}
	s := &seat{Relay: r, ends: make(chan End, 1), inDone: make(chan struct{}), whole: true}
	s.legs[clientLeg] = leg{fd: client, held: &r.out, fresh: r.out.n > 0}
	s.legs[serverLeg] = leg{fd: server, held: &r.in, fresh: r.in.n > 0}
	if r.loops.join(s) != nil {
		r.client, r.server = attach(client, r.client), attach(server, r.server)
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
	s.client, s.server = attach(s.legs[clientLeg].fd, s.client), attach(s.legs[serverLeg].fd, s.server)
	s.legs[serverLeg].unpark(s.loops)
	s.mu.Unlock()
	s.loops.leave(s)
	if s.ctx.Err() != nil {
		end = End{Context, context.Cause(s.ctx)}
	}
	return end
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
	if len(l.parked) > 0 || l.fresh && !l.lost { // a socket that can be written to wakes the loop at once
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
		got, err := receive(l.fd, buf[n:])
		switch {
		case err == syscall.EAGAIN:
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
		werr = s.send(serverLeg, out)
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

// keep holds what was not dealt with of buf[:n].
func (l *leg) keep(buf *[BufferSize]byte, used, n int) {
	h := l.held
	switch {
	case used == n:
		h.release()
		return
	case h.buf == nil:
		h.buf = h.buffers.take()
		copy(h.buf[:], buf[used:n])
	case used > 0:
		copy(h.buf[:], buf[used:n])
	}
	h.n = n - used
}

// send writes to a side, and parks what that does not take; mu is held.
func (s *seat) send(side int, b []byte) error {
	l := &s.legs[side]
	if len(l.parked) > 0 {
		l.parked = append(l.parked, b...)
		return nil
	}
	n, err := transmit(l.fd, b)
	if err != nil && err != syscall.EAGAIN {
		return err
	}
	if n < len(b) {
		l.buf = s.loops.buffers.take()
		l.parked = append(l.buf[:0], b[n:]...)
	}
	return nil
}

// unpark forgets what is parked.
func (l *leg) unpark(all *Loops) {
	l.parked = nil
	if l.buf != nil {
		all.buffers.give(l.buf)
		l.buf = nil
	}
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
		l.unpark(s.loops)
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
	err := s.send(clientLeg, b)
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
		if _, err := s.client.Write(rest); err != nil {
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
