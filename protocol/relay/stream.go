package relay

import (
	"net"
	"sync"
	"syscall"
)

// Buffers is where sessions borrow their buffers. One is shared by many relays; its zero value is ready.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) take() *[BufferSize]byte {
	if v := b.pool.Get(); v != nil {
		return v.(*[BufferSize]byte)
	}
	return new([BufferSize]byte)
}

// sip is how much of a connection that can't be waited on without a buffer is read at first, and gulp is
// how much must come in one read for the next to go into a whole buffer at once.
const (
	sip  = 512
	gulp = 4 << 10
)

// stream is one direction's reading half.
type stream struct {
	conn    net.Conn
	buffers *Buffers
	buf     *[BufferSize]byte // nil while nothing is held
	n       int               // buf[:n] is held

	raw  syscall.RawConn // plain sockets only: waited on without a buffer
	try  func(fd uintptr) bool
	got  int
	err  error
	keep bool      // other connections: much came at once, so more is expected
	sip  [sip]byte // other connections: what is read into before a buffer is taken
}

func (s *stream) init(conn net.Conn, first []byte, b *Buffers) {
	s.conn, s.buffers = conn, b
	if len(first) > 0 {
		s.buf = b.take()
		s.n = copy(s.buf[:], first)
	}
	s.listen()
}

func (s *stream) held() []byte {
	if s.buf == nil {
		return nil
	}
	return s.buf[:s.n]
}

func (s *stream) full() bool { return s.n == BufferSize }

// drop forgets the first n held bytes.
func (s *stream) drop(n int) {
	if n == 0 {
		return
	}
	if n < s.n {
		copy(s.buf[:], s.buf[n:s.n])
	}
	s.n -= n
	if s.n == 0 && !s.keep {
		s.release()
	}
}

func (s *stream) release() {
	if s.buf != nil {
		s.buffers.pool.Put(s.buf)
		s.buf, s.n = nil, 0
	}
}

// read adds at least one byte to what is held, or returns an error.
func (s *stream) read() error {
	if s.raw != nil {
		return s.readRaw()
	}
	if s.buf != nil {
		n, err := s.conn.Read(s.buf[s.n:])
		s.n += n
		s.keep = n >= gulp
		return ignoreWith(n, err)
	}
	n, err := s.conn.Read(s.sip[:])
	if n > 0 {
		s.buf = s.buffers.take()
		s.n = copy(s.buf[:], s.sip[:n])
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
