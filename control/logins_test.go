package control

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/internal/provider"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// loginHouse is Logins with a real store and a real provider; the desk is told what it would do.
type loginHouse struct {
	*Logins
	t        *testing.T
	store    *store.Store
	provider *provider.Provider
	auth     *auth.Provider
	bearer   *auth.Bearer
	issuer   *httptest.Server
	key      []byte
	desk     *fakePeople
	log      *bytes.Buffer

	mu    sync.Mutex
	down  bool // the provider answers 503
	count int  // questions at the token endpoint
	// meanwhile runs once, between the provider's doing and our hearing of it.
	meanwhile func()
}

const loginRedirect = "http://127.0.0.1:1/callback"

// newLoginHouse makes Logins whose checks at the provider are never older than refresh.
func newLoginHouse(t *testing.T, refresh time.Duration) *loginHouse {
	t.Helper()
	h := &loginHouse{t: t, key: []byte("the key of this test"), log: &bytes.Buffer{}, desk: &fakePeople{}}
	h.issuer = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.issuer.Close)
	var err error
	if h.provider, err = provider.New(provider.Options{Issuer: h.issuer.URL, Key: h.key}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h.store, err = store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), KeyPath: filepath.Join(dir, "sign.key")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.store.Close() })
	if h.auth, err = auth.Discover(t.Context(), auth.IssuerConfig{URL: h.issuer.URL, ClientID: provider.CLI}); err != nil {
		t.Fatal(err)
	}
	sealer, err := auth.OpenSealer(filepath.Join(dir, "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	if h.bearer, err = auth.NewBearer(auth.IssuerConfig{URL: h.issuer.URL, ClientID: provider.CLI}, auth.TokenConfig{}); err != nil {
		t.Fatal(err)
	}
	h.Logins, err = NewLogins(LoginOptions{
		Tokens: auth.Bearers{h.bearer},
		Store:  h.store, Desk: h.desk, Providers: []*auth.Provider{h.auth}, Sealer: sealer, Refresh: refresh,
		Log: slog.New(slog.NewTextHandler(h.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *loginHouse) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	down := h.down
	var meanwhile func()
	if r.URL.Path == "/oauth/token" {
		h.count++
		meanwhile, h.meanwhile = h.meanwhile, nil
	}
	h.mu.Unlock()
	if meanwhile != nil {
		answer := httptest.NewRecorder()
		h.provider.ServeHTTP(answer, r)
		meanwhile()
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
		return
	}
	if down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	h.provider.ServeHTTP(w, r)
}

func (h *loginHouse) setDown(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

func (h *loginHouse) questions() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// begin starts a code login and goes through the provider's page as name.
func (h *loginHouse) begin(name string) (StartedLogin, url.Values) {
	h.t.Helper()
	started, err := h.Start(h.t.Context(), StartLogin{Flow: "code", RedirectURI: loginRedirect, From: "192.0.2.1:4711"})
	if err != nil {
		h.t.Fatal(err)
	}
	back, err := provider.LoginAs(h.t.Context(), started.AuthURL, h.key, name)
	if err != nil {
		h.t.Fatal(err)
	}
	return started, back
}

func (h *loginHouse) login(name string) LoggedIn {
	h.t.Helper()
	started, back := h.begin(name)
	in, err := h.Finish(h.t.Context(), FinishLogin{Login: started.Login, Code: back.Get("code"), State: back.Get("state")})
	if err != nil {
		h.t.Fatal(err)
	}
	return in
}

// entries gives the flows of all entries of one type, in order.
func (h *loginHouse) entries(typ string) (flows []string) {
	h.t.Helper()
	err := h.store.Entries(h.t.Context(), 0, func(line []byte) error {
		e, err := ledger.Decode(line)
		if err != nil || e.Type != typ {
			return err
		}
		var l ledger.Login
		if err := e.Into(&l); err != nil {
			return err
		}
		flows = append(flows, l.Person.Subject+":"+l.Flow+":"+l.From)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return flows
}

func wantUnauthenticated(t *testing.T, what string, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeUnauthenticated || e.Next == "" {
		t.Errorf("%s: %v", what, err)
	}
}

// fakePeople is a desk: it knows who holds something, and hears what becomes of them.
type fakePeople struct {
	mu        sync.Mutex
	live      []auth.Identity
	refreshed []auth.Identity
	ended     []string
	fail      error
}

func (f *fakePeople) LiveIdentities(context.Context) ([]auth.Identity, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.live), nil
}

func (f *fakePeople) Refreshed(_ context.Context, now auth.Identity) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refreshed = append(f.refreshed, now)
	return nil
}

func (f *fakePeople) EndAll(_ context.Context, who auth.Identity, code, reason string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.ended = append(f.ended, who.Subject+": "+code+": "+reason)
	return nil
}

func (f *fakePeople) holds(who ...auth.Identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live = who
}

func (f *fakePeople) endedNow() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ended)
}

func TestLoginCode(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	in := h.login("alice")
	if in.Identity.Email != "alice@example.test" || time.Until(in.Expires) < 11*time.Hour {
		t.Errorf("logged in as %+v", in)
	}
	who, err := h.Whoami(t.Context(), in.Token)
	if err != nil || !who.Same(in.Identity) || who.ACR != provider.Weak {
		t.Errorf("whoami: %+v, %v", who, err)
	}
	if got := h.entries(ledger.TypeLogin); len(got) != 1 || got[0] != "alice:code:192.0.2.1" {
		t.Errorf("ledger: %v", got)
	}
	for _, token := range []string{"", "x", in.Token + "x", in.Token[:len(in.Token)-1], strings.ToUpper(in.Token)} {
		_, err := h.Whoami(t.Context(), token)
		wantUnauthenticated(t, token, err)
	}
}

func TestLoginDevice(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	started, err := h.Start(t.Context(), StartLogin{Flow: "device", From: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	if started.UserCode == "" || started.VerificationURI == "" || started.Interval != time.Second || started.AuthURL != "" {
		t.Errorf("started %+v", started)
	}
	finish := func() (LoggedIn, error) { return h.Finish(t.Context(), FinishLogin{Login: started.Login}) }
	for range 50 {
		if _, err := finish(); !errors.Is(err, ErrLoginPending) {
			t.Fatal(err)
		}
	}
	if n := h.questions(); n != 1 {
		t.Errorf("an impatient CLI made us ask the provider %d times", n)
	}
	if err := provider.ConfirmDevice(t.Context(), started.VerificationURI, started.UserCode, h.key, "bob", true); err != nil {
		t.Fatal(err)
	}
	var in LoggedIn
	for deadline := time.Now().Add(10 * time.Second); ; {
		if in, err = finish(); !errors.Is(err, ErrLoginPending) || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond) // a CLI that polls
	}
	if err != nil || in.Identity.Email != "bob@example.test" {
		t.Fatalf("%+v %v", in, err)
	}
	if _, err := h.Whoami(t.Context(), in.Token); err != nil {
		t.Error(err)
	}
	_, err = finish()
	wantUnauthenticated(t, "finished twice", err)
	if got := h.entries(ledger.TypeLogin); len(got) != 1 || got[0] != "bob:device:192.0.2.1" {
		t.Errorf("ledger: %v", got)
	}
}

// TestLoginStolen: parts of a login are worth nothing.
func TestLoginStolen(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	started, back := h.begin("alice")
	id, secret, _ := strings.Cut(started.Login, ".")
	if strings.Contains(started.AuthURL, id) || strings.Contains(started.AuthURL, secret) {
		t.Error("the handle is in the URL that the browser's history keeps")
	}
	good := FinishLogin{Login: started.Login, Code: back.Get("code"), State: back.Get("state")}
	for name, f := range map[string]FinishLogin{
		"the id without its secret":  {Login: id, Code: good.Code, State: good.State},
		"the id with an empty one":   {Login: id + ".", Code: good.Code, State: good.State},
		"the id with another secret": {Login: id + "." + strings.Repeat("0", len(secret)), Code: good.Code, State: good.State},
		"the secret alone":           {Login: "." + secret, Code: good.Code, State: good.State},
		"nothing":                    {},
	} {
		_, err := h.Finish(t.Context(), f)
		wantUnauthenticated(t, name, err)
	}
	// All of that did not harm the login itself.
	if _, err := h.Finish(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	_, err := h.Finish(t.Context(), good)
	wantUnauthenticated(t, "replayed", err)
}

// TestLoginFinishedAtOnce: of many who finish one login, one gets in.
func TestLoginFinishedAtOnce(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	started, back := h.begin("alice")
	var wg sync.WaitGroup
	in := make(chan LoggedIn, 16)
	for range cap(in) {
		wg.Go(func() {
			if got, err := h.Finish(t.Context(), FinishLogin{Login: started.Login, Code: back.Get("code"), State: back.Get("state")}); err == nil {
				in <- got
			}
		})
	}
	wg.Wait()
	if len(in) != 1 {
		t.Errorf("%d got in", len(in))
	}
}

func TestLoginStateMismatch(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	alice, aliceBack := h.begin("alice")
	bob, bobBack := h.begin("bob")
	// Login CSRF: somebody else's answer brought to this login.
	_, err := h.Finish(t.Context(), FinishLogin{Login: alice.Login, Code: bobBack.Get("code"), State: bobBack.Get("state")})
	wantUnauthenticated(t, "another's answer", err)
	// Somebody else's code under this login's state: PKCE and the nonce know better.
	_, err = h.Finish(t.Context(), FinishLogin{Login: bob.Login, Code: aliceBack.Get("code"), State: bobBack.Get("state")})
	wantUnauthenticated(t, "another's code", err)
	if got := h.entries(ledger.TypeLogin); len(got) != 0 {
		t.Errorf("ledger: %v", got)
	}
}

func TestLoginStartRefuses(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	for _, s := range []StartLogin{
		{},
		{Flow: "password"},
		{Flow: "code"},
		{Flow: "code", RedirectURI: "https://evil.example/callback"},
		{Flow: "code", RedirectURI: "http://evil.example/callback"},
		{Flow: "code", RedirectURI: "http://localhost:1/callback"},
		{Flow: "code", RedirectURI: "http://127.0.0.1:1@evil.example/callback"},
		{Flow: "code", RedirectURI: "http://127.0.0.1.evil.example:1/callback"},
		{Flow: "code", RedirectURI: "http://0.0.0.0:1/callback"},
		{Flow: "code", RedirectURI: "http://127.0.0.1:1/other"},
		{Flow: "code", RedirectURI: "http://127.0.0.1:1/callback?x=y"},
		{Flow: "code", RedirectURI: loginRedirect, Issuer: "https://issuer.example"},
	} {
		var e *Error
		if _, err := h.Start(t.Context(), s); !errors.As(err, &e) || e.Code != CodeInvalid {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// TestLoginFlood: who begins very many logins pushes out their own, and nobody else's.
func TestLoginFlood(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	started, back := h.begin("alice")
	for i := range 3 * mostLoginsFrom {
		now := time.Now()
		h.remember(random(12), &pendingLogin{from: "198.51.100.7", begun: now.Add(time.Duration(i)), expires: now.Add(time.Hour)})
	}
	if n := len(h.pending); n != mostLoginsFrom+1 {
		t.Errorf("%d logins are remembered", n)
	}
	if _, err := h.Finish(t.Context(), FinishLogin{Login: started.Login, Code: back.Get("code"), State: back.Get("state")}); err != nil {
		t.Error(err)
	}
}

func TestLogout(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	one, other := h.login("alice"), h.login("alice")
	if err := h.Logout(t.Context(), one.Token); err != nil {
		t.Fatal(err)
	}
	_, err := h.Whoami(t.Context(), one.Token)
	wantUnauthenticated(t, "logged out", err)
	wantUnauthenticated(t, "logged out twice", h.Logout(t.Context(), one.Token))
	if _, err := h.Whoami(t.Context(), other.Token); err != nil {
		t.Errorf("the other login: %v", err)
	}
	if got := h.entries(ledger.TypeLogout); len(got) != 1 {
		t.Errorf("ledger: %v", got)
	}
	if rows, err := h.rows(t.Context(), one.Identity.Key()); err != nil || len(rows) != 1 {
		t.Errorf("rows: %d %v", len(rows), err)
	}
}

// TestLogoutKeepsWatch: a person who logs out and still holds a grant loses it when they are disabled.
func TestLogoutKeepsWatch(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	h.desk.holds(in.Identity)
	if err := h.Logout(t.Context(), in.Token); err != nil {
		t.Fatal(err)
	}
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.desk.endedNow(); len(got) != 0 {
		t.Errorf("ended: %v", got)
	}
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

// TestLoginExpired: a session token has an end, whatever the store still keeps.
func TestLoginExpired(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	h.session = time.Nanosecond
	in := h.login("alice")
	_, err := h.Whoami(t.Context(), in.Token)
	wantUnauthenticated(t, "expired", err)
	if err := h.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, err := h.rows(t.Context(), ""); err != nil || len(rows) != 0 {
		t.Errorf("an expired login is kept: %d %v", len(rows), err)
	}
}

// TestSecretsAtRest: neither token is in the store or in the log.
func TestSecretsAtRest(t *testing.T) {
	h := newLoginHouse(t, time.Nanosecond)
	in := h.login("alice")
	if _, err := h.Whoami(t.Context(), in.Token); err != nil {
		t.Fatal(err)
	}
	h.setDown(true)
	_, _ = h.Whoami(t.Context(), in.Token)
	rows, err := h.rows(t.Context(), "")
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	refresh, err := h.token(rows[0])
	if err != nil || len(refresh) < 20 {
		t.Fatalf("%q %v", refresh, err)
	}
	for _, secret := range []string{refresh, in.Token, strings.TrimPrefix(in.Token, "curfew_st_")} {
		if bytes.Contains(rows[0].Refresh, []byte(secret)) || strings.Contains(h.log.String(), secret) {
			t.Error("a secret is in the store or in the log")
		}
	}
	if !strings.Contains(h.log.String(), "could not be asked") {
		t.Errorf("the outage is not in the log: %s", h.log)
	}
}

func TestTwoIssuersOfOneName(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	if _, err := NewLogins(LoginOptions{Providers: []*auth.Provider{h.auth, h.auth}}); err == nil {
		t.Error("accepted")
	}
	if _, err := NewLogins(LoginOptions{}); err == nil {
		t.Error("nobody could log in")
	}
}
