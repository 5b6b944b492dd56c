package provider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	loginLifetime   = 10 * time.Minute
	accessLifetime  = 10 * time.Minute
	refreshLifetime = 30 * 24 * time.Hour
	idTokenLifetime = time.Hour
	// most bounds what strangers on this machine can leave in memory.
	most = 10_000
)

var errUnknown = errors.New("unknown, used or expired")

// state is everything the provider remembers. storage.go is how zitadel/oidc sees it.
type state struct {
	clients    map[string]*client
	refreshKey [32]byte
	poll       time.Duration

	mu       sync.Mutex // guards the rest
	users    map[string]*user
	order    []string                // names, as configured
	requests map[string]*authRequest // by id; values never change, they are replaced
	codes    map[string]string       // authorization code → request id
	devices  map[string]*device      // by device code
	tokens   map[string]accessToken  // by id
	families map[string]*family      // by refresh token family
	keys     []signingKey            // keys[0] signs, all are published
}

type user struct {
	User
	disabled bool
}

type device struct {
	state    op.DeviceAuthorizationState
	userCode string
	user     string // name, once somebody said yes
	polled   time.Time
}

type accessToken struct {
	client  string
	user    string
	scopes  []string
	expires time.Time
}

func newState(o Options) (*state, error) {
	s := &state{
		clients: map[string]*client{}, users: map[string]*user{}, poll: o.Poll,
		requests: map[string]*authRequest{}, codes: map[string]string{}, devices: map[string]*device{},
		tokens: map[string]accessToken{}, families: map[string]*family{},
	}
	for _, c := range o.Clients {
		s.clients[c.ID] = &client{Client: c}
	}
	for _, u := range o.Users {
		if u.Subject == "" {
			u.Subject = u.Name
		}
		s.users[u.Name] = &user{User: u}
		s.order = append(s.order, u.Name)
	}
	var err error
	if s.refreshKey, err = derive(o.Key, "refresh tokens"); err != nil {
		return nil, err
	}
	return s, s.rotate()
}

// change alters one user.
func (s *state) change(name string, f func(*user)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.users[name]
	if !ok {
		return fmt.Errorf("no identity %q", name)
	}
	f(u)
	return nil
}

// enabled finds a user that may log in. s.mu is held.
func (s *state) enabled(name string) (*user, error) {
	u, ok := s.users[name]
	if !ok || u.disabled {
		return nil, errUnknown
	}
	return u, nil
}

// bySubject finds a user by sub. s.mu is held.
func (s *state) bySubject(sub string) (*user, error) {
	for _, u := range s.users {
		if u.Subject == sub && !u.disabled {
			return u, nil
		}
	}
	return nil, errUnknown
}

func (s *state) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.order...)
}

// prune forgets what is over, and refuses to remember more than enough. s.mu is held.
func (s *state) prune(now time.Time) error {
	for id, r := range s.requests {
		if now.After(r.expires) {
			delete(s.requests, id)
		}
	}
	for code, id := range s.codes {
		if s.requests[id] == nil {
			delete(s.codes, code)
		}
	}
	for code, d := range s.devices {
		if now.After(d.state.Expires) {
			delete(s.devices, code)
		}
	}
	for id, t := range s.tokens {
		if now.After(t.expires) {
			delete(s.tokens, id)
		}
	}
	for id, f := range s.families {
		if now.After(f.expires) {
			delete(s.families, id)
		}
	}
	if len(s.requests) > most || len(s.devices) > most || len(s.tokens) > most {
		return errors.New("too many logins at once")
	}
	return nil
}

// evidence is what a login shows, with the second factor or without.
func (u *user) evidence(second bool) (acr string, amr []string) {
	if second || u.ACR == "" {
		return u.ACR, u.AMR
	}
	return Weak, []string{"pwd"}
}

// finish notes that name has logged in to the request.
func (s *state) finish(id, name string, second bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.requests[id]
	if !ok || r.done || time.Now().After(r.expires) {
		return errUnknown
	}
	u, err := s.enabled(name)
	if err != nil {
		return err
	}
	done := *r
	done.done, done.authTime = true, time.Now().UTC()
	done.subject = u.Subject
	done.acr, done.amr = u.evidence(second)
	s.requests[id] = &done
	return nil
}

// decide notes what name said about the device with this user code.
func (s *state) decide(userCode, name string, allow, second bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.byUserCode(userCode)
	if d == nil {
		return errUnknown
	}
	u, err := s.enabled(name)
	if err != nil {
		return err
	}
	d.user = name
	d.state.Done, d.state.Denied = allow, !allow
	d.state.Subject, d.state.AuthTime = u.Subject, time.Now().UTC()
	_, d.state.AMR = u.evidence(second)
	return nil
}

// byUserCode finds a device that still waits for a word. s.mu is held.
func (s *state) byUserCode(userCode string) *device {
	for _, d := range s.devices {
		if d.userCode == userCode && !d.state.Done && !d.state.Denied && time.Now().Before(d.state.Expires) {
			return d
		}
	}
	return nil
}

// rotate puts a new signing key before the last one.
func (s *state) rotate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append([]signingKey{{id: rand.Text(), key: key}}, s.keys...)
	s.keys = s.keys[:min(len(s.keys), 2)]
	return nil
}

// signingKey is an ES256 key as the library wants it.
type signingKey struct {
	id  string
	key *ecdsa.PrivateKey
}

func (k signingKey) ID() string                                  { return k.id }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k signingKey) Key() any                                    { return k.key }

type publicKey struct{ signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return k.key.Public() }

// client is a Client as the library wants it.
type client struct{ Client }

func (c *client) GetID() string                    { return c.ID }
func (c *client) RedirectURIs() []string           { return c.Client.RedirectURIs }
func (c *client) PostLogoutRedirectURIs() []string { return nil }
func (c *client) ApplicationType() op.ApplicationType {
	if c.Secret == "" {
		return op.ApplicationTypeNative // any port on loopback
	}
	return op.ApplicationTypeWeb
}
func (c *client) AuthMethod() oidc.AuthMethod {
	if c.Secret == "" {
		return oidc.AuthMethodNone // which makes the library insist on PKCE
	}
	return oidc.AuthMethodBasic
}
func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c *client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}
func (c *client) LoginURL(id string) string                                    { return "/login?id=" + id }
func (c *client) AccessTokenType() op.AccessTokenType                          { return op.AccessTokenTypeBearer }
func (c *client) IDTokenLifetime() time.Duration                               { return idTokenLifetime }
func (c *client) DevMode() bool                                                { return false }
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string     { return keep }
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return keep }
func (c *client) IsScopeAllowed(scope string) bool                             { return scope == "groups" }
func (c *client) IDTokenUserinfoClaimsAssertion() bool                         { return true }
func (c *client) ClockSkew() time.Duration                                     { return 0 }

func keep(scopes []string) []string { return scopes }
