package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// A login that races the lock. The server checks that a role can log in, then takes some milliseconds
// more until the new backend shows in pg_stat_activity. One that passed the check just before the lock
// was committed would show up after everybody was found gone, and stay. So whoever is being opened when
// the lock has been committed is waited for. And because anybody can make the server sleep in just that
// place (startup option post_auth_delay), who takes longer than startingWait there is terminated.

const (
	startingWait = time.Second
	// startingBlink is far longer than it takes from the check to the lock on the database by which
	// starting.sql knows that a connection is past it.
	startingBlink = 5 * time.Millisecond
)

// opening names a connection that is being opened.
type opening struct {
	pid int32
	vxi string // virtual transaction id: a pid may come again
}

// starting waits for connections that were being opened. After it, whoever of them had passed the login
// check is in pg_stat_activity, or gone.
func (e *Engine) starting(ctx context.Context, waited map[opening]bool) error {
	if !pause(ctx, startingBlink) {
		return context.Cause(ctx)
	}
	past, err := e.openings(ctx)
	if err != nil {
		return err
	}
	for o := range waited {
		waited[o] = past[o] // false: still proving itself; it will meet the lock
	}
	deadline := time.Now().Add(startingWait)
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		now, err := e.openings(ctx)
		if err != nil {
			return err
		}
		left := 0
		for o, inside := range waited {
			if _, still := now[o]; !still || !inside {
				continue
			}
			left++
			if time.Now().After(deadline) {
				if err := e.expelOpening(ctx, o); err != nil {
					return err
				}
			}
		}
		if left == 0 {
			return nil
		}
		if !pause(ctx, wait) {
			return context.Cause(ctx)
		}
	}
}

// openings gives the connections that are being opened, and which of them are past the login check.
func (e *Engine) openings(ctx context.Context) (map[opening]bool, error) {
	set := map[opening]bool{}
	err := e.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		clear(set)
		rows, err := c.Query(ctx, query("starting"))
		if err != nil {
			return err
		}
		var o opening
		var inside bool
		_, err = pgx.ForEachRow(rows, []any{&o.pid, &o.vxi, &inside}, func() error { set[o] = inside; return nil })
		return err
	})
	return set, err
}

// expelOpening terminates a connection that sleeps in its opening. A superuser's can't be, and is none
// of an account's.
func (e *Engine) expelOpening(ctx context.Context, o opening) error {
	err := e.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, query("terminate_starting"), o.pid, o.vxi)
		return err
	})
	if is(err, "42501") {
		return nil
	}
	return err
}
