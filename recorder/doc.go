// Package recorder keeps what was done in a session: one file a session, one line of JSON an event,
// one leaf of a Merkle tree a line. docs/FORMAT.md specifies every byte.
//
// What a caller may rely on:
//
//   - When [Writer.Record] returns nil for a statement, every byte of it has been handed to the
//     operating system (write(2)): it survives kill -9. With [Disk] it has also been synced, together
//     with the part that ends it, and survives a power cut. When Record returns an error, the statement
//     must not run: it may or may not be in the file.
//   - After a failed write or sync a Writer is broken for good: nothing that a disk once refused is
//     claimed to be there later. So it is after one that takes longer than [Options].Stall: [Writer.Lost]
//     says so to whoever waits in no Record. What had been refused and is in the file all the same is
//     followed by an event that says it was blocked.
//   - Results, notices and where a session has landed are kept within 100 ms, or with the next statement,
//     whichever is first.
//     A crash of the process can lose that much of what the database answered, never of what was asked.
//   - Nothing is cut off: a statement of any size is recorded in parts of bounded size, in bounded
//     memory. The one thing taken out of statements is the text of passwords, and the event says so.
//   - A [TreeState] that a Writer or Library reports covers only leaves that were synced before, so
//     that no crash makes the ledger claim more than the disk holds.
//   - [Writer.Seal] is all or nothing: there is an open file, a sealed one, or both with the same
//     content, at every moment. [Library.Heal] finishes what a crash interrupted.
//
// What is not guaranteed: with [Process] durability a power cut can lose the last second of a
// recording; the ledger's count and root then say how much is certain. Whoever can write to the
// directory of an open recording can change what was not yet anchored by a ledger entry.
//
// Files: dir/open/<session>.jsonl while a session lives, dir/sealed/YYYY/MM/DD/<session>.jsonl.zst
// after it (the day the session began, UTC).
package recorder
