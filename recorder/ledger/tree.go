package ledger

import (
	"golang.org/x/mod/sumdb/tlog"

	"github.com/curfewdb/curfew/recorder"
)

// Tree is the Merkle tree over the ledger's entries, in the types of checkpoints. It costs a kilobyte
// however long the ledger is. The zero Tree is empty; it is not safe for concurrent use.
type Tree struct{ leaves recorder.Tree }

// Append adds an entry by its leaf hash.
func (t *Tree) Append(leaf tlog.Hash) { t.leaves.Append(leaf) }

// Size is the number of entries.
func (t *Tree) Size() int64 { return int64(t.leaves.Count()) }

// Root is the tree's root; that of no entries is the hash of nothing, as RFC 6962 says.
func (t *Tree) Root() tlog.Hash { return t.leaves.Root() }

// Clone gives a tree that grows on its own.
func (t *Tree) Clone() Tree { return Tree{t.leaves.Clone()} }
