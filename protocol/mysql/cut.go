package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/crew"
)

// What can be known of a statement that was killed.
//
// KILL CONNECTION closes the socket first, so nobody reads how the statement in flight ended, and neither
// server keeps the fate of a transaction. What there is: information_schema.innodb_trx tells, until the
// thread is gone, which transaction it has open and how many rows that has written; and a thread leaves the
// process list only after its transaction was rolled back or committed. So:
//
//   - none: nothing was in flight and no row was written; or what was in flight had written none, and nothing
//     was committed (or it only reads).
//   - aborted: rows were written, and one of these shows that they are gone. The connection was idle, with
//     every statement that was forwarded to it answered: there was nothing more that could commit. Or the
//     server was seen rolling back. Or not one transaction of the account was committed between the moment
//     before the kill and the moment after the last thread had left the list. The servers count commits:
//     MySQL by account (performance_schema), MariaDB by user with userstat=1, else only for all together,
//     which shows as much on a server that is quiet for these milliseconds.
//   - unknown: everything else. COMMIT itself may have been in flight. A statement that changes tables'
//     definitions, or writes to tables without transactions, has no transaction to look at.
//
// innodb_trx is a copy that is renewed only when nobody has asked for it for 100 ms, so a monitor, or grants that
// end together, can leave it behind. Whether the copy is of now can be seen: the line opens a transaction of its
// own, and the copy shows what that was asking when it was made. From an old one it does not follow that a
// transaction which is not in it is not there; then only the session's own word for it counts.

const (
	pollFirst    = time.Millisecond
	pollMost     = 10 * time.Millisecond
	lockPatience = time.Second // how long a lock on the server's own tables may hold up the locking of an account
)

// end is a backend that was killed.
type end struct {
	pid      uint32
	trx      string // InnoDB's transaction; "" if it had none open, "0" if that had written nothing
	modified int64  // rows that it had written
	idle     bool   // it was between two statements
	reads    bool   // what it ran only reads
	rolled   bool   // it was seen rolling back
	sleeps   bool   // it is in SLEEP()
	stale    bool   // the list of transactions was an old one
	quiet    bool   // nothing was committed meanwhile
	link     crew.Session
	inFlight uint64
}

// txid is the transaction in flight; empty: it had written nothing.
func (e *end) txid() string {
	if e.modified == 0 || e.trx == "0" {
		return ""
	}
	return e.trx
}

// fate is what became of what the backend was doing.
func (e *end) fate() string {
	answered := e.idle && e.inFlight == 0
	switch {
	case e.modified > 0 && (e.rolled || e.quiet || answered && e.link != nil):
		return protocol.FateAborted
	case e.modified > 0, e.stale && !e.toldNone():
		return protocol.FateUnknown
	case answered, e.reads, e.trx != "" && e.quiet:
		return protocol.FateNone
	}
	return protocol.FateUnknown
}

// rests says whether nothing is at work, by the server, and no transaction is open, by what it told the session last: no
// count of commits and no list of transactions can tell more.
func (e *end) rests() bool { return e.idle && e.inFlight == 0 && e.toldNone() }

// toldNone says whether the server itself has told the session that it has no transaction open.
func (e *end) toldNone() bool {
	s, ok := e.link.(transactor)
	return ok && !s.transaction()
}

// Cut locks the account (which commits by itself), kills its backends until none is left, and learns what
// became of what they were doing. All of it runs on the connection that is kept open for closing.
func (a *account) Cut(ctx context.Context) (protocol.Cut, error) {
	cut, err := a.Crew.Cut(ctx, func(ctx context.Context) error {
		err := a.empty(ctx)
		if errors.Is(err, errNoUser) {
			err = a.orphans(ctx)
		}
		if err != nil {
			return fmt.Errorf("cut %s: %w", a.spec.Name, err)
		}
		return nil
	})
	if err == nil {
		err = a.engine.cfg.Step.Do("cut.gone")
	}
	return cut, err
}

// orphans kills what outlived the user: nobody can log in as one that is not there, but whoever was in
// goes on working.
func (a *account) orphans(ctx context.Context) error {
	a.Locked()
	ends, err := a.drainAll(ctx)
	a.note(ends)
	return err
}

// empty locks the account and kills its backends until none is left. The caller has the killing token; on
// nil nobody is in and nobody gets in.
func (a *account) empty(ctx context.Context) error {
	r, err := a.row(ctx)
	if err != nil {
		return err
	}
	if err := a.lock(ctx, r.hosts); err != nil {
		// Whoever is in goes all the same. Who comes after that goes with the next try.
		ends, killErr := a.drain(ctx)
		a.note(ends)
		return errors.Join(fmt.Errorf("lock: %w", err), killErr)
	}
	a.Locked()
	if err := a.engine.cfg.Step.Do("cut.locked"); err != nil {
		return err
	}
	ends, err := a.drainAll(ctx)
	a.note(ends)
	if err != nil {
		return err
	}
	return a.engine.cfg.Step.Do("cut.terminated")
}

// lock sees to it that nobody can log in. A new verifier that fits no secret makes dead a password that the
// holder may have set, even should somebody unlock the account. Whoever holds a lock on the server's own tables,
// as a backup does (FLUSH TABLES WITH READ LOCK), holds this up; then the account's backends go first.
func (a *account) lock(ctx context.Context, hosts []string) error {
	for {
		late := false
		err := a.engine.closing.do(ctx, func(ctx context.Context, c *conn) error {
			patience, cancel := context.WithTimeout(ctx, lockPatience)
			defer cancel()
			err := a.tryLock(patience, c, hosts)
			late = patience.Err() != nil
			return err
		})
		if err == nil || ctx.Err() != nil || !late && !is(err, 1205) { // lock wait timeout
			return err
		}
		ends, killErr := a.drain(ctx)
		a.note(ends)
		if killErr != nil {
			return errors.Join(err, killErr)
		}
		if !pause(ctx, pollMost) {
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

func (a *account) tryLock(ctx context.Context, c *conn, hosts []string) error {
	if err := writable(ctx, c); err != nil {
		return err
	}
	plugin, verifier, err := proofOf(ctx, c, newSecret())
	for i := 0; err == nil && i < len(hosts); i++ {
		err = c.run(ctx, "lock", vars{"account": user(a.spec.Name, hosts[i]), "plugin": plugin, "verifier": verifier})
	}
	if err != nil {
		c.plugins = nil // one may have been taken out
	}
	return err
}

// drainAll kills the account's backends, and those that were logging in while the account was locked.
func (a *account) drainAll(ctx context.Context) ([]end, error) {
	ends, err := a.drain(ctx)
	if err != nil {
		return ends, err
	}
	// Whoever passed the login check before the lock shows up now, or never.
	waited, err := a.engine.starting(ctx)
	if err != nil || !waited {
		return ends, err
	}
	late, err := a.drain(ctx)
	return append(ends, late...), err
}

// drain kills the account's backends (only these, if any are named) until none is left.
func (a *account) drain(ctx context.Context, only ...uint32) ([]end, error) {
	seen := map[uint32]*end{}
	var order []uint32
	var before commits
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		left, now, err := a.terminate(ctx, only, len(order) == 0)
		if len(order) == 0 {
			before = now
		}
		for _, e := range left {
			if old := seen[e.pid]; old != nil {
				old.rolled = old.rolled || e.rolled
				continue
			}
			seen[e.pid] = &e
			order = append(order, e.pid)
			before = before.without(e, now)
		}
		a.Left(len(left))
		if err == nil && len(left) > 0 && !pause(ctx, wait) {
			err = fmt.Errorf("%d backends are still there: %w", len(left), context.Cause(ctx))
		}
		if err == nil && len(left) == 0 && len(only) == 0 {
			a.Vacant(len(order) > 0)
		}
		if err != nil || len(left) == 0 {
			return a.endsOf(ctx, seen, order, before, err == nil), err
		}
	}
}

// endsOf gives the ends in order, and whether nothing was committed from before the kill until now. gone:
// nobody is left who could yet.
func (a *account) endsOf(ctx context.Context, seen map[uint32]*end, order []uint32, before commits, gone bool) []end {
	quiet := false
	if gone && len(order) > 0 && before.known {
		err := a.engine.closing.do(ctx, func(ctx context.Context, c *conn) error {
			after, err := a.commits(ctx, c)
			quiet = after == before
			return err
		})
		if err != nil {
			a.engine.cfg.Log.Error("ask whether anything was committed", "account", a.spec.Name, "error", err)
		}
	}
	joined := map[crew.Session]bool{}
	for _, l := range a.Joined() {
		joined[l] = true
	}
	var ends []end
	for _, pid := range order {
		e := *seen[pid]
		e.quiet = quiet
		if joined[e.link] { // what was forwarded to it in the meantime
			e.inFlight = max(e.inFlight, e.link.InFlight())
		}
		ends = append(ends, e)
	}
	return ends
}

// commits is how many transactions were committed, by the finest count that the server keeps.
type commits struct {
	known bool
	scope string // of the count
	count int64
}

// without says that a backend came only after the count: whatever it did by then is not known.
func (b commits) without(_ end, now commits) commits {
	if b != now {
		return commits{}
	}
	return b
}

// commits asks for the count, or gives one that is not known.
func (a *account) commits(ctx context.Context, c *conn) (n commits, err error) {
	err = c.rows(ctx, "commits", n.take, a.spec.Name, a.spec.Name)
	return n, err
}

func (b *commits) take(rows *sql.Rows) error {
	b.known = true
	return rows.Scan(&b.scope, &b.count)
}

// terminate looks at the account's backends and tells them to go, once, and gives those that were there.
// first: unless all of them are at rest, it asks for the count of commits, and sees to it that the look is of now.
func (a *account) terminate(ctx context.Context, only []uint32, first bool) (ends []end, n commits, err error) {
	err = a.engine.closing.do(ctx, func(ctx context.Context, c *conn) (err error) {
		ends, n = nil, commits{}
		if !first {
			if ends, err = a.there(ctx, c, only, query(c.server.mariadb, "backends")); err == nil {
				err = shoot(ctx, c, ends)
			}
			return err
		}
		if a.calm() { // without a look at the list of transactions, which would be an old one at the second look
			if ends, err = a.there(ctx, c, only, query(c.server.mariadb, "resting")); err != nil || len(ends) == 0 {
				return err
			}
			if !slices.ContainsFunc(ends, func(e end) bool { return !e.rests() }) {
				return shoot(ctx, c, ends)
			}
		}
		open := true
		defer func() {
			if open { // not COMMIT, which would count as one
				_, back := c.ExecContext(ctx, "ROLLBACK")
				err = errors.Join(err, back)
			}
		}()
		mark := "/* " + newSecret() + " */"
		if ends, n, err = a.lookFresh(ctx, c, only, mark); err != nil || len(ends) == 0 {
			return err
		}
		fresh := false
		if fresh, err = shootFresh(ctx, c, ends, mark); err == nil {
			open = false
		}
		for i := range ends {
			ends[i].stale = !fresh
		}
		return err
	})
	return ends, n, err
}

// lookFresh opens a transaction, which the mark shows in the list of transactions, counts the commits, and looks at the
// account's backends. MariaDB takes all that in one block: each round trip to a server that has much to do takes its time.
func (a *account) lookFresh(ctx context.Context, c *conn, only []uint32, mark string) (ends []end, n commits, err error) {
	text := markedLook(c.server.mariadb, mark)
	if !c.server.mariadb {
		if _, err := c.ExecContext(ctx, query(false, "snapshot")); err != nil {
			return nil, n, err
		}
		if n, err = a.commits(ctx, c); err != nil {
			return nil, n, err
		}
		ends, err = a.there(ctx, c, only, text)
		return ends, n, err
	}
	block := fmt.Sprintf("BEGIN NOT ATOMIC %s; %s; %s; END", query(true, "snapshot"), query(true, "commits"), text)
	err = c.sets(ctx, block, append([]any{a.spec.Name, a.spec.Name}, a.lookArgs(only)...), n.take, a.taker(only, &ends))
	return ends, n, err
}

// markedLook is the look at the backends that begins with the mark: what the list of transactions shows of it.
func markedLook(mariadb bool, mark string) string {
	return "SELECT " + mark + strings.TrimPrefix(query(mariadb, "backends"), "SELECT")
}

// calm says whether, by all that the sessions know, none of them is at work.
func (a *account) calm() bool {
	return !slices.ContainsFunc(a.Joined(), func(l crew.Session) bool {
		t, ok := l.(transactor)
		return l.InFlight() != 0 || !ok || t.transaction()
	})
}

// there gives the account's backends (only these, if any are named), by one of the looks at them.
func (a *account) there(ctx context.Context, c *conn, only []uint32, text string) (ends []end, err error) {
	err = c.each(ctx, text, a.taker(only, &ends), a.lookArgs(only)...)
	return ends, err
}

// lookArgs are what a look at the account's backends asks for.
func (a *account) lookArgs(only []uint32) []any {
	one := uint32(0)
	if len(only) == 1 {
		one = only[0]
	}
	return []any{a.spec.Name, a.role(), one, one}
}

// taker gives what makes an end of each row of a look.
func (a *account) taker(only []uint32, ends *[]end) func(*sql.Rows) error {
	links := map[uint32]crew.Session{}
	for _, l := range a.Joined() {
		links[l.Backend()] = l
	}
	return func(rows *sql.Rows) error {
		var e end
		var command, info, state, stage string
		if err := rows.Scan(&e.pid, &command, &info, &e.trx, &e.modified, &state, &stage); err != nil {
			return err
		}
		if len(only) > 1 && !slices.Contains(only, e.pid) {
			return nil
		}
		e.idle, e.reads, e.rolled, e.sleeps = command == "Sleep", onlyReads(info), state == "ROLLING BACK", stage == "User sleep"
		if e.link = links[e.pid]; e.link != nil {
			e.inFlight = e.link.InFlight()
		}
		*ends = append(*ends, e)
		return nil
	}
}

// onlyReads says whether a statement can't have written: by its first word, and without a function of
// somebody's own in sight this is as much as can be said from outside.
func onlyReads(text string) bool {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch strings.ToUpper(first) {
	case "SHOW", "EXPLAIN", "DESCRIBE", "DESC", "DO", "HELP":
		return true
	case "SELECT":
		return !strings.Contains(strings.ToUpper(rest), "INTO")
	}
	return false
}
