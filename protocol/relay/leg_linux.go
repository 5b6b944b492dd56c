//go:build amd64 || arm64

package relay

import (
	"crypto/tls"
	"net"
	"syscall"
)

// leg is one of a session's sockets, and the direction of what is read from it. seat.mu guards it, but for
// held while busy is set.
type leg struct {
	fd     int
	all    *Loops
	events uint32 // what the epoll set waits for; 0: it is not in the set
	held   *held
	fresh  bool // held is to be observed before anything is read
	busy   bool // a driver has what was read in hand
	lost   bool // and for so long that it has lost its loop
	wait   bool // the server is to answer first (ErrBusy)
	done   bool // the client has said goodbye and has gone

	parked []byte            // what could not be written to it yet; nothing is read from the other side then
	buf    *[BufferSize]byte // where parked is

	tls    *tls.Conn // nil where there is none
	under  *under    // what it stands on
	deeper bool      // it may have read what was not asked for yet: the socket does not tell
	dry    bool      // the socket has nothing more for now, as far as this read goes
	sealed []byte    // what it has written in this write, in bufs
	bufs   *[BufferSize]byte
}

// giveBack puts the socket into Go's hands again, where was had it.
func (l *leg) giveBack(was net.Conn) net.Conn {
	if l.tls == nil {
		return attach(l.fd, was)
	}
	l.under.Conn, l.under.leg = attach(l.fd, l.under.Conn), nil
	return was
}

// read reads once from the socket, and all of it from TLS that there is room for.
func (l *leg) read(b []byte) (n int, err error) {
	if l.tls == nil {
		return receive(l.fd, b)
	}
	l.deeper, l.dry = false, false
	for n < len(b) {
		got, err := l.tls.Read(b[n:])
		n += got
		switch {
		case err == nil:
		case n > 0: // it says an error again
			l.deeper = err != errAgain
			return n, nil
		case err == errAgain:
			return 0, syscall.EAGAIN
		default:
			return 0, err
		}
	}
	l.deeper = true
	return n, nil
}

// readUnder is what TLS reads.
func (l *leg) readUnder(b []byte) (int, error) {
	if l.dry {
		return 0, errAgain
	}
	n, err := receive(l.fd, b)
	if err == syscall.EAGAIN {
		err = errAgain
	}
	l.dry = err != nil || n < len(b)
	return n, err
}

// write writes to the socket, and parks what that does not take. Where there is TLS, a write is one system call
// however many records it makes.
func (l *leg) write(b []byte) error {
	if l.tls == nil {
		return l.push(b)
	}
	l.bufs = l.all.buffers.take()
	l.sealed = l.bufs[:0]
	_, err := l.tls.Write(b)
	rest, bufs := l.sealed, l.bufs
	l.sealed, l.bufs = nil, nil
	if err == nil && len(rest) > 0 {
		err = l.push(rest)
	}
	l.all.buffers.give(bufs)
	return err
}

// writeUnder is what TLS writes.
func (l *leg) writeUnder(b []byte) (int, error) {
	if len(l.sealed)+len(b) > BufferSize && len(l.sealed) > 0 {
		if err := l.push(l.sealed); err != nil {
			return 0, err
		}
		l.sealed = l.bufs[:0]
	}
	if l.bufs == nil || len(b) > BufferSize { // it answers what it has read
		if err := l.push(b); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	l.sealed = append(l.sealed, b...)
	return len(b), nil
}

// push writes to the socket, and parks what that does not take.
func (l *leg) push(b []byte) error {
	if len(l.parked) > 0 {
		l.parked = append(l.parked, b...)
		return nil
	}
	n, err := transmit(l.fd, b)
	if err != nil && err != syscall.EAGAIN {
		return err
	}
	if n < len(b) {
		l.buf = l.all.buffers.take()
		l.parked = append(l.buf[:0], b[n:]...)
	}
	return nil
}

// unpark forgets what is parked.
func (l *leg) unpark() {
	l.parked = nil
	if l.buf != nil {
		l.all.buffers.give(l.buf)
		l.buf = nil
	}
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
