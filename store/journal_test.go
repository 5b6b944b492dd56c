package store

import (
	"errors"
	"testing"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

func TestJournal(t *testing.T) {
	ctx := t.Context()
	s := open(t, t.TempDir())
	g := grant(t, s, "g1")
	opened := ledger.SessionOpened{Session: "s1", Grant: "g1", Target: "orders", Account: "curfew_x_g1", Node: "n1", Client: "127.0.0.1:5000", Header: "00"}
	sealed := ledger.SessionSealed{Grant: "g1", Target: "orders", Sealed: recorder.Sealed{TreeState: recorder.TreeState{Session: "s1", Count: 3}}}

	if err := s.Sealed(ctx, sealed); !errors.Is(err, ErrNotFound) {
		t.Fatalf("sealed before opened: %v", err)
	}
	if err := s.Opened(ctx, ledger.SessionOpened{Session: "s0", Grant: "gnone"}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("opened without a grant: %v", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Intend(ctx, ledger.AccountIntended{Grant: "g1", Target: "orders", Account: "curfew_x_g1", End: g.End}))
	must(s.Opened(ctx, opened))
	if err := s.Opened(ctx, opened); err == nil {
		t.Fatal("a session was opened twice")
	}
	ids, err := s.OpenSessions(ctx)
	if err != nil || len(ids) != 1 || ids[0] != "s1" {
		t.Fatalf("open sessions %v %v", ids, err)
	}
	must(s.Moved(ctx, ledger.SessionsMoved{Node: "n1", Sessions: []recorder.TreeState{{Session: "s1", Count: 2}}}))
	must(s.Sealed(ctx, sealed))
	must(s.Sealed(ctx, sealed))
	// A look that was taken before the seal, and comes behind it; and one at a session that never was.
	must(s.Moved(ctx, ledger.SessionsMoved{Node: "n1", Sessions: []recorder.TreeState{{Session: "s1", Count: 3}, {Session: "s7", Count: 2}}}))
	if n := count(t, s, ledger.TypeSessionsMoved); n != 1 {
		t.Fatalf("%d entries say how far it came", n)
	}
	if n := count(t, s, ledger.TypeSessionSealed); n != 1 {
		t.Fatalf("sealed %d times", n)
	}
	must(s.Intend(ctx, ledger.AccountIntended{Grant: "g1", Target: "orders", Account: "curfew_x_g1", End: g.End, Adopt: true}))
	must(s.Foreign(ctx, ledger.AccountForeign{Grant: "g1", Account: "curfew_x_g1"}))
	intents, err := s.LiveIntents(ctx)
	if err != nil || len(intents) != 1 || intents[0].Cut || !intents[0].Adopt || intents[0].Created.IsZero() {
		t.Fatalf("intents %+v %v", intents, err)
	}
	must(s.Cut(ctx, ledger.AccountCut{Grant: "g1", Account: "curfew_x_g1", Cut: []byte(`{"left":0}`)}))
	if intents, err = s.LiveIntents(ctx); err != nil || len(intents) != 1 || !intents[0].Cut {
		t.Fatalf("after the cut: %+v %v", intents, err)
	}
	must(s.StillOpen(ctx, ledger.AccountOpen{Grant: "g1", Part: "clean"}))
	must(s.Cleaned(ctx, ledger.AccountCleaned{Grant: "g1", Account: "curfew_x_g1", Clean: []byte(`{}`)}))
	if intents, err = s.LiveIntents(ctx); err != nil || len(intents) != 0 {
		t.Fatalf("after the cleaning: %+v %v", intents, err)
	}
	must(s.View(ctx, func(tx *Tx) error {
		session, err := tx.Session("s1")
		if session.Identity.Email != alice.Email || session.Level != "writer" || session.Ended.IsZero() || session.Sealed.Count != 3 {
			t.Errorf("session %+v", session)
		}
		return err
	}))
	last := time.Time{}
	for i, e := range entries(t, s) {
		if e.Index != int64(i) || e.Time.Before(last) {
			t.Fatalf("entry %d has index %d and time %v after %v", i, e.Index, e.Time, last)
		}
		last = e.Time
	}
}
