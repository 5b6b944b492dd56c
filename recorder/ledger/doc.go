// Package ledger is the bytes of the ledger: its entries, the Merkle tree over them and the signed
// checkpoints. docs/FORMAT.md is the specification; nothing here touches a file or a database.
//
// What a caller may rely on: Encode gives one line without a newline and never the same bytes twice
// for the same facts (the salt), so that a leaf hash tells nothing of a withheld entry. LeafHash is
// over exactly those bytes. Trees are RFC 6962 trees, so a tree that only grew keeps every earlier
// root as a prefix. A Checkpoint that ParseCheckpoint returns carries a good signature by that key
// over that origin, size and root; what nobody can do with it alone is tell whether a longer one
// exists: for that, compare it with an anchor kept by somebody else.
package ledger
