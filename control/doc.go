// Package control is the desk: it takes a wish for access from request over decision to grant and end,
// and it is the only writer of grants. It also holds people's logins (logins.go).
//
// What may be relied on:
//
//   - A grant exists only because as many distinct people as its rule wants approved its request, none
//     of them the requester; nobody is exempt. One deny ends a request. Two decisions at one instant
//     have one outcome.
//   - A grant starts at the last approval needed, or at the asked start if that is later, and ends its
//     duration after that. Nothing moves its end later but an extension, which is a request of its own under
//     the same rule: then whoever holds the grant goes on holding it. Extended and revoked at one instant it
//     is revoked; extended in the moment in which its time is up it either goes on or has ended.
//   - Who breaks the glass owes a review from the grant's begin, in the same transaction, and can't break it
//     again before somebody else has looked at all that was done.
//   - A context given by Hold ends the instant its grant does, whatever ends it: the check that the
//     grant is active and the subscription to its end are one step. A grant ends at its end by the wall
//     clock or by the monotonic clock, whichever gets there first, and that needs no store, no disk and
//     no loop that runs: holders are woken first, the ledger is written after.
//   - A grant ends once, in one way. The end is on the ledger once; if it can't be written it is tried
//     again each second, and by the next start at the latest a grant whose time is up is written as
//     expired.
//   - Every other change of state is on the ledger in the same transaction, or did not happen.
//   - Nobody learns from the desk that something exists which the policy doesn't let them see: it
//     answers as it answers for what doesn't exist.
//
// Not guaranteed: a revocation that took effect while the store could not be written, and was answered
// with CodeUnavailable for that reason, is forgotten if the process dies before the store comes back.
package control
