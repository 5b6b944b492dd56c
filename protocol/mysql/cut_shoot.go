package mysql

import (
	"context"
	"database/sql"
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
	for _, text := range volleys(ends, "") {
		if _, err := c.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// shootFresh is shoot, which ends the transaction that the look opened, and says whether that look saw the list of
// transactions as it was then.
func shootFresh(ctx context.Context, c *conn, ends []end, mark string) (fresh bool, err error) {
	seen := []any{"SELECT " + mark + "%"}
	take := func(rows *sql.Rows) error { return rows.Scan(&fresh) }
	if !c.server.mariadb {
		if err = shootEach(ctx, c, ends); err == nil {
			err = c.rows(ctx, "fresh", take, seen...)
		}
		if err == nil {
			_, err = c.ExecContext(ctx, "ROLLBACK")
		}
		return fresh, err
	}
	texts := volleys(ends, query(true, "fresh")+"; ROLLBACK; ")
	last := len(texts) - 1
	for _, text := range texts[:last] {
		if _, err := c.ExecContext(ctx, text); err != nil {
			return false, err
		}
	}
	err = c.sets(ctx, texts[last], seen, take)
	return fresh, err
}

// volleys are the blocks that tell these backends to go, at least one; what is to be done at last stands in the last.
func volleys(ends []end, last string) (texts []string) {
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
	parts := slices.Collect(slices.Chunk(awake, shotsMost))
	woken := len(parts)
	parts = slices.AppendSeq(parts, slices.Chunk(asleep, shotsMost))
	for i, part := range parts {
		after, end := "", ""
		if i >= woken {
			after = gap
		}
		if i == len(parts)-1 {
			end = last
		}
		texts = append(texts, volley(part, after, end))
	}
	return texts
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

// volley is a block of KILLs, with something after each, and something at last.
func volley(ends []end, after, last string) string {
	var b strings.Builder
	b.WriteString("BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; ") // it is gone already
	for _, e := range ends {
		fmt.Fprintf(&b, "KILL CONNECTION %d; %s", e.pid, after)
	}
	b.WriteString(last)
	b.WriteString("END")
	return b.String()
}
