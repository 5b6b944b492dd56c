package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/protocol"
)

const (
	pollFirst     = time.Millisecond
	pollMost      = 10 * time.Millisecond
	fateWait      = 5 * time.Second // how long a transaction may take to show its fate
	receiptWindow = 5 * time.Second // backends that sessions killed this long before Cut belong to the same end
)

// end is a backend that was terminated.
type end struct {
	pid      uint32
	xid      string // transaction in flight, 64 bits as text; empty = it had written nothing
	address  string
	idle     bool    // it was between two statements
	link     session // nil: none of ours
	inFlight uint64
	fate     string
}

// Cut locks the account (in its own commit), terminates its backends until none is left, and learns
// what became of what they were doing. All of it runs on the connection that is kept open for closing.
func (a *account) Cut(ctx context.Context) (protocol.Cut, error) {
	began := time.Now()
	a.shut()
	if err := take(ctx, a.killing); err != nil {
		return a.receipt(began), err
	}
	defer give(a.killing)
	err := a.empty(ctx)
	if errors.Is(err, errNoRole) {
		err = a.orphans(ctx)
	}
	if err != nil {
		return a.receipt(began), fmt.Errorf("cut %s: %w", a.spec.Name, err)
	}
	a.mu.Lock()
	if a.cut.GoneAt.IsZero() {
		if a.cut.GoneAt = a.vacant; a.vacant.IsZero() { // there is nothing on the server to look at
			a.cut.GoneAt = time.Now()
		}
	}
	a.cut.Left = 0
	a.mu.Unlock()
	return a.receipt(began), a.engine.cfg.Step.Do("cut.gone")
}

// nobody notes that a look at the locked account found no backend. Looks that come after it confirm that, or
// find somebody, who was killed: then it counts from the look that found nobody after them.
func (a *account) nobody(killed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.cut.LockedAt.IsZero() && (killed || a.vacant.IsZero()) {
		a.vacant = time.Now()
	}
}

// orphans terminates what outlived the role: nobody can log in as one that is not there, but whoever was
// in goes on working.
func (a *account) orphans(ctx context.Context) error {
	a.locked()
	a.mu.Lock()
	oid := a.oid
	a.mu.Unlock()
	if oid == 0 {
		return nil
	}
	ends, err := a.drain(ctx, oid)
	ends = a.engine.fates(ctx, ends)
	for i := range ends {
		if ends[i].xid == "" { // without the role the broker isn't shown transaction ids
			ends[i].fate = protocol.FateUnknown
		}
	}
	a.note(ends)
	return err
}

// receipt is what cutting has learned so far, across attempts.
func (a *account) receipt(began time.Time) protocol.Cut {
	a.mu.Lock()
	if first := a.cut.LockedAt; !first.IsZero() && first.Before(began) {
		began = first
	}
	cut := a.cut
	a.mu.Unlock()
	cut.Outcomes = a.since(began.Add(-receiptWindow))
	return cut
}

// locked notes when nobody could log in any more.
func (a *account) locked() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cut.LockedAt.IsZero() {
		a.cut.LockedAt = time.Now()
	}
}

// empty locks the account and terminates its backends until none is left. The caller has the killing
// token; on nil nobody is in and nobody gets in.
func (a *account) empty(ctx context.Context) error {
	oid, opening, err := a.lock(ctx)
	if errors.Is(err, errNoRole) {
		return err
	}
	if err != nil {
		// Whoever is in goes all the same. Who comes after that goes with the next try.
		return errors.Join(fmt.Errorf("lock: %w", err), a.vacate(ctx))
	}
	a.is(oid)
	a.locked()
	if err := a.engine.cfg.Step.Do("cut.locked"); err != nil {
		return err
	}
	ends, err := a.drainAll(ctx, oid, opening)
	a.note(a.engine.fates(ctx, ends))
	if err != nil {
		return err
	}
	return a.engine.cfg.Step.Do("cut.terminated")
}

// drainAll terminates the account's backends, and those that were logging in when the account was locked:
// whoever passed the login check before that was being opened then, or is in.
func (a *account) drainAll(ctx context.Context, oid uint32, opening map[opening]bool) ([]end, error) {
	ends, err := a.drain(ctx, oid)
	if err != nil || len(opening) == 0 {
		return ends, err
	}
	if err := a.engine.starting(ctx, opening); err != nil {
		return ends, err
	}
	late, err := a.drain(ctx, oid)
	return append(ends, late...), err
}

// vacate terminates whoever is in now.
func (a *account) vacate(ctx context.Context) error {
	oid, err := a.role(ctx)
	if err != nil {
		return err
	}
	ends, err := a.drain(ctx, oid)
	a.note(a.engine.fates(ctx, ends))
	return err
}

// lock commits that nobody can log in, and gives the role's oid, and who was being let in then. A person can hold the
// lock on their own role's row (BEGIN; ALTER ROLE …), so when the lock does not come at once their backends are
// terminated first, and what they prepared under the account's own name is rolled back.
func (a *account) lock(ctx context.Context) (uint32, map[opening]bool, error) {
	sql, err := statement("lock", vars{"account": a.spec.Name})
	if err != nil {
		return 0, nil, err
	}
	for {
		oid, then, err := a.tryLock(ctx, sql)
		if is(err, "42704") {
			return 0, nil, errNoRole
		}
		if err == nil || !is(err, "55P03", "XX000", "40001") { // lock timeout; "tuple concurrently updated"
			return oid, then, err
		}
		oid, killErr := a.role(ctx)
		var ends []end
		if killErr == nil {
			ends, killErr = a.drain(ctx, oid)
			a.note(a.engine.fates(ctx, ends))
		}
		if killErr == nil && len(ends) == 0 {
			_, killErr = a.rollBack(ctx, oid, nil)
		}
		if killErr != nil {
			return 0, nil, errors.Join(err, killErr)
		}
		if !pause(ctx, pollMost) {
			return 0, nil, errors.Join(err, context.Cause(ctx))
		}
	}
}

// tryLock sends the lock, which is committed when it is answered, and in the same breath asks who is being let in.
func (a *account) tryLock(ctx context.Context, sql string) (oid uint32, then map[opening]bool, err error) {
	err = a.engine.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		then = map[opening]bool{}
		for _, name := range []string{"oid", "starting"} {
			if _, err := c.Prepare(ctx, name, query(name)); err != nil { // once a connection
				return err
			}
		}
		p := c.PgConn().StartPipeline(ctx)
		p.SendQueryParams(sql, nil, nil, nil, nil)
		p.SendPipelineSync() // the commit
		p.SendQueryPrepared("oid", [][]byte{[]byte(a.spec.Name)}, nil, nil)
		p.SendQueryPrepared("starting", nil, nil, nil)
		err := p.Sync()
		if err == nil {
			err = errors.Join(rowsOf(p, nil), rowsOf(p, func(row [][]byte) error {
				n, err := strconv.ParseUint(string(row[0]), 10, 32)
				oid = uint32(n)
				return err
			}), rowsOf(p, func(row [][]byte) error {
				pid, err := strconv.ParseInt(string(row[0]), 10, 32)
				then[opening{int32(pid), string(row[1])}] = string(row[2]) == "t"
				return err
			}))
		}
		return errors.Join(err, p.Close())
	})
	return oid, then, err
}

// rowsOf reads the next answer of a pipeline, row by row, and the synchronization points before it.
func rowsOf(p *pgconn.Pipeline, each func(row [][]byte) error) error {
	for {
		next, err := p.GetResults()
		if err != nil {
			return err
		}
		rows, ok := next.(*pgconn.ResultReader)
		if !ok {
			continue
		}
		for err == nil && rows.NextRow() {
			err = each(rows.Values())
		}
		_, closed := rows.Close()
		return errors.Join(err, closed)
	}
}

// drain terminates the account's backends (only these, if any are named) until none is left.
func (a *account) drain(ctx context.Context, oid uint32, only ...uint32) ([]end, error) {
	seen := map[uint32]*end{}
	var order []uint32
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		asked := time.Now()
		left, err := a.terminate(ctx, oid, only)
		took := time.Since(asked)
		for _, e := range left {
			old := seen[e.pid]
			if old == nil {
				seen[e.pid] = &e
				order = append(order, e.pid)
			} else if e.xid != "" {
				old.xid = e.xid
			}
		}
		a.mu.Lock()
		a.cut.Left = len(left)
		a.mu.Unlock()
		if err == nil && len(left) > 0 && !pause(ctx, max(wait, took)) { // a look at many costs the server what they need for going
			err = fmt.Errorf("%d backends are still there: %w", len(left), context.Cause(ctx))
		}
		if err == nil && len(left) == 0 && len(only) == 0 {
			a.nobody(len(order) > 0)
		}
		if err != nil || len(left) == 0 {
			ends := make([]end, 0, len(order))
			for _, pid := range order {
				ends = append(ends, *seen[pid])
			}
			return ends, err
		}
	}
}

// terminate tells the account's backends to go, once, and gives those that were there.
func (a *account) terminate(ctx context.Context, oid uint32, only []uint32) ([]end, error) {
	links := map[uint32]session{}
	inFlight := map[uint32]uint64{}
	for _, l := range a.joined() {
		links[l.pid()] = l
		inFlight[l.pid()] = l.inFlight()
	}
	pids := make([]int32, 0, len(only))
	for _, pid := range only {
		pids = append(pids, int32(pid))
	}
	var ends []end
	err := a.engine.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		ends = nil
		rows, err := c.Query(ctx, query("terminate"), int64(oid), pids)
		if err != nil {
			return err
		}
		var e end
		var pid int32
		var told bool
		_, err = pgx.ForEachRow(rows, []any{&pid, &e.xid, &e.address, &e.idle, &told}, func() error {
			e.pid = uint32(pid)
			e.link, e.inFlight = links[e.pid], inFlight[e.pid]
			ends = append(ends, e)
			return nil
		})
		return err
	})
	return ends, err
}

// fates asks the server what became of the transactions in flight. A server that can't be asked makes
// them unknown; the backends are gone all the same. So is what an idle backend had been sent: it may not
// have read it yet, or have committed it by itself just now; what it answered is on record (Link.Kill).
func (e *Engine) fates(ctx context.Context, ends []end) []end {
	var open []string
	for i := range ends {
		ends[i].fate = protocol.FateNone
		if ends[i].idle && ends[i].inFlight != 0 {
			ends[i].fate = protocol.FateUnknown
		}
		if ends[i].xid != "" {
			ends[i].fate = protocol.FateUnknown
			open = append(open, ends[i].xid)
		}
	}
	deadline := time.Now().Add(fateWait)
	for wait := pollFirst; len(open) > 0; wait = min(2*wait, pollMost) {
		known, prepared, err := e.askFates(ctx, open)
		if err != nil {
			e.cfg.Log.Error("ask for the fate of transactions", "error", err)
			return ends
		}
		open = nil
		for i := range ends {
			switch fate := known[ends[i].xid]; fate {
			case protocol.FateAborted, protocol.FateCommitted:
				ends[i].fate = fate
			case "in progress":
				if !prepared[ends[i].xid] {
					open = append(open, ends[i].xid)
				}
			}
		}
		if len(open) > 0 && (time.Now().After(deadline) || !pause(ctx, wait)) {
			return ends
		}
	}
	return ends
}

func (e *Engine) askFates(ctx context.Context, xids []string) (known map[string]string, prepared map[string]bool, err error) {
	err = e.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		known, prepared = map[string]string{}, map[string]bool{}
		rows, err := c.Query(ctx, query("fates"), xids)
		if err != nil {
			return err
		}
		var xid, fate string
		var waits bool
		_, err = pgx.ForEachRow(rows, []any{&xid, &fate, &waits}, func() error {
			known[xid], prepared[xid] = fate, waits
			return nil
		})
		return err
	})
	return known, prepared, err
}
