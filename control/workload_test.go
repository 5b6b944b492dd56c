package control

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/curfewdb/curfew/auth"
)

// ciSystem is an issuer of workloads: it has keys and nothing else.
type ciSystem struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newCISystem(t *testing.T) *ciSystem {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ci := &ciSystem{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": ci.URL, "jwks_uri": ci.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k"}}})
	})
	ci.Server = httptest.NewServer(mux)
	t.Cleanup(ci.Close)
	return ci
}

// token is what a job of the repository gets for an audience.
func (ci *ciSystem) token(t *testing.T, audience string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: ci.key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", "k"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{"iss": ci.URL, "aud": audience, "sub": "repo:acme/shop:ref:refs/heads/main", "repository": "acme/shop",
		"email": "alice@example.test", "email_verified": true, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestWorkloadTokens: a job's own token is its bearer, and makes nobody a person.
func TestWorkloadTokens(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	ci := newCISystem(t)
	jobs, err := auth.NewBearer(auth.IssuerConfig{URL: ci.URL}, auth.TokenConfig{Audiences: []string{"curfew"}, Workloads: true})
	if err != nil {
		t.Fatal(err)
	}
	h.tokens = auth.Bearers{h.bearer, jobs}
	good := ci.token(t, "curfew")
	who, err := h.Whoami(t.Context(), good)
	if err != nil || !who.Workload || who.Email != "" || who.Key() != ci.URL+"#repo:acme/shop:ref:refs/heads/main" {
		t.Errorf("%+v %v", who, err)
	}
	_, err = h.Whoami(t.Context(), ci.token(t, "elsewhere"))
	wantUnauthenticated(t, "a foreign audience", err)
	if !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("says %v", err)
	}
	if err := h.Logout(t.Context(), good); err == nil {
		t.Error("there is no login to end")
	}
	ci.Close()
	if _, err := h.Whoami(t.Context(), good); err != nil {
		t.Errorf("verified a moment ago: %v", err)
	}
	fresh, err := auth.NewBearer(auth.IssuerConfig{URL: ci.URL}, auth.TokenConfig{Audiences: []string{"curfew"}, Workloads: true})
	if err != nil {
		t.Fatal(err)
	}
	h.tokens = auth.Bearers{fresh}
	var own *Error
	if _, err := h.Whoami(t.Context(), good); !errors.As(err, &own) || own.Code != CodeUnavailable {
		t.Errorf("the CI system is down: %v", err)
	}
}
