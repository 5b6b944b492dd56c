package auth_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/internal/provider"
)

func age(d time.Duration) *time.Duration { return &d }

// What is asked for is in the address; what comes back is held against it, whatever the issuer made of it.
func TestStepUp(t *testing.T) {
	is := newIssuer(t)
	strict := is.relyingParty(t, func(c *auth.IssuerConfig) { c.ACRValues = []string{"silver"} })
	declared := is.relyingParty(t, func(c *auth.IssuerConfig) { c.Declared = true })
	now := time.Now()
	for name, c := range map[string]struct {
		p      *auth.Provider
		asked  auth.Asked
		claims map[string]any // beside those of a good token: acr gold, amr pwd otp, proven an hour ago
		sent   url.Values
		weak   bool
	}{
		"nothing":                {strict, auth.Asked{}, nil, url.Values{}, false},
		"the class":              {strict, auth.Asked{ACR: []string{"platinum", "gold"}}, nil, url.Values{"acr_values": {"platinum gold"}}, false},
		"another class":          {strict, auth.Asked{ACR: []string{"platinum"}}, nil, url.Values{"acr_values": {"platinum"}}, true},
		"no class":               {strict, auth.Asked{ACR: []string{"gold"}}, map[string]any{"acr": nil, "amr": nil}, url.Values{"acr_values": {"gold"}}, true},
		"an empty class":         {strict, auth.Asked{ACR: []string{"gold"}}, map[string]any{"acr": ""}, url.Values{"acr_values": {"gold"}}, true},
		"a method":               {strict, auth.Asked{AMR: []string{"otp"}}, nil, url.Values{"acr_values": {"silver"}}, false},
		"another method":         {strict, auth.Asked{AMR: []string{"hwk"}}, nil, url.Values{"acr_values": {"silver"}}, true},
		"a class or a method":    {strict, auth.Asked{ACR: []string{"platinum"}, AMR: []string{"otp"}}, nil, url.Values{"acr_values": {"platinum"}}, false},
		"new enough":             {strict, auth.Asked{MaxAge: age(2 * time.Hour)}, nil, url.Values{"max_age": {"7200"}}, false},
		"an old proof":           {strict, auth.Asked{MaxAge: age(30 * time.Minute)}, nil, url.Values{"max_age": {"1800"}}, true},
		"a new one wanted":       {strict, auth.Asked{MaxAge: age(0)}, nil, url.Values{"max_age": {"0"}}, true},
		"a new one":              {strict, auth.Asked{MaxAge: age(0)}, map[string]any{"auth_time": now.Unix()}, url.Values{"max_age": {"0"}}, false},
		"no age":                 {strict, auth.Asked{MaxAge: age(2 * time.Hour)}, map[string]any{"auth_time": nil}, url.Values{"max_age": {"7200"}}, true},
		"declared":               {declared, auth.Asked{ACR: []string{"platinum"}, MaxAge: age(0)}, map[string]any{"acr": nil, "amr": nil, "auth_time": nil}, url.Values{"acr_values": {"platinum"}, "max_age": {"0"}}, false},
		"declared, an old proof": {declared, auth.Asked{MaxAge: age(time.Minute)}, nil, url.Values{"max_age": {"60"}}, true},
		"a hint":                 {strict, auth.Asked{Hint: "a@b.test"}, nil, url.Values{"login_hint": {"a@b.test"}}, false},
	} {
		raw, pending, err := c.p.AuthURL(t.Context(), "http://127.0.0.1:1/callback", c.asked)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"acr_values", "max_age", "login_hint"} {
			if got, want := u.Query()[key], c.sent[key]; strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("%s: %s was sent as %q, want %q", name, key, got, want)
			}
		}
		claims := is.claims(pending.Nonce)
		for k, v := range c.claims {
			if claims[k] = v; v == nil {
				delete(claims, k)
			}
		}
		is.mu.Lock()
		is.token = func(url.Values) any {
			return map[string]any{"access_token": "at", "token_type": "Bearer", "id_token": is.sign(t, claims)}
		}
		is.mu.Unlock()
		id, _, err := c.p.Exchange(t.Context(), pending, auth.Answer{Code: "c", State: pending.State})
		if weak := errors.Is(err, auth.ErrWeak); weak != c.weak || (err != nil) != c.weak {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && id.Subject != "" {
			t.Errorf("%s: an identity came with the error", name)
		}
		if c.p == declared && err == nil && (!id.Declared || id.AuthTime.IsZero()) {
			t.Errorf("%s: not shown as declared: %+v", name, id)
		}
		if c.p == strict && id.Declared {
			t.Errorf("%s: shown as declared: %+v", name, id)
		}
	}
}

// A declared issuer's missing age is the moment of the login, and a refresh does not make it younger; nor does
// one that calls itself a proof.
func TestRefreshIsNoProof(t *testing.T) {
	is := newIssuer(t)
	p := is.relyingParty(t, func(c *auth.IssuerConfig) { c.Declared = true })
	then := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	prev := auth.Identity{Issuer: is.URL, Subject: "u1", ACR: "gold", AMR: []string{"otp"}, AuthTime: then}
	for name, change := range map[string]func(map[string]any){
		"says nothing": func(c map[string]any) { delete(c, "acr"); delete(c, "amr"); delete(c, "auth_time") },
		"stamps it":    func(c map[string]any) { c["auth_time"] = time.Now().Unix() },
		"no age":       func(c map[string]any) { delete(c, "auth_time") },
	} {
		claims := is.claims("")
		change(claims)
		is.mu.Lock()
		is.token = func(url.Values) any {
			return map[string]any{"access_token": "at", "token_type": "Bearer", "id_token": is.sign(t, claims)}
		}
		is.mu.Unlock()
		id, _, err := p.Refresh(t.Context(), "rt", prev)
		if err != nil || !id.AuthTime.Equal(then) || id.ACR != "gold" || !id.Declared {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

// The device flow can't ask for strength: what the answer says counts.
func TestStepUpByDevice(t *testing.T) {
	d := newDemo(t)
	p := d.relyingParty(t)
	for _, second := range []bool{false, true} {
		dev, err := p.DeviceStart(t.Context(), auth.Asked{ACR: []string{provider.ACR}, MaxAge: age(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		if err := provider.ConfirmDevice(t.Context(), dev.VerificationURI, dev.UserCode, d.key, "alice", second); err != nil {
			t.Fatal(err)
		}
		id, _, err := p.DevicePoll(t.Context(), dev)
		if second && (err != nil || id.ACR != provider.ACR) || !second && !errors.Is(err, auth.ErrWeak) {
			t.Errorf("second factor %v: %+v, %v", second, id, err)
		}
	}
}
