package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrLost means that the store's files are not where they were: writing would go on, into files that nobody
// will find again. It is over when they are put back.
var ErrLost = errors.New("the store's file is not the one that was opened")

// place is where the store's files were when they were opened.
type place struct {
	files map[string]fs.FileInfo
	pin   *sql.Conn // as long as one connection is open, SQLite does not remove the log beside the file
}

func (s *Store) settleDown(ctx context.Context, path string) (err error) {
	if s.place.pin, err = s.read.Conn(ctx); err != nil {
		return err
	}
	var n int
	if err := s.place.pin.QueryRowContext(ctx, `SELECT count(*) FROM head`).Scan(&n); err != nil {
		return err
	}
	s.place.files = map[string]fs.FileInfo{}
	for _, name := range []string{path, path + "-wal"} {
		if s.place.files[name], err = os.Stat(name); err != nil {
			return err
		}
	}
	return nil
}

// check finds a store that was moved, removed or replaced under the process.
func (p *place) check() error {
	for name, was := range p.files {
		is, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		if !os.SameFile(was, is) {
			return fmt.Errorf("%w: %s was replaced; put it back, or restart Curfew on what is there now", ErrLost, name)
		}
	}
	return nil
}

func (p *place) close() error {
	if p.pin == nil {
		return nil
	}
	return p.pin.Close()
}
