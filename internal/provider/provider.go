package provider

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// What logins of the demo identities reach: with the passcode alone, or with the second factor that the page
// offers (a box to tick: there is nothing to prove here) as well.
const (
	Weak = "urn:curfew:pwd"
	ACR  = "urn:curfew:mfa"
)

// CLI is the client that Curfew is in `curfew dev`: public, code + PKCE on loopback, device, refresh.
const CLI = "curfew-cli"

// User is one identity.
type User struct {
	Name       string // what one logs in as
	Subject    string // sub; default Name
	Email      string
	Unverified bool // the e-mail is not verified
	FullName   string
	Groups     []string
	ACR        string // of a login with both factors; without one of them it is Weak, amr pwd
	AMR        []string
}

// DemoUsers are the people of `curfew dev`.
func DemoUsers() []User {
	demo := func(name, full, group string) User {
		return User{
			Name: name, Email: name + "@example.test", FullName: full, Groups: []string{group},
			ACR: ACR, AMR: []string{"pwd", "otp"},
		}
	}
	return []User{
		demo("alice", "Alice Adler", "developers"),
		demo("dana", "Dana Dorn", "developers"),
		demo("bob", "Bob Brandt", "leads"),
		demo("sam", "Sam Sommer", "security"),
	}
}

// Client is an application that people log in to. Without a secret it is public: PKCE is required, and
// http on loopback is its redirect.
type Client struct {
	ID           string
	Secret       string
	RedirectURIs []string
}

// Options of New.
type Options struct {
	Issuer  string        // http://127.0.0.1:port
	Key     []byte        // see OpenKey
	Users   []User        // default DemoUsers
	Clients []Client      // default CLI
	Poll    time.Duration // least time between a device's polls, whole seconds; default 1s
	Log     *slog.Logger
}

// Provider is an http.Handler.
type Provider struct {
	issuer *url.URL
	key    []byte
	state  *state
	mux    *http.ServeMux
	pages  *template.Template
	log    *slog.Logger
}

//go:embed pages
var pages embed.FS

// New makes a provider for an issuer on loopback.
func New(o Options) (*Provider, error) {
	issuer, err := url.Parse(o.Issuer)
	if err != nil || issuer.Scheme != "http" || issuer.Path != "" || !loopback(issuer.Hostname()) {
		return nil, fmt.Errorf("provider: %q must be http on loopback, without a path", o.Issuer)
	}
	if len(o.Key) < shortestKey {
		return nil, errors.New("provider: the key is too short")
	}
	if o.Users == nil {
		o.Users = DemoUsers()
	}
	if o.Clients == nil {
		o.Clients = []Client{{ID: CLI, RedirectURIs: []string{"http://127.0.0.1/callback", "http://127.0.0.1/web/callback"}}}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Poll < time.Second {
		o.Poll = time.Second
	}
	p := &Provider{issuer: issuer, key: o.Key, mux: http.NewServeMux(), log: o.Log}
	if p.state, err = newState(o); err != nil {
		return nil, err
	}
	if p.pages, err = template.ParseFS(pages, "pages/*.html"); err != nil {
		return nil, err
	}
	cryptoKey, err := derive(o.Key, "codes")
	if err != nil {
		return nil, err
	}
	oidcProvider, err := op.NewProvider(&op.Config{
		CryptoKey:             cryptoKey,
		CodeMethodS256:        true,
		AuthMethodPost:        true,
		GrantTypeRefreshToken: true,
		SupportedScopes:       []string{"openid", "profile", "email", "groups", "offline_access"},
		SupportedClaims: []string{
			"sub", "aud", "exp", "iat", "iss", "azp", "nonce", "auth_time", "acr", "amr",
			"name", "preferred_username", "email", "email_verified", "groups",
		},
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: loginLifetime, PollInterval: o.Poll, UserFormPath: "/device", UserCode: op.UserCodeBase20,
		},
		// The library's endpoints are shared by all providers of a process, its options change them in
		// place: they stay as they are. No page of another origin has any business here: no CORS.
	}, p.state, op.StaticIssuer(o.Issuer), op.WithAllowInsecure(), op.WithCORSOptions(nil), op.WithLogger(o.Log))
	if err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	p.routes(oidcProvider)
	return p, nil
}

func (p *Provider) routes(oidcProvider http.Handler) {
	p.mux.HandleFunc("GET /login", p.loginPage)
	p.mux.HandleFunc("POST /login", p.login)
	p.mux.HandleFunc("GET /device", p.devicePage)
	p.mux.HandleFunc("POST /device", p.device)
	p.mux.HandleFunc("POST /admin/users/{name}", p.admin(p.adminUser))
	p.mux.HandleFunc("POST /admin/users/{name}/signout", p.admin(p.adminSignOut))
	p.mux.HandleFunc("POST /admin/rotate", p.admin(p.adminRotate))
	p.mux.Handle("/", oidcProvider)
}

// ServeHTTP answers requests from this machine that mean this machine.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !loopback(from) || r.Host != p.issuer.Host {
		http.Error(w, "this provider serves its own machine only", http.StatusForbidden)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	p.mux.ServeHTTP(w, r)
}

// Listen listens on a loopback address, host:port, and refuses any other.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	// "localhost" is whatever the resolver says it is; an address is not.
	if !net.ParseIP(host).IsLoopback() {
		return nil, fmt.Errorf("provider: %s is not a loopback address, and these identities are for one machine only", host)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

// Serve answers on ln until ctx ends.
func (p *Provider) Serve(ctx context.Context, ln net.Listener) error {
	tcp, ok := ln.Addr().(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return fmt.Errorf("provider: %s is not a loopback address", ln.Addr())
	}
	srv := &http.Server{
		Handler:           p,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// SetDisabled ends or restores what the provider says of a person: disabled, no login and no refresh
// succeeds any more.
func (p *Provider) SetDisabled(name string, disabled bool) error {
	return p.state.change(name, func(u *user) { u.disabled = disabled })
}

// SetGroups moves a person to other groups; tokens made from now on say so.
func (p *Provider) SetGroups(name string, groups ...string) error {
	return p.state.change(name, func(u *user) { u.Groups = slices.Clone(groups) })
}

// RotateKeys signs with a new key from now on. The last one stays published, older ones do not.
func (p *Provider) RotateKeys() error { return p.state.rotate() }

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
