package store

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// A store is copied while it is written to; the copy opens, and is the store of a moment. What is no store, or
// was tampered with, is refused, and an earlier copy stays.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	path, key, to := filepath.Join(dir, "store.db"), filepath.Join(dir, "key"), filepath.Join(dir, "copy.db")
	s, err := Open(t.Context(), Options{Path: path, KeyPath: key, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Degraded(t.Context(), ledger.RecorderDegraded{Node: "n"}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var last int64
	for range 5 {
		before := s.Size()
		n, err := Backup(t.Context(), path, to)
		if err != nil || n < before || n < last || n > s.Size()+1 {
			t.Errorf("%d entries, %v; there were %d", n, err, before)
		}
		last = n
	}
	close(stop)
	<-stopped
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	restored, err := Open(t.Context(), Options{Path: to, KeyPath: key, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if restored.Size() != last {
		t.Errorf("%d entries, want %d", restored.Size(), last)
	}
	if err := restored.Close(); err != nil {
		t.Fatal(err)
	}

	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`UPDATE entries SET line = replace(line, '"node":"n"', '"node":"m"') WHERE n = 3`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Backup(t.Context(), path, to); !errors.Is(err, ErrTampered) {
		t.Errorf("a store that was tampered with: %v", err)
	}
	if _, err := Backup(t.Context(), filepath.Join(dir, "nothing"), to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no store: %v", err)
	}
	if _, err := Backup(t.Context(), key, to); err == nil {
		t.Error("a key was backed up as a store")
	}
	if now, err := os.ReadFile(to); err != nil || string(now) != string(good) {
		t.Error("the earlier copy is gone")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.part*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
