package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/protocol"
)

// lockTimeout bounds how long cleaning waits for a lock that somebody else holds, and so how long it
// makes others queue behind it. What it did not get this time it gets the next.
const lockTimeout = "2s"

// Clean rolls back what the account prepared, notes what it leaves behind, quarantines that, drops the
// account and proves by a query that it is gone. An error leaves the account locked; what was learned
// until then is returned with it, is kept in the role's comment, and is in the result of the call that
// succeeds, in this process or another.
func (a *account) Clean(ctx context.Context) (protocol.Clean, error) {
	if err := a.cleaning.Take(ctx); err != nil {
		return a.cleaned(), err
	}
	defer a.cleaning.Give()
	a.Shut()
	err := a.cleanUp(ctx)
	if err != nil {
		return a.cleaned(), fmt.Errorf("clean %s: %w", a.spec.Name, err)
	}
	a.engine.forget(a)
	return a.cleaned(), nil
}

// cleaned is what cleaning has learned so far.
func (a *account) cleaned() protocol.Clean {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.clean
	c.RolledBack = append([]string(nil), c.RolledBack...)
	c.Residue = append([]protocol.Residue(nil), c.Residue...)
	return c
}

// cleanUp takes the role off the server and proves that; each step is its own commit and bears to be repeated.
// Once nobody is in, it may wait: the closing line is left to those who can't.
func (a *account) cleanUp(ctx context.Context) error {
	err := a.takeOff(ctx, false)
	if is(err, "2BP01") { // something of its own is left that was not seen: the server keeps the role until it is not
		err = a.takeOff(ctx, true)
	}
	if errors.Is(err, errNoRole) {
		err = a.orphans(ctx)
	}
	if err != nil {
		return err
	}
	return a.engine.here(ctx, a.prove)
}

// takeOff takes the role off the server. What an account leaves in the broker's own database is disowned if
// anything was found there, or if that is to be thorough.
func (a *account) takeOff(ctx context.Context, thorough bool) error {
	l, err := a.vacated(ctx)
	if err != nil {
		return err
	}
	if _, err := a.finish(ctx, l.prepared); err != nil {
		return err
	}
	if err := a.look(ctx, l); err != nil {
		return err
	}
	if err := a.unshare(ctx, l.members); err != nil {
		return err
	}
	for _, p := range l.places {
		if p.database == a.engine.broker.Database && thorough {
			p.own, p.things = true, true
		}
		if err := a.quarantine(ctx, l.row.oid, p); err != nil {
			return fmt.Errorf("database %s: %w", p.database, err)
		}
	}
	return a.engine.here(ctx, a.drop)
}

// vacated gives what the server knows of the account once nobody is in.
func (a *account) vacated(ctx context.Context) (leaving, error) {
	if err := a.Killing.Take(ctx); err != nil {
		return leaving{}, err
	}
	defer a.Killing.Give()
	l, err := a.leave(ctx)
	switch {
	case err != nil:
		return l, err
	case a.Emptied() && !l.row.login && l.inside == 0:
		return l, nil
	case a.Emptied() && !l.row.login:
		err = a.vacate(ctx)
	default: // it was never cut, or somebody has unlocked it
		err = a.empty(ctx)
	}
	if err != nil {
		return l, err
	}
	return a.leave(ctx) // whoever was in may have made something meanwhile
}

// rollBack ends the prepared transactions that are this grant's, as far as it can become these roles.
func (a *account) rollBack(ctx context.Context, oid uint32, can []int64) ([]string, error) {
	var list []waiting
	err := a.engine.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query("prepared"), int64(oid), can, a.Prepared())
		if err != nil {
			return err
		}
		list, err = readPrepared(rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	return a.finish(ctx, list)
}

func readPrepared(rows pgx.Rows) ([]waiting, error) {
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (p waiting, err error) {
		return p, r.Scan(&p.gid, &p.database, &p.owner)
	})
}

// finish rolls these prepared transactions back, each in its own database and as its owner: nobody else may.
func (a *account) finish(ctx context.Context, list []waiting) ([]string, error) {
	var done []string
	for _, p := range list {
		err := a.engine.in(ctx, p.database, func(ctx context.Context, c *pgx.Conn) error {
			return as(ctx, c, p.owner, "ROLLBACK PREPARED "+literal(p.gid))
		})
		if err != nil && !is(err, "42704") { // somebody else finished it
			return done, fmt.Errorf("roll back prepared transaction %q in %s: %w", p.gid, p.database, err)
		}
		done = append(done, p.gid)
		a.mu.Lock()
		a.clean.RolledBack = append(a.clean.RolledBack, p.gid)
		a.mu.Unlock()
		if err := a.engine.cfg.Step.Do("clean.rolled_back"); err != nil {
			return done, err
		}
	}
	return done, nil
}

// as runs one statement outside a transaction in another role. A connection that can't come back from
// it is closed.
func as(ctx context.Context, c *pgx.Conn, role, sql string) error {
	if _, err := c.Exec(ctx, "SET ROLE "+pgx.Identifier{role}.Sanitize()); err != nil {
		return err
	}
	_, err := c.Exec(ctx, sql)
	if _, reset := c.Exec(ctx, "RESET ROLE"); reset != nil {
		hangUp(ctx, c)
		err = errors.Join(err, reset)
	}
	return err
}

// unshare takes the account away from whoever was given it. That it was shared was noted by look.
func (a *account) unshare(ctx context.Context, members []string) error {
	if len(members) == 0 {
		return nil
	}
	err := a.engine.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return a.inTx(ctx, c, func(s *script) {
			for _, m := range members {
				s.add("unshare", vars{"account": a.spec.Name, "member": m})
			}
		})
	})
	if err != nil {
		return fmt.Errorf("take the account from %s: %w", strings.Join(members, ", "), err)
	}
	return a.engine.cfg.Step.Do("clean.unshared")
}

// quarantine makes what was left in one database harmless, and the account ready to be dropped as far
// as that database goes. All of it or nothing.
func (a *account) quarantine(ctx context.Context, oid uint32, p place) error {
	if !p.own && len(p.relations)+len(p.routines) == 0 {
		return nil
	}
	err := a.engine.in(ctx, p.database, func(ctx context.Context, c *pgx.Conn) error {
		steps, err := quarantineSteps(ctx, c, oid, p)
		if err != nil {
			return err
		}
		return a.inTx(ctx, c, func(s *script) {
			for _, step := range steps {
				s.text.WriteString(step + ";\n")
			}
			if p.own {
				s.add("reassign", vars{"account": a.spec.Name, "quarantine": quarantine})
			}
		})
	})
	if err != nil {
		return err
	}
	return a.engine.cfg.Step.Do("clean.quarantined")
}

// quarantineSteps asks for the statements that make harmless what is there. The question goes through the whole
// catalog, and most accounts leave nothing.
func quarantineSteps(ctx context.Context, c *pgx.Conn, oid uint32, p place) ([]string, error) {
	if !p.things && len(p.relations)+len(p.routines) == 0 {
		return nil, nil
	}
	rows, err := c.Query(ctx, query("quarantine"), int64(oid), p.relations, p.routines)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// drop removes the role.
func (a *account) drop(ctx context.Context, c *pgx.Conn) error {
	err := a.inTx(ctx, c, func(s *script) { s.add("drop", vars{"account": a.spec.Name}) })
	if err != nil {
		return fmt.Errorf("drop: %w%s", err, detail(err))
	}
	a.mu.Lock()
	a.clean.DroppedAt = time.Now()
	a.mu.Unlock()
	return a.engine.cfg.Step.Do("clean.dropped")
}

// detail is what the server added to an error: which objects are in the way, in which database.
func detail(err error) string {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Detail == "" {
		return ""
	}
	return " (" + strings.ReplaceAll(pe.Detail, "\n", "; ") + ")"
}

// inTx runs a script in one transaction that waits for no lock longer than lockTimeout: what is sent in one
// message is one.
func (a *account) inTx(ctx context.Context, c *pgx.Conn, build func(*script)) error {
	s := &script{}
	s.text.WriteString("SET LOCAL lock_timeout = '" + lockTimeout + "';\n")
	build(s)
	return s.run(ctx, c)
}

// prove asks the server whether anything of the account is left. The query and its answer are the receipt.
func (a *account) prove(ctx context.Context, c *pgx.Conn) error {
	a.mu.Lock()
	oid := a.oid
	a.mu.Unlock()
	var roles, backends, prepared int
	err := c.QueryRow(ctx, query("prove"), a.spec.Name, int64(oid)).Scan(&roles, &backends, &prepared)
	if err != nil {
		return fmt.Errorf("prove: %w", err)
	}
	if roles+backends+prepared != 0 {
		return fmt.Errorf("not gone: %d roles, %d backends, %d prepared transactions are left", roles, backends, prepared)
	}
	sql := strings.NewReplacer("$1", literal(a.spec.Name), "$2::bigint", fmt.Sprint(oid)).Replace(query("prove"))
	a.mu.Lock()
	a.clean.Proof = strings.Join(strings.Fields(sql), " ") + " → roles 0, backends 0, prepared_transactions 0"
	if a.clean.DroppedAt.IsZero() { // an earlier process dropped it
		a.clean.DroppedAt = time.Now()
	}
	a.mu.Unlock()
	return a.engine.cfg.Step.Do("clean.proved")
}
