package provider_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/internal/provider"
)

const key = "the passcode of this test"

func serve(t *testing.T) (*provider.Provider, string) {
	t.Helper()
	ln, err := provider.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	issuer := "http://" + ln.Addr().String()
	p, err := provider.New(provider.Options{Issuer: issuer, Key: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p, issuer
}

func authorize(issuer string, change url.Values) string {
	q := url.Values{
		"client_id": {provider.CLI}, "response_type": {"code"}, "scope": {"openid"}, "state": {"s"}, "nonce": {"n"},
		"redirect_uri": {"http://127.0.0.1:4711/callback"}, "code_challenge_method": {"S256"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"},
	}
	for k, v := range change {
		q[k] = v
	}
	return issuer + "/authorize?" + q.Encode()
}

// TestLoopbackOnly: made-up people are for one machine, whichever way one tries.
func TestLoopbackOnly(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "localhost:0", "192.0.2.1:0"} {
		if ln, err := provider.Listen(t.Context(), addr); err == nil {
			ln.Close()
			t.Errorf("listens on %s", addr)
		}
	}
	for _, issuer := range []string{"http://0.0.0.0:1", "http://example.test:1", "http://127.0.0.1.example.test:1", "http://127.0.0.1:1/path", ""} {
		if _, err := provider.New(provider.Options{Issuer: issuer, Key: []byte(key)}); err == nil {
			t.Errorf("issuer %q", issuer)
		}
	}
	p, err := provider.New(provider.Options{Issuer: "http://127.0.0.1:5556", Key: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := p.Serve(t.Context(), ln); err == nil {
		t.Error("serves all interfaces")
	}
	for _, r := range []struct {
		from, host string
		status     int
	}{
		{"127.0.0.1:4", "127.0.0.1:5556", http.StatusOK},
		{"192.0.2.1:4", "127.0.0.1:5556", http.StatusForbidden},
		{"127.0.0.1:4", "rebound.example:5556", http.StatusForbidden},
		{"", "127.0.0.1:5556", http.StatusForbidden},
	} {
		req := httptest.NewRequest(http.MethodGet, "/.well-known/openid-configuration", nil)
		req.RemoteAddr, req.Host = r.from, r.host
		w := httptest.NewRecorder()
		p.ServeHTTP(w, req)
		if w.Code != r.status {
			t.Errorf("%+v: %d", r, w.Code)
		}
	}
}

// TestPasscode: the page's form lets in the key's holder alone.
func TestPasscode(t *testing.T) {
	p, issuer := serve(t)
	id := regexp.MustCompile(`name="id" value="([^"]+)"`)
	open := func() string {
		resp, err := http.Get(authorize(issuer, nil))
		if err != nil {
			t.Fatal(err)
		}
		page := text(t, resp)
		for _, name := range []string{"alice", "dana", "bob", "sam"} {
			if !strings.Contains(page, name) {
				t.Fatalf("%s is not on the page: %s", name, page)
			}
		}
		return id.FindStringSubmatch(page)[1]
	}
	first := open()
	for name, form := range map[string]url.Values{
		"nothing":               {},
		"another passcode":      {"passcode": {"the passcode of that test"}},
		"a proof for another":   {"proof": {provider.Prove([]byte(key), first, "bob")}},
		"a proof of another":    {"proof": {provider.Prove([]byte("another key altogether"), first, "alice")}},
		"another login's proof": {"proof": {provider.Prove([]byte(key), open(), "alice")}},
	} {
		form.Set("id", first)
		form.Set("name", "alice")
		if resp := post(t, issuer+"/login", form); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	if resp := post(t, issuer+"/login", url.Values{"id": {first}, "name": {"nobody"}, "passcode": {key}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("nobody: %s", resp.Status)
	}
	good := url.Values{"id": {first}, "name": {"alice"}, "passcode": {" " + key + "\n"}}
	resp := post(t, issuer+"/login", good)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/authorize/callback?id="+first {
		t.Errorf("the passcode: %s %s", resp.Status, resp.Header.Get("Location"))
	}
	if resp := post(t, issuer+"/login", good); resp.StatusCode != http.StatusNotFound {
		t.Errorf("the same form again: %s", resp.Status)
	}
	if err := p.SetDisabled("bob", true); err != nil {
		t.Fatal(err)
	}
	if _, err := provider.LoginAs(t.Context(), authorize(issuer, nil), []byte(key), "bob"); err == nil {
		t.Error("bob is disabled and logs in")
	}
}

// TestAuthorizeRefuses what a public client on this machine has no business to ask.
func TestAuthorizeRefuses(t *testing.T) {
	_, issuer := serve(t)
	for name, change := range map[string]url.Values{
		"another redirect":   {"redirect_uri": {"https://evil.example/callback"}},
		"another path":       {"redirect_uri": {"http://127.0.0.1:4711/other"}},
		"another client":     {"client_id": {"other"}},
		"plain PKCE":         {"code_challenge_method": {"plain"}},
		"implicit flow":      {"response_type": {"id_token token"}},
		"no page to be seen": {"prompt": {"none"}},
	} {
		if q, err := provider.LoginAs(t.Context(), authorize(issuer, change), []byte(key), "alice"); err == nil {
			t.Errorf("%s: %v", name, q)
		}
	}
	q, err := provider.LoginAs(t.Context(), authorize(issuer, nil), []byte(key), "alice")
	if err != nil || q.Get("code") == "" || q.Get("state") != "s" {
		t.Fatalf("%v %v", q, err)
	}
	// A public client without PKCE is refused at the token endpoint.
	bare := url.Values{"code_challenge": {""}, "code_challenge_method": {""}}
	if q, err = provider.LoginAs(t.Context(), authorize(issuer, bare), []byte(key), "alice"); err != nil {
		t.Fatal(err)
	}
	resp := post(t, issuer+"/oauth/token", url.Values{
		"grant_type": {"authorization_code"}, "client_id": {provider.CLI}, "code": {q.Get("code")},
		"redirect_uri": {"http://127.0.0.1:4711/callback"},
	})
	if resp.StatusCode == http.StatusOK {
		t.Error("exchanged without PKCE")
	}
}

// TestPublicClientHasNoSecret: the empty secret must not prove that one is the CLI.
func TestPublicClientHasNoSecret(t *testing.T) {
	_, issuer := serve(t)
	r, err := http.NewRequest(http.MethodPost, issuer+"/device_authorization", strings.NewReader("scope=openid"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(provider.CLI, "")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if page := text(t, resp); resp.StatusCode == http.StatusOK {
		t.Errorf("authenticated: %s", page)
	}
}

func TestDevicePage(t *testing.T) {
	_, issuer := serve(t)
	resp, err := http.Get(issuer + "/device?user_code=%22%3E%3Cscript%3E")
	if err != nil {
		t.Fatal(err)
	}
	if page := text(t, resp); strings.Contains(page, "<script>") || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("the page takes scripts: %s", page)
	}
	form := url.Values{"user_code": {"BCDF-GHJK"}, "name": {"alice"}, "passcode": {key}, "action": {"allow"}}
	if resp := post(t, issuer+"/device", form); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a code that nobody has: %s", resp.Status)
	}
	form.Set("passcode", "another")
	if resp := post(t, issuer+"/device", form); resp.StatusCode != http.StatusForbidden {
		t.Errorf("another passcode: %s", resp.Status)
	}
}

func TestAdmin(t *testing.T) {
	_, issuer := serve(t)
	call := func(bearer, path, body string) int {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, issuer+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text(t, resp)
		return resp.StatusCode
	}
	for _, path := range []string{"/admin/users/alice", "/admin/rotate"} {
		if got := call("another", path, `{"disabled":true}`); got != http.StatusUnauthorized {
			t.Errorf("%s without the key: %d", path, got)
		}
	}
	if got := call(key, "/admin/users/nobody", `{"disabled":true}`); got != http.StatusBadRequest {
		t.Errorf("nobody: %d", got)
	}
	if got := call(key, "/admin/users/alice", `{"disable":true}`); got != http.StatusBadRequest {
		t.Errorf("a misspelt field: %d", got)
	}
	if got := call(key, "/admin/rotate", ""); got != http.StatusNoContent {
		t.Errorf("rotate: %d", got)
	}
	login := func() error {
		_, err := provider.LoginAs(t.Context(), authorize(issuer, nil), []byte(key), "alice")
		return err
	}
	if err := login(); err != nil {
		t.Fatal(err)
	}
	if got := call(key, "/admin/users/alice", `{"disabled":true}`); got != http.StatusNoContent {
		t.Errorf("disable: %d", got)
	}
	if login() == nil {
		t.Error("disabled and logged in")
	}
	if got := call(key, "/admin/users/alice", `{"disabled":false,"groups":["leads"]}`); got != http.StatusNoContent {
		t.Errorf("enable: %d", got)
	}
	if err := login(); err != nil {
		t.Error(err)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.key")
	if _, err := provider.ReadKey(path); err == nil {
		t.Error("read what is not there")
	}
	one, err := provider.OpenKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := provider.OpenKey(path)
	if err != nil || string(again) != string(one) || len(one) < 26 {
		t.Errorf("%d characters, %v", len(one), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := provider.ReadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("everybody can read it: %v", err)
	}
}

// TestLoginAsElsewhere: a proof never leaves this machine.
func TestLoginAsElsewhere(t *testing.T) {
	for _, u := range []string{"https://issuer.example/authorize", "http://127.0.0.1.issuer.example/authorize", ":"} {
		if _, err := provider.LoginAs(t.Context(), u, []byte(key), "alice"); err == nil || !strings.Contains(err.Error(), "this machine only") {
			t.Errorf("%s: %v", u, err)
		}
	}
}

func post(t *testing.T, to string, form url.Values) *http.Response {
	t.Helper()
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.PostForm(to, form)
	if err != nil {
		t.Fatal(err)
	}
	text(t, resp)
	return resp
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
