package relay

import (
	"net"
	"syscall"
)

// sip is how much of a connection that can't be waited on without a buffer is read at first, and gulp is
// how much must come in one read for the next to go into a whole buffer at once.
const (
	sip  = 512
	gulp = 4 << 10
)

// stream is one direction's reading half, for a goroutine that waits in it.
type stream struct {
	conn net.Conn
	held *held

	raw  syscall.RawConn // plain sockets only: waited on without a buffer
	try  func(fd uintptr) bool
	got  int
	err  error
	keep bool      // other connections: much came at once, so more is expected
	sip  [sip]byte // other connections: what is read into before a buffer is taken
}

func (s *stream) init(conn net.Conn, h *held) {
	s.conn, s.held = conn, h
	s.listen()
}

// drop forgets the first n held bytes.
func (s *stream) drop(n int) {
	h := s.held
	if n == 0 {
		return
	}
	if n < h.n {
		copy(h.buf[:], h.buf[n:h.n])
	}
	h.n -= n
	if h.n == 0 && !s.keep {
		h.release()
	}
}

// read adds at least one byte to what is held, or returns an error.
func (s *stream) read() error {
	h := s.held
	if s.raw != nil {
		return s.readRaw()
	}
	if h.buf != nil {
		n, err := s.conn.Read(h.buf[h.n:])
		h.n += n
		s.keep = n >= gulp
		return ignoreWith(n, err)
	}
	n, err := s.conn.Read(s.sip[:])
	if n > 0 {
		h.buf = h.buffers.take()
		h.n = copy(h.buf[:], s.sip[:n])
		s.keep = n == sip
	}
	return ignoreWith(n, err)
}

// ignoreWith drops an error that came with bytes: the next read says it again.
func ignoreWith(n int, err error) error {
	if n > 0 {
		return nil
	}
	return err
}
