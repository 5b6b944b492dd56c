package relay

import "sync"

// buffers is where sessions borrow their buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) take() *[BufferSize]byte {
	if v := b.pool.Get(); v != nil {
		return v.(*[BufferSize]byte)
	}
	return new([BufferSize]byte)
}

func (b *buffers) give(buf *[BufferSize]byte) { b.pool.Put(buf) }

// held is what was read in one direction and not dealt with yet.
type held struct {
	buffers *buffers
	buf     *[BufferSize]byte // nil while nothing is held
	n       int               // buf[:n] is held
}

func (h *held) init(l *Loops, first []byte) {
	h.buffers = &l.buffers
	if len(first) > 0 {
		h.buf = h.buffers.take()
		h.n = copy(h.buf[:], first)
	}
}

func (h *held) bytes() []byte {
	if h.buf == nil {
		return nil
	}
	return h.buf[:h.n]
}

func (h *held) full() bool { return h.n == BufferSize }

func (h *held) release() {
	if h.buf != nil {
		h.buffers.give(h.buf)
		h.buf, h.n = nil, 0
	}
}
