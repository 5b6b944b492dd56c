package auth_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/internal/provider"
)

func isGone(err error) bool { return errors.Is(err, auth.ErrGone) }

// demo runs the embedded provider, which is another implementation than the library that verifies.
type demo struct {
	*provider.Provider
	url  string
	key  []byte
	stop func()
}

func newDemo(t *testing.T, clients ...provider.Client) *demo {
	t.Helper()
	ln, err := provider.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	key, err := provider.OpenKey(filepath.Join(t.TempDir(), "identities.key"))
	if err != nil {
		t.Fatal(err)
	}
	return serveDemo(t, ln, key, clients)
}

func serveDemo(t *testing.T, ln net.Listener, key []byte, clients []provider.Client) *demo {
	t.Helper()
	var err error
	d := &demo{url: "http://" + ln.Addr().String(), key: key}
	if d.Provider, err = provider.New(provider.Options{Issuer: d.url, Key: key, Clients: clients}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, ln) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(d.stop)
	return d
}

func (d *demo) relyingParty(t *testing.T) *auth.Provider {
	t.Helper()
	p, err := auth.Discover(t.Context(), auth.IssuerConfig{URL: d.url, ClientID: provider.CLI})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (d *demo) login(t *testing.T, p *auth.Provider, name string) (auth.Identity, string, error) {
	t.Helper()
	authURL, pending, err := p.AuthURL(t.Context(), "http://127.0.0.1:45678/callback", auth.Asked{ACR: []string{provider.ACR}})
	if err != nil {
		t.Fatal(err)
	}
	back, err := provider.LoginAs(t.Context(), authURL, d.key, name)
	if err != nil {
		return auth.Identity{}, "", err
	}
	return p.Exchange(t.Context(), pending, auth.Answer{Code: back.Get("code"), State: back.Get("state"), Issuer: back.Get("iss")})
}

func checkAlice(t *testing.T, id auth.Identity) {
	t.Helper()
	if id.Subject != "alice" || id.Email != "alice@example.test" || id.Name != "Alice Adler" ||
		strings.Join(id.Groups, " ") != "developers" || id.ACR != provider.ACR ||
		strings.Join(id.AMR, " ") != "pwd otp" || time.Since(id.AuthTime) > time.Minute {
		t.Errorf("not alice: %+v", id)
	}
}

func TestCodeFlowAndRefresh(t *testing.T) {
	d := newDemo(t)
	p := d.relyingParty(t)
	id, refresh, err := d.login(t, p, "alice")
	if err != nil {
		t.Fatal(err)
	}
	checkAlice(t, id)

	again, next, err := p.Refresh(t.Context(), refresh, id)
	if err != nil {
		t.Fatal(err)
	}
	checkAlice(t, again)
	if !again.AuthTime.Equal(id.AuthTime) {
		t.Errorf("a refresh is no new login: %v, then %v", id.AuthTime, again.AuthTime)
	}
	if next == refresh {
		t.Error("the refresh token was not rotated")
	}

	if err := d.SetGroups("alice", "interns"); err != nil {
		t.Fatal(err)
	}
	moved, next, err := p.Refresh(t.Context(), next, id)
	if err != nil || strings.Join(moved.Groups, " ") != "interns" {
		t.Errorf("moved: %+v %v", moved, err)
	}
	if err := d.SetDisabled("alice", true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Refresh(t.Context(), next, id); !isGone(err) {
		t.Errorf("disabled: %v", err)
	}
	if _, _, err := d.login(t, p, "alice"); err == nil {
		t.Error("disabled, and logged in")
	}
}

// TestRefreshTokenUsedTwice: a copy of a refresh token ends the login that it came from.
func TestRefreshTokenUsedTwice(t *testing.T) {
	d := newDemo(t)
	p := d.relyingParty(t)
	id, first, err := d.login(t, p, "alice")
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := p.Refresh(t.Context(), first, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Refresh(t.Context(), first, id); !isGone(err) {
		t.Errorf("the first again: %v", err)
	}
	if _, _, err := p.Refresh(t.Context(), second, id); !isGone(err) {
		t.Errorf("the second after that: %v", err)
	}
}

func TestDeviceFlow(t *testing.T) {
	d := newDemo(t)
	p := d.relyingParty(t)
	dev, err := p.DeviceStart(t.Context(), auth.Asked{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(dev.VerificationURIComplete, d.url+"/device?user_code=") {
		t.Errorf("verification at %q", dev.VerificationURIComplete)
	}
	if _, _, err := p.DevicePoll(t.Context(), dev); !errors.Is(err, auth.ErrPending) {
		t.Fatalf("nobody said yes: %v", err)
	}
	if _, _, err := p.DevicePoll(t.Context(), dev); !errors.Is(err, auth.ErrSlowDown) {
		t.Fatalf("asked again at once: %v", err)
	}
	if err := provider.ConfirmDevice(t.Context(), dev.VerificationURI, strings.ToLower(dev.UserCode), []byte("not the right key at all"), "alice", true); err == nil {
		t.Fatal("confirmed without the key")
	}
	if err := provider.ConfirmDevice(t.Context(), dev.VerificationURI, strings.ToLower(dev.UserCode), d.key, "alice", true); err != nil {
		t.Fatal(err)
	}
	id, refresh, err := p.DevicePoll(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	checkAlice(t, id)
	id, _, err = p.Refresh(t.Context(), refresh, id)
	if err != nil {
		t.Fatal(err)
	}
	checkAlice(t, id)
	if _, _, err := p.DevicePoll(t.Context(), dev); err == nil {
		t.Error("the device code served twice")
	}
}

// TestCodeServesOnce, with the right verifier alone.
func TestCodeServesOnce(t *testing.T) {
	d := newDemo(t)
	p := d.relyingParty(t)
	begin := func() (auth.Pending, auth.Answer) {
		authURL, pending, err := p.AuthURL(t.Context(), "http://127.0.0.1:45678/callback", auth.Asked{ACR: []string{provider.ACR}})
		if err != nil {
			t.Fatal(err)
		}
		back, err := provider.LoginAs(t.Context(), authURL, d.key, "alice")
		if err != nil {
			t.Fatal(err)
		}
		return pending, auth.Answer{Code: back.Get("code"), State: back.Get("state")}
	}
	pending, answer := begin()
	if _, _, err := p.Exchange(t.Context(), pending, answer); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Exchange(t.Context(), pending, answer); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("second exchange: %v", err)
	}
	pending, answer = begin()
	pending.Verifier = strings.Repeat("x", 43)
	if _, _, err := p.Exchange(t.Context(), pending, answer); err == nil {
		t.Error("exchanged with another verifier: PKCE is not in force")
	}
	pending, answer = begin()
	pending.Nonce = "of another login"
	if _, _, err := p.Exchange(t.Context(), pending, answer); err == nil || !strings.Contains(err.Error(), "nonce") {
		t.Errorf("another nonce: %v", err)
	}
}

// TestKeysRotated: tokens signed with a key that came after discovery verify, without a restart.
func TestKeysRotated(t *testing.T) {
	d := newDemo(t)
	p := d.relyingParty(t)
	id, refresh, err := d.login(t, p, "alice")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := d.RotateKeys(); err != nil {
			t.Fatal(err)
		}
		if id, refresh, err = p.Refresh(t.Context(), refresh, id); err != nil {
			t.Fatal(err)
		}
		if _, _, err = d.login(t, p, "bob"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProviderDown: an issuer that comes up late is used when it is there, and a restart of it with the
// same key leaves its refresh tokens good.
func TestProviderDown(t *testing.T) {
	ln, err := provider.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := auth.Discover(t.Context(), auth.IssuerConfig{URL: "http://" + addr, ClientID: provider.CLI})
	if err != nil {
		t.Fatalf("an issuer that is down stops the server: %v", err)
	}
	if _, _, err := p.AuthURL(t.Context(), "http://127.0.0.1:1/callback", auth.Asked{}); err == nil {
		t.Fatal("no issuer, and a login began")
	}
	if ln, err = provider.Listen(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	key := []byte("a key of the test's own")
	d := serveDemo(t, ln, key, nil)
	for deadline := time.Now().Add(10 * time.Second); p.Check(t.Context()) != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the issuer is up and not found")
		}
	}
	id, refresh, err := d.login(t, p, "alice")
	if err != nil {
		t.Fatal(err)
	}
	d.stop()
	if ln, err = provider.Listen(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	serveDemo(t, ln, key, nil)
	if id, _, err = p.Refresh(t.Context(), refresh, id); err != nil {
		t.Fatalf("after the provider's restart: %v", err)
	}
	checkAlice(t, id)
}

// TestConfidentialClient, whose secret travels in the header, and is needed.
func TestConfidentialClient(t *testing.T) {
	const redirect = "http://127.0.0.1:7433/callback"
	d := newDemo(t, provider.Client{ID: "web", Secret: "a secret & more", RedirectURIs: []string{redirect}})
	for secret, good := range map[string]bool{"a secret & more": true, "another": false, "": false} {
		p, err := auth.Discover(t.Context(), auth.IssuerConfig{URL: d.url, ClientID: "web", ClientSecret: secret})
		if err != nil {
			t.Fatal(err)
		}
		authURL, pending, err := p.AuthURL(t.Context(), redirect, auth.Asked{})
		if err != nil {
			t.Fatal(err)
		}
		back, err := provider.LoginAs(t.Context(), authURL, d.key, "alice")
		if err != nil {
			t.Fatal(err)
		}
		id, refresh, err := p.Exchange(t.Context(), pending, auth.Answer{Code: back.Get("code"), State: back.Get("state")})
		if good != (err == nil) {
			t.Errorf("secret %q: %v", secret, err)
		}
		if err != nil {
			continue
		}
		if _, _, err := p.Refresh(t.Context(), refresh, id); err != nil {
			t.Error(err)
		}
		if dev, err := p.DeviceStart(t.Context(), auth.Asked{}); err != nil || dev.UserCode == "" {
			t.Errorf("device flow: %+v %v", dev, err)
		}
	}
}

func TestAuthURL(t *testing.T) {
	d := newDemo(t)
	p := d.relyingParty(t)
	seen := map[string]bool{}
	for range 3 {
		raw, pending, err := p.AuthURL(t.Context(), "http://127.0.0.1:1/callback", auth.Asked{})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if q.Get("code_challenge_method") != "S256" || q.Get("state") != pending.State || q.Get("nonce") != pending.Nonce {
			t.Errorf("auth url %s", raw)
		}
		if strings.Contains(raw, pending.Verifier) {
			t.Error("the verifier is in the URL")
		}
		for _, s := range []string{pending.State, pending.Nonce, pending.Verifier} {
			if len(s) < 22 || seen[s] {
				t.Errorf("%q is short or came before", s)
			}
			seen[s] = true
		}
	}
}
