package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// damage writes over a page in the middle of a store's file, where its log has been taken into it.
func damage(t *testing.T, s *Store, path string) {
	t.Helper()
	if _, err := s.write.ExecContext(t.Context(), `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, page), info.Size()/page/2*page); err != nil {
		t.Fatal(err)
	}
}

// A damaged store is found by looking, whatever is asked of it meanwhile; no backup is made of it, and the one that is
// there stays.
func TestExamine(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "store.db"), filepath.Join(dir, "copy.db")
	s := open(t, dir)
	for i := range 100 { // all of it fits into what a connection remembers
		if err := note(s, fmt.Sprint(i, string(bytes.Repeat([]byte("x"), 1000)))); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.Examine(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := Backup(t.Context(), path, to)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.Examine(ended); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("not looked through: %v", err)
	}
	damage(t, s, path)
	if err := s.Examine(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
	if _, err := Backup(t.Context(), path, to); !errors.Is(err, ErrDamaged) {
		t.Errorf("a backup of a damaged store: %v", err)
	}
	if n, err := checkCopy(t.Context(), to); err != nil || n != entries {
		t.Errorf("the backup from before: %d of %d, %v", n, entries, err)
	}
}

// A session is known once it was opened, sealed or not.
func TestUnknown(t *testing.T) {
	s := open(t, t.TempDir())
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.PutGrant(policy.Grant{ID: "g1", Target: "orders"}) })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Opened(t.Context(), ledger.SessionOpened{Session: "s2", Grant: "g1", Target: "orders"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Unknown(t.Context(), []string{"s1", "s2", "s3"})
	if err != nil || !slices.Equal(got, []string{"s1", "s3"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err = s.Unknown(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}
