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
	"github.com/curfewdb/curfew/protocol/crew"
)

const (
	pollFirst = time.Millisecond
	pollMost  = 10 * time.Millisecond
	fateWait  = 5 * time.Second // how long a transaction may take to show its fate
)

// Cut locks the account (in its own commit), terminates its backends until none is left, and learns
// what became of what they were doing. All of it runs on the connection that is kept open for closing.
func (a *account) Cut(ctx context.Context) (protocol.Cut, error) {
	cut, err := a.Crew.Cut(ctx, func(ctx context.Context) error {
		err := a.empty(ctx)
		if errors.Is(err, errNoRole) {
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

// orphans terminates what outlived the role: nobody can log in as one that is not there, but whoever was
// in goes on working.
func (a *account) orphans(ctx context.Context) error {
	a.Locked()
	a.mu.Lock()
	oid := a.oid
	a.mu.Unlock()
	if oid == 0 {
		return nil
	}
	ends, err := a.drain(ctx, oid)
	ends = a.engine.fates(ctx, ends)
	for i := range ends {
		if ends[i].TxID == "" { // without the role the broker isn't shown transaction ids
			ends[i].Fate = protocol.FateUnknown
		}
	}
	a.Note(ends, a.secret == "")
	return err
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
	a.Locked()
	if err := a.engine.cfg.Step.Do("cut.locked"); err != nil {
		return err
	}
	ends, err := a.drainAll(ctx, oid, opening)
	a.note(ctx, ends)
	if err != nil {
		return err
	}
	return a.engine.cfg.Step.Do("cut.terminated")
}

// drainAll terminates the account's backends, and those that were logging in when the account was locked:
// whoever passed the login check before that was being opened then, or is in.
func (a *account) drainAll(ctx context.Context, oid uint32, opening map[opening]bool) ([]crew.End, error) {
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
	a.note(ctx, ends)
	return err
}

// end terminates these backends.
func (a *account) end(ctx context.Context, only ...uint32) error {
	oid, err := a.role(ctx)
	if err != nil {
		return err
	}
	ends, err := a.drain(ctx, oid, only...)
	if err == nil {
		a.note(ctx, ends)
	}
	return err
}

// note keeps the outcomes of terminated backends.
func (a *account) note(ctx context.Context, ends []crew.End) {
	a.Note(a.engine.fates(ctx, ends), a.secret == "")
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
		var ends []crew.End
		if killErr == nil {
			ends, killErr = a.drain(ctx, oid)
			a.note(ctx, ends)
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
func (a *account) drain(ctx context.Context, oid uint32, only ...uint32) ([]crew.End, error) {
	seen := map[uint32]*crew.End{}
	var order []uint32
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		asked := time.Now()
		left, err := a.terminate(ctx, oid, only)
		took := time.Since(asked)
		for _, e := range left {
			old := seen[e.Backend]
			if old == nil {
				seen[e.Backend] = &e
				order = append(order, e.Backend)
			} else if e.TxID != "" {
				old.TxID = e.TxID
			}
		}
		a.Left(len(left))
		if err == nil && len(left) > 0 && !pause(ctx, max(wait, took)) { // a look at many costs the server what they need for going
			err = fmt.Errorf("%d backends are still there: %w", len(left), context.Cause(ctx))
		}
		if err == nil && len(left) == 0 && len(only) == 0 {
			a.Vacant(len(order) > 0)
		}
		if err != nil || len(left) == 0 {
			ends := make([]crew.End, 0, len(order))
			for _, pid := range order {
				ends = append(ends, *seen[pid])
			}
			return ends, err
		}
	}
}

// terminate tells the account's backends to go, once, and gives those that were there. What an idle one had been
// sent is unknown: it may not have read it yet, or have committed it by itself just now; what it answered is on
// record (Link.Kill).
func (a *account) terminate(ctx context.Context, oid uint32, only []uint32) ([]crew.End, error) {
	links := map[uint32]crew.Session{}
	inFlight := map[uint32]uint64{}
	for _, l := range a.Joined() {
		links[l.Backend()] = l
		inFlight[l.Backend()] = l.InFlight()
	}
	pids := make([]int32, 0, len(only))
	for _, pid := range only {
		pids = append(pids, int32(pid))
	}
	var ends []crew.End
	err := a.engine.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		ends = nil
		rows, err := c.Query(ctx, query("terminate"), int64(oid), pids)
		if err != nil {
			return err
		}
		var e crew.End
		var pid int32
		var address string
		var idle, told bool
		_, err = pgx.ForEachRow(rows, []any{&pid, &e.TxID, &address, &idle, &told}, func() error {
			e.Backend = uint32(pid)
			e.Session, e.InFlight, e.Fate = links[e.Backend], inFlight[e.Backend], protocol.FateNone
			if idle && e.InFlight != 0 {
				e.Fate = protocol.FateUnknown
			}
			ends = append(ends, e)
			return nil
		})
		return err
	})
	return ends, err
}

// fates asks the server what became of the transactions in flight. A server that can't be asked makes
// them unknown; the backends are gone all the same.
func (e *Engine) fates(ctx context.Context, ends []crew.End) []crew.End {
	var open []string
	for i := range ends {
		if ends[i].TxID != "" {
			ends[i].Fate = protocol.FateUnknown
			open = append(open, ends[i].TxID)
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
			switch fate := known[ends[i].TxID]; fate {
			case protocol.FateAborted, protocol.FateCommitted:
				ends[i].Fate = fate
			case "in progress":
				if !prepared[ends[i].TxID] {
					open = append(open, ends[i].TxID)
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
