package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// ledgerFormat is the version of docs/FORMAT.md that this program writes.
const ledgerFormat = 1

// begin makes a new store's first entry, or checks all of an old one's.
func (s *Store) begin(ctx context.Context, o Options) error {
	var old bool
	var high int64
	err := s.View(ctx, func(tx *Tx) (err error) {
		if old, err = tx.written(); err != nil || !old {
			return err
		}
		if s.installation, err = tx.meta(metaInstallation); err != nil {
			return fmt.Errorf("%w: %w", ErrTampered, err)
		}
		value, err := tx.meta(metaHigh)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrTampered, err)
		}
		if high, err = strconv.ParseInt(value, 10, 64); err != nil {
			return fmt.Errorf("%w: high-water mark of time: %w", ErrTampered, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !old {
		return s.genesis(ctx, o)
	}
	if s.signer, err = oldKey(o); err != nil {
		return err
	}
	s.clock.start(fromNanos(high))
	return s.View(ctx, func(tx *Tx) error { return s.check(tx, fromNanos(high)) })
}

// written reports whether anything was ever kept here.
func (tx *Tx) written() (bool, error) {
	var n int
	err := tx.row(`SELECT (SELECT count(*) FROM (SELECT 1 FROM entries LIMIT 1)) +
		(SELECT count(*) FROM head) + (SELECT count(*) FROM meta)`).Scan(&n)
	return n > 0, found(err, "entries")
}

func (s *Store) genesis(ctx context.Context, o Options) (err error) {
	if s.signer, err = newKey(o); err != nil {
		return err
	}
	s.installation = installationOf(s.signer.Name())
	s.clock.start(time.Time{})
	return s.Update(ctx, func(tx *Tx) error {
		if err := tx.setMeta(metaInstallation, s.installation); err != nil {
			return err
		}
		return tx.Append(ledger.TypeGenesis, ledger.Genesis{
			Format: ledgerFormat, Installation: s.installation, Key: s.signer.VerifierKey(), Version: o.Version,
		})
	})
}

// oldKey reads the key of a store that has entries. A lost key is never replaced silently: what was
// signed before would no longer be provable as this ledger's.
func oldKey(o Options) (*ledger.Signer, error) {
	if o.SigningKey != "" {
		return ledger.NewSigner(o.SigningKey)
	}
	skey, err := os.ReadFile(o.KeyPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the signing key that its ledger was begun with is missing; put it back: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	signer, err := ledger.NewSigner(string(skey))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.KeyPath, err)
	}
	return signer, nil
}

// newKey reads the key of a new store, or makes it.
func newKey(o Options) (*ledger.Signer, error) {
	if o.SigningKey != "" {
		return ledger.NewSigner(o.SigningKey)
	}
	if _, err := os.Stat(o.KeyPath); !errors.Is(err, fs.ErrNotExist) {
		return oldKey(o) // of a first start that did not get further, or prepared by somebody
	}
	skey, err := ledger.NewKey(ledger.KeyName(policy.NewID("", 6)))
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	if err := writeKey(o.KeyPath, skey); err != nil {
		return nil, fmt.Errorf("keep the signing key: %w", err)
	}
	return ledger.NewSigner(skey)
}

// writeKey makes the file whole or not at all, and has it on disk before the key signs anything.
func writeKey(path, skey string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.WriteString(skey + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// installationOf takes the id from the key's name, so that key and ledger belong together at a glance;
// a key that somebody named otherwise gets an id of its own.
func installationOf(keyName string) string {
	m := regexp.MustCompile(`^curfew-([` + policy.Alphabet + `]{6})$`).FindStringSubmatch(keyName)
	if m != nil {
		return m[1]
	}
	return policy.NewID("", 6)
}
