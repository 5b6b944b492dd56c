package store

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

var bob = auth.Identity{Issuer: "https://id.example.test", Subject: "2", Email: "bob@example.test"}

func ids[T any](all []T, id func(T) string) (out []string) {
	for _, v := range all {
		out = append(out, id(v))
	}
	return out
}

func TestRequests(t *testing.T) {
	s := open(t, t.TempDir())
	at := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	r1 := policy.Request{
		ID: "r1", Identity: alice, Target: "orders", Level: "writer", Duration: time.Hour, Reason: "fix <b> & more",
		Created: at, Lapses: at.Add(time.Hour), Rule: "writers", Policy: "sha256:00",
		Terms: policy.Terms{Approvals: policy.Approvals{Count: 1, From: policy.Who{Groups: []string{"leads"}}}}, Status: policy.Open,
	}
	r2 := policy.Request{ID: "r2", Identity: bob, Target: "billing", Status: policy.Open, Created: at.Add(time.Minute)}
	update(t, s, func(tx *Tx) error { return errors.Join(tx.PutRequest(r1), tx.PutRequest(r2)) })
	r2.Status = policy.Denied
	r2.Decisions = []policy.Decision{{Identity: alice, At: at}}
	update(t, s, func(tx *Tx) error {
		if r, err := tx.Request("r1"); err != nil || !reflect.DeepEqual(r, r1) {
			t.Errorf("read back %+v, %v", r, err)
		}
		return tx.PutRequest(r2)
	})
	err := s.View(t.Context(), func(tx *Tx) error {
		for want, f := range map[string]RequestFilter{
			"r2 r1": {}, "r1": {Status: policy.Open}, "r2": {By: bob.Key()}, "r1 ": {Target: "orders"}, "r2 ": {Limit: 1},
			"": {Status: policy.Open, By: bob.Key()},
		} {
			all, err := tx.Requests(f)
			if err != nil {
				return err
			}
			if got := ids(all, func(r policy.Request) string { return r.ID }); !reflect.DeepEqual(got, fields(want)) {
				t.Errorf("%+v: %v, want %q", f, got, want)
			}
		}
		_, err := tx.Request("r3")
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("no such request: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func fields(s string) (out []string) {
	for _, f := range bytes.Fields([]byte(s)) {
		out = append(out, string(f))
	}
	return out
}

func TestGrants(t *testing.T) {
	s := open(t, t.TempDir())
	now := s.Now()
	grants := []policy.Grant{
		{ID: "gfuture", Identity: alice, Target: "orders", Start: now.Add(time.Hour), End: now.Add(2 * time.Hour)},
		{ID: "gactive", Identity: alice, Target: "orders", Start: now, End: now.Add(time.Hour)},
		{ID: "gover", Identity: bob, Target: "orders", Start: now.Add(-time.Hour), End: now},
		{ID: "gended", Identity: bob, Target: "billing", Start: now.Add(-2 * time.Hour), End: now.Add(time.Hour), Ended: now},
	}
	yes, no := true, false
	undo := errors.New("these grants have no entries, so they may not stay")
	err := s.Update(t.Context(), func(tx *Tx) error {
		for _, g := range grants {
			if err := tx.PutGrant(g); err != nil {
				return err
			}
		}
		for want, f := range map[string]GrantFilter{
			"gfuture gactive gover gended": {}, "gactive": {Active: &yes}, "gfuture gover gended": {Active: &no},
			"gfuture gactive gover": {Live: true}, "gover gended": {By: bob.Key()}, "gended": {Target: "billing"}, "gfuture": {Limit: 1},
		} {
			all, err := tx.Grants(f)
			if err != nil {
				return err
			}
			if got := ids(all, func(g policy.Grant) string { return g.ID }); !reflect.DeepEqual(got, fields(want)) {
				t.Errorf("%+v: %v, want %q", f, got, want)
			}
		}
		return undo
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
}

func TestVerifiers(t *testing.T) {
	s := open(t, t.TempDir())
	g := grant(t, s, "g1")
	update(t, s, func(tx *Tx) error {
		if err := tx.PutVerifier("g2", []byte("v")); !errors.Is(err, ErrNotFound) {
			t.Errorf("verifier without a grant: %v", err)
		}
		for _, id := range []string{"g1", "g2"} {
			if v, err := tx.Verifier(id); v != nil || err != nil {
				t.Errorf("%s has %v, %v", id, v, err)
			}
		}
		return errors.Join(tx.PutVerifier("g1", []byte("one")), tx.PutVerifier("g1", []byte("two")), tx.PutGrant(g))
	})
	update(t, s, func(tx *Tx) error {
		if v, err := tx.Verifier("g1"); string(v) != "two" || err != nil {
			t.Errorf("verifier %q, %v", v, err)
		}
		return tx.PutVerifier("g1", nil)
	})
	update(t, s, func(tx *Tx) error {
		if v, err := tx.Verifier("g1"); v != nil || err != nil {
			t.Errorf("a voided verifier is %q, %v", v, err)
		}
		return nil
	})
}

func TestLogins(t *testing.T) {
	s := open(t, t.TempDir())
	at := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	l := Login{Hash: []byte{1}, Identity: alice, Refresh: []byte("sealed"), Created: at, Expires: at.Add(time.Hour), Refreshed: at}
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutLogin(l), tx.PutLogin(Login{Hash: []byte{2}, Identity: alice, Created: at.Add(1)}),
			tx.PutLogin(Login{Hash: []byte{3}, Identity: bob, Created: at}))
	})
	l.Refresh, l.Identity.Groups = []byte("new"), nil
	update(t, s, func(tx *Tx) error { return tx.PutLogin(l) })
	update(t, s, func(tx *Tx) error {
		if got, err := tx.Login([]byte{1}); err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("login %+v, %v", got, err)
		}
		all, err := tx.Logins(alice.Key())
		if err != nil || len(all) != 2 || all[0].Hash[0] != 2 {
			t.Errorf("alice's logins %+v, %v", all, err)
		}
		if all, err := tx.Logins(""); err != nil || len(all) != 3 {
			t.Errorf("all logins %+v, %v", all, err)
		}
		return tx.DeleteLogin([]byte{1})
	})
	err := s.View(t.Context(), func(tx *Tx) error {
		_, err := tx.Login([]byte{1})
		return err
	})
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("a deleted login: %v", err)
	}
}
