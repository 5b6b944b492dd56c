package control

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/internal/provider"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// goodbye is the provider's word that somebody has signed out, of one session or of all.
func (h *loginHouse) goodbye(name, session string) string {
	h.t.Helper()
	token, err := h.provider.LogoutToken(name, provider.CLI, session)
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

func TestSignOut(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	one, two, bob := h.login("alice"), h.login("alice"), h.login("bob")
	token := h.goodbye("alice", "")
	if err := h.SignOut(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	for _, in := range []LoggedIn{one, two} {
		_, err := h.Whoami(t.Context(), in.Token)
		wantUnauthenticated(t, "alice", err)
	}
	if _, err := h.Whoami(t.Context(), bob.Token); err != nil {
		t.Errorf("bob: %v", err)
	}
	if got := h.desk.endedNow(); !slices.Equal(got, []string{"alice: revoked: " + signedOutReason}) {
		t.Errorf("ended: %q", got)
	}
	if got := h.entries(ledger.TypeLogout); !slices.Equal(got, []string{"alice:signed out:", "alice:signed out:"}) {
		t.Errorf("on the ledger: %q", got)
	}
	var own *Error
	if err := h.SignOut(t.Context(), token); !errors.As(err, &own) || own.Code != CodeInvalid {
		t.Errorf("the same word again: %v", err)
	}
	// Who has no login here may have a grant all the same: by a token at the wire.
	if err := h.SignOut(t.Context(), h.goodbye("sam", "")); err != nil || len(h.desk.endedNow()) != 2 {
		t.Errorf("%v, ended: %q", err, h.desk.endedNow())
	}
}

// TestSignOutOfOneSession: grants go on while another login of the person stands.
func TestSignOutOfOneSession(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	var tokens []string
	for _, session := range []string{"s1", "s2"} {
		in := h.login("alice")
		tokens = append(tokens, in.Token)
		row, err := h.row(t.Context(), auth.HashToken(in.Token))
		if err != nil {
			t.Fatal(err)
		}
		row.Identity.Session = session
		h.put(row)
	}
	if err := h.SignOut(t.Context(), h.goodbye("alice", "s1")); err != nil {
		t.Fatal(err)
	}
	_, err := h.Whoami(t.Context(), tokens[0])
	wantUnauthenticated(t, "the one", err)
	if _, err := h.Whoami(t.Context(), tokens[1]); err != nil || len(h.desk.endedNow()) != 0 {
		t.Errorf("the other: %v, ended: %q", err, h.desk.endedNow())
	}
	if err := h.SignOut(t.Context(), h.goodbye("", "of nobody")); err != nil || len(h.desk.endedNow()) != 0 {
		t.Errorf("a session that nobody has: %v, ended: %q", err, h.desk.endedNow())
	}
	if err := h.SignOut(t.Context(), h.goodbye("", "s2")); err != nil || len(h.desk.endedNow()) != 1 {
		t.Errorf("the last, named by its session alone: %v, ended: %q", err, h.desk.endedNow())
	}
	_, err = h.Whoami(t.Context(), tokens[1])
	wantUnauthenticated(t, "the other", err)
}

// TestSignOutFails: what was not acted upon is not taken, so that the provider can try again.
func TestSignOutFails(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	h.login("alice")
	token := h.goodbye("alice", "")
	code := func(what, want string, err error) {
		t.Helper()
		var own *Error
		if !errors.As(err, &own) || own.Code != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.setDown(true)
	code("no keys", CodeUnavailable, h.SignOut(t.Context(), token))
	h.setDown(false)
	waitFor(t, "the provider is asked again", func() bool {
		h.desk.mu.Lock()
		h.desk.fail = unavailable(errors.New("no disk"))
		h.desk.mu.Unlock()
		err := h.SignOut(t.Context(), token)
		return err != nil && strings.Contains(err.Error(), "no disk")
	})
	h.desk.mu.Lock()
	h.desk.fail = nil
	h.desk.mu.Unlock()
	broken := &brokenStore{Store: h.store, before: errors.New("no disk")}
	h.Logins.store = broken
	code("the logins can't be dropped", CodeUnavailable, h.SignOut(t.Context(), token))
	broken.before = nil
	if err := h.SignOut(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if rows, err := h.rows(t.Context(), ""); err != nil || len(rows) != 0 {
		t.Errorf("rows: %d %v", len(rows), err)
	}
	for name, token := range map[string]string{"nothing": "", "no JWT": "x", "a session token": "curfew_st_x", "half of one": token[:len(token)/2]} {
		code(name, CodeInvalid, h.SignOut(t.Context(), token))
	}
}

// TestPeoplesTokensAtTheAPI: a person's token of the provider's own is no login.
func TestPeoplesTokensAtTheAPI(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	_, err := h.Whoami(t.Context(), h.goodbye("alice", ""))
	wantUnauthenticated(t, "a signed token of somebody", err)
	if !strings.Contains(err.Error(), "curfew login") {
		t.Errorf("says %v", err)
	}
	_, err = h.Whoami(t.Context(), "made up")
	wantUnauthenticated(t, "made up", err)
}
