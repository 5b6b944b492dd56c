package mysql

import (
	"context"
	"database/sql"
	"net"
	"strings"
	"time"
)

// A login that races the lock. Both servers copy what they know of a user as soon as they have read its
// name, and check that copy at the login's end, which the client can put off for connect_timeout (10 s): a
// login that began before ACCOUNT LOCK succeeds after it, even after DROP USER. MariaDB shows such a
// connection under the user's name from the moment before it makes the copy, so that drain finds it. MySQL
// shows it as "unauthenticated user" until it is in; so those that come from where the account may come from
// when the lock is there are waited for, and who takes longer than startingWait is killed.
const startingWait = time.Second

// unauthenticated is the name under which MySQL shows who has not proved anything.
const unauthenticated = "unauthenticated user"

// starting waits for the connections that are being opened at this moment, where they can't be seen by
// name. After it, whoever copied the user before the lock is in the process list under its name, or gone.
func (e *Engine) starting(ctx context.Context) (waited bool, err error) {
	s, err := e.prober.server(ctx)
	if err != nil || s.mariadb {
		return false, err
	}
	at, err := e.openings(ctx)
	if err != nil || len(at) == 0 {
		return false, err
	}
	deadline := time.Now().Add(startingWait)
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		now, err := e.openings(ctx)
		if err != nil {
			return true, err
		}
		left := 0
		for id := range at {
			if !now[id] {
				continue
			}
			left++
			if time.Now().After(deadline) {
				if err := e.expelOpening(ctx, id); err != nil {
					return true, err
				}
			}
		}
		if left == 0 {
			return true, nil
		}
		if !pause(ctx, wait) {
			return true, context.Cause(ctx)
		}
	}
}

// openings gives the connections that are being opened from where accounts may come from.
func (e *Engine) openings(ctx context.Context) (map[uint32]bool, error) {
	set := map[uint32]bool{}
	err := e.closing.do(ctx, func(ctx context.Context, c *conn) error {
		clear(set)
		account, err := e.accountHost(ctx, c)
		if err != nil {
			return err
		}
		return c.rows(ctx, "starting", func(rows *sql.Rows) error {
			var id uint32
			var host string
			err := rows.Scan(&id, &host)
			if h, _, split := net.SplitHostPort(host); split == nil {
				host = h
			}
			// A pattern may match anybody; so may a server that has not looked the name up yet.
			if host == account || host == "" || strings.ContainsAny(account, "%_/") || net.ParseIP(account) == nil {
				set[id] = true
			}
			return err
		}, unauthenticated)
	})
	return set, err
}

func (e *Engine) expelOpening(ctx context.Context, id uint32) error {
	return e.closing.do(ctx, func(ctx context.Context, c *conn) error {
		_, err := c.ExecContext(ctx, "KILL CONNECTION ?", id)
		if is(err, 1094) {
			return nil
		}
		return err
	})
}
