package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/export"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// What the store writes, the verifier accepts: one grant with one session, from request to receipt,
// held against anchors that the store made on the way.
func TestEvidenceVerifies(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(ctx, store.Options{Path: filepath.Join(dir, "store.db"), KeyPath: filepath.Join(dir, "ledger.key")})
	must(err)
	defer s.Close()
	lib, err := recorder.Open(filepath.Join(dir, "recordings"), recorder.Options{Node: "n1"})
	must(err)
	defer lib.Close()
	anchors := filepath.Join(dir, "anchors")

	who := auth.Identity{Issuer: "https://id.example.test", Subject: "1", Email: "alice@example.test"}
	g := approve(t, s, who)
	must(s.Anchor(ctx, anchors))
	account := "curfew_" + s.Installation() + "_g1"
	must(s.Intend(ctx, ledger.AccountIntended{Grant: "g1", Target: "orders", Account: account, End: g.End}))
	w, err := lib.Create(recorder.Header{
		Session: "s1", Grant: "g1", Request: "r1", Installation: s.Installation(), Began: s.Now(), Target: "orders", Level: "writer",
		Account: account, Policy: g.Policy, Identity: recorder.Person{Issuer: who.Issuer, Subject: who.Subject, Email: who.Email},
	})
	must(err)
	must(s.Opened(ctx, ledger.SessionOpened{Session: "s1", Grant: "g1", Target: "orders", Account: account, Node: "n1", Header: w.HeaderHash()}))
	must(w.Record(recorder.Event{Type: recorder.TypeStatement, ID: 1, Kind: recorder.KindSimple, Text: []byte("select 1")}))
	must(s.Moved(ctx, ledger.SessionsMoved{Node: "n1", Sessions: []recorder.TreeState{w.State()}}))
	sealed, err := w.Seal(recorder.End{Code: recorder.EndReleased, Reason: "done"})
	must(err)
	must(s.Sealed(ctx, ledger.SessionSealed{Grant: "g1", Target: "orders", Sealed: sealed}))
	must(s.Update(ctx, func(tx *store.Tx) error {
		g.Ended = tx.Now()
		return errors.Join(tx.PutGrant(g), tx.Append(ledger.TypeGrantEnded, ledger.GrantEnded{Grant: "g1", Code: recorder.EndReleased, At: g.Ended}))
	}))
	must(s.Cut(ctx, ledger.AccountCut{Grant: "g1", Account: account, Cut: []byte(`{"left":0}`)}))
	must(s.Cleaned(ctx, ledger.AccountCleaned{Grant: "g1", Account: account, Clean: []byte(`{}`)}))
	must(s.Tick(ctx))
	must(s.Anchor(ctx, anchors))

	bundle := filepath.Join(dir, "bundle.tar.zst")
	f, err := os.Create(bundle)
	must(err)
	must(export.Write(ctx, f, export.Source{Ledger: s, Recordings: lib}, export.Scope{}, nil))
	must(f.Close())
	r, err := export.Verify(ctx, bundle, export.VerifyOptions{Key: s.VerifierKey(), Anchor: anchors})
	must(err)
	if len(r.Findings) != 0 || r.Anchored != r.Entries || r.Entries != 13 || r.Statements != 1 || r.Recordings != 1 {
		t.Errorf("%+v", r)
	}
}

func approve(t *testing.T, s *store.Store, who auth.Identity) (g policy.Grant) {
	t.Helper()
	text := "rules: []\n"
	hash := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))
	person := ledger.Person{Issuer: who.Issuer, Subject: who.Subject, Email: who.Email}
	lead := ledger.Person{Issuer: who.Issuer, Subject: "2", Email: "bob@example.test"}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		g = policy.Grant{ID: "g1", Request: "r1", Identity: who, Target: "orders", Level: "writer", Policy: hash, Start: tx.Now(), End: tx.Now().Add(time.Hour)}
		return errors.Join(
			tx.Append(ledger.TypePolicyLoaded, ledger.PolicyLoaded{Hash: hash, Text: text}),
			tx.Append(ledger.TypeRequestCreated, ledger.RequestCreated{Request: "r1", Person: person, Target: "orders", Level: "writer",
				Duration: time.Hour, Policy: hash, Approvals: 1, Lapses: tx.Now().Add(time.Hour)}),
			tx.Append(ledger.TypeRequestDecided, ledger.RequestDecided{Request: "r1", Person: lead, Approve: true}),
			tx.Append(ledger.TypeRequestEnded, ledger.RequestEnded{Request: "r1", Status: "approved"}),
			tx.Append(ledger.TypeGrantCreated, ledger.GrantCreated{Grant: "g1", Request: "r1", Person: person, Target: "orders",
				Level: "writer", Start: g.Start, End: g.End}),
			tx.PutGrant(g))
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A key that the store made never shows up in what it says of itself.
func TestErrorsKeepTheKey(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "ledger.key")
	secret := "PRIVATE+KEY+curfew-abc123+00000000+c2VjcmV0c2VjcmV0"
	if err := os.WriteFile(key, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), KeyPath: key})
	if err == nil || strings.Contains(err.Error(), "c2VjcmV0") || !strings.Contains(err.Error(), key) {
		t.Errorf("%v", err)
	}
}
