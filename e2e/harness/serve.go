package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/internal/provider"
)

// Provider is an identity provider in this process. It can be away and come back, at the same address.
type Provider struct {
	Identities

	handler *provider.Provider
	addr    string

	mu   sync.Mutex // guards stop
	stop func() error
}

// StartProvider starts one with these users, and keeps its key at a path.
func StartProvider(ctx context.Context, key string, users ...provider.User) (*Provider, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	p := &Provider{addr: addr}
	if p.Key, err = provider.OpenKey(key); err != nil {
		return nil, err
	}
	p.Issuer = "http://" + addr
	if p.handler, err = provider.New(provider.Options{Issuer: p.Issuer, Key: p.Key, Users: users}); err != nil {
		return nil, err
	}
	p.Key = bytes.TrimSpace(p.Key)
	return p, p.Return(ctx)
}

// Return has it listen again.
func (p *Provider) Return(ctx context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // its life hangs on Away
	ln, err := provider.Listen(ctx, p.addr)
	if err != nil {
		cancel()
		return err
	}
	done := make(chan error, 1)
	go func() { done <- p.handler.Serve(ctx, ln) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop = func() error {
		cancel()
		return <-done
	}
	return nil
}

// Away hangs up on everybody, and answers nobody until Return.
func (p *Provider) Away() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop == nil {
		return nil
	}
	err := p.stop()
	p.stop = nil
	return err
}

// Serving makes a Curfew that runs as `curfew serve` does, with configuration of the story's own: issuers, notify,
// refresh and whatever else is not about addresses. It serves both engines without TLS, which loopback may. People and
// browsers log in at the first provider as at that of a `curfew dev`.
func Serving(bin, dir, policy, config string, p *Provider, targets ...string) (*Curfew, error) {
	return serving(bin, dir, policy, config, "", &p.Identities, targets...)
}

// ServingTLS is Serving with TLS on the listeners, which tokens go through alone.
func ServingTLS(bin, dir, policy, config string, p *Identities, targets ...string) (*Curfew, error) {
	cert, key, err := selfSigned()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "tls.crt"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600)); err != nil {
		return nil, err
	}
	return serving(bin, dir, policy, config, ", tls: {cert: tls.crt, key: tls.key, ca: tls.crt}", p, targets...)
}

func serving(bin, dir, policy, config, tls string, p *Identities, targets ...string) (*Curfew, error) {
	c := &Curfew{Bin: bin, Dir: dir, Targets: targets, Config: filepath.Join(dir, "curfew.yaml")}
	var err error
	if c.API, err = FreeAddr(); err != nil {
		return nil, err
	}
	if c.Ops, err = FreeAddr(); err != nil {
		return nil, err
	}
	var y, at strings.Builder
	fmt.Fprintf(&y, "node: story\ndata: data\napi: {listen: %q}\nops: {listen: %q}\nlisteners:\n", c.API, c.Ops)
	listeners := map[string]string{}
	for _, t := range targets {
		name, raw, _ := strings.Cut(t, "=")
		u, err := url.Parse(raw)
		if err != nil {
			return nil, err
		}
		addr, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		c.Listen, listeners[name] = append(c.Listen, name+"="+addr), addr
		pinned := ""
		if u.Scheme == "mysql" {
			pinned = "target: " + name + ", "
		}
		fmt.Fprintf(&y, "  - {engine: %s, %slisten: %q%s}\n", u.Scheme, pinned, addr, tls)
		u.User = url.User(u.User.Username())
		fmt.Fprintf(&at, "  %s: {url: %q, password: env:BROKER, labels: {story: %q}}\n", name, u, name)
	}
	c.Env = []string{"BROKER=" + BrokerPassword}
	fmt.Fprintf(&y, "policy: policy.yaml\n%s\ntargets:\n%s", strings.TrimSpace(config), at.String())
	key := filepath.Join(dir, "identities.key")
	dev, err := json.Marshal(map[string]any{"api": "http://" + c.API, "issuer": p.Issuer, "key": key, "listeners": listeners})
	if err != nil {
		return nil, err
	}
	return c, errors.Join(os.MkdirAll(filepath.Join(dir, "data"), 0o700),
		os.WriteFile(c.Config, []byte(y.String()), 0o600),
		os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600),
		os.WriteFile(key, append(p.Key, '\n'), 0o600),
		os.WriteFile(filepath.Join(dir, "dev.json"), dev, 0o600))
}

// LoginAt logs somebody in at a provider that is not the first.
func (c *Curfew) LoginAt(ctx context.Context, name, issuer, home string) (*Person, error) {
	p := &Person{Name: name, Home: filepath.Join(home, name), curfew: c}
	if err := os.MkdirAll(p.Home, 0o700); err != nil {
		return nil, err
	}
	_, err := p.Run(ctx, "login", "--as", name, "--issuer", issuer)
	return p, err
}

// Change has the provider's administrator disable a user, or put them into other groups.
func (i *Identities) Change(ctx context.Context, name string, to map[string]any) error {
	return i.Admin(ctx, "/admin/users/"+name, to)
}

// Sit logs somebody in at a provider over the API alone: what a command line does, without one.
func (c *Curfew) Sit(ctx context.Context, at *Identities, name string, shows ...string) (*api.Client, error) {
	cl := &api.Client{Server: "http://" + c.API, HTTP: http.DefaultClient}
	started, err := cl.StartLogin(ctx, api.LoginStart{Issuer: at.Issuer, Flow: "code", RedirectURI: "http://127.0.0.1:1/callback", ACRValues: shows})
	if err != nil {
		return nil, err
	}
	q, err := provider.LoginAs(ctx, started.AuthURL, at.Key, name)
	if err != nil {
		return nil, err
	}
	in, err := cl.FinishLogin(ctx, api.LoginFinish{Login: started.Login, Code: q.Get("code"), State: q.Get("state"), Issuer: q.Get("iss")})
	cl.Token = in.Token
	return cl, err
}

// Logged waits until the log says something.
func (c *Curfew) Logged(ctx context.Context, want string) error {
	return Eventually(ctx, 10*time.Second, func(context.Context) error {
		if !strings.Contains(c.logs(math.MaxInt), want) {
			return fmt.Errorf("%q is not in the log:\n%s", want, c.Log())
		}
		return nil
	})
}
