package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/curfewdb/curfew/e2e/harness"
)

// disorder is something that happens to the store; the func mends it.
type disorder func(t *testing.T, k *sick) (mend func())

func (k *sick) storeFile() string { return filepath.Join(k.curfew.Dir, "data", "store.db") }

// broken is a disorder that Curfew's own seam makes.
func broken(faults ...string) disorder {
	return func(t *testing.T, k *sick) func() {
		k.breaks(t, faults...)
		return func() { k.breaks(t) }
	}
}

// locked: another program has the store, and does not let go.
func locked(t *testing.T, k *sick) func() {
	t.Helper()
	db := must(sql.Open("sqlite", "file:"+k.storeFile()+"?_pragma=busy_timeout(10000)"))(t)
	conn := must(db.Conn(t.Context()))(t)
	must(conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"))(t)
	return func() {
		must(conn.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK"))(t)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// lost: somebody moved the file away.
func lost(t *testing.T, k *sick) func() {
	t.Helper()
	if err := os.Rename(k.storeFile(), k.storeFile()+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(k.storeFile()+".away", k.storeFile()); err != nil {
			t.Fatal(err)
		}
	}
}

// While the store can't be written nothing new begins, each with the reason; what goes on goes on, what ends
// ends at once and in the databases; and when the store is back all of it is on the ledger, in order.
func TestABadStore(t *testing.T) {
	t.Parallel()
	for kind, disorders := range map[string]map[string]disorder{ // each with a Curfew of its own
		"waits": {"locked": locked},
		"fails": {
			"lost":                lost,
			"full":                broken("store begin enospc", "store commit enospc"),
			"said to have failed": broken("store commit stored"),
			"hung":                broken("store commit hang"),
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			k := newSick(t)
			for name, o := range disorders {
				t.Run(name, func(t *testing.T) { k.endures(t, o) })
			}
		})
	}
}

func (k *sick) endures(t *testing.T, o disorder) {
	going, revoked := k.patients(t), k.patients(t)
	mend := o(t, k)
	mended := false
	defer func() {
		if !mended {
			mend()
		}
	}()
	k.both(t, "bad", func(t *testing.T, s *town) {
		p, q := revoked[s], going[s]
		began := time.Now()
		told := make(chan error, 1)
		go func() {
			_, err := p.bob.Run(t.Context(), "revoke", p.grant.ID, "--reason", "amid an outage")
			told <- err
		}()
		err := harness.Eventually(t.Context(), 5*time.Second, func(ctx context.Context) error {
			left, err := p.server.Ask(ctx, p.target, p.open(p.grant.ID))
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("backends: %q", left)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s after the revocation: %v", time.Since(began), err)
		}
		p.told(t, p.c.run(t.Context(), insert(p.word+"-late")), "revoked", "amid an outage")
		exec1(t, q.c, insert(q.word+"-amid"))
		q.shut(t, q.creds, "can't be put on the ledger")
		_, err = s.dana.Ask(t.Context(), s.target, "reader", time.Minute)
		refused(t, err, "store can't be used")
		refused(t, ends(t, told), "has ended, but that could not be written")
	})
	k.turns(t, http.StatusServiceUnavailable)
	mend()
	mended = true
	k.turns(t, http.StatusOK)
	k.both(t, "well", func(t *testing.T, s *town) {
		revoked[s].tally(t, "revoked", "-before")
		going[s].wells(t)
		going[s].tally(t, "released", "-before", "-amid", "-after")
	})
}
