package store

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// Whoever looks after a store is told of every Update, and of the ledger's size, also after a restart.
func TestObserved(t *testing.T) {
	dir := t.TempDir()
	var seen []error
	options := Options{Path: filepath.Join(dir, "store.db"), KeyPath: filepath.Join(dir, "key"), Node: "n",
		Observe: func(took time.Duration, err error) {
			if took <= 0 {
				t.Errorf("it took %s", took)
			}
			seen = append(seen, err)
		}}
	s, err := Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken on purpose")
	seen = nil
	if err := s.Degraded(t.Context(), ledger.RecorderDegraded{Node: "n"}); err != nil {
		t.Fatal(err)
	}
	s.Update(t.Context(), func(*Tx) error { return broken })
	ended, end := context.WithCancel(t.Context())
	end()
	s.Update(ended, func(*Tx) error { return nil })
	if len(seen) != 3 || seen[0] != nil || !errors.Is(seen[1], broken) || !errors.Is(seen[2], context.Canceled) {
		t.Errorf("seen %v", seen)
	}
	if s.Size() != 2 {
		t.Errorf("%d entries, want the first and one more", s.Size())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Size() != 2 {
		t.Errorf("%d entries after a restart", s.Size())
	}
}
