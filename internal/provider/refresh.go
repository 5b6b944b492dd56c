package provider

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// refreshRequest is what a refresh token says, and the token is this as JSON and an HMAC over it: so it
// outlives a restart of `curfew dev`, and a grant does not end because its provider was restarted.
type refreshRequest struct {
	Family     string    `json:"family"` // all that descend from one login
	Generation int       `json:"generation"`
	Client     string    `json:"client"`
	Subject    string    `json:"sub"`
	Scopes     []string  `json:"scopes"`
	ACR        string    `json:"acr"`
	AMR        []string  `json:"amr"`
	AuthTime   time.Time `json:"auth_time"`
	Expires    time.Time `json:"expires"`
}

// family is what is remembered of refresh tokens: the generation that is valid now.
type family struct {
	client  string
	current int
	revoked bool
	expires time.Time
}

func (r *refreshRequest) GetAMR() []string                 { return r.AMR }
func (r *refreshRequest) GetAudience() []string            { return []string{r.Client} }
func (r *refreshRequest) GetAuthTime() time.Time           { return r.AuthTime }
func (r *refreshRequest) GetClientID() string              { return r.Client }
func (r *refreshRequest) GetScopes() []string              { return r.Scopes }
func (r *refreshRequest) GetSubject() string               { return r.Subject }
func (r *refreshRequest) SetCurrentScopes(scopes []string) { r.Scopes = slices.Clone(scopes) }

func (s *state) mac(body string) []byte {
	m := hmac.New(sha256.New, s.refreshKey[:])
	m.Write([]byte(body))
	return m.Sum(nil)
}

func (s *state) write(r refreshRequest) (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	body := base64.RawURLEncoding.EncodeToString(b)
	return body + "." + base64.RawURLEncoding.EncodeToString(s.mac(body)), nil
}

// read checks a refresh token and, if it was used before, voids its family. s.mu is held.
func (s *state) read(token string) (*refreshRequest, error) {
	body, tag, _ := strings.Cut(token, ".")
	given, err := base64.RawURLEncoding.DecodeString(tag)
	if err != nil || !hmac.Equal(given, s.mac(body)) {
		return nil, errUnknown
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return nil, errUnknown
	}
	var r refreshRequest
	if json.Unmarshal(b, &r) != nil || time.Now().After(r.Expires) {
		return nil, errUnknown
	}
	f := s.families[r.Family]
	if f == nil { // made before a restart
		f = &family{client: r.Client, current: r.Generation, expires: r.Expires}
		s.families[r.Family] = f
	}
	if r.Generation != f.current {
		f.revoked = true // somebody else has a copy: RFC 9700 section 4.14.2
	}
	if f.revoked {
		return nil, errUnknown
	}
	if _, err := s.bySubject(r.Subject); err != nil {
		return nil, err
	}
	return &r, nil
}

func (s *state) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(token)
}

func (s *state) GetRefreshTokenInfo(_ context.Context, clientID, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.read(token)
	if err != nil || r.Client != clientID {
		return "", "", op.ErrInvalidRefreshToken
	}
	return r.Subject, r.Family, nil
}

func (s *state) CreateAccessAndRefreshTokens(_ context.Context, request op.TokenRequest, current string) (string, string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := refreshRequest{Subject: request.GetSubject(), Scopes: request.GetScopes(), Expires: time.Now().UTC().Add(refreshLifetime)}
	switch r := request.(type) {
	case *authRequest:
		next.Client, next.ACR, next.AMR, next.AuthTime = r.GetClientID(), r.acr, r.amr, r.authTime
	case *op.DeviceAuthorizationState:
		u, err := s.bySubject(r.Subject)
		if err != nil {
			return "", "", time.Time{}, oidc.ErrInvalidGrant().WithParent(err)
		}
		next.Client, next.ACR, next.AMR, next.AuthTime = r.ClientID, u.acrOf(r.AMR), r.AMR, r.AuthTime
	case *refreshRequest:
		// Read again under the lock that makes the next one: of two who refresh at once, one wins.
		old, err := s.read(current)
		if err != nil {
			return "", "", time.Time{}, oidc.ErrInvalidGrant().WithParent(err)
		}
		next = *old
		next.Generation++
	default:
		return "", "", time.Time{}, oidc.ErrUnsupportedGrantType()
	}
	id, expires, err := s.grantAccess(request)
	if err != nil {
		return "", "", time.Time{}, err
	}
	if next.Family == "" {
		next.Family = rand.Text()
	}
	s.families[next.Family] = &family{client: next.Client, current: next.Generation, expires: next.Expires}
	token, err := s.write(next)
	return id, token, expires, err
}
