// Package store is the durable truth of a Curfew installation: requests, grants, logins, intents,
// sessions, and the ledger, in one embedded SQLite file.
//
// What a caller may rely on:
//
//   - State and evidence are one. Whatever an Update changes and the ledger entries it appends, with
//     the new signed checkpoint over all of them, are in one SQL transaction: either all of it is on
//     disk when Update returns nil, or none of it is. (Grants' verifiers, logins and the high-water
//     mark of time are the state that has no entry of its own.)
//   - An error from Update means that nothing changed, with one exception that no database can rule
//     out: a commit that was stored but reported as failed. The store finds out before it writes again.
//   - Open refuses a file whose entries do not add up to the last signed checkpoint, whose checkpoint
//     is not signed by its key, or whose live grants are not what the ledger says. What it can't see
//     from inside is a whole older copy of the file put back; that is what Anchor is for.
//   - Time never goes back: Now is never earlier than any time the store has kept, across restarts.
//   - One process at a time: a second Open of the same file is refused.
//
// It is safe for concurrent use. Updates run one after another, Views run beside them on a snapshot.
package store
