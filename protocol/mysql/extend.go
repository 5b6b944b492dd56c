package mysql

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Extend moves MAX_STATEMENT_TIME for sessions that are still to come, on MariaDB, and what the DBA reads in the
// user's attribute, on MySQL.
func (a *account) Extend(ctx context.Context, end time.Time) error {
	err := a.engine.here(ctx, func(ctx context.Context, c *conn) error {
		r, err := readRow(ctx, c, a.spec.Name)
		if err != nil {
			return err
		}
		return c.run(ctx, "extend", vars{"account": user(a.spec.Name, r.hosts[0]), "left": a.left(end), "note": a.newNote(end).text()})
	})
	if err != nil {
		return fmt.Errorf("extend %s: %w", a.spec.Name, err)
	}
	return nil
}

// left is how many seconds a statement may take, in SQL: a session keeps what it began with, so there is room
// for an extension in it.
func (a *account) left(end time.Time) string {
	return strconv.FormatFloat(math.Ceil(max(1, (time.Until(end)+a.spec.Longer).Seconds())), 'f', 0, 64)
}
