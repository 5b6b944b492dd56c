package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// How KILLs are sent. MariaDB takes a whole block of them in one statement, which is four times as fast as one
// after the other; it has KILL USER for all of a user's, too, which takes 10 ms and more for each thread that
// runs something. MySQL takes them one by one.
//
// MariaDB has a trap in SLEEP(). All that sleep share one mutex, and whoever wakes up holds it for a moment. A
// KILL that comes in that moment waits for the mutex while it holds what the woken one needs, and both look at
// each other for 2 s. So those that sleep go last, when everybody else is gone, and each has the time to leave
// before the next is told to.

const (
	shotsMost    = 100  // KILLs in a block
	sleepersMost = 200  // those in SLEEP() that one look is for, so that the line is soon free for others
	sleeperGap   = .001 // seconds
)

// shoot tells these backends to go. Who is not told this time is found by the next look.
func shoot(ctx context.Context, c *conn, ends []end) error {
	if !c.server.mariadb {
		return shootEach(ctx, c, ends)
	}
	var awake, asleep []end
	for _, e := range ends {
		if e.sleeps {
			asleep = append(asleep, e)
		} else {
			awake = append(awake, e)
		}
	}
	asleep = asleep[:min(len(asleep), sleepersMost)]
	gap := ""
	if len(asleep) > 1 {
		gap = fmt.Sprintf("DO SLEEP(%g); ", sleeperGap)
	}
	for part := range slices.Chunk(awake, shotsMost) {
		if _, err := c.ExecContext(ctx, volley(part, "")); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(asleep, shotsMost) {
		if _, err := c.ExecContext(ctx, volley(part, gap)); err != nil {
			return err
		}
	}
	return nil
}

func shootEach(ctx context.Context, c *conn, ends []end) error {
	for _, e := range ends {
		_, err := c.ExecContext(ctx, fmt.Sprintf("KILL CONNECTION %d", e.pid))
		if err != nil && !is(err, 1094) {
			return err
		}
	}
	return nil
}

// volley is a block of KILLs, with something after each.
func volley(ends []end, after string) string {
	var b strings.Builder
	b.WriteString("BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; ") // it is gone already
	for _, e := range ends {
		fmt.Fprintf(&b, "KILL CONNECTION %d; %s", e.pid, after)
	}
	b.WriteString("END")
	return b.String()
}
