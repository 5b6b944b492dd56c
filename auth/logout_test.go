package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// goodbye are the claims of a good logout token; nil takes one out.
func (m *minter) goodbye(change map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{"iss": m.URL, "sub": "u1", "aud": "curfew", "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"jti": "j1", "events": map[string]any{logoutEvent: map[string]any{}}}
	merge(c, change)
	return c
}

func TestLogoutTokens(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{})
	for name, tc := range map[string]struct {
		typ    string
		change map[string]any
	}{
		"typed":          {"logout+jwt", nil},
		"untyped":        {"", map[string]any{"jti": "j2"}},
		"of a session":   {"JWT", map[string]any{"jti": "j3", "sub": nil, "sid": "s1"}},
		"two audiences":  {"", map[string]any{"jti": "j4", "aud": []string{"curfew", "other"}}},
		"an endless day": {"", map[string]any{"jti": "j5", "exp": time.Now().Add(24 * time.Hour).Unix()}},
	} {
		if out, err := b.Logout(t.Context(), m.token(t, tc.typ, m.goodbye(tc.change))); err != nil || out.Subject+out.Session == "" {
			t.Errorf("%s: %+v %v", name, out, err)
		}
	}
	now := time.Now()
	for name, tc := range map[string]struct {
		typ    string
		change map[string]any
		want   string
	}{
		"an access token's type": {"at+jwt", nil, "type"},
		"an ID token":            {"", map[string]any{"nonce": "n"}, "nonce"},
		"no event":               {"", map[string]any{"events": nil}, "events"},
		"another event":          {"", map[string]any{"events": map[string]any{"x": map[string]any{}}}, "events"},
		"an event of null":       {"", map[string]any{"events": map[string]any{logoutEvent: nil}}, "events"},
		"events in a list":       {"", map[string]any{"events": []string{logoutEvent}}, "events"},
		"foreign audience":       {"", map[string]any{"aud": "another"}, "aud"},
		"the wire's audience":    {"", map[string]any{"aud": "curfew-db"}, "aud"},
		"foreign issuer":         {"", map[string]any{"iss": "https://issuer.example"}, "issued by"},
		"without an id":          {"", map[string]any{"jti": nil}, "jti"},
		"about nobody":           {"", map[string]any{"sub": nil}, "nobody"},
		"expired":                {"", map[string]any{"exp": now.Add(-2 * time.Minute).Unix()}, "expired"},
		"without an end":         {"", map[string]any{"exp": nil}, "exp"},
		"without a beginning":    {"", map[string]any{"iat": nil}, "iat"},
		"of last week":           {"", map[string]any{"iat": now.Add(-7 * 24 * time.Hour).Unix()}, "older"},
		"of the future":          {"", map[string]any{"iat": now.Add(time.Hour).Unix()}, "ahead of"},
	} {
		out, err := b.Logout(t.Context(), m.token(t, tc.typ, m.goodbye(tc.change)))
		if !errors.Is(err, auth.ErrToken) || !strings.Contains(fmt.Sprint(err), tc.want) || out != (auth.Logout{}) {
			t.Errorf("%s: %+v %v, want %q", name, out, err, tc.want)
		}
	}
}

func TestLogoutReplayed(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{})
	token := m.token(t, "logout+jwt", m.goodbye(nil))
	out, err := b.Logout(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Logout(t.Context(), token); err != nil {
		t.Errorf("the provider tries again what was not acted upon: %v", err)
	}
	b.SignedOut(out)
	if _, err := b.Logout(t.Context(), token); !errors.Is(err, auth.ErrReplayed) {
		t.Errorf("taken twice: %v", err)
	}
}

// TestTokensAfterLogout: a token that somebody got before they signed out is good no more, verified or not;
// one of another session, or of a later login, is.
func TestTokensAfterLogout(t *testing.T) {
	for name, tc := range map[string]struct {
		logout map[string]any
		token  map[string]any
		after  bool // it is still good after the logout
	}{
		"the person, all sessions":         {logout: nil, token: nil},
		"the person, a token of a session": {logout: nil, token: map[string]any{"sid": "s2"}},
		"that session":                     {logout: map[string]any{"sid": "s1"}, token: map[string]any{"sid": "s1"}},
		"that session, named alone":        {logout: map[string]any{"sid": "s1", "sub": nil}, token: map[string]any{"sid": "s1"}},
		"a session, a token without one":   {logout: map[string]any{"sid": "s1"}, token: nil},
		"another session":                  {logout: map[string]any{"sid": "s1"}, token: map[string]any{"sid": "s2"}, after: true},
		"somebody else":                    {logout: nil, token: map[string]any{"sub": "u2"}, after: true},
		"a later login":                    {logout: nil, token: map[string]any{"iat": time.Now().Add(5 * time.Second).Unix()}, after: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMinter(t)
			b := m.bearer(t, auth.TokenConfig{})
			seen := m.token(t, "", m.access(tc.token))
			if _, err := b.Verify(t.Context(), seen); err != nil {
				t.Fatal(err)
			}
			fresh := m.token(t, "at+jwt", m.access(tc.token))
			out, err := b.Logout(t.Context(), m.token(t, "logout+jwt", m.goodbye(tc.logout)))
			if err != nil {
				t.Fatal(err)
			}
			b.SignedOut(out)
			for what, token := range map[string]string{"verified before": seen, "new here": fresh} {
				if _, err := b.Verify(t.Context(), token); (err == nil) != tc.after {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// TestOpaqueAfterLogout: what does not say when it was made is asked about again.
func TestOpaqueAfterLogout(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{Opaque: auth.OpaqueUserinfo})
	m.set(func() { m.userinfo = map[string]any{"sub": "u1"} })
	for range 2 {
		if _, err := b.Verify(t.Context(), "opaque"); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Logout(t.Context(), m.token(t, "", m.goodbye(nil)))
	if err != nil {
		t.Fatal(err)
	}
	b.SignedOut(out)
	m.set(func() { m.userinfo = nil })
	if _, err := b.Verify(t.Context(), "opaque"); !errors.Is(err, auth.ErrToken) {
		t.Error(err)
	}
}
