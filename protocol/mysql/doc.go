// Package mysql is everything that knows MariaDB and MySQL: their wire protocol, both logins, what to
// record of a session, and the accounts on a server. Which of the two a server is, its greeting tells.
//
// # The wire
//
// A [Front] serves one listener and, because the server speaks first, one target: it greets with the
// version, the character set and the capabilities that the target's own server has, as far as both legs can keep
// them. Attach logs in at the target as the grant's account and joins the two; from then on package relay forwards
// what it reads, chunk by chunk, and an observer sees it. What may be relied on:
//
//   - A stranger has 10 seconds and can make Curfew hold 64 KiB at most. Nothing that a stranger sees
//     depends on whether a user exists.
//   - A session has the same capabilities upstream as were agreed on with its client, so packets are forwarded
//     as they came. Every byte of a statement is on record before it is forwarded. The exceptions are commands and
//     statements that are refused: they reach the server as zeros of the same length, on which it answers in
//     that very place, and its answer is replaced by ours on the way back.
//   - Answers are paired with commands in order, however many are under way.
//   - A packet of any length, in any number of frames, takes a bounded amount of memory: what is longer is
//     recorded and forwarded in parts.
//   - XA passes only where the access level allows it and an xid is written plainly, so that what is on record
//     is what can be rolled back.
//   - A client is greeted with an id of ours. KILL of an id passes where it is a session's of the same grant, with the
//     backend's id in its place: Ctrl-C of a stock client is such a KILL, on a connection above the level's limit.
//   - What no client sends ends the session before it is forwarded.
//
// Protocol: https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html and
// https://mariadb.com/kb/en/clientserver-protocol/.
//
// # Accounts
//
// An [Engine] guards one server: it makes a user for each grant, ends it, and finds what was left behind. The
// SQL is in sql/, for a DBA to read; the order of an ending and its reasons are in cut.go and clean.go, what can't be
// cleaned without a DBA in residue.go. What may be relied on:
//
//   - An account is 'curfew_<installation>_<grant>' at the one host that the server sees Curfew come from. It has its
//     rights by the level's roles only. On MariaDB a role of its own (with _role behind its name) holds them, so that what
//     somebody makes in a role's name (DEFINER = CURRENT_ROLE) is that grant's and no other's.
//   - Statements about users can't be undone by a ROLLBACK. An account is made locked and is opened last; a
//     step that fails leaves nothing, one at which the process dies leaves what the intent stands for.
//   - Nothing secret reaches the server: verifiers stand in for passwords.
//   - After Cut nobody is in and nobody gets in, with whatever password, not even by a login that had begun before.
//   - Clean changes or drops nothing that it can't without harm. A trigger of the account, on MySQL also a routine,
//     keeps the account on the server, locked, and says in SQL what a DBA has to do.
//   - XA transactions are rolled back by the xids on record; others are reported and never touched.
//
// Neither server can say who made a table, a user or a role: the recording does. Neither has an expiry; the back-stops
// are that the secret dies with Curfew, MAX_USER_CONNECTIONS and, on MariaDB, MAX_STATEMENT_TIME.
//
// A level's set_role: on MariaDB its holders are given the level's roles themselves, too, and can SET ROLE to one of them
// to make things in its name, which then are the role's and stay; the end of the grant reports them. On
// MySQL, where nothing belongs to a role, it means nothing.
package mysql
