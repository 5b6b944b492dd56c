package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// ciSystem gives jobs tokens that say what they are.
type ciSystem struct {
	issuer string
	key    *ecdsa.PrivateKey
}

// openJobs starts the CI system, and gives whoever verifies its tokens, and the rule for its jobs.
func (h *stage) openJobs(ctx context.Context) (auth.Bearers, policy.Rule, error) {
	var none policy.Rule
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, none, err
	}
	h.jobs.issuer = "http://" + l.Addr().String()
	if h.jobs.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, none, err
	}
	mux := http.NewServeMux()
	answer := func(path string, v any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	answer("/.well-known/openid-configuration", map[string]string{"issuer": h.jobs.issuer, "jwks_uri": h.jobs.issuer + "/keys"})
	answer("/keys", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: h.jobs.key.Public(), KeyID: "k"}}})
	h.serveOn(ctx, l, mux)
	b, err := auth.NewBearer(auth.IssuerConfig{URL: h.jobs.issuer}, auth.TokenConfig{Audiences: []string{"curfew"}, Workloads: true})
	return auth.Bearers{b}, policy.Rule{Name: "jobs", Who: policy.Who{Issuers: []string{h.jobs.issuer}}, Targets: []string{"orders"},
		Levels: []string{"reader"}, Longest: 10 * time.Minute}, err
}

// job SUBJECT AUDIENCE FILE: the CI system writes a job's token into its file.
func job(ts *testscript.TestScript, _ bool, args []string) {
	ci := stageOf(ts).jobs
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: ci.key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", "k"))
	ts.Check(err)
	now := time.Now()
	claims, err := json.Marshal(map[string]any{"iss": ci.issuer, "sub": args[0], "aud": args[1], "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()})
	ts.Check(err)
	jws, err := signer.Sign(claims)
	ts.Check(err)
	raw, err := jws.CompactSerialize()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(raw+"\n"), 0o600))
}
