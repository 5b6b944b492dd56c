// Package notify tells people what happens at the desk: approvers that somebody asks, requesters what became of
// it, a channel everything.
//
// What may be relied on:
//
//   - What is to be told is written in the transaction in which it happens (store.Tx.Notify). A destination gets
//     it at least once, each time under the same id and with the same link; who gets it twice can tell.
//   - A destination is told in the order in which things happened, and waits for nobody else's: how far it has
//     come is in the store, and so are the failures of what comes next, so that a restart goes on where it was.
//   - What a destination does not take is tried again, at first after a second, then ever less often, at most
//     five minutes apart; for a day, then it is given up, loudly, and counted. At most one attempt a destination
//     is under way.
//   - What people have written reaches each medium as text: it makes no mention, no link, no second line and no
//     header, and an address in it is written so that no program follows it. The one link is Curfew's own.
//   - No secret of a destination is in a log, an error or a metric: what a library says of a failure is cut down
//     to what is known to hold none.
//
// Webhooks are signed as https://www.standardwebhooks.com has it: webhook-id, webhook-timestamp and
// webhook-signature, an HMAC-SHA256 over "id.timestamp.body". A receiver checks it, refuses what is older than
// five minutes, and ids that it has seen.
package notify
