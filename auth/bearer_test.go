package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/curfewdb/curfew/auth"
)

// minter is an issuer that gives tokens to clients of its own.
type minter struct {
	*httptest.Server
	questions atomic.Int64 // introspections and userinfos
	keysAsked atomic.Int64

	mu         sync.Mutex
	key        *ecdsa.PrivateKey
	kid        string
	clock      time.Duration // ahead of the real one, in Date
	introspect map[string]any
	userinfo   map[string]any
	broken     int // status of every answer; 0: it works
	form       map[string][]string
	basic      string
}

func newMinter(t *testing.T) *minter {
	t.Helper()
	m := &minter{}
	m.rotate(t, "k1")
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, count *atomic.Int64, v func() any) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if count != nil {
			count.Add(1)
		}
		w.Header().Set("Date", time.Now().Add(m.clock).UTC().Format(http.TimeFormat))
		if m.broken != 0 {
			w.WriteHeader(m.broken)
			return
		}
		_ = json.NewEncoder(w).Encode(v())
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nil, func() any {
			return map[string]any{"issuer": m.URL, "jwks_uri": m.URL + "/keys",
				"userinfo_endpoint": m.URL + "/userinfo", "introspection_endpoint": m.URL + "/introspect"}
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, &m.keysAsked, func() any {
			return map[string]any{"keys": []any{
				map[string]any{"kty": "of the future", "kid": "x"},
				jose.JSONWebKey{Key: m.key.Public(), KeyID: m.kid, Algorithm: "ES256", Use: "sig"},
			}}
		})
	})
	mux.HandleFunc("/introspect", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		m.mu.Lock()
		m.form = r.PostForm
		user, password, _ := r.BasicAuth()
		m.basic = user + ":" + password
		m.mu.Unlock()
		answer(w, &m.questions, func() any { return m.introspect })
	})
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		known := m.userinfo != nil
		m.mu.Unlock()
		if !known {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(w, &m.questions, func() any { return m.userinfo })
	})
	m.Server = httptest.NewServer(mux)
	t.Cleanup(m.Close)
	return m
}

func (m *minter) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *minter) rotate(t *testing.T, kid string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m.set(func() { m.key, m.kid = key, kid })
}

// access are the claims of a good access token; nil takes one out.
func (m *minter) access(change map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": m.URL, "sub": "u1", "aud": []string{"elsewhere", "curfew-db"}, "client_id": "psql", "jti": "j",
		"exp": now.Add(10 * time.Minute).Unix(), "iat": now.Add(-time.Second).Unix(),
		"email": "u1@example.test", "email_verified": true, "groups": []string{"developers"},
	}
	for k, v := range change {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

// token signs claims, with a type in the header if there is one.
func (m *minter) token(t *testing.T, typ string, c map[string]any) string {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	return mint(t, jose.ES256, m.key, m.kid, typ, c)
}

func mint(t *testing.T, alg jose.SignatureAlgorithm, key any, kid, typ string, c map[string]any) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithHeader("kid", kid)
	if typ != "" {
		o = o.WithType(jose.ContentType(typ))
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
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

func (m *minter) bearer(t *testing.T, take auth.TokenConfig) *auth.Bearer {
	t.Helper()
	if take.Audiences == nil {
		take.Audiences = []string{"curfew-db"}
	}
	b, err := auth.NewBearer(auth.IssuerConfig{URL: m.URL, ClientID: "curfew", ClientSecret: "s3cret"}, take)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBearerAccepts(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{Clients: []string{"psql"}})
	for _, typ := range []string{"at+jwt", "application/at+jwt", "JWT", ""} {
		got, err := b.Verify(t.Context(), m.token(t, typ, m.access(nil)))
		if err != nil {
			t.Fatalf("type %q: %v", typ, err)
		}
		id := got.Identity
		if id.Key() != m.URL+"#u1" || id.Email != "u1@example.test" || !id.InGroup("developers") || id.Workload || got.Client != "psql" {
			t.Errorf("type %q: %+v", typ, got)
		}
	}
}

// TestBearerRefuses: whatever is wrong with a token, nobody is let in by it, and its holder reads why.
func TestBearerRefuses(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{Clients: []string{"psql"}})
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(m.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	with := func(claim string, v any) string { return m.token(t, "at+jwt", m.access(map[string]any{claim: v})) }
	good := m.access(nil)
	for name, tc := range map[string]struct{ token, want string }{
		"foreign audience":    {with("aud", "another"), "aud"},
		"no audience":         {with("aud", nil), "aud"},
		"foreign client":      {with("client_id", "another"), "another"},
		"two clients":         {with("azp", "another"), "another"},
		"no client":           {with("client_id", nil), "client"},
		"foreign issuer":      {with("iss", "https://issuer.example"), "issued by"},
		"expired":             {with("exp", now.Add(-61*time.Second).Unix()), "expired"},
		"never expires":       {with("exp", nil), "exp"},
		"expiry in words":     {with("exp", "tomorrow"), "exp"},
		"not yet good":        {with("nbf", now.Add(2*time.Minute).Unix()), "not good before"},
		"of the future":       {with("iat", now.Add(2*time.Minute).Unix()), "ahead of this server's, and 1m0s is forgiven"},
		"of no time":          {with("iat", nil), "iat"},
		"nobody's":            {with("sub", nil), "subject"},
		"endless subject":     {with("sub", strings.Repeat("s", 256)), "subject"},
		"bound to a key":      {with("cnf", map[string]any{"jkt": "x"}), "cnf"},
		"auth_time ahead":     {with("auth_time", now.Add(time.Hour).Unix()), "auth_time"},
		"a logout token":      {with("events", map[string]any{}), "event"},
		"a refresh token":     {with("typ", "Refresh"), "refresh"},
		"a logout token's":    {m.token(t, "logout+jwt", good), "type"},
		"a proof's":           {m.token(t, "dpop+jwt", good), "type"},
		"another key":         {mint(t, jose.ES256, other, "k1", "at+jwt", good), "signature"},
		"another key's name":  {mint(t, jose.ES256, other, "k9", "at+jwt", good), "signature"},
		"another kind of key": {mint(t, jose.RS256, rsaKey, "k1", "at+jwt", good), "signature"},
		"HS256, public key":   {mint(t, jose.HS256, public, "k1", "at+jwt", good), "no JWT"},
		"unsigned":            {unsigned(t, good), "no JWT"},
		"opaque":              {"2YotnFZFEjr1zCsicMWpAA", "no others"},
		"empty":               {"", "no token"},
		"not base64":          {"eyJ.eyJ.!", "no JWT"},
		"endless":             {"eyJ" + strings.Repeat("a", auth.LongestToken), "longer"},
	} {
		got, err := b.Verify(t.Context(), tc.token)
		if !errors.Is(err, auth.ErrToken) || !strings.Contains(fmt.Sprint(err), tc.want) || got.Identity.Subject != "" {
			t.Errorf("%s: %+v %v, want %q", name, got, err, tc.want)
		}
	}
	if n := m.questions.Load(); n != 0 {
		t.Errorf("%d questions about tokens that say everything", n)
	}
	if _, err := m.bearer(t, auth.TokenConfig{Audiences: []string{}}).Verify(t.Context(), with("aud", "curfew-db")); !errors.Is(err, auth.ErrToken) {
		t.Errorf("no audience is configured: %v", err)
	}
}

// TestBearerRotation: a new key is known with its first token; and strangers with made-up ones don't have the
// issuer asked each time.
func TestBearerRotation(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{})
	first := m.token(t, "at+jwt", m.access(nil))
	if _, err := b.Verify(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	before := m.keysAsked.Load()
	began := time.Now()
	for i := range 50 {
		if _, err := b.Verify(t.Context(), mint(t, jose.ES256, other, "k1", "", m.access(map[string]any{"jti": i}))); err == nil {
			t.Fatal("a stranger's key")
		}
	}
	if n, most := m.keysAsked.Load()-before, int64(time.Since(began)/time.Second)+1; n > most {
		t.Errorf("the keys were asked for %d times in %s", n, time.Since(began))
	}
	m.rotate(t, "k2")
	second := m.token(t, "at+jwt", m.access(nil))
	deadline := time.Now().Add(5 * time.Second)
	for {
		if _, err = b.Verify(t.Context(), second); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a rotation: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	stale := mint(t, jose.ES256, other, "k1", "", m.access(nil))
	if _, err := b.Verify(t.Context(), stale); !errors.Is(err, auth.ErrToken) {
		t.Error(err)
	}
}

// TestBearerCompletes: an access token without an e-mail is completed by userinfo, about the same subject.
func TestBearerCompletes(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{})
	bare := func(jti string) string {
		return m.token(t, "at+jwt", m.access(map[string]any{"email": nil, "email_verified": nil, "groups": nil, "jti": jti}))
	}
	if got, err := b.Verify(t.Context(), bare("1")); err != nil || got.Identity.Email != "" {
		t.Errorf("userinfo knows nothing: %+v %v", got, err)
	}
	m.set(func() {
		m.userinfo = map[string]any{"sub": "u1", "email": "u1@example.test", "email_verified": true, "groups": []string{"leads"}}
	})
	token := bare("2")
	for range 3 {
		got, err := b.Verify(t.Context(), token)
		if err != nil || got.Identity.Email != "u1@example.test" || !got.Identity.InGroup("leads") {
			t.Errorf("%+v %v", got, err)
		}
	}
	if n := m.questions.Load(); n != 1 {
		t.Errorf("asked %d times about one token", n)
	}
	m.set(func() { m.userinfo = map[string]any{"sub": "u2", "email": "u2@example.test"} })
	if _, err := b.Verify(t.Context(), bare("3")); !errors.Is(err, auth.ErrToken) {
		t.Errorf("about another subject: %v", err)
	}
	m.set(func() { m.userinfo = map[string]any{"sub": "u1", "email_verified": true} })
	half := m.token(t, "", m.access(map[string]any{"email_verified": nil, "groups": nil}))
	if got, err := b.Verify(t.Context(), half); err != nil || got.Identity.Email != "" {
		t.Errorf("two halves make no verified address: %+v %v", got, err)
	}
}

func TestBearerIntrospects(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{Opaque: auth.OpaqueIntrospection, Clients: []string{"psql"}})
	active := func(change map[string]any) func() {
		return func() { m.introspect = m.access(map[string]any{"active": true}); merge(m.introspect, change) }
	}
	m.set(active(nil))
	got, err := b.Verify(t.Context(), "opaque-1")
	if err != nil || got.Identity.Email != "u1@example.test" || m.form["token"][0] != "opaque-1" || m.basic != "curfew:s3cret" {
		t.Errorf("%+v %v, asked %v as %s", got, err, m.form, m.basic)
	}
	for name, tc := range map[string]struct {
		change map[string]any
		want   string
	}{
		"inactive":         {map[string]any{"active": false}, "active"},
		"active in words":  {map[string]any{"active": "true"}, "active"},
		"foreign audience": {map[string]any{"aud": "another"}, "aud"},
		"foreign client":   {map[string]any{"client_id": "another"}, "client"},
		"foreign issuer":   {map[string]any{"iss": "https://issuer.example"}, "issued by"},
		"expired":          {map[string]any{"exp": time.Now().Add(-2 * time.Minute).Unix()}, "expired"},
		"of nobody":        {map[string]any{"sub": nil}, "whose"},
		"refresh":          {map[string]any{"token_type": "refresh_token"}, "lets nobody in"},
		"bound to a key":   {map[string]any{"cnf": map[string]any{}}, "cnf"},
	} {
		m.set(active(tc.change))
		if got, err := b.Verify(t.Context(), "opaque-"+strings.ReplaceAll(name, " ", "-")); !errors.Is(err, auth.ErrToken) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %+v %v, want %q", name, got, err, tc.want)
		}
	}
	if _, err := b.Verify(t.Context(), "opaque 1\x01"); !errors.Is(err, auth.ErrToken) {
		t.Error(err)
	}
	if _, err := auth.NewBearer(auth.IssuerConfig{URL: m.URL, ClientID: "curfew"}, auth.TokenConfig{Opaque: auth.OpaqueIntrospection}); err == nil {
		t.Error("introspection without a secret")
	}
	// What does not say for whom it is is for the clients that are taken here, which then must be named.
	m.set(active(map[string]any{"aud": nil}))
	if _, err := b.Verify(t.Context(), "opaque-2"); err != nil {
		t.Error(err)
	}
	if _, err := m.bearer(t, auth.TokenConfig{Opaque: auth.OpaqueIntrospection}).Verify(t.Context(), "opaque-3"); !errors.Is(err, auth.ErrToken) {
		t.Errorf("neither audience nor client: %v", err)
	}
}

func merge(into, change map[string]any) {
	for k, v := range change {
		if into[k] = v; v == nil {
			delete(into, k)
		}
	}
}

func TestBearerByUserinfo(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{Opaque: auth.OpaqueUserinfo})
	if _, err := b.Verify(t.Context(), "opaque"); !errors.Is(err, auth.ErrToken) {
		t.Error(err)
	}
	m.set(func() { m.userinfo = map[string]any{"sub": "u1", "email": "u1@example.test", "email_verified": true} })
	if got, err := b.Verify(t.Context(), "opaque"); err != nil || got.Identity.Email != "u1@example.test" {
		t.Errorf("%+v %v", got, err)
	}
}

// TestBearerProviderDown: what can't be asked is no yes, and not the fault of whoever shows a token.
func TestBearerProviderDown(t *testing.T) {
	m := newMinter(t)
	m.set(func() { m.userinfo = map[string]any{"sub": "u1"} })
	b := m.bearer(t, auth.TokenConfig{Opaque: auth.OpaqueUserinfo})
	signed := m.token(t, "", m.access(nil))
	bare := m.token(t, "", m.access(map[string]any{"email": nil}))
	m.set(func() { m.broken = http.StatusServiceUnavailable })
	down := func(what, token string) {
		t.Helper()
		if _, err := b.Verify(t.Context(), token); !errors.Is(err, auth.ErrUnreachable) || errors.Is(err, auth.ErrToken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	down("no keys yet", signed)
	down("opaque", "opaque")
	m.set(func() { m.broken = 0 })
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := b.Verify(t.Context(), signed); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("it is back: %v", err)
		}
	}
	m.set(func() { m.broken = http.StatusBadGateway })
	down("an e-mail that nobody tells", bare)
	down("opaque", "opaque-2")
	again := m.token(t, "", m.access(map[string]any{"jti": "2"}))
	if _, err := b.Verify(t.Context(), again); err != nil {
		t.Errorf("a signed token by a key that is known: %v", err)
	}
	m.Close()
	down("nobody listens", "opaque-3")
}

func TestWorkloadTokens(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{Workloads: true})
	people := newMinter(t)
	all, err := auth.NewBearers(b, people.bearer(t, auth.TokenConfig{}))
	if err != nil {
		t.Fatal(err)
	}
	ci := m.token(t, "JWT", m.access(map[string]any{"sub": "repo:acme/shop:ref:refs/heads/main", "client_id": nil}))
	got, err := all.Verify(t.Context(), ci, auth.Workloads)
	if err != nil || !got.Identity.Workload || got.Identity.Email != "" || got.Identity.Subject != "repo:acme/shop:ref:refs/heads/main" {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := all.Verify(t.Context(), ci, auth.People); !errors.Is(err, auth.ErrToken) {
		t.Errorf("a program where a person is wanted: %v", err)
	}
	if _, err := all.Verify(t.Context(), people.token(t, "", people.access(nil)), auth.Workloads); !errors.Is(err, auth.ErrToken) {
		t.Errorf("a person where a program is wanted: %v", err)
	}
	if _, err := all.Verify(t.Context(), newMinter(t).token(t, "", m.access(map[string]any{"iss": "https://issuer.example"})), auth.Workloads); !errors.Is(err, auth.ErrToken) {
		t.Errorf("nobody's token: %v", err)
	}
	for holder, token := range map[bool]string{true: ci, false: people.token(t, "", people.access(nil))} {
		if got, err := all.Verify(t.Context(), token, auth.People|auth.Workloads); err != nil || got.Identity.Workload != holder {
			t.Errorf("either: %+v %v", got, err)
		}
	}
	if at, _, ok := (auth.Bearers{b}).Offer(); !ok || at != "" {
		t.Errorf("programs are offered %s, %t", at, ok)
	}
	if _, _, ok := (auth.Bearers{}).Offer(); ok {
		t.Error("no issuer takes tokens")
	}
	configuration, _, ok := all.Offer()
	if !ok || configuration != people.URL+"/.well-known/openid-configuration" {
		t.Errorf("offered: %s %t", configuration, ok)
	}
	if _, err := auth.NewBearers(m.bearer(t, auth.TokenConfig{Opaque: "userinfo"}), people.bearer(t, auth.TokenConfig{Opaque: "userinfo"})); err == nil {
		t.Error("opaque tokens of two issuers")
	}
	if n := m.questions.Load(); n != 0 {
		t.Errorf("%d questions about a program", n)
	}
}

// TestClockSkew: the issuer's clock is measured by its answers; what is forgiven is a minute, known or not.
func TestClockSkew(t *testing.T) {
	m := newMinter(t)
	b := m.bearer(t, auth.TokenConfig{})
	verify := func(ahead time.Duration) error {
		at := time.Now().Add(ahead)
		_, err := b.Verify(t.Context(), m.token(t, "", m.access(map[string]any{
			"iat": at.Unix(), "exp": at.Add(2 * time.Minute).Unix(), "jti": ahead.String()})))
		return err
	}
	if _, at := b.Skew(); !at.IsZero() {
		t.Error("measured before an answer")
	}
	m.set(func() { m.clock = 45 * time.Second })
	if err := verify(45 * time.Second); err != nil {
		t.Errorf("less than a minute: %v", err)
	}
	if ahead, at := b.Skew(); ahead < 40*time.Second || ahead > 46*time.Second || at.IsZero() {
		t.Errorf("measured %s at %s", ahead, at)
	}
	if err := verify(90 * time.Second); !errors.Is(err, auth.ErrToken) || !strings.Contains(fmt.Sprint(err), "s ahead of this server's, and 1m0s is forgiven") {
		t.Errorf("more than a minute: %v", err)
	}
	// An issuer whose clock is behind gives tokens that are over before they are shown.
	m.set(func() { m.clock = -10 * time.Minute })
	b = m.bearer(t, auth.TokenConfig{})
	if err := verify(-10 * time.Minute); !errors.Is(err, auth.ErrToken) || !strings.Contains(fmt.Sprint(err), "it expired at") ||
		!strings.Contains(fmt.Sprint(err), "behind this server's, and 1m0s is forgiven") {
		t.Errorf("behind: %v", err)
	}
	m.set(func() { m.clock = 0 })
	b = m.bearer(t, auth.TokenConfig{})
	if err := verify(-10 * time.Minute); !strings.Contains(fmt.Sprint(err), "it expired at") || strings.Contains(fmt.Sprint(err), "clock") {
		t.Errorf("it is simply over: %v", err)
	}
}
