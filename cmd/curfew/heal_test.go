package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/store"
)

// stored is a house with no more than its store and its recordings.
func stored(t *testing.T, data string, log *bytes.Buffer) *house {
	t.Helper()
	h := &house{cfg: &config.Config{Node: "n", Data: data}, log: slog.New(slog.NewTextHandler(log, nil)), meters: newMeters(prometheus.NewRegistry())}
	if err := h.openStores(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

// Sealed recordings that the ledger does not know are found when Curfew starts: what a crash left is entered, what
// it can't have left is an alert, and neither keeps Curfew from starting.
func TestStrays(t *testing.T) {
	var log bytes.Buffer
	data := t.TempDir()
	h := stored(t, data, &log)
	err := h.store.Update(t.Context(), func(tx *store.Tx) error { return tx.PutGrant(policy.Grant{ID: "g1", Target: "orders"}) })
	if err != nil {
		t.Fatal(err)
	}
	for session, c := range map[string]struct {
		grant string
		runs  uint64
		seal  bool
	}{"s1": {grant: "g1"}, "s2": {grant: "g1", runs: 1}, "s3": {grant: "gone"}, "s4": {grant: "g1", seal: true}, "s5": {grant: "gone"}} {
		w, err := h.library.Create(recorder.Header{Session: session, Grant: c.grant, Target: "orders"})
		if err == nil && c.runs > 0 {
			err = w.Record(recorder.Event{Type: recorder.TypeStatement, ID: 1, Kind: recorder.KindSimple, Text: []byte("select 1")})
		}
		if err == nil && c.seal {
			_, err = w.Seal(recorder.End{Code: recorder.EndClient})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := h.library.Close(); err != nil { // and the crash
		t.Fatal(err)
	}
	aside := filepath.Join(data, "recordings", "open", "s5.jsonl")
	open, err := os.ReadFile(aside)
	if err == nil {
		err = os.Remove(aside)
	}
	if err != nil {
		t.Fatal(err)
	}
	if h.library, err = recorder.Open(filepath.Join(data, "recordings"), recorder.Options{Node: "n"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.library.Heal(t.Context(), nil); err != nil { // another crash: nothing of it is entered
		t.Fatal(err)
	}
	if err := os.WriteFile(aside, open, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.heal(t.Context()); err != nil {
		t.Errorf("an open recording of a grant that nobody knows: %v", err)
	}
	for range 2 { // what is entered by the first is known to the second
		h.strays(t.Context())
	}
	for session, want := range map[string]struct {
		entered bool
		alerts  int
	}{"s1": {true, 0}, "s2": {false, 2}, "s3": {false, 2}, "s4": {false, 2}, "s5": {false, 3}} {
		unknown, err := h.store.Unknown(t.Context(), []string{session})
		if err != nil || (len(unknown) == 0) != want.entered {
			t.Errorf("%s: unknown %q, %v", session, unknown, err)
		}
		if n := alertLines(log.String(), "session="+session); n != want.alerts {
			t.Errorf("%s: %d alerts, want %d", session, n, want.alerts)
		}
	}
	if t.Failed() {
		t.Log(log.String())
	}
	if err := h.close(); err != nil {
		t.Error(err)
	}
}

func alertLines(log, about string) (n int) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "ALERT") && strings.Contains(line, about) {
			n++
		}
	}
	return n
}

// A damaged store makes a node unready, soon after its start, and stays an alert until it is found to be well again.
func TestDamagedStore(t *testing.T) {
	var log bytes.Buffer
	data := t.TempDir()
	h := stored(t, data, &log)
	h.examine(t.Context())
	if err := h.storeWorks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "store.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(whole)
	copy(broken[len(broken)/4096/2*4096:], bytes.Repeat([]byte{0xa5}, 4096))
	synctest.Test(t, func(t *testing.T) {
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		h := stored(t, data, &log) // a start does not look at everything
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.lookThrough(ctx) }()
		time.Sleep(2 * examineFirst)
		if err := h.storeWorks(ctx); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("damaged: %v", err)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(examineEvery)
		if err := h.storeWorks(ctx); err != nil {
			t.Errorf("well again: %v", err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = h.close() // the file is not what it wrote
	})
	if n := alertLines(log.String(), "damaged"); n != 1 {
		t.Errorf("%d alerts:\n%s", n, &log)
	}
}
