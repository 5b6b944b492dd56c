package store

import (
	"context"
	"errors"
	"testing"
	"time"
)

// What has been asked once is ready from then on, in both kinds of transaction; it sees what others committed, and
// a transaction that was rolled back leaves nothing in it.
func TestStatementsAreReadOnce(t *testing.T) {
	s, err := Open(t.Context(), options(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	ask := func(ready *statements, do func(context.Context, func(*Tx) error) error) {
		t.Helper()
		const query = `SELECT value FROM meta WHERE name = ?`
		deadline := time.Now().Add(10 * time.Second)
		for {
			err := do(t.Context(), func(tx *Tx) error {
				_, err := tx.meta(metaInstallation)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			ready.mu.Lock()
			stmt := ready.kept[query]
			ready.mu.Unlock()
			if stmt != nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("it is read anew each time")
			}
		}
	}
	ask(s.writing, s.Update)
	ask(s.reading, s.View)
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.setMeta("of a test", "1") }); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(tx *Tx) error { return errors.Join(tx.setMeta("of a test", "2"), errors.New("no")) }); err == nil {
		t.Fatal("no error")
	}
	err = s.View(t.Context(), func(tx *Tx) error {
		if v, err := tx.meta("of a test"); v != "1" {
			t.Errorf("%q, %v", v, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
