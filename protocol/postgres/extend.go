package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Extend moves the role's VALID UNTIL, the timeouts of sessions that are still to come, and what the DBA reads
// in its comment.
func (a *account) Extend(ctx context.Context, end time.Time) error {
	err := a.engine.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		settings, err := a.engine.deadMan(ctx, c)
		if err != nil {
			return err
		}
		r, err := readRow(ctx, c, a.spec.Name)
		if err != nil {
			return err
		}
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			var s script
			s.add("extend", vars{"account": a.spec.Name, "end": validUntil(end)})
			a.addSettings(&s, settings, end)
			s.addNote(a.spec.Name, a.renewed(r, end))
			return s.run(ctx, tx)
		})
	})
	if err != nil {
		return fmt.Errorf("extend %s: %w", a.spec.Name, err)
	}
	return nil
}

// renewed is the note of a role that ends at another time than it says, or that has lost it: what the server
// still knows is kept.
func (a *account) renewed(r row, end time.Time) note {
	n := r.note
	if n.Since == 0 {
		n = a.newNote()
		n.Since = r.since
	}
	n.End = end.UTC()
	return n
}

// validUntil is a moment as VALID UNTIL takes it.
func validUntil(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999+00") }
