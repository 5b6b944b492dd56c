// Package export takes evidence out of Curfew and checks it where Curfew is not: Write makes a bundle,
// Verify judges one offline, JSONL flattens recordings for people and log systems.
//
// A bundle is a directory, or the .tar.zst of one; docs/FORMAT.md specifies it:
//
//	bundle.json             what this is: format, installation, key (for information only), scope
//	checkpoint              the signed checkpoint of the whole ledger
//	ledger.jsonl            a line for every entry: whole, or {"n":5,"hash":"…"} if out of scope
//	recordings/<session>.jsonl.zst  a sealed recording, byte for byte
//	recordings/<session>.jsonl      what an open session had recorded so far
//
// What may be relied on: a Report without findings of severity "error" means that, if the verifier key
// is the installation's, the ledger is the one that was signed, entry for entry; every recording is
// the one that the ledger describes, event for event; and the story they tell obeys Curfew's rules
// (grants by distinct approvers who are not the requester, sessions and statements within their
// grant's time). With an anchor file it means as well that nothing that was anchored has been cut off
// or rewritten, not even by the holder of the signing key.
//
// What is not promised: what happened after the last anchor rests on the holder of the key. In a
// bundle with a scope, whether an entry that was withheld belonged to the scope can't be told; the
// report counts what was withheld. A bundle is a hostile file until it is verified: memory grows with
// the number of its grants and sessions, not with the size of its files, and no path in it is followed.
package export
