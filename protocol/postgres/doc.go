// Package postgres is everything that knows PostgreSQL: its wire protocol, both logins, what to record of
// a session, and the accounts on a server.
//
// # The wire
//
// A [Front] serves one listener. It speaks with strangers until they have proved who they are: TLS, asked
// for or at once, GSSENCRequest (never), CancelRequest, StartupMessage 3.0 and 3.2 (what is newer is
// negotiated down), SCRAM-SHA-256 against a stored verifier, over TLS also -PLUS, or the password itself where
// a listener wants it and TLS hides it. Attach logs in at the target as the grant's account, by the best that
// the server has and the target's URL allows, and joins the two; from then on package relay forwards what it
// reads, chunk by chunk, and an observer sees it.
// What may be relied on:
//
//   - A stranger has 10 seconds and can make Curfew hold 64 KiB at most. Nothing that a stranger sees
//     depends on whether a user exists.
//   - Whoever ends a client's TLS with another certificate can't use its login here: a login that is bound
//     to that certificate fails, and one whose client was told that there is no binding is refused.
//   - Neither the grant password nor an account's secret goes in clear but inside TLS.
//   - Every byte of a statement is on record before it is forwarded. Messages are forwarded as they came:
//     the server sees the client's own bytes. The two exceptions are a refused PREPARE TRANSACTION, whose
//     message reaches the server as zeros of the same length (on which it fails at that very place, without
//     having read it) and whose error is replaced by ours on the way back; and the cancel key in
//     BackendKeyData, which is ours.
//   - Results are paired with requests in order, by the server's own rules (skip to Sync after an error,
//     no Sync in copy-in mode).
//   - A message of any length takes a bounded amount of memory: what is longer than 32 KiB is recorded
//     and forwarded in parts, which don't depend on how the network slices it.
//   - PREPARE TRANSACTION passes only where the access level allows it and its global id is written in plain
//     ASCII without escapes, so that what is on record is what can be rolled back. It is looked for as the
//     server would read the text, client encoding and standard_conforming_strings included.
//   - A message that no client sends (unknown type, impossible length, a body that doesn't fit its type)
//     ends the session before it is forwarded.
//
// How events say it: a Parse is a "prepare" statement, a Bind a "bind" that points at its prepare, an
// Execute an "execute" that points at its bind. Parse and Bind have a result only if they fail. A request
// that the server skipped because an earlier one of its pipeline had failed has a result with the code
// "skipped". Of is 0, and binary parameters are in hex, where the server's state can't be known: a name
// that SQL itself made (PREPARE, DECLARE), or a statement in a pipeline behind one that may fail. The
// parameters of a long Bind go on in parts: Params from parameter Index on, the first of which continues
// that parameter's value if its last piece said More.
//
// Protocol: https://www.postgresql.org/docs/current/protocol.html. SCRAM: RFC 5802, RFC 7677;
// what it is bound to: RFC 5929. ALPN: RFC 7301.
//
// # Accounts
//
// An [Engine] guards one server: it makes a role for each grant, ends it, and finds what was left behind.
// The SQL is in sql/, for a DBA to read; the order of an ending and its reasons are in cut.go and clean.go.
package postgres
