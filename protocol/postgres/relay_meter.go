package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

const (
	// gathered is how many bytes of short pieces are hashed in one go: the hash takes many bytes at once
	// for far less than the same bytes one row after another.
	gathered = 4 << 10
	// short is what is worth being gathered.
	short = 512
)

// meter measures copy data.
type meter struct {
	hash   hash.Hash
	bytes  uint64
	chunks uint64
	pieces []byte // measured, and not hashed yet
}

// digest is what a meter says.
type digest struct {
	bytes, chunks uint64
	sum           [sha256.Size]byte
}

func (m *meter) reset() {
	if m.chunks > 0 || m.bytes > 0 {
		*m = meter{hash: m.hash}
		if m.hash != nil {
			m.hash.Reset()
		}
	}
}

func (m *meter) add(b []byte) {
	m.bytes += uint64(len(b))
	if len(b) >= short {
		m.sum()
		m.hash.Write(b)
		return
	}
	if len(m.pieces)+len(b) > gathered {
		m.sum()
	}
	if m.pieces == nil {
		m.pieces = make([]byte, 0, gathered)
	}
	m.pieces = append(m.pieces, b...)
}

// sum hashes what was gathered.
func (m *meter) sum() {
	if m.hash == nil {
		m.hash = sha256.New()
	}
	m.hash.Write(m.pieces)
	m.pieces = m.pieces[:0]
}

func (m *meter) digest() *digest {
	m.sum()
	d := &digest{bytes: m.bytes, chunks: m.chunks}
	m.hash.Sum(d.sum[:0])
	return d
}

// run measures the whole messages of copy data that b begins with, up to one that is longer than most, and
// says how many bytes they are.
func (m *meter) run(b []byte, most int) (n int) {
	for len(b)-n >= headerSize && b[n] == msgCopyData {
		size := int(binary.BigEndian.Uint32(b[n+1:]))
		if size < 4 || size >= most || size >= len(b)-n {
			break
		}
		m.chunks++
		m.add(b[n+headerSize : n+1+size])
		n += 1 + size
	}
	return n
}
