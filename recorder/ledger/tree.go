package ledger

import (
	"crypto/sha256"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is an RFC 6962 Merkle tree that only grows. It keeps the roots of its complete subtrees, one
// for each bit of its size, so that it costs a kilobyte however long the ledger is. The zero Tree is
// empty; it is not safe for concurrent use.
type Tree struct {
	size  int64
	peaks []tlog.Hash // roots of the complete subtrees, largest first
}

// Append adds a leaf by its hash.
func (t *Tree) Append(leaf tlog.Hash) {
	h := leaf
	for n := t.size; n&1 == 1; n >>= 1 {
		h = tlog.NodeHash(t.peaks[len(t.peaks)-1], h)
		t.peaks = t.peaks[:len(t.peaks)-1]
	}
	t.peaks = append(t.peaks, h)
	t.size++
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Root is the tree's root; that of no leaves is the hash of nothing, as RFC 6962 says.
func (t *Tree) Root() tlog.Hash {
	if len(t.peaks) == 0 {
		return tlog.Hash(sha256.Sum256(nil))
	}
	h := t.peaks[len(t.peaks)-1]
	for i := len(t.peaks) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.peaks[i], h)
	}
	return h
}

// Clone gives a tree that grows on its own.
func (t *Tree) Clone() Tree {
	peaks := make([]tlog.Hash, len(t.peaks), bits.Len64(uint64(t.size))+1)
	copy(peaks, t.peaks)
	return Tree{size: t.size, peaks: peaks}
}
