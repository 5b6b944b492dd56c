package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// A backup of a running Curfew starts as one: with its ledger, its keys and its sealed recordings, and
// without what is open.
func TestBackupIsACurfew(t *testing.T) {
	h := offlineHouse(t, "")
	to := filepath.Join(t.TempDir(), "copy")
	record := func(session string, seal bool) {
		w, err := h.library.Create(recorder.Header{Session: session, Grant: "g1", Target: "orders"})
		if err == nil && seal {
			_, err = w.Seal(recorder.End{Code: recorder.EndClient})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	record("s1", true)
	record("s2", false)
	first, err := backup(t.Context(), h.cfg.Data, to)
	if err != nil || first.Entries != h.store.Size() || first.Recordings != 1 || first.Copied != 1 || first.Bytes == 0 {
		t.Errorf("%+v, %v", first, err)
	}
	record("s3", true)
	if err := h.store.Degraded(t.Context(), ledger.RecorderDegraded{Node: "n"}); err != nil {
		t.Fatal(err)
	}
	second, err := backup(t.Context(), h.cfg.Data, to)
	if err != nil || second.Entries != first.Entries+1 || second.Recordings != 2 || second.Copied != 1 {
		t.Errorf("%+v, %v", second, err)
	}
	err = filepath.WalkDir(to, func(path string, e os.DirEntry, err error) error {
		if info, _ := e.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s may be read by others: %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}

	restored := &house{cfg: h.cfg, log: slog.New(slog.DiscardHandler), meters: h.meters}
	cfg := *h.cfg
	cfg.Data, restored.cfg = to, &cfg
	if err := restored.openStores(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer restored.close()
	if restored.store.Size() != second.Entries || restored.store.VerifierKey() != h.store.VerifierKey() {
		t.Errorf("a ledger of %d entries, signed as %s", restored.store.Size(), restored.store.VerifierKey())
	}
	for session, there := range map[string]bool{"s1": true, "s2": false, "s3": true} {
		r, err := restored.library.Open(session)
		if (err == nil) != there {
			t.Errorf("recording of %s: %v", session, err)
		}
		if err == nil {
			r.Close()
		}
	}
	if _, err := restored.openSealer(); err != nil {
		t.Error(err)
	}
	if _, err := backup(t.Context(), t.TempDir(), filepath.Join(t.TempDir(), "x")); err == nil {
		t.Error("nothing was backed up")
	}
}
