package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// Backup copies the store at from, which another process may be writing, to the file to: as of one moment,
// whole or not at all; ErrDamaged if there is something wrong with it. It gives how many entries the copy's ledger
// has, once they are held against the copy's checkpoint and the key that its first entry names.
func Backup(ctx context.Context, from, to string) (entries int64, err error) {
	if _, err := os.Stat(from); err != nil {
		return 0, fmt.Errorf("back up store: %w", err)
	}
	part := to + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("back up store: %w", err)
	}
	defer os.Remove(part) // gone, if all went well
	if err := vacuumInto(ctx, from, part); err != nil {
		return 0, fmt.Errorf("back up store %s: %w", from, err)
	}
	if entries, err = checkCopy(ctx, part); err != nil {
		return 0, fmt.Errorf("back up store %s: the copy: %w", from, err)
	}
	if err := os.Rename(part, to); err != nil {
		return 0, fmt.Errorf("back up store: %w", err)
	}
	return entries, syncDir(filepath.Dir(to))
}

// vacuumInto reads the store in one transaction, in which nobody waits for it.
func vacuumInto(ctx context.Context, from, to string) (err error) {
	path, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	// SQLite gives the copy the mode that the process's umask leaves; it is to be its owner's alone.
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	db, err := readOnly(path)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := examine(ctx, db); err != nil { // the copy would be well, and without what is lost
		return err
	}
	if _, err := db.ExecContext(ctx, `VACUUM INTO ?`, to); err != nil {
		return err
	}
	if f, err = os.Open(to); err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func readOnly(path string) (*sql.DB, error) {
	q := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(10000)"}}
	return sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
}

// checkCopy finds out whether a store's file is one: its ledger is what its checkpoint says.
func checkCopy(ctx context.Context, path string) (entries int64, err error) {
	s := &Store{}
	if path, err = filepath.Abs(path); err != nil {
		return 0, err
	}
	if s.read, err = readOnly(path); err != nil {
		return 0, err
	}
	defer s.read.Close()
	err = s.View(ctx, func(tx *Tx) error {
		h, err := tx.head()
		if err != nil {
			return err
		}
		var tree ledger.Tree
		var genesis ledger.Genesis
		err = tx.entries(0, func(line []byte) error {
			if tree.Size() == 0 {
				e, err := ledger.Decode(line)
				if err == nil {
					err = e.Into(&genesis)
				}
				if err != nil {
					return err
				}
			}
			tree.Append(ledger.LeafHash(line))
			return nil
		})
		if err != nil {
			return err
		}
		c, err := ledger.ParseCheckpoint(h.checkpoint, genesis.Key)
		if err == nil && (c.Size != tree.Size() || c.Root != tree.Root()) {
			err = fmt.Errorf("%w: its ledger is not the one of its checkpoint", ErrTampered)
		}
		entries = tree.Size()
		return err
	})
	return entries, err
}
