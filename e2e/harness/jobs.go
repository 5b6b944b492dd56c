package harness

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// jobs is a CI system as an identity provider: it publishes keys, and gives each job tokens that say what it is.
// Its administrator gives it new keys, and sets its clock. Who logs in there is given the ID token that the
// administrator says, whatever was asked.
type jobs struct {
	issuer string
	key    []byte
	mux    *http.ServeMux

	mu     sync.Mutex // guards what follows
	signer *ecdsa.PrivateKey
	kid    string
	ahead  time.Duration // of the real time
	says   job           // in answer to a login
}

func newJobs(issuer string, key []byte) (*jobs, error) {
	j := &jobs{issuer: issuer, key: key, mux: http.NewServeMux()}
	j.mux.HandleFunc("GET /.well-known/openid-configuration", j.public(func() any {
		return map[string]any{"issuer": issuer, "jwks_uri": issuer + "/keys",
			"authorization_endpoint": issuer + "/authorize", "token_endpoint": issuer + "/token",
			"id_token_signing_alg_values_supported": []string{"ES256"}}
	}))
	j.mux.HandleFunc("GET /keys", j.public(func() any {
		return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: j.signer.Public(), KeyID: j.kid, Use: "sig"}}}
	}))
	j.mux.HandleFunc("POST /token", j.public(func() any {
		said, err := j.token(j.says)
		if err != nil {
			return nil
		}
		return map[string]any{"access_token": "nothing", "token_type": "Bearer", "expires_in": 60, "id_token": said.(map[string]string)["token"]}
	}))
	j.mux.HandleFunc("POST /admin/login", j.admin(func(a job) (any, error) { j.says = a; return nil, nil }))
	j.mux.HandleFunc("POST /admin/token", j.admin(j.token))
	j.mux.HandleFunc("POST /admin/rotate", j.admin(func(job) (any, error) { return nil, j.rotate() }))
	j.mux.HandleFunc("POST /admin/clock", j.admin(func(a job) (any, error) { j.ahead = a.Ahead; return nil, nil }))
	return j, j.rotate()
}

func (j *jobs) ServeHTTP(w http.ResponseWriter, r *http.Request) { j.mux.ServeHTTP(w, r) }

// rotate gives it another key, and withdraws the last; mu is held, or nobody else is there.
func (j *jobs) rotate() (err error) {
	j.kid = rand.Text()
	j.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return err
}

// job is what the administration is asked.
type job struct {
	Claims map[string]any `json:"claims"`
	Ahead  time.Duration  `json:"ahead"`
}

func (j *jobs) public(what func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		j.mu.Lock()
		defer j.mu.Unlock()
		w.Header().Set("Date", time.Now().Add(j.ahead).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(what()) // whoever asked has hung up
	}
}

func (j *jobs) admin(do func(job) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+string(j.key) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var a job
		err := json.NewDecoder(r.Body).Decode(&a)
		j.mu.Lock()
		defer j.mu.Unlock()
		var answer any
		if err == nil {
			answer, err = do(a)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// token signs what is claimed, good for five minutes by this provider's clock.
func (j *jobs) token(a job) (any, error) {
	now := time.Now().Add(j.ahead)
	all := map[string]any{"iss": j.issuer, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": rand.Text()}
	maps.Copy(all, a.Claims)
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: j.signer}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", j.kid))
	if err != nil {
		return nil, err
	}
	jws, err := signer.Sign(text)
	if err != nil {
		return nil, err
	}
	raw, err := jws.CompactSerialize()
	return map[string]string{"token": raw}, err
}

// Token is what a job gets from its CI system: who it is, whom the token is for, and what else is claimed.
func (o *Outside) Token(ctx context.Context, subject, audience string, claims map[string]any) (string, error) {
	all := map[string]any{"sub": subject, "aud": audience}
	maps.Copy(all, claims)
	var answer struct{ Token string }
	if err := o.Ask(ctx, "/admin/token", job{Claims: all}, &answer); err != nil {
		return "", fmt.Errorf("a job's token: %w", err)
	}
	return answer.Token, nil
}

// Answers has it give whoever logs in an ID token with these claims.
func (o *Outside) Answers(ctx context.Context, claims map[string]any) error {
	return o.Admin(ctx, "/admin/login", job{Claims: claims})
}

// Ahead sets its clock.
func (o *Outside) Ahead(ctx context.Context, by time.Duration) error {
	return o.Admin(ctx, "/admin/clock", job{Ahead: by})
}
