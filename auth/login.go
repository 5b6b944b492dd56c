package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

var (
	// ErrGone: the provider has withdrawn the login (or, once asked, vouches for somebody else). The
	// person is disabled, deleted or signed out there.
	ErrGone = errors.New("the provider no longer vouches for this login")
	// ErrPending: nobody has confirmed the device login yet.
	ErrPending = errors.New("the login is not confirmed yet")
	// ErrSlowDown: the same, and the provider wants to be asked five seconds less often from now on.
	ErrSlowDown = errors.New("the login is not confirmed yet, and the provider wants to be asked less often")
	// ErrDenied: the person said no, or the provider did.
	ErrDenied = errors.New("the login was refused")
	// ErrExpired: the code was not used in time, or was used already.
	ErrExpired = errors.New("the login has expired")
	// ErrUnreachable: the issuer did not answer, or said that it can't right now.
	ErrUnreachable = errors.New("the issuer can't be reached")
	// ErrUnheard goes with it where the question may have arrived, and only its answer was not heard.
	ErrUnheard = errors.New("it may have been asked")
	// ErrNoDevice: the issuer offers no device flow.
	ErrNoDevice = errors.New("the issuer offers no device flow")

	// ErrWeak: the person logged in, and the provider does not say that they did so as was asked.
	ErrWeak = errors.New("the login does not show what was asked for")

	errNoIDToken = errors.New("the issuer sent no ID token")
)

// Asked is what a login has to show beyond who somebody is: a step-up (RFC 9470). Providers may do less than
// they are asked for, so the answer is held against it.
type Asked struct {
	ACR    []string       // one of these context classes,
	AMR    []string       // or one of these methods. There is no way to ask for a method: it is looked at only
	MaxAge *time.Duration // a proof not older than that when the login began; 0: a new one
	Hint   string         // who is expected, for the provider's page
}

// ask gives the parameters of OpenID Connect Core section 3.1.2.1. Where only methods are wanted, fallback
// names the context classes that bring them.
func (a Asked) ask(fallback []string) url.Values {
	v := url.Values{}
	acr := a.ACR
	if len(acr) == 0 && len(a.AMR) > 0 {
		acr = fallback
	}
	if len(acr) > 0 {
		v.Set("acr_values", strings.Join(acr, " "))
	}
	if a.MaxAge != nil {
		v.Set("max_age", strconv.FormatInt(int64(*a.MaxAge/time.Second), 10))
	}
	if a.Hint != "" {
		v.Set("login_hint", a.Hint)
	}
	return v
}

// Shown holds a login that began at a time against what it was asked to show.
func (a Asked) Shown(id Identity, begun time.Time) error {
	strong := len(a.ACR)+len(a.AMR) == 0 || id.Declared || id.ACR != "" && slices.Contains(a.ACR, id.ACR) ||
		slices.ContainsFunc(id.AMR, func(method string) bool { return slices.Contains(a.AMR, method) })
	switch {
	case !strong:
		return fmt.Errorf("%w: its acr is %q and its amr %q, wanted was one of %q or %q", ErrWeak, id.ACR, id.AMR, a.ACR, a.AMR)
	case a.MaxAge == nil:
		return nil
	case id.AuthTime.IsZero():
		return fmt.Errorf("%w: it says nothing of when the person proved who they are (auth_time)", ErrWeak)
	case id.AuthTime.Before(begun.Add(-*a.MaxAge - skew)):
		return fmt.Errorf("%w: the person proved who they are at %s, too long before this login", ErrWeak, id.AuthTime.UTC().Format(time.RFC3339))
	}
	return nil
}

// Pending is a code-flow login between AuthURL and Exchange. It is secret: who has it and the code, has
// the login.
type Pending struct {
	State       string
	Nonce       string
	Verifier    string // PKCE
	RedirectURI string
	Asked       Asked
	Begun       time.Time
}

// Answer is what the browser brought back to the redirect URI.
type Answer struct {
	Code   string
	State  string
	Issuer string // RFC 9207's iss, if there was one
}

// AuthURL begins a login with authorization code and PKCE: the address to open in a browser, and what
// Exchange needs later.
func (p *Provider) AuthURL(ctx context.Context, redirectURI string, asked Asked) (string, Pending, error) {
	_, d, err := p.discover(ctx)
	if err != nil {
		return "", Pending{}, err
	}
	pending := Pending{
		State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), RedirectURI: redirectURI,
		Asked: asked, Begun: time.Now(),
	}
	conf := d.oauth
	conf.RedirectURL = redirectURI
	more := []oauth2.AuthCodeOption{oidc.Nonce(pending.Nonce), oauth2.S256ChallengeOption(pending.Verifier)}
	for name, value := range asked.ask(p.cfg.ACRValues) {
		more = append(more, oauth2.SetAuthURLParam(name, value[0]))
	}
	return conf.AuthCodeURL(pending.State, more...), pending, nil
}

// Exchange ends it: the identity, and the refresh token if the issuer gives any.
func (p *Provider) Exchange(ctx context.Context, pending Pending, a Answer) (Identity, string, error) {
	ctx, d, err := p.discover(ctx)
	if err != nil {
		return Identity{}, "", err
	}
	if pending.State == "" || subtle.ConstantTimeCompare([]byte(pending.State), []byte(a.State)) != 1 {
		return Identity{}, "", fmt.Errorf("%w: the answer belongs to another login (state)", ErrDenied)
	}
	if a.Issuer != "" && a.Issuer != p.cfg.URL || a.Issuer == "" && d.names {
		return Identity{}, "", fmt.Errorf("%w: the answer comes from another issuer", ErrDenied)
	}
	conf := d.oauth
	conf.RedirectURL = pending.RedirectURI
	tok, err := conf.Exchange(ctx, a.Code, oauth2.VerifierOption(pending.Verifier))
	if err != nil {
		return Identity{}, "", tokenError(err, ErrExpired)
	}
	return p.loggedIn(ctx, d, tok, pending.Nonce, pending.Asked, pending.Begun)
}

// loggedIn is what both flows end with.
func (p *Provider) loggedIn(ctx context.Context, d *discovered, tok *oauth2.Token, nonce string, asked Asked, begun time.Time) (Identity, string, error) {
	id, err := p.identify(ctx, d, tok, nonce)
	if err != nil {
		return Identity{}, "", err
	}
	// An issuer that is declared is taken at that word for the login that has just been made, and for no
	// longer than that.
	if id.Declared && id.AuthTime.IsZero() {
		id.AuthTime = time.Now().UTC().Truncate(time.Second)
	}
	if err := asked.Shown(id, begun); err != nil {
		return Identity{}, "", err
	}
	return id, tok.RefreshToken, nil
}

// Device is a device-flow login (RFC 8628). DeviceCode is secret; the rest is for the person to see.
type Device struct {
	DeviceCode              string
	UserCode                string
	VerificationURI         string
	VerificationURIComplete string
	Interval                time.Duration // least time between polls
	Expires                 time.Time
	Asked                   Asked
	Begun                   time.Time
}

// DeviceStart begins a device login. RFC 8628 has no way to ask for a strength or an age: the parameters are
// sent all the same, some providers heed them, and the answer is held against them.
//
// x/oauth2's own DeviceAuth neither heeds the context nor names a confidential client.
func (p *Provider) DeviceStart(ctx context.Context, asked Asked) (Device, error) {
	ctx, d, err := p.discover(ctx)
	if err != nil {
		return Device{}, err
	}
	if d.oauth.Endpoint.DeviceAuthURL == "" {
		return Device{}, ErrNoDevice
	}
	form := asked.ask(p.cfg.ACRValues)
	form.Set("client_id", p.cfg.ClientID)
	form.Set("scope", strings.Join(p.cfg.Scopes, " "))
	if p.cfg.ClientSecret != "" && d.oauth.Endpoint.AuthStyle == oauth2.AuthStyleInParams {
		form.Set("client_secret", p.cfg.ClientSecret)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.oauth.Endpoint.DeviceAuthURL, strings.NewReader(form.Encode()))
	if err != nil {
		return Device{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if d.oauth.Endpoint.AuthStyle == oauth2.AuthStyleInHeader {
		r.SetBasicAuth(url.QueryEscape(p.cfg.ClientID), url.QueryEscape(p.cfg.ClientSecret))
	}
	begun := time.Now()
	resp, err := p.client.Do(r)
	if err != nil {
		return Device{}, fmt.Errorf("device flow: %w", transportError(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
		return Device{}, fmt.Errorf("device flow: the issuer answered %s", resp.Status)
	}
	var answer oauth2.DeviceAuthResponse
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return Device{}, fmt.Errorf("device flow: %w", err)
	}
	dev, err := device(answer)
	dev.Asked, dev.Begun = asked, begun
	return dev, err
}

func device(a oauth2.DeviceAuthResponse) (Device, error) {
	if a.DeviceCode == "" || a.UserCode == "" || a.VerificationURI == "" {
		return Device{}, errors.New("device flow: the issuer's answer is incomplete")
	}
	// The person is going to open it: no other scheme gets through to a browser.
	for _, u := range []string{a.VerificationURI, a.VerificationURIComplete} {
		if u == "" {
			continue
		}
		if err := secure("verification_uri", u); err != nil {
			return Device{}, err
		}
	}
	d := Device{
		DeviceCode: a.DeviceCode, UserCode: a.UserCode,
		VerificationURI: a.VerificationURI, VerificationURIComplete: a.VerificationURIComplete,
		Interval: time.Duration(a.Interval) * time.Second, Expires: a.Expiry,
	}
	if d.Interval <= 0 {
		d.Interval = 5 * time.Second // RFC 8628 section 3.2
	}
	if d.Expires.IsZero() {
		d.Expires = time.Now().Add(10 * time.Minute)
	}
	return d, nil
}

// DevicePoll asks once: ErrPending, ErrSlowDown, ErrDenied, ErrExpired, or the login.
func (p *Provider) DevicePoll(ctx context.Context, dev Device) (Identity, string, error) {
	ctx, d, err := p.discover(ctx)
	if err != nil {
		return Identity{}, "", err
	}
	// Exchange posts what it is told to the token endpoint, with this client's way to name itself.
	// x/oauth2's DeviceAccessToken would poll by itself, and we poll as often as the person's CLI asks.
	conf := d.oauth
	tok, err := conf.Exchange(ctx, "",
		oauth2.SetAuthURLParam("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
		oauth2.SetAuthURLParam("device_code", dev.DeviceCode))
	if err != nil {
		return Identity{}, "", tokenError(err, ErrExpired)
	}
	return p.loggedIn(ctx, d, tok, "", dev.Asked, dev.Begun)
}

// Refresh asks the provider whether it still vouches for prev, and for what the person is now. The
// refresh token it returns replaces the one given, which may be void from here on: keep it whenever it is
// not empty, even if there is an error too.
//
// ErrGone means that the provider said no; any other error, that it could not be asked. After ErrUnheard the
// token may be void, because the provider has given another for it that nobody has heard of.
func (p *Provider) Refresh(ctx context.Context, refreshToken string, prev Identity) (Identity, string, error) {
	ctx, d, err := p.discover(ctx)
	if err != nil {
		return Identity{}, "", err
	}
	conf := d.oauth
	tok, err := conf.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
	if err != nil {
		return Identity{}, "", tokenError(err, ErrGone)
	}
	id, err := p.identify(ctx, d, tok, "")
	if errors.Is(err, errNoIDToken) {
		id, err = p.reidentify(ctx, d, tok, prev)
	}
	if err != nil {
		return Identity{}, tok.RefreshToken, err
	}
	// Core 12.2: the same person, always.
	if !id.Same(prev) {
		return Identity{}, "", fmt.Errorf("%w: the refresh names another person", ErrGone)
	}
	// A refresh is no new authentication: an issuer that repeats no evidence has not withdrawn it, and one
	// that calls the refresh a proof (Core 12.2 forbids it) does not make the person prove anything.
	if id.ACR == "" && id.AMR == nil && (id.AuthTime.IsZero() || id.AuthTime.Equal(prev.AuthTime)) {
		id.ACR, id.AMR = prev.ACR, prev.AMR
	}
	if id.AuthTime.IsZero() || id.AuthTime.After(prev.AuthTime) {
		id.AuthTime = prev.AuthTime
	}
	if id.Session == "" {
		id.Session = prev.Session
	}
	return id, tok.RefreshToken, nil
}

// reidentify is for issuers whose refreshes bring no ID token (Core 12.2 leaves it to them).
func (p *Provider) reidentify(ctx context.Context, d *discovered, tok *oauth2.Token, prev Identity) (Identity, error) {
	if d.op.UserInfoEndpoint() == "" {
		prev.Declared = p.cfg.Declared
		return prev, nil
	}
	all := map[string]json.RawMessage{}
	if err := p.userinfo(ctx, d, tok, prev.Subject, all); err != nil {
		return Identity{}, err
	}
	id := Identity{Issuer: prev.Issuer, Subject: prev.Subject}
	p.describe(&id, all)
	return id, nil
}

// transportError marks the errors of a conversation that did not come about.
func transportError(err error) error {
	if asked := (*url.Error)(nil); !errors.As(err, &asked) {
		return err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return fmt.Errorf("%w, and %w: %w", ErrUnreachable, ErrUnheard, err)
}

// tokenError maps a token endpoint's refusal. invalidGrant is what invalid_grant means in this flow.
// The issuer's own words stay out: they may quote what was sent.
func tokenError(err, invalidGrant error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return transportError(err)
	}
	switch refused.ErrorCode {
	case "authorization_pending":
		return ErrPending
	case "slow_down":
		return ErrSlowDown
	case "access_denied":
		return ErrDenied
	case "expired_token":
		return ErrExpired
	case "invalid_grant":
		return invalidGrant
	case "temporarily_unavailable", "server_error":
		return fmt.Errorf("%w: it answered %q", ErrUnreachable, refused.ErrorCode)
	case "":
		if refused.Response.StatusCode >= http.StatusInternalServerError || refused.Response.StatusCode == http.StatusTooManyRequests {
			return fmt.Errorf("%w: it answered %s", ErrUnreachable, refused.Response.Status)
		}
		return fmt.Errorf("the issuer answered %s", refused.Response.Status)
	default:
		return fmt.Errorf("the issuer refused: %q", refused.ErrorCode)
	}
}
