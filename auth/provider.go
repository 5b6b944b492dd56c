package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	// skew is how far the issuer's clock may be from ours.
	skew = time.Minute
	// askTimeout bounds one exchange with an issuer.
	askTimeout = 10 * time.Second
	// longestAnswer bounds what an issuer can make us read.
	longestAnswer = 1 << 20
	// rediscover is how old a discovery document may grow: endpoints move rarely.
	rediscover = time.Hour
	// respite is how long an issuer that failed is left alone: those who wait in line behind a failed
	// attempt share its answer.
	respite = time.Second
)

// IssuerConfig names an OIDC issuer and what Curfew is to it.
type IssuerConfig struct {
	URL          string   // exactly as the issuer spells itself; https, or http on loopback
	ClientID     string   // Curfew's client at this issuer
	ClientSecret string   // empty for a public client
	GroupsClaim  string   // default "groups"; "a.b" also reaches into an object
	Scopes       []string // default openid profile email offline_access
	Claims       []string // further claims that conditions may look at; "a.b" reaches into an object here, too
	// TrustEmail takes an e-mail as verified if the issuer says nothing about it (many corporate
	// directories do not). It never overrules email_verified=false.
	TrustEmail bool
	// ACRValues are asked for where a method (amr) is wanted, which can't be asked for itself.
	ACRValues []string
	// Declared says that nobody logs in there without MFA, though the issuer asserts nothing of the kind.
	Declared bool

	HTTP *http.Client // transport to use, e.g. with a private CA; limits are put around it
	Log  *slog.Logger
}

// Provider is one issuer that people log in with. It is safe for concurrent use.
type Provider struct {
	cfg    IssuerConfig
	client *http.Client
	log    *slog.Logger
	clock  clock

	mu     sync.Mutex // guards the rest, and is held while the issuer is asked, so that one asks for all
	found  *discovered
	failed time.Time // when the issuer could not be reached last
	err    error     // and why
}

// discovered is what the issuer's discovery document said, and the keys fetched since.
type discovered struct {
	op       *oidc.Provider
	verifier *oidc.IDTokenVerifier
	oauth    oauth2.Config
	at       time.Time
	names    bool // the issuer puts its name into every answer (RFC 9207)
}

// Discover checks the configuration and asks the issuer for its discovery document. An issuer that can't
// be reached now is no error: it is asked again when it is needed.
func Discover(ctx context.Context, cfg IssuerConfig) (*Provider, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.GroupsClaim == "" {
		cfg.GroupsClaim = "groups"
	}
	if len(cfg.Scopes) == 0 {
		cfg.Scopes = []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess}
	}
	if !slices.Contains(cfg.Scopes, oidc.ScopeOpenID) {
		cfg.Scopes = append([]string{oidc.ScopeOpenID}, cfg.Scopes...)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Provider{cfg: cfg, log: cfg.Log.With("issuer", cfg.URL)}
	p.client, p.clock.log = boundedClient(cfg.HTTP, &p.clock), p.log
	if err := p.Check(ctx); err != nil {
		p.log.WarnContext(ctx, "issuer can't be reached, asking again when somebody logs in", "error", err)
	}
	return p, nil
}

// Issuer is the issuer's URL, the first half of every Identity.Key it vouches for.
func (p *Provider) Issuer() string { return p.cfg.URL }

// Check reports whether the issuer can be reached and describes itself as configured.
func (p *Provider) Check(ctx context.Context) error {
	_, _, err := p.discover(ctx)
	return err
}

func (c IssuerConfig) check() error {
	if err := secure("issuer url", c.URL); err != nil {
		return err
	}
	if c.ClientID == "" {
		return errors.New("issuer " + c.URL + ": client_id is missing")
	}
	return nil
}

// secure accepts https, and http on loopback alone: codes, secrets and keys travel there.
func secure(what, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%s %q is no absolute URL", what, raw)
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s %q must be https", what, raw)
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// discover returns the issuer's description, fetched now if there is none that is fresh, and the context
// that carries our HTTP client to go-oidc and x/oauth2.
func (p *Provider) discover(ctx context.Context) (context.Context, *discovered, error) {
	ctx = oidc.ClientContext(ctx, p.client)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil && time.Since(p.found.at) < rediscover {
		return ctx, p.found, nil
	}
	if p.err == nil || time.Since(p.failed) >= respite {
		var fresh *discovered
		if fresh, p.err = p.ask(ctx); p.err == nil {
			p.found = fresh
			return ctx, fresh, nil
		}
		p.failed = time.Now()
	}
	if p.found == nil {
		return ctx, nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, p.cfg.URL, p.err)
	}
	p.log.WarnContext(ctx, "discovery document can't be refreshed, going on with the last one", "error", p.err)
	return ctx, p.found, nil
}

func (p *Provider) ask(ctx context.Context) (*discovered, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	op, err := oidc.NewProvider(ctx, p.cfg.URL)
	if err != nil {
		return nil, err
	}
	var meta struct {
		JWKS        string   `json:"jwks_uri"`
		AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
		PKCE        []string `json:"code_challenge_methods_supported"`
		Names       bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := op.Claims(&meta); err != nil {
		return nil, err
	}
	end := op.Endpoint()
	for what, u := range map[string]string{
		"authorization_endpoint": end.AuthURL, "token_endpoint": end.TokenURL, "jwks_uri": meta.JWKS,
		"device_authorization_endpoint": end.DeviceAuthURL, "userinfo_endpoint": op.UserInfoEndpoint(),
	} {
		optional := what == "device_authorization_endpoint" || what == "userinfo_endpoint"
		if u == "" && optional {
			continue
		}
		if err := secure(what, u); err != nil {
			return nil, err
		}
	}
	if len(meta.PKCE) > 0 && !slices.Contains(meta.PKCE, "S256") {
		return nil, errors.New("the issuer offers no PKCE with S256")
	}
	end.AuthStyle = p.authStyle(meta.AuthMethods)
	return &discovered{
		op: op,
		// go-oidc forgives nothing after the expiry; one skew earlier is one skew of forgiveness.
		verifier: op.VerifierContext(ctx, &oidc.Config{
			ClientID: p.cfg.ClientID,
			Now:      func() time.Time { return time.Now().Add(-skew) },
		}),
		oauth: oauth2.Config{
			ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret, Endpoint: end, Scopes: p.cfg.Scopes,
		},
		at:    time.Now(),
		names: meta.Names,
	}, nil
}

// authStyle settles how the client names itself, because x/oauth2 otherwise probes: each wrong guess
// spends an authorization code. A public client has nothing to put into a header.
func (p *Provider) authStyle(methods []string) oauth2.AuthStyle {
	basic := len(methods) == 0 || slices.Contains(methods, "client_secret_basic")
	if p.cfg.ClientSecret != "" && basic {
		return oauth2.AuthStyleInHeader
	}
	return oauth2.AuthStyleInParams
}

// boundedClient is base with limits: on time, on the size of an answer, on redirects. It measures the issuer's clock.
func boundedClient(base *http.Client, c *clock) *http.Client {
	transport := http.DefaultTransport
	if base != nil && base.Transport != nil {
		transport = base.Transport
	}
	// We ask every few minutes. A connection kept from the last time is one that the issuer may be closing
	// right now, and a POST that meets that is not repeated: it would cost somebody a login.
	if t, ok := transport.(*http.Transport); ok {
		t = t.Clone()
		t.DisableKeepAlives = true
		transport = t
	}
	return &http.Client{
		Transport: boundedTransport{transport, c},
		Timeout:   askTimeout,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if via[0].Method != http.MethodGet || via[0].Header.Get("Authorization") != "" {
				return errors.New("the issuer redirects a request that carries a secret")
			}
			if len(via) > 3 {
				return errors.New("too many redirects")
			}
			return secure("redirect to", r.URL.String())
		},
	}
}

type boundedTransport struct {
	base  http.RoundTripper
	clock *clock
}

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	asked := time.Now()
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	t.clock.measure(resp.Header, asked, time.Now())
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: longestAnswer}
	return resp, nil
}

// boundedBody fails loudly where an io.LimitReader would end quietly: half a document is not a document.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the issuer's answer is longer than a megabyte")
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
