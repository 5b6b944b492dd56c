package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/curfewdb/curfew/auth"
)

// issuer is a scripted OIDC issuer: its token endpoint answers what the test says, true or not.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu       sync.Mutex
	discover map[string]any       // changes to the discovery document
	token    func(url.Values) any // the token endpoint's answer
	userinfo map[string]any
	asked    []url.Values
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	is := &issuer{key: key, discover: map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		is.mu.Lock()
		defer is.mu.Unlock()
		doc := map[string]any{
			"issuer": is.URL, "authorization_endpoint": is.URL + "/auth", "token_endpoint": is.URL + "/token",
			"jwks_uri": is.URL + "/keys", "device_authorization_endpoint": is.URL + "/device",
			// Offering HS256 and none must not make us accept them.
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		}
		if is.userinfo != nil {
			doc["userinfo_endpoint"] = is.URL + "/userinfo"
		}
		for k, v := range is.discover {
			doc[k] = v
		}
		reply(w, doc)
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, _ *http.Request) { reply(w, is.userinfo) })
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		is.mu.Lock()
		is.asked = append(is.asked, r.PostForm)
		token := is.token
		is.mu.Unlock()
		reply(w, token(r.PostForm))
	})
	is.Server = httptest.NewServer(mux)
	t.Cleanup(is.Close)
	return is
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if m, ok := v.(map[string]any); ok && m["error"] != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = json.NewEncoder(w).Encode(v)
}

// claims are those of a good token; a test changes one.
func (is *issuer) claims(nonce string) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": is.URL, "sub": "u1", "aud": "curfew", "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(),
		"nonce": nonce, "email": "u1@example.test", "email_verified": true, "groups": []string{"developers"},
		"acr": "gold", "amr": []string{"pwd", "otp"}, "auth_time": now.Add(-time.Hour).Unix(),
	}
}

func (is *issuer) sign(t *testing.T, c map[string]any) string {
	return signed(t, jose.RS256, is.key, "k", c)
}

func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, c map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", kid))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (is *issuer) relyingParty(t *testing.T, change ...func(*auth.IssuerConfig)) *auth.Provider {
	t.Helper()
	cfg := auth.IssuerConfig{URL: is.URL, ClientID: "curfew"}
	for _, f := range change {
		f(&cfg)
	}
	p, err := auth.Discover(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// login runs a code flow whose ID token is what token makes of the login's nonce.
func (is *issuer) login(t *testing.T, p *auth.Provider, token func(nonce string) string) (auth.Identity, error) {
	t.Helper()
	_, pending, err := p.AuthURL(t.Context(), "http://127.0.0.1:1/callback", auth.Asked{})
	if err != nil {
		t.Fatal(err)
	}
	is.mu.Lock()
	is.token = func(url.Values) any {
		return map[string]any{"access_token": "at", "token_type": "Bearer", "refresh_token": "rt", "id_token": token(pending.Nonce)}
	}
	is.mu.Unlock()
	id, _, err := p.Exchange(t.Context(), pending, auth.Answer{Code: "c", State: pending.State})
	return id, err
}

// TestForgedTokens: whatever is wrong with an ID token, there is no identity.
func TestForgedTokens(t *testing.T) {
	is := newIssuer(t)
	p := is.relyingParty(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(is.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	with := func(k string, v any) func(string) string {
		return func(nonce string) string {
			c := is.claims(nonce)
			c[k] = v
			if v == nil {
				delete(c, k)
			}
			return is.sign(t, c)
		}
	}
	now := time.Now()
	for name, tc := range map[string]struct {
		token func(nonce string) string
		want  string
	}{
		"wrong nonce":             {with("nonce", "of another login"), "nonce"},
		"no nonce":                {with("nonce", ""), "nonce"},
		"wrong audience":          {with("aud", "another client"), "audience"},
		"no audience":             {with("aud", []string{}), "audience"},
		"two, no azp":             {with("aud", []string{"curfew", "other"}), "azp"},
		"azp of another":          {with("azp", "other"), "azp"},
		"expired":                 {with("exp", now.Add(-2*time.Minute).Unix()), "expired"},
		"never expires":           {with("exp", nil), "expired"},
		"not yet valid":           {with("nbf", now.Add(time.Hour).Unix()), "nbf"},
		"from the future":         {with("iat", now.Add(time.Hour).Unix()), "ahead of this server's"},
		"auth_time ahead":         {with("auth_time", now.Add(time.Hour).Unix()), "auth_time"},
		"foreign issuer":          {with("iss", "https://issuer.example"), "different provider"},
		"issuer and slash":        {with("iss", is.URL+"/"), "different provider"},
		"no subject":              {with("sub", ""), "subject"},
		"another access token's":  {with("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), "access token hash"},
		"another key":             {func(n string) string { return signed(t, jose.RS256, other, "k", is.claims(n)) }, "signature"},
		"another key, its own id": {func(n string) string { return signed(t, jose.RS256, other, "x", is.claims(n)) }, "signature"},
		"another algorithm":       {func(n string) string { return signed(t, jose.ES256, ec, "k", is.claims(n)) }, "algorithm"},
		// The published key's bytes as a shared secret: what verifiers fall for that let the token choose.
		"HS256 with the public key": {func(n string) string { return signed(t, jose.HS256, public, "k", is.claims(n)) }, "algorithm"},
		"alg none":                  {func(n string) string { return unsigned(t, is.claims(n)) }, "malformed"},
		"signature cut off": {func(n string) string {
			raw := is.sign(t, is.claims(n))
			return raw[:strings.LastIndex(raw, ".")+1]
		}, "signature"},
		"changed": {func(n string) string {
			good := strings.Split(is.sign(t, is.claims(n)), ".")
			c := is.claims(n)
			c["sub"] = "root"
			bad := strings.Split(is.sign(t, c), ".")
			return good[0] + "." + bad[1] + "." + good[2]
		}, "signature"},
		"no token": {func(string) string { return "" }, "no ID token"},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := is.login(t, p, tc.token)
			if err == nil {
				t.Fatalf("accepted as %+v", id)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("refused for another reason than %q: %v", tc.want, err)
			}
			if id.Subject != "" {
				t.Errorf("an identity came with the error: %+v", id)
			}
		})
	}
}

func unsigned(t *testing.T, c map[string]any) string {
	t.Helper()
	// A good token's payload under {"alg":"none"}.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(signed(t, jose.RS256, key, "k", c), ".")
	return "eyJhbGciOiJub25lIn0." + parts[1] + "."
}

func TestGoodToken(t *testing.T) {
	is := newIssuer(t)
	p := is.relyingParty(t)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	id, err := is.login(t, p, func(nonce string) string {
		c := is.claims(nonce)
		c["aud"], c["azp"], c["auth_time"] = []string{"other", "curfew"}, "curfew", at.Unix()
		// Within the minute that clocks may differ, in both directions.
		c["exp"], c["iat"] = time.Now().Add(-30*time.Second).Unix(), time.Now().Add(30*time.Second).Unix()
		return is.sign(t, c)
	})
	if err != nil {
		t.Fatal(err)
	}
	if id.Key() != is.URL+"#u1" || id.Email != "u1@example.test" || !id.InGroup("developers") ||
		id.ACR != "gold" || len(id.AMR) != 2 || !id.AuthTime.Equal(at) {
		t.Errorf("identity %+v", id)
	}
}

// TestClaims: providers differ in how they tell the same things; none of it may add a group or an e-mail.
func TestClaims(t *testing.T) {
	for name, tc := range map[string]struct {
		change   map[string]any
		userinfo map[string]any
		config   func(*auth.IssuerConfig)
		email    string
		groups   string
		bad      string
	}{
		"plain":                  {email: "u1@example.test", groups: "developers"},
		"e-mail not verified":    {change: map[string]any{"email_verified": false}, groups: "developers"},
		"verified as a string":   {change: map[string]any{"email_verified": "true"}, email: "u1@example.test", groups: "developers"},
		"unverified as a string": {change: map[string]any{"email_verified": "false"}, groups: "developers"},
		"verified is nonsense":   {change: map[string]any{"email_verified": 1}, groups: "developers"},
		"verified is left out":   {change: map[string]any{"email_verified": nil}, groups: "developers"},
		"left out, but trusted": {
			change: map[string]any{"email_verified": nil}, config: func(c *auth.IssuerConfig) { c.TrustEmail = true },
			email: "u1@example.test", groups: "developers",
		},
		"false, though trusted": {
			change: map[string]any{"email_verified": false}, config: func(c *auth.IssuerConfig) { c.TrustEmail = true },
			groups: "developers",
		},
		"one group as a string": {change: map[string]any{"groups": "developers"}, email: "u1@example.test", groups: "developers"},
		"groups as an object":   {change: map[string]any{"groups": map[string]any{"leads": true}}, email: "u1@example.test"},
		"groups of numbers":     {change: map[string]any{"groups": []int{1}}, email: "u1@example.test"},
		"twice the same group":  {change: map[string]any{"groups": []string{"b", "a", "b", ""}}, email: "u1@example.test", groups: "a b"},
		"another claim": {
			change: map[string]any{"roles": []string{"x"}}, config: func(c *auth.IssuerConfig) { c.GroupsClaim = "roles" },
			email: "u1@example.test", groups: "x",
		},
		"a nested claim": {
			change: map[string]any{"realm_access": map[string]any{"roles": []string{"x"}}},
			config: func(c *auth.IssuerConfig) { c.GroupsClaim = "realm_access.roles" },
			email:  "u1@example.test", groups: "x",
		},
		"a dot in the claim's name": {
			change: map[string]any{"https://a.b/groups": []string{"x"}},
			config: func(c *auth.IssuerConfig) { c.GroupsClaim = "https://a.b/groups" },
			email:  "u1@example.test", groups: "x",
		},
		"groups by userinfo": {
			change: map[string]any{"groups": nil}, userinfo: map[string]any{"sub": "u1", "groups": []string{"leads"}},
			email: "u1@example.test", groups: "leads",
		},
		"the token stands before userinfo": {
			change:   map[string]any{"email": nil, "email_verified": nil},
			userinfo: map[string]any{"sub": "u1", "email": "new@example.test", "email_verified": true, "groups": []string{"leads"}},
			email:    "new@example.test", groups: "developers",
		},
		"two halves of an e-mail": {
			change:   map[string]any{"email_verified": nil, "groups": nil},
			userinfo: map[string]any{"sub": "u1", "email": "mine@example.test", "email_verified": true},
		},
		"userinfo of another": {
			change: map[string]any{"groups": nil}, userinfo: map[string]any{"sub": "u2", "groups": []string{"leads"}},
			bad: "another subject",
		},
	} {
		t.Run(name, func(t *testing.T) {
			is := newIssuer(t)
			is.userinfo = tc.userinfo
			var change []func(*auth.IssuerConfig)
			if tc.config != nil {
				change = append(change, tc.config)
			}
			id, err := is.login(t, is.relyingParty(t, change...), func(nonce string) string {
				c := is.claims(nonce)
				for k, v := range tc.change {
					c[k] = v
					if v == nil {
						delete(c, k)
					}
				}
				return is.sign(t, c)
			})
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Fatalf("got %+v, %v", id, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(id.Groups, " "); got != tc.groups || id.Email != tc.email {
				t.Errorf("groups %q, e-mail %q; want %q, %q", got, id.Email, tc.groups, tc.email)
			}
		})
	}
}

// TestStateOfAnother: an answer that belongs to another login, or comes from another issuer, is not even
// shown to the token endpoint.
func TestStateOfAnother(t *testing.T) {
	is := newIssuer(t)
	p := is.relyingParty(t)
	_, pending, err := p.AuthURL(t.Context(), "http://127.0.0.1:1/callback", auth.Asked{})
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]auth.Answer{
		"state":  {Code: "c", State: "other"},
		"none":   {Code: "c"},
		"issuer": {Code: "c", State: pending.State, Issuer: "https://issuer.example"},
	} {
		if _, _, err := p.Exchange(t.Context(), pending, a); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, _, err := p.Exchange(t.Context(), auth.Pending{}, auth.Answer{Code: "c"}); err == nil {
		t.Error("an empty login was accepted")
	}
	if len(is.asked) != 0 {
		t.Errorf("the code was spent: %v", is.asked)
	}
}

// TestInsecureIssuers: no code, key or secret travels in the clear.
func TestInsecureIssuers(t *testing.T) {
	for _, u := range []string{"", "issuer.example", "http://issuer.example", "ftp://issuer.example", "http://127.0.0.1.example/"} {
		if _, err := auth.Discover(t.Context(), auth.IssuerConfig{URL: u, ClientID: "curfew"}); err == nil {
			t.Errorf("%q accepted", u)
		}
	}
	is := newIssuer(t)
	for _, field := range []string{"token_endpoint", "jwks_uri", "authorization_endpoint", "userinfo_endpoint", "device_authorization_endpoint"} {
		is.discover = map[string]any{field: "http://issuer.example/x"}
		if err := is.relyingParty(t).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "https") {
			t.Errorf("%s in the clear: %v", field, err)
		}
	}
	is.discover = map[string]any{"issuer": "https://issuer.example"}
	if err := is.relyingParty(t).Check(t.Context()); err == nil {
		t.Error("an issuer that calls itself something else was accepted")
	}
	is.discover = map[string]any{"code_challenge_methods_supported": []string{"plain"}}
	if err := is.relyingParty(t).Check(t.Context()); err == nil {
		t.Error("an issuer without S256 was accepted")
	}
}

// TestLimits: an issuer can neither feed us without end nor send our secrets elsewhere.
func TestLimits(t *testing.T) {
	is := newIssuer(t)
	is.discover = map[string]any{"padding": strings.Repeat("x", 2<<20)}
	if err := is.relyingParty(t).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "megabyte") {
		t.Errorf("two megabytes of discovery: %v", err)
	}

	stolen := make(chan url.Values, 1)
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		stolen <- r.PostForm
	}))
	defer thief.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer elsewhere.Close()
	is.discover = map[string]any{"token_endpoint": elsewhere.URL}
	p := is.relyingParty(t, func(c *auth.IssuerConfig) { c.ClientSecret = "secret" })
	if _, _, err := p.Refresh(t.Context(), "rt", auth.Identity{}); err == nil {
		t.Error("redirected and accepted")
	}
	select {
	case form := <-stolen:
		t.Errorf("the redirect carried %v away", form)
	default:
	}
}

// TestRefreshAnswers: what a refresh may say, and what it means.
func TestRefreshAnswers(t *testing.T) {
	is := newIssuer(t)
	p := is.relyingParty(t)
	prev := auth.Identity{Issuer: is.URL, Subject: "u1", Groups: []string{"developers"}, ACR: "gold", AMR: []string{"otp"}, AuthTime: time.Now().Add(-time.Hour).Truncate(time.Second)}
	refresh := func(answer map[string]any) (auth.Identity, string, error) {
		is.token = func(url.Values) any { return answer }
		return p.Refresh(t.Context(), "rt", prev)
	}
	tokens := func(change map[string]any) map[string]any {
		c := is.claims("")
		for k, v := range change {
			c[k] = v
			if v == nil {
				delete(c, k)
			}
		}
		return map[string]any{"access_token": "at", "token_type": "Bearer", "refresh_token": "rt2", "id_token": is.sign(t, c)}
	}

	id, next, err := refresh(tokens(map[string]any{"groups": []string{"leads"}}))
	if err != nil || next != "rt2" || strings.Join(id.Groups, " ") != "leads" {
		t.Errorf("moved: %+v %q %v", id, next, err)
	}
	id, _, err = refresh(tokens(map[string]any{"groups": nil}))
	if err != nil || len(id.Groups) != 0 {
		t.Errorf("no groups any more: %+v %v", id, err)
	}
	id, _, err = refresh(tokens(map[string]any{"acr": nil, "amr": nil, "auth_time": nil}))
	if err != nil || id.ACR != "gold" || !id.AuthTime.Equal(prev.AuthTime) {
		t.Errorf("evidence is that of the login: %+v %v", id, err)
	}
	if _, _, err = refresh(tokens(map[string]any{"sub": "u2"})); !isGone(err) {
		t.Errorf("another person: %v", err)
	}
	if _, _, err = refresh(tokens(map[string]any{"aud": "other"})); err == nil || isGone(err) {
		t.Errorf("another audience: %v", err)
	}
	if _, _, err = refresh(map[string]any{"error": "invalid_grant"}); !isGone(err) {
		t.Errorf("invalid_grant: %v", err)
	}
	for _, code := range []string{"invalid_client", "temporarily_unavailable", "server_error"} {
		if _, _, err = refresh(map[string]any{"error": code}); err == nil || isGone(err) {
			t.Errorf("%s must not end anybody's grant: %v", code, err)
		}
	}
	id, next, err = refresh(map[string]any{"access_token": "at", "token_type": "Bearer"})
	if err != nil || next != "rt" || !id.Same(prev) || id.ACR != "gold" {
		t.Errorf("no ID token and no userinfo: %+v %q %v", id, next, err)
	}
	is.Close()
	if _, _, err = p.Refresh(t.Context(), "rt", prev); err == nil || isGone(err) {
		t.Errorf("an issuer that is down must not end anybody's grant: %v", err)
	}
}
