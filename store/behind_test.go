package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// Whatever the file has become while it is open, nothing is put on top of it: a ledger that is longer, or as long
// and another, or the one that there was a while ago.
func TestEveryChangeWhileOpen(t *testing.T) {
	for name, statements := range map[string][]string{
		"shorter":               {`DELETE FROM entries WHERE n = (SELECT max(n) FROM entries)`, `UPDATE head SET size = size - 1`},
		"longer":                {`INSERT INTO entries SELECT n + 1, line FROM entries ORDER BY n DESC LIMIT 1`, `UPDATE head SET size = size + 1`},
		"as long, another root": {`UPDATE head SET root = (SELECT replace(root, substr(root, 1, 1), 'A') || 'B' FROM head)`},
		"without a head":        {`DELETE FROM head`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			if err := note(s, "before"); err != nil {
				t.Fatal(err)
			}
			behind(t, dir, statements...)
			if err := note(s, "after"); !errors.Is(err, ErrTampered) {
				t.Errorf("it takes writes: %v", err)
			}
		})
	}
}

// A commit that was reported as failed explains one state of the file, once: who goes back to that state later has
// changed the ledger.
func TestAnExplanationHoldsOnce(t *testing.T) {
	dir := t.TempDir()
	armed := false
	o := options(dir)
	o.Seam = func(at Op, do func() error) error {
		err := do()
		if armed && at == OpCommit && err == nil {
			armed, err = false, errors.New("injected")
		}
		return err
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	armed = true
	if err := note(s, "stored, and reported as failed"); err == nil {
		t.Fatal("it was not")
	}
	behind(t, dir, `CREATE TABLE then_ AS SELECT * FROM head`)
	if err := note(s, "after"); err != nil {
		t.Fatal(err)
	}
	behind(t, dir, `DELETE FROM entries WHERE n >= (SELECT size FROM then_)`, `DELETE FROM head`, `INSERT INTO head SELECT * FROM then_`)
	if err := note(s, "on top of what it was"); !errors.Is(err, ErrTampered) {
		t.Errorf("it takes writes: %v", err)
	}
}

// Whoever has the store for a moment, to back it up or to look at it, makes no write fail.
func TestALockThatPasses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	other := open2(t, dir)
	if _, err := other.write.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	passed := make(chan error, 1)
	time.AfterFunc(50*time.Millisecond, func() {
		_, err := other.write.Exec("ROLLBACK")
		passed <- err
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Degraded(ctx, ledger.RecorderDegraded{Error: "waited"}); err != nil {
		t.Error(err)
	}
	if err := <-passed; err != nil {
		t.Fatal(err)
	}
}

// What is committed is on the disk when the commit returns, on every connection that writes.
func TestCommitsAreDurable(t *testing.T) {
	s := open(t, t.TempDir())
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
		var got string
		if err := s.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v", pragma, got, err)
		}
	}
}

// SQLite removes the log with the last connection that is closed; the pools may close theirs whenever they like.
func TestTheLogStays(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := note(s, "before"); err != nil {
		t.Fatal(err)
	}
	for _, db := range []*sql.DB{s.read, s.write} {
		db.SetMaxIdleConns(0)
	}
	if _, err := os.Stat(filepath.Join(dir, "store.db-wal")); err != nil {
		t.Error(err)
	}
	if err := note(s, "after"); err != nil {
		t.Error(err)
	}
}
