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
)

// Clean rolls back what the account prepared, notes what it leaves behind, re-owns that as far as it can
// be done safely, drops the account and proves by a query that it is gone. An error leaves the account
// locked; what was learned until then is returned with it, is kept with the user, and is in the result of
// the call that succeeds, in this process or another.
//
// What can't be re-owned (residue.go says why) keeps the account on the server, locked, until a DBA has dealt
// with it: the error says how, in SQL, and the next try goes on.
func (a *account) Clean(ctx context.Context) (protocol.Clean, error) {
	if err := a.cleaning.Take(ctx); err != nil {
		return a.cleaned(), err
	}
	defer a.cleaning.Give()
	a.Shut()
	err := a.cleanUp(ctx)
	if err == nil {
		err = a.prove(ctx)
	}
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

// cleanUp takes the user off the server; each step commits by itself and bears to be repeated.
func (a *account) cleanUp(ctx context.Context) error {
	if err := a.Killing.Take(ctx); err != nil {
		return err
	}
	err := a.empty(ctx) // it may never have been cut, or somebody has unlocked it
	a.Killing.Give()
	if errors.Is(err, errNoUser) {
		if err := a.orphans(ctx); err != nil {
			return err
		}
		_, err := a.rollBack(ctx)
		return errors.Join(err, a.drop(ctx, nil)) // its role may be left
	}
	if err != nil {
		return err
	}
	r, err := a.row(ctx)
	if err != nil {
		return err
	}
	others, err := a.rollBack(ctx)
	if err != nil {
		return err
	}
	left, err := a.look(ctx, r, others)
	if err != nil {
		return err
	}
	if err := a.unshare(ctx); err != nil {
		return err
	}
	err = a.quarantine(ctx, left)
	// An event may have begun again until it was disabled.
	if err := errors.Join(err, a.stragglers(ctx)); err != nil {
		return err
	}
	return a.drop(ctx, r.hosts)
}

// stragglers kills what has come under the account's name since it was emptied.
func (a *account) stragglers(ctx context.Context) error {
	if err := a.Killing.Take(ctx); err != nil {
		return err
	}
	defer a.Killing.Give()
	ends, err := a.drain(ctx)
	a.note(ends)
	return err
}

// rollBack ends the prepared XA transactions that are this grant's: those that its recordings show, never
// others, for the server names no owner. Others that have come since the account was made are returned.
func (a *account) rollBack(ctx context.Context) (others []string, err error) {
	var there []string
	err = a.engine.closing.do(ctx, func(ctx context.Context, c *conn) (err error) {
		there, err = recovered(ctx, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	ours := a.Prepared()
	for _, xid := range there {
		if !onRecord(ours, xid) {
			if a.appeared(xid) {
				others = append(others, xid)
			}
			continue
		}
		err := a.engine.here(ctx, func(ctx context.Context, c *conn) error {
			_, err := c.ExecContext(ctx, "XA ROLLBACK "+xid)
			return err
		})
		if err != nil && !is(err, 1397, 1402) { // XAER_NOTA, XA_RBROLLBACK: somebody else finished it
			return others, fmt.Errorf("roll back prepared transaction %s: %w", xid, err)
		}
		a.mu.Lock()
		a.clean.RolledBack = append(a.clean.RolledBack, xid)
		a.mu.Unlock()
		if err := a.engine.cfg.Step.Do("clean.rolled_back"); err != nil {
			return others, err
		}
	}
	return others, nil
}

// onRecord says whether a prepared transaction is one of those that the recordings show.
func onRecord(xids []string, xid string) bool {
	return slices.ContainsFunc(spellings(xid), func(s string) bool { return slices.Contains(xids, s) })
}

// appeared says whether a prepared transaction was not there yet when the account was made.
func (a *account) appeared(xid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, was := a.before[xid]
	return a.before != nil && !was
}

// recovered gives every prepared XA transaction of the server as X'…',X'…',n, which is what XA ROLLBACK takes.
func recovered(ctx context.Context, c *conn) (list []string, err error) {
	err = c.each(ctx, "XA RECOVER", func(r *sql.Rows) error {
		var format int64
		var global, branch int
		var data []byte
		if err := r.Scan(&format, &global, &branch, &data); err != nil {
			return err
		}
		if global < 0 || branch < 0 || global+branch != len(data) {
			return fmt.Errorf("XA RECOVER shows an id of %d bytes as one of %d and %d", len(data), global, branch)
		}
		list = append(list, fmt.Sprintf("X'%x',X'%x',%d", data[:global], data[global:], format))
		return nil
	})
	return list, err
}

// unshare takes the account away from whoever was given it. That it was shared was noted by look. MySQL does
// not let the broker, and takes it away with the account.
func (a *account) unshare(ctx context.Context) error {
	members, err := a.members(ctx)
	if err != nil || len(members) == 0 || !members[0].mariadb {
		return err
	}
	err = a.engine.here(ctx, func(ctx context.Context, c *conn) error {
		for _, m := range members {
			if err := c.run(ctx, "unmember", vars{"role": m.role, "grantee": m.holder}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take the account from others: %w", err)
	}
	return a.engine.cfg.Step.Do("clean.unshared")
}

// member is somebody who was given the account, or its role. Both as SQL wants them.
type member struct {
	role, holder string
	mariadb      bool
}

// members are the users and roles, the broker aside, that were given the account.
func (a *account) members(ctx context.Context) (list []member, err error) {
	err = a.engine.closing.do(ctx, func(ctx context.Context, c *conn) error {
		list = nil
		role := a.spec.Name
		if c.server.mariadb {
			role = a.role()
		}
		return c.rows(ctx, "shared", func(rows *sql.Rows) error {
			var roleHost, name, host string
			if err := rows.Scan(&roleHost, &name, &host); err != nil {
				return err
			}
			if name == a.spec.Name || name == a.engine.target.user {
				return nil
			}
			m := member{role: roleOf(c, role, roleHost), holder: user(name, host), mariadb: c.server.mariadb}
			if c.server.mariadb && host == "" {
				m.holder = identifier(name)
			}
			list = append(list, m)
			return nil
		}, role)
	})
	return list, err
}

// drop removes the user and its role.
func (a *account) drop(ctx context.Context, hosts []string) error {
	err := a.engine.here(ctx, func(ctx context.Context, c *conn) error {
		for _, host := range hosts {
			if err := c.run(ctx, "drop", vars{"account": user(a.spec.Name, host)}); err != nil {
				return err
			}
		}
		if !c.server.mariadb {
			return nil
		}
		return c.run(ctx, "drop_role", vars{"name": a.role()})
	})
	if err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	if len(hosts) == 0 {
		return nil
	}
	a.mu.Lock()
	a.clean.DroppedAt = time.Now()
	a.mu.Unlock()
	return a.engine.cfg.Step.Do("clean.dropped")
}

// prove asks the server whether anything of the account is left. The query and its answer are the receipt.
func (a *account) prove(ctx context.Context) error {
	var users, backends int
	var prepared []string
	var text string
	err := a.engine.closing.do(ctx, func(ctx context.Context, c *conn) (err error) {
		names := []any{a.spec.Name, a.role(), a.spec.Name, a.role()}
		if text, err = c.row(ctx, query(c.server.mariadb, "prove"), names, &users, &backends); err != nil {
			return err
		}
		prepared, err = recovered(ctx, c)
		return err
	})
	if err != nil {
		return fmt.Errorf("prove: %w", err)
	}
	ours := a.Prepared()
	prepared = slices.DeleteFunc(prepared, func(xid string) bool { return !onRecord(ours, xid) })
	if users+backends+len(prepared) != 0 {
		return fmt.Errorf("not gone: %d users or roles, %d backends, %d prepared transactions are left", users, backends, len(prepared))
	}
	text = strings.Join(strings.Fields(text), " ")
	for _, value := range []string{a.spec.Name, a.role(), a.spec.Name, a.role()} {
		text = strings.Replace(text, "?", literal(value), 1)
	}
	a.mu.Lock()
	a.clean.Proof = text + "; XA RECOVER → users 0, backends 0, prepared_transactions 0"
	if a.clean.DroppedAt.IsZero() { // an earlier process dropped it
		a.clean.DroppedAt = time.Now()
	}
	a.mu.Unlock()
	return a.engine.cfg.Step.Do("clean.proved")
}
