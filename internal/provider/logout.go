package provider

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// LogoutToken is this provider's word to a client that an identity has signed out (OpenID Connect Back-Channel
// Logout 1.0): of all its sessions, or of one; then the name may be empty.
func (p *Provider) LogoutToken(name, client, session string) (string, error) {
	p.state.mu.Lock()
	key, u := p.state.keys[0], p.state.users[name]
	p.state.mu.Unlock()
	if u == nil && (name != "" || session == "") {
		return "", fmt.Errorf("no identity %q", name)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key.key},
		(&jose.SignerOptions{}).WithType("logout+jwt").WithHeader("kid", key.id))
	if err != nil {
		return "", err
	}
	now := time.Now()
	all := map[string]any{
		"iss": p.issuer.String(), "aud": client, "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"jti": rand.Text(), "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	if u != nil {
		all["sub"] = u.Subject
	}
	if session != "" {
		all["sid"] = session
	}
	claims, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// SignOut tells a client's back channel that an identity has signed out. Refresh tokens stay good: they are
// for when nobody is signed in.
func (p *Provider) SignOut(ctx context.Context, name, client, to string) error {
	if u, err := url.Parse(to); err != nil || !loopback(u.Hostname()) {
		return errors.New("it tells its own machine only")
	}
	token, err := p.LogoutToken(name, client, "")
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the client answered %s", resp.Status)
	}
	return nil
}

// adminSignOut takes {"tell": "http://127.0.0.1:7433/v1/logout/backchannel"}.
func (p *Provider) adminSignOut(r *http.Request) error {
	var how struct {
		Tell string `json:"tell"`
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&how); err != nil {
		return err
	}
	return p.SignOut(r.Context(), r.PathValue("name"), CLI, how.Tell)
}
