package api_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/control/api"
)

// signOut takes one token.
func (f *fake) signOut(_ context.Context, token string) error {
	switch token {
	case "good":
		return f.called("sign out")
	case "down":
		return api.NewProblem(api.CodeUnavailable, "the identity provider can't be reached", "")
	}
	return api.NewProblem(api.CodeInvalid, "the logout token is not accepted", "")
}

func TestBackchannel(t *testing.T) {
	for name, c := range map[string]struct {
		kind, body string
		status     int
		counted    bool
	}{
		"good":             {"application/x-www-form-urlencoded", "logout_token=good", 200, false},
		"with a charset":   {"application/x-www-form-urlencoded; charset=utf-8", "logout_token=good&more=x", 200, false},
		"bad":              {"application/x-www-form-urlencoded", "logout_token=bad", 400, true},
		"two tokens":       {"application/x-www-form-urlencoded", "logout_token=good&logout_token=good", 400, true},
		"none":             {"application/x-www-form-urlencoded", "", 400, false},
		"in JSON":          {"application/json", `{"logout_token":"good"}`, 400, true},
		"provider is down": {"application/x-www-form-urlencoded", "logout_token=down", 503, false},
		"endless":          {"application/x-www-form-urlencoded", "logout_token=" + strings.Repeat("x", 80<<10), 413, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			client := serve(t, f)
			resp, err := http.Post(client.Server+"/v1/logout/backchannel", c.kind, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.status || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s, %s", resp.Status, resp.Header.Get("Cache-Control"))
			}
			if counted := len(f.failures) == 1 && strings.HasPrefix(f.failures[0], "logout "); counted != c.counted || (c.status == 200) != (len(f.calls) == 1) {
				t.Errorf("counted %q, called %q", f.failures, f.calls)
			}
		})
	}
	resp, err := http.Get(serve(t, newFake()).Server + "/v1/logout/backchannel?" + url.Values{"logout_token": {"good"}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Error("by GET")
	}
}

// TestTokensAreCountedApart: a refused token is no session token that somebody has guessed.
func TestTokensAreCountedApart(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	for token, want := range map[string]string{"curfew_st_x": "127.0.0.1", "eyJ" + strings.Repeat("x", 8000): "token 127.0.0.1"} {
		f.failures = nil
		c.Token = token
		_, err := c.Whoami(t.Context())
		if p, ok := api.AsProblem(err); !ok || p.Code != api.CodeUnauthenticated || len(f.failures) != 1 || f.failures[0] != want {
			t.Errorf("%.20s: %v, counted %q", token, err, f.failures)
		}
	}
}
