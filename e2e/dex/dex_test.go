//go:build dex

package dex

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	gosundheit "github.com/AppsFlyer/go-sundheit"
	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/server/signer"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/dexidp/dex/web"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/bcrypt"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

const (
	password = "a password"
	redirect = "http://127.0.0.1:5555/callback"
)

// dexServer is Dex with alice, bob and sam in its own password database; Curfew is a client with a secret, and its
// command line's logins come to one without, which may have the browser sent to any port of loopback.
func dexServer(t *testing.T) string {
	t.Helper()
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	log := slog.New(slog.DiscardHandler)
	s := memory.New(log)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 10)
	err = errors.Join(err,
		s.CreateClient(t.Context(), storage.Client{ID: "curfew", Secret: "secret", Name: "Curfew", RedirectURIs: []string{redirect}}),
		s.CreateClient(t.Context(), storage.Client{ID: "curfew-cli", Name: "Curfew", Public: true}),
		s.CreatePassword(t.Context(), storage.Password{Email: "alice@example.test", Hash: hash, Username: "alice", UserID: "1", Groups: []string{"developers"}}),
		s.CreatePassword(t.Context(), storage.Password{Email: "bob@example.test", Hash: hash, Username: "bob", UserID: "2", Groups: []string{"leads"}}),
		s.CreatePassword(t.Context(), storage.Password{Email: "sam@example.test", Hash: hash, Username: "sam", UserID: "3", Groups: []string{"security"}}),
		s.CreateConnector(t.Context(), storage.Connector{ID: "local", Type: "local", Name: "Email"}))
	if err != nil {
		t.Fatal(err)
	}
	sign, err := (&signer.LocalConfig{KeysRotationPeriod: "6h"}).Open(t.Context(), s, time.Hour, time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
	sign.Start(t.Context())
	handler, err = server.NewServer(t.Context(), server.Config{Issuer: srv.URL, Storage: s, SkipApprovalScreen: true, Logger: log, Signer: sign,
		Web: server.WebConfig{WebFS: web.FS()}, PrometheusRegistry: prometheus.NewRegistry(), HealthChecker: gosundheit.New()})
	if err != nil {
		t.Fatal(err)
	}
	return srv.URL
}

var action = regexp.MustCompile(`action="([^"]+)"`)

// login logs alice in.
func login(t *testing.T, p *auth.Provider, asked auth.Asked) (auth.Identity, error) {
	t.Helper()
	authURL, pending, err := p.AuthURL(t.Context(), redirect, asked)
	if err != nil {
		t.Fatal(err)
	}
	q := browse(t, authURL, "alice@example.test").Query()
	id, _, err := p.Exchange(t.Context(), pending, auth.Answer{Code: q.Get("code"), State: q.Get("state"), Issuer: q.Get("iss")})
	return id, err
}

// browse goes through Dex's pages as a browser does, and gives where they send it to in the end.
func browse(t *testing.T, authURL, email string) *url.URL {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/callback" && r.URL.Query().Has("state") && r.URL.Query().Has("code") {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := c.Get(authURL)
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(res.Body)
	res.Body.Close()
	m := action.FindSubmatch(page)
	if m == nil {
		t.Fatalf("no form:\n%s", page)
	}
	to, err := res.Request.URL.Parse(strings.ReplaceAll(string(m[1]), "&amp;", "&"))
	if err != nil {
		t.Fatal(err)
	}
	if res, err = c.PostForm(to.String(), url.Values{"login": {email}, "password": {password}}); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	back, err := res.Location()
	if err != nil {
		t.Fatalf("%s: %v", res.Status, err)
	}
	return back
}

// A provider that asserts nothing satisfies no rule that wants MFA; one that is declared does, and shows it.
func TestDex(t *testing.T) {
	issuer := dexServer(t)
	at := func(declared bool) *auth.Provider {
		p, err := auth.Discover(t.Context(), auth.IssuerConfig{URL: issuer, ClientID: "curfew", ClientSecret: "secret", Declared: declared,
			Scopes: []string{"openid", "email", "profile", "groups", "offline_access"}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	rule := policy.MFA{ACR: []string{"urn:curfew:mfa"}, Within: 15 * time.Minute}
	none := time.Duration(0)
	asked := auth.Asked{ACR: rule.ACR, MaxAge: &none}

	id, err := login(t, at(false), auth.Asked{})
	if err != nil || id.Email != "alice@example.test" || id.ACR != "" || id.AMR != nil || id.Declared || rule.Met(id, time.Now()) {
		t.Errorf("undeclared: %+v, %v", id, err)
	}
	if id, err = login(t, at(false), asked); !errors.Is(err, auth.ErrWeak) {
		t.Errorf("undeclared, asked for more: %+v, %v", id, err)
	}
	id, err = login(t, at(true), asked)
	if err != nil || !id.Declared || id.ACR != "" || time.Since(id.AuthTime) > time.Minute || !rule.Met(id, time.Now()) {
		t.Errorf("declared: %+v, %v", id, err)
	}
	if rule.Met(id, time.Now().Add(16*time.Minute)) {
		t.Error("declared is no age")
	}
}
