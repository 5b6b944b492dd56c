package recorder

import (
	"crypto/sha256"
	"math/bits"
	"slices"
)

// LeafHash is the RFC 6962 hash of one line of a recording, given without its newline.
func LeafHash(line []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(line)
	var out [32]byte
	h.Sum(out[:0])
	return out
}

func nodeHash(left, right *[32]byte) [32]byte {
	var b [65]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

// Tree is an RFC 6962 Merkle tree that only grows. It keeps the roots of its full subtrees, one for
// each bit set in the count, so that its size is the logarithm of what it covers. The zero value is
// the empty tree. It is not safe for concurrent use.
type Tree struct {
	count uint64
	full  [][32]byte // roots of the full subtrees, largest first
}

// Append adds a leaf, given its hash.
func (t *Tree) Append(leaf [32]byte) {
	t.full = append(t.full, leaf)
	for n := bits.TrailingZeros64(^t.count); n > 0; n-- {
		last := len(t.full) - 1
		t.full[last-1] = nodeHash(&t.full[last-1], &t.full[last])
		t.full = t.full[:last]
	}
	t.count++
}

// Clone gives a tree that grows on its own.
func (t *Tree) Clone() Tree { return Tree{count: t.count, full: slices.Clone(t.full)} }

// Count is the number of leaves.
func (t *Tree) Count() uint64 { return t.count }

// Root is the tree's hash; that of the empty tree is SHA-256 of nothing.
func (t *Tree) Root() [32]byte {
	if t.count == 0 {
		return sha256.Sum256(nil)
	}
	last := len(t.full) - 1
	root := t.full[last]
	for i := last - 1; i >= 0; i-- {
		root = nodeHash(&t.full[i], &root)
	}
	return root
}
