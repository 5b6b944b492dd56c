//go:build unix

package relay

import (
	"io"
	"syscall"
)

// listen finds out whether the connection is a plain socket. Its readiness can then be waited for
// before a buffer is taken.
func (s *stream) listen() {
	c, ok := s.conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	s.raw = raw
	s.try = s.tryRead
}

func (s *stream) readRaw() error {
	s.got, s.err = 0, nil
	if err := s.raw.Read(s.try); err != nil {
		return err
	}
	return s.err
}

// tryRead reads once without waiting; false means that there is nothing yet.
func (s *stream) tryRead(fd uintptr) bool {
	h := s.held
	if h.buf == nil {
		h.buf = h.buffers.take()
	}
	var err error
	for {
		s.got, err = syscall.Read(int(fd), h.buf[h.n:])
		if err != syscall.EINTR {
			break
		}
	}
	switch {
	case err == syscall.EAGAIN:
		if h.n == 0 {
			h.release()
		}
		return false
	case err != nil:
		s.err = err
	case s.got == 0:
		s.err = io.EOF
	default:
		h.n += s.got
	}
	return true
}
