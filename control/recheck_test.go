package control

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// TestDisabledLosesAll: Run finds out by itself, and the session token is void with the grants.
func TestDisabledLosesAll(t *testing.T) {
	h := newLoginHouse(t, 20*time.Millisecond)
	alice, bob := h.login("alice"), h.login("bob")
	h.desk.holds(alice.Identity, bob.Identity)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	if err := h.provider.SetDisabled("alice", true); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "alice's grants to end", func() bool { return len(h.desk.endedNow()) > 0 })
	if got := h.desk.endedNow(); !strings.HasPrefix(got[0], "alice: revoked: your identity is disabled") {
		t.Errorf("ended: %v", got)
	}
	waitFor(t, "her login to be dropped", func() bool { return len(h.entries(ledger.TypeLogout)) > 0 })
	_, err := h.Whoami(t.Context(), alice.Token)
	wantUnauthenticated(t, "disabled", err)
	if _, err := h.Whoami(t.Context(), bob.Token); err != nil {
		t.Errorf("bob: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := h.entries(ledger.TypeLogout); len(got) != 1 || got[0] != "alice:withdrawn:" {
		t.Errorf("ledger: %v", got)
	}
	for _, e := range h.desk.endedNow() {
		if !strings.HasPrefix(e, "alice") {
			t.Errorf("ended: %v", e)
		}
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestDisabledAndNoGrant: somebody who holds nothing can neither ask nor approve any more.
func TestDisabledAndNoGrant(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("bob")
	if err := h.provider.SetDisabled("bob", true); err != nil {
		t.Fatal(err)
	}
	_, err := h.Whoami(t.Context(), in.Token)
	wantUnauthenticated(t, "disabled", err)
	if err := h.provider.SetDisabled("bob", false); err != nil {
		t.Fatal(err)
	}
	_, err = h.Whoami(t.Context(), in.Token)
	wantUnauthenticated(t, "enabled again: the old login stays void", err)
}

// TestDemoted: the desk and the next call know the new groups.
func TestDemoted(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	if err := h.provider.SetGroups("alice", "interns"); err != nil {
		t.Fatal(err)
	}
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := h.desk.refreshed[len(h.desk.refreshed)-1]
	if !last.Same(in.Identity) || strings.Join(last.Groups, " ") != "interns" {
		t.Errorf("the desk heard %+v", last)
	}
	who, err := h.Whoami(t.Context(), in.Token)
	if err != nil || strings.Join(who.Groups, " ") != "interns" {
		t.Errorf("whoami: %+v %v", who, err)
	}
}

// TestOneOfTwoLogins: a device that was signed out at the provider is no verdict on its owner.
func TestOneOfTwoLogins(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	one, other := h.login("alice"), h.login("alice")
	h.desk.holds(one.Identity)
	h.useElsewhere(one)
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 0 {
		t.Errorf("ended: %v", got)
	}
	_, err := h.Whoami(t.Context(), one.Token)
	wantUnauthenticated(t, "the one", err)
	if _, err := h.Whoami(t.Context(), other.Token); err != nil {
		t.Errorf("the other: %v", err)
	}
}

// TestOneGoneOneUnknown: with one login withdrawn, and no answer about the other, nothing is known yet.
func TestOneGoneOneUnknown(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	h.login("alice")
	last := h.login("alice") // is asked about first
	h.desk.holds(last.Identity)
	h.useElsewhere(last)
	h.mu.Lock()
	h.meanwhile = func() { h.setDown(true) }
	h.mu.Unlock()
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 0 {
		t.Errorf("ended: %v", got)
	}
	h.setDown(false)
	if err := h.provider.SetDisabled("alice", true); err != nil {
		t.Fatal(err)
	}
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 1 {
		t.Errorf("ended: %v", got)
	}
}

// TestSealingKeyLost: what can't be opened says nothing about anybody; the session is good for an hour more.
func TestSealingKeyLost(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	row, err := h.row(t.Context(), auth.HashToken(in.Token))
	if err != nil {
		t.Fatal(err)
	}
	row.Refresh = []byte("sealed under another key")
	h.put(row)
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 0 {
		t.Errorf("ended: %v", got)
	}
	if _, err := h.Whoami(t.Context(), in.Token); err != nil {
		t.Error(err)
	}
	row.Refreshed = row.Refreshed.Add(-blindTime)
	h.put(row)
	var e *Error
	if _, err := h.Whoami(t.Context(), in.Token); !errors.As(err, &e) || e.Code != CodeUnavailable {
		t.Errorf("an hour after the last check: %v", err)
	}
}

// TestProviderOutage: grants and sessions go on through an outage, sessions for an hour.
func TestProviderOutage(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	h.setDown(true)
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 0 {
		t.Errorf("ended: %v", got)
	}
	if who, err := h.Whoami(t.Context(), in.Token); err != nil || !who.Stale {
		t.Errorf("a moment after the last check: %+v %v", who, err)
	}
	row, err := h.row(t.Context(), auth.HashToken(in.Token))
	if err != nil {
		t.Fatal(err)
	}
	row.Refreshed = row.Refreshed.Add(-blindTime)
	h.put(row)
	var e *Error
	if _, err := h.Whoami(t.Context(), in.Token); !errors.As(err, &e) || e.Code != CodeUnavailable {
		t.Errorf("an hour after the last check: %v", err)
	}
	h.setDown(false)
	if who, err := h.Whoami(t.Context(), in.Token); err != nil || who.Stale {
		t.Errorf("the provider is back: %+v %v", who, err)
	}
}

// useElsewhere uses a copy of a login's refresh token, so that the provider voids that login's tokens.
func (h *loginHouse) useElsewhere(in LoggedIn) {
	h.t.Helper()
	row, err := h.row(h.t.Context(), auth.HashToken(in.Token))
	if err != nil {
		h.t.Fatal(err)
	}
	token, err := h.token(row)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, _, err := h.auth.Refresh(h.t.Context(), token, row.Identity); err != nil {
		h.t.Fatal(err)
	}
}

func (h *loginHouse) put(row store.Login) {
	h.t.Helper()
	if err := h.store.Update(h.t.Context(), func(tx *store.Tx) error { return tx.PutLogin(row) }); err != nil {
		h.t.Fatal(err)
	}
}

// TestAskedAtOnce: calls that come together ask once; two questions with one refresh token would make the
// provider take us for a thief.
func TestAskedAtOnce(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	in := h.login("alice")
	row, err := h.row(t.Context(), auth.HashToken(in.Token))
	if err != nil {
		t.Fatal(err)
	}
	row.Refreshed = row.Refreshed.Add(-2 * time.Hour)
	h.put(row)
	before := h.questions()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := h.Whoami(t.Context(), in.Token); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := h.questions() - before; n != 1 {
		t.Errorf("asked %d times", n)
	}
	if len(h.turns.held) != 0 {
		t.Errorf("%d turns are left", len(h.turns.held))
	}
}

// TestHangUp: a caller who hangs up when the provider has rotated the refresh token, and before we have
// the new one, does not cost anybody a grant.
func TestHangUp(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	rotated, release := make(chan struct{}), make(chan struct{})
	h.mu.Lock()
	h.meanwhile = func() { close(rotated); <-release }
	h.mu.Unlock()

	ctx, hangUp := context.WithCancel(t.Context())
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = h.Whoami(ctx, in.Token)
	}()
	<-rotated
	hangUp()
	close(release)
	<-answered
	for range 2 {
		if err := h.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.desk.endedNow(); len(got) != 0 {
		t.Errorf("ended: %v", got)
	}
}

// brokenStore fails its writes while it is told to: before they are done, or after.
type brokenStore struct {
	*store.Store
	before, after error
	hangs         bool // as long as it may
}

func (b *brokenStore) Update(ctx context.Context, fn func(*store.Tx) error) error {
	if b.before != nil {
		return b.before
	}
	if b.hangs {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return errors.Join(b.Store.Update(ctx, fn), b.after)
}

// TestStoreFailsAtRefresh: a rotated token that can't be stored, or is stored and reported as failed, does
// not cost anybody a grant.
func TestStoreFailsAtRefresh(t *testing.T) {
	for name, broken := range map[string]*brokenStore{
		"not stored":              {before: errors.New("disk full")},
		"stored, and not told so": {after: errors.New("connection lost")},
	} {
		t.Run(name, func(t *testing.T) {
			h := newLoginHouse(t, time.Nanosecond)
			in := h.login("alice")
			h.desk.holds(in.Identity)
			broken.Store = h.store
			h.Logins.store = broken
			for range 2 {
				_ = h.pass(t.Context())
			}
			if err := h.Logout(t.Context(), "nobody's token"); err == nil {
				t.Error("logged out nobody")
			}
			broken.before, broken.after = nil, nil
			for range 2 {
				if err := h.pass(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := h.desk.endedNow(); len(got) != 0 {
				t.Errorf("ended: %v", got)
			}
			if _, err := h.Whoami(t.Context(), in.Token); err != nil {
				t.Error(err)
			}
			if len(h.unsaved) != 0 {
				t.Error("the token is still only in memory")
			}
		})
	}
}

// TestAHungStoreHoldsUpNobody: who ends something while the store hangs is let through in a moment, though their
// provider had to be asked about them.
func TestAHungStoreHoldsUpNobody(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	h.Logins.store = &brokenStore{Store: h.store, hangs: true}
	for range 2 {
		began := time.Now()
		if _, err := h.Whoami(t.Context(), in.Token); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > askTime/3 {
			t.Errorf("it took %s", took)
		}
	}
	if got := h.desk.endedNow(); len(got) != 0 {
		t.Errorf("ended: %v", got)
	}
	h.Logins.store = h.store
	if _, err := h.Whoami(t.Context(), in.Token); err != nil {
		t.Error(err)
	}
	if len(h.unsaved) != 0 {
		t.Error("the token is still only in memory")
	}
}

// TestDeskFails: a verdict that the desk could not take is brought again.
func TestDeskFails(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	if err := h.provider.SetDisabled("alice", true); err != nil {
		t.Fatal(err)
	}
	h.desk.fail = errors.New("no disk")
	if err := h.pass(t.Context()); err == nil {
		t.Error("the desk failed, and nobody knows")
	}
	h.desk.fail = nil
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 1 {
		t.Errorf("ended: %v", got)
	}
	if rows, err := h.rows(t.Context(), ""); err != nil || len(rows) != 0 {
		t.Errorf("rows: %d %v", len(rows), err)
	}
}

// TestIssuerTakenOut: who was vouched for by an issuer that is not configured any more is vouched for by
// nobody.
func TestIssuerTakenOut(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	delete(h.providers, in.Identity.Issuer)
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 1 {
		t.Errorf("ended: %v", got)
	}
}

// TestAnAnswerThatWasNotHeard: a provider that rotates refresh tokens may do so in an answer that gets lost, and then takes
// the old token for stolen. That is no verdict on its owner: their login is over, and what they hold goes on.
func TestAnAnswerThatWasNotHeard(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	h.mu.Lock()
	h.meanwhile = func() { panic(http.ErrAbortHandler) }
	h.mu.Unlock()
	for range 2 {
		if err := h.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.desk.endedNow(); len(got) != 0 {
		t.Errorf("ended: %v", got)
	}
	_, err := h.Whoami(t.Context(), in.Token)
	wantUnauthenticated(t, "the login that was lost", err)
	// The next login is as good as any, and so is what the provider says of it.
	in = h.login("alice")
	if _, err := h.Whoami(t.Context(), in.Token); err != nil {
		t.Error(err)
	}
	h.mu.Lock()
	h.meanwhile = func() { panic(http.ErrAbortHandler) }
	h.mu.Unlock()
	if who, err := h.Whoami(t.Context(), in.Token); err != nil || !who.Stale {
		t.Errorf("%+v %v", who, err)
	}
	_, err = h.Whoami(t.Context(), in.Token)
	wantUnauthenticated(t, "lost", err)
	in = h.login("alice")
	if err := h.provider.SetDisabled("alice", true); err != nil {
		t.Fatal(err)
	}
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 1 {
		t.Errorf("ended: %v", got)
	}
}
