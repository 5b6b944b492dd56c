package provider

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

var (
	_ op.Storage                    = (*state)(nil)
	_ op.CanSetUserinfoFromRequest  = (*state)(nil)
	_ op.DeviceAuthorizationStorage = (*state)(nil)
)

// authRequest is one login with authorization code.
type authRequest struct {
	id        string
	asked     oidc.AuthRequest
	challenge *oidc.CodeChallenge
	expires   time.Time

	done     bool
	subject  string
	acr      string
	amr      []string
	authTime time.Time
}

func (r *authRequest) GetID() string                         { return r.id }
func (r *authRequest) GetACR() string                        { return r.acr }
func (r *authRequest) GetAMR() []string                      { return r.amr }
func (r *authRequest) GetAudience() []string                 { return []string{r.asked.ClientID} }
func (r *authRequest) GetAuthTime() time.Time                { return r.authTime }
func (r *authRequest) GetClientID() string                   { return r.asked.ClientID }
func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge { return r.challenge }
func (r *authRequest) GetNonce() string                      { return r.asked.Nonce }
func (r *authRequest) GetRedirectURI() string                { return r.asked.RedirectURI }
func (r *authRequest) GetResponseType() oidc.ResponseType    { return r.asked.ResponseType }
func (r *authRequest) GetResponseMode() oidc.ResponseMode    { return r.asked.ResponseMode }
func (r *authRequest) GetScopes() []string                   { return r.asked.Scopes }
func (r *authRequest) GetState() string                      { return r.asked.State }
func (r *authRequest) GetSubject() string                    { return r.subject }
func (r *authRequest) Done() bool                            { return r.done }

func (s *state) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if slices.Contains(asked.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired()
	}
	r := &authRequest{id: rand.Text(), asked: *asked, expires: time.Now().Add(loginLifetime)}
	if asked.CodeChallenge != "" {
		if asked.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
			return nil, oidc.ErrInvalidRequest().WithDescription("code_challenge_method must be S256")
		}
		r.challenge = &oidc.CodeChallenge{Challenge: asked.CodeChallenge, Method: oidc.CodeChallengeMethodS256}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.prune(time.Now()); err != nil {
		return nil, oidc.ErrServerError().WithDescription("too many logins at once")
	}
	s.requests[r.id] = r
	return r, nil
}

func (s *state) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.requests[id]
	if !ok || time.Now().After(r.expires) {
		return nil, errUnknown
	}
	return r, nil
}

// AuthRequestByCode gives a code's request once: whoever comes second, even at the same moment, or after
// a failure, has nothing.
func (s *state) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.requests[s.codes[code]]
	delete(s.codes, code)
	if !ok || !r.done || time.Now().After(r.expires) {
		return nil, errUnknown
	}
	delete(s.requests, r.id)
	if _, err := s.bySubject(r.subject); err != nil {
		return nil, err
	}
	return r, nil
}

func (s *state) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.codes {
		if of == id {
			return errUnknown // one login, one code
		}
	}
	s.codes[code] = id
	return nil
}

func (s *state) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

func (s *state) StoreDeviceAuthorization(_ context.Context, clientID, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.prune(time.Now()); err != nil {
		return err
	}
	if s.byUserCode(userCode) != nil {
		return op.ErrDuplicateUserCode
	}
	s.devices[deviceCode] = &device{userCode: userCode, state: op.DeviceAuthorizationState{
		ClientID: clientID, Audience: []string{clientID}, Scopes: scopes, Expires: expires,
	}}
	return nil
}

// GetDeviceAuthorizatonState (sic) answers a poll. What is over is told once.
func (s *state) GetDeviceAuthorizatonState(_ context.Context, clientID, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices[deviceCode]
	if !ok || d.state.ClientID != clientID {
		return nil, errUnknown
	}
	now := time.Now()
	early := now.Sub(d.polled) < s.poll*9/10
	d.polled = now
	answer := d.state
	switch {
	case answer.Done || answer.Denied:
		delete(s.devices, deviceCode)
		if _, err := s.enabled(d.user); err != nil {
			answer.Done, answer.Denied = false, true
		}
	case early:
		return nil, context.DeadlineExceeded // the library's way to hear "slow_down"
	}
	return &answer, nil
}

func (s *state) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grantAccess(r)
}

// grantAccess makes an access token. s.mu is held.
func (s *state) grantAccess(r op.TokenRequest) (string, time.Time, error) {
	if err := s.prune(time.Now()); err != nil {
		return "", time.Time{}, err
	}
	u, err := s.bySubject(r.GetSubject())
	if err != nil {
		return "", time.Time{}, oidc.ErrInvalidGrant().WithParent(err)
	}
	named, ok := r.(interface{ GetClientID() string })
	if !ok {
		return "", time.Time{}, oidc.ErrUnsupportedGrantType()
	}
	id, expires := rand.Text(), time.Now().UTC().Add(accessLifetime)
	s.tokens[id] = accessToken{client: named.GetClientID(), user: u.Name, scopes: r.GetScopes(), expires: expires}
	return id, expires, nil
}

func (s *state) TerminateSession(context.Context, string, string) error { return nil }

func (s *state) RevokeToken(_ context.Context, token, _, clientID string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.tokens[token]; ok && t.client == clientID {
		delete(s.tokens, token)
		return nil
	}
	// GetRefreshTokenInfo told the library a refresh token's family as its id.
	if f, ok := s.families[token]; ok && f.client == clientID {
		f.revoked = true
	}
	return nil
}

func (s *state) SigningKey(context.Context) (op.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[0], nil
}

func (s *state) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

func (s *state) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var set []op.Key
	for _, k := range s.keys {
		set = append(set, publicKey{k})
	}
	return set, nil
}

func (s *state) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if c, ok := s.clients[id]; ok {
		return c, nil
	}
	return nil, oidc.ErrInvalidClient().WithDescription("unknown client")
}

// AuthorizeClientIDSecret must fail for public clients: the library takes success for proof that the
// client is who it says, and an empty secret equals an empty secret.
func (s *state) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	c, ok := s.clients[id]
	if !ok || c.Secret == "" || !same([]byte(c.Secret), []byte(secret)) {
		return errors.New("wrong client secret")
	}
	return nil
}

func (s *state) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil // deprecated: SetUserinfoFromRequest does it
}

// SetUserinfoFromRequest fills ID tokens. The library takes acr from code flow requests alone, so device
// and refresh get theirs here.
func (s *state) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.bySubject(r.GetSubject())
	if err != nil {
		return oidc.ErrInvalidGrant().WithParent(err)
	}
	fill(info, u, scopes)
	switch r := r.(type) {
	case *refreshRequest:
		info.AppendClaims("acr", r.ACR)
	case *op.DeviceAuthorizationState:
		info.AppendClaims("acr", u.acrOf(r.AMR))
	}
	return nil
}

// acrOf finds the context class that belongs to methods: a device login keeps nothing but these.
func (u *user) acrOf(amr []string) string {
	acr, _ := u.evidence(slices.Equal(amr, u.AMR))
	return acr
}

func fill(info *oidc.UserInfo, u *user, scopes []string) {
	info.Subject = u.Subject
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.Name, info.PreferredUsername = u.FullName, u.Name
	}
	if slices.Contains(scopes, oidc.ScopeEmail) && u.Email != "" {
		info.Email, info.EmailVerified = u.Email, oidc.Bool(!u.Unverified)
	}
	info.AppendClaims("groups", append([]string{}, u.Groups...)) // whatever the scopes: it is what this provider is for
}

func (s *state) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, tokenID, _, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.userinfo(info, tokenID)
	return err
}

// userinfo answers for an access token. s.mu is held.
func (s *state) userinfo(info *oidc.UserInfo, tokenID string) (accessToken, error) {
	t, ok := s.tokens[tokenID]
	if !ok || time.Now().After(t.expires) {
		return t, errUnknown
	}
	u, err := s.enabled(t.user)
	if err != nil {
		return t, err
	}
	fill(info, u, t.scopes)
	return t, nil
}

func (s *state) SetIntrospectionFromToken(_ context.Context, answer *oidc.IntrospectionResponse, tokenID, _, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := new(oidc.UserInfo)
	t, err := s.userinfo(info, tokenID)
	if err != nil {
		return err
	}
	answer.SetUserInfo(info)
	answer.ClientID, answer.Scope, answer.Expiration = t.client, t.scopes, oidc.FromTime(t.expires)
	return nil
}

func (s *state) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil // access tokens are opaque
}

func (s *state) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errors.New("clients have no keys here")
}

func (s *state) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errors.New("no JWT profile here")
}

func (s *state) Health(context.Context) error { return nil }
