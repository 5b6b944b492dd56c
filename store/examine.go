package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrDamaged says that the store's file is not what SQLite writes: it is to be restored from a backup.
var ErrDamaged = errors.New("the store's file is damaged")

// Examine has SQLite look through all pages of the store's file, as of one moment; nobody waits for it but the
// disk. ErrDamaged says what the first thing wrong is, any other error that it was not looked through to its end.
func (s *Store) Examine(ctx context.Context) error {
	db, err := readOnly(s.path) // on a connection of its own, which remembers no page
	if err == nil {
		err = errors.Join(examine(ctx, db), db.Close())
	}
	if err != nil {
		return fmt.Errorf("examine store: %w", err)
	}
	return nil
}

// Unknown gives those of some sessions that were never Opened.
func (s *Store) Unknown(ctx context.Context, sessions []string) (unknown []string, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		unknown = nil
		for _, id := range sessions {
			var n int
			if err := tx.sql.QueryRowContext(tx.ctx, `SELECT count(*) FROM sessions WHERE id = ?`, id).Scan(&n); err != nil {
				return fmt.Errorf("store: sessions: %w", err)
			}
			if n == 0 {
				unknown = append(unknown, id)
			}
		}
		return nil
	})
	return unknown, err
}

func examine(ctx context.Context, db *sql.DB) error {
	var said string
	err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&said)
	var of *sqlite.Error
	switch {
	case errors.As(err, &of) && (of.Code()&0xff == sqlite3.SQLITE_CORRUPT || of.Code()&0xff == sqlite3.SQLITE_NOTADB):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case err != nil:
		return err
	case said != "ok":
		return fmt.Errorf("%w: %s", ErrDamaged, strings.TrimSpace(said))
	}
	return nil
}
