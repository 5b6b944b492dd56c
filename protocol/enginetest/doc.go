// Package enginetest is the conformance suite of package protocol: what every database engine must do,
// tested on a real server with a stock driver. An engine passes it or does not ship.
//
// # What it tests
//
// Each theme is one file, and one subtest of the function that calls [Run]:
//
//   - promises: nothing before Attach; nobody can tell who exists; after Cut nobody is in and nobody gets in;
//     Cut and Clean can be repeated; an engine needs no database to be made.
//   - record: for each kind of event that a story makes, a sink that fails there and one that hangs there.
//     What the server was sent (by the bytes on the engine's own connections) and what it did (by its own
//     tables) must be on record.
//   - ends: expired, revoked and cut, vanished, goodbye, ended by the server; in a statement, in an open
//     transaction, under another role or database, amid a bulk load. And restart: the server crashes.
//   - cancel: by the stock client's way, and without the right to.
//   - together: sessions of one grant, and their limit.
//   - residue: what is left behind is known and harmless; two-phase commit.
//   - sweep (and adoption, watch): after a crash, and past the proxy.
//   - transcript: a dialogue, direct and through Curfew, seen alike; and what is on record of it.
//   - strangers: garbage, half-open connections, a login cut off at every byte.
//   - midway: a session cut off at every byte from either side, a slow reader, a thousand strangers.
//   - steps and crash: the life of two accounts, once with each call of protocol.Step failing, once with
//     kill -9 at each of them.
//
// When all is over no goroutine is left.
//
// # What an engine brings
//
// A [Kit], from a test of its own package:
//
//	func TestConformance(t *testing.T) { enginetest.Run(t, kit) }
//
// Kit.Start starts a real server, as pgtest and mysqltest do, with room for 150 connections and 50 prepared
// transactions, and does the DBA's part there: the engine's own Setup for Kit.Level, the broker's password,
// the logins App and Stranger, and in Dialect.Database a table marks with one column, what, of 100 characters.
// A holder of the level may read and change marks and make tables of its own; App may use marks. The suite
// starts a second server for the crash.
//
// TestMain must not start a server of its own when [Child] says so: crash runs the test binary again,
// for processes that kill themselves, and tells them where the suite's server is.
//
// The driver must log in over connections that the suite dials, because it counts, cuts and stalls them.
// Dialect is the database's SQL for what is done and asked; a missing piece is a compile error or a nil
// function, never a test that is skipped. What a database or its driver can't do is said in a field with a
// name (Dialect.Deaf, LastWords, Fates, Owns), so that it can be read in one place what an engine does not promise.
//
// # Why it lives a session's life by itself
//
// The suite has a listener of its own (node.go) that goes from Accept by Attach and Relay to Kill, in the
// order of proxy/session.go. Package proxy is not used: it is a floor above the engines, and an engine's
// author would have grants, ledger and recordings between the contract and the test, all of which can hide
// a fault or add one. The contract is package protocol's alone, so that is what the suite calls. That proxy,
// recorder and engines fit together is what e2e shows.
package enginetest
