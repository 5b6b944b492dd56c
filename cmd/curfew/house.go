package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/control/notify"
	"github.com/curfewdb/curfew/control/web"
	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/proxy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/store"
)

// house is a running Curfew: every part, put together once.
type house struct {
	cfg     *config.Config
	log     *slog.Logger
	seams   seams
	certs   *certs
	store   *store.Store
	library *recorder.Library
	engines map[string]protocol.Engine
	desk    *control.Desk
	tokens  auth.Bearers
	clocks  map[string][]timekeeper // by issuer: who asks it
	logins  *control.Logins
	links   *control.Links
	tell    *notify.Notifier
	proxy   *proxy.Server
	api     http.Handler
	metrics *prometheus.Registry
	meters  *meters
	notify  notifier
	base    context.Context // without an end: for what goes on after the signal to stop
	decoy   []byte          // from which listeners make up verifiers for names that nobody has, the same at every start

	serving  atomic.Bool           // the listeners are open, and what a crash left was taken up
	stopping atomic.Bool           // it was asked to stop
	damage   atomic.Pointer[error] // what is wrong with the store's file

	closers []func() error // last first
}

// build puts the parts together, bottom to top. What it opened it closes when a later part fails.
func build(ctx context.Context, cfg *config.Config, pol *policy.Policy, o serveOptions) (_ *house, err error) {
	h := &house{cfg: cfg, log: o.log, seams: o.seams, engines: map[string]protocol.Engine{}, notify: o.notify,
		metrics: prometheus.NewRegistry(), base: context.WithoutCancel(ctx)}
	h.meters = newMeters(h.metrics)
	for _, anchor := range cfg.Anchors {
		h.meters.anchored.WithLabelValues(anchor.File) // not written yet
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if h.certs, err = loadCerts(cfg); err != nil {
		return nil, err
	}
	if err := h.openStores(ctx); err != nil {
		return nil, err
	}
	if err := h.guardTargets(ctx, o.step); err != nil {
		return nil, err
	}
	targets, err := h.targetInfo()
	if err != nil {
		return nil, err
	}
	h.desk, err = control.New(ctx, control.Options{Store: h.store, Policy: pol, Log: h.log, Targets: targets, Cause: cause, Wire: wire{h},
		Enrol: func(target, password string) ([]byte, error) { return h.engines[target].Enrol(password) }})
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, func() error { h.desk.Close(); return nil })
	if err := h.openLogins(ctx); err != nil {
		return nil, err
	}
	wired := grants{desk: h.desk, tokens: tokens{desk: h.desk, issuers: h.tokens, engines: engineOf(cfg)}}
	h.proxy = proxy.New(proxy.Config{
		Node: cfg.Node, Installation: h.store.Installation(), Engines: h.engines, EngineNames: engineOf(cfg),
		Doorman: wired, Grants: wired, Recordings: recordings{h.library},
		Sessions: journal{h.store}, Accounts: journal{h.store},
		MaxStrangers: cfg.Limits.Strangers, MaxShare: cfg.Limits.PerAddress,
		FailedLogin: h.failedLogin("wire"), FailedToken: h.failedLogin(store.AtToken),
		Metrics: h.metrics, Log: h.log, Step: o.step,
	})
	h.metrics.MustRegister(h)
	desk := &api.Desk{Desk: h.desk, Ledger: h.store, Recordings: h.library, Dialects: dialects(), Traffic: wire{h}.traffic, Log: h.log}
	h.api = api.New(api.Config{
		Version: version, Logins: api.Doorkeeper{Logins: h.logins}, Requests: desk, Grants: desk, Sessions: desk, Reviews: desk, Evidence: desk, Foresight: desk,
		SignOut: h.logins.SignOut, FailedToken: h.failedLogin(store.AtToken), FailedLogout: h.failedLogin(store.AtLogout),
		FailedLogin: h.failedLogin("api"), Alive: h.alive, Ready: h.ready, Explain: api.Explain,
		Answers: answers{h.store}, Now: h.store.Now, Log: h.log,
	})
	if err := h.openPages(); err != nil {
		return nil, err
	}
	return h, h.openNotify()
}

// openNotify makes the destinations of notifications; none of them need be up.
func (h *house) openNotify() error {
	var all []notify.Destination
	for _, n := range h.cfg.Notify {
		address, err := config.Secret(n.URL)
		secret, failed := config.Secret(n.Secret)
		if err := errors.Join(err, failed); err != nil {
			return fmt.Errorf("notify %s: %w", n.Name, err)
		}
		all = append(all, notify.Destination{Name: n.Name, URL: address, Webhook: n.Webhook, Secret: secret, To: n.To, Events: n.Events})
	}
	var err error
	h.tell, err = notify.New(notify.Options{Store: h.store, Links: h.links, Policy: h.desk.Policy, Destinations: all, Log: h.log})
	return err
}

// openPages puts the pages beside the API.
func (h *house) openPages() error {
	pages, err := web.New(web.Config{
		URL: h.cfg.API.URL, Issuers: h.logins.Issuers(), Logins: h.logins, Desk: h.desk, Links: h.links,
		Refused: func(from string, link bool) {
			where := store.AtWeb
			if link {
				where = store.AtLink
			}
			h.failedLogin(where)(from)
		},
		Now: h.store.Now, Log: h.log,
	})
	if err != nil {
		return fmt.Errorf("pages: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/web/", pages)
	mux.Handle("/", h.api)
	h.api = mux
	return nil
}

// failedLogin counts strangers, on the ledger and for the operators.
func (h *house) failedLogin(where string) func(from string) {
	return func(from string) {
		h.meters.failedLogins.WithLabelValues(where).Inc()
		h.store.FailedLogin(from, where)
	}
}

// openStores opens the truth and the recordings, each of which one process at a time can have.
func (h *house) openStores(ctx context.Context) (err error) {
	h.store, err = store.Open(ctx, h.seams.storeOptions(store.Options{Path: filepath.Join(h.cfg.Data, "store.db"),
		KeyPath: filepath.Join(h.cfg.Data, "ledger.key"), Version: version, Node: h.cfg.Node, Log: h.log,
		Observe: h.meters.updated}))
	if err != nil {
		return err
	}
	h.closers = append(h.closers, h.store.Close)
	h.library, err = recorder.Open(filepath.Join(h.cfg.Data, "recordings"),
		h.seams.recorderOptions(recorder.Options{Durability: recorder.Durability(h.cfg.Recording.Durability), Node: h.cfg.Node, Dialects: dialects(), Log: h.log}))
	if err != nil {
		return err
	}
	h.closers = append(h.closers, h.library.Close)
	return nil
}

// guardTargets makes an engine for every target. None of the databases need be up.
func (h *house) guardTargets(ctx context.Context, step protocol.Step) error {
	for name, t := range h.cfg.Targets {
		password, err := config.Secret(t.Password)
		if err != nil {
			return fmt.Errorf("target %s: %w", name, err)
		}
		e, err := engines()[t.Engine].New(ctx, protocol.TargetConfig{Name: name, URL: t.URL, Password: password,
			Installation: h.store.Installation(), Log: h.log, Step: step})
		if err != nil {
			return fmt.Errorf("target %s: %w", name, err)
		}
		h.engines[name] = e
		h.closers = append(h.closers, func() error { e.Close(); return nil })
	}
	return nil
}

// openSealer reads the key of this installation's secrets, or makes it.
func (h *house) openSealer() (*auth.Sealer, error) {
	key := filepath.Join(h.cfg.Data, "sealing.key")
	sealer, err := auth.OpenSealer(key)
	if err == nil {
		h.decoy, err = os.ReadFile(key)
	}
	return sealer, err
}

// openLogins makes the providers that people log in with; one that is down now is asked again later.
func (h *house) openLogins(ctx context.Context) error {
	sealer, err := h.openSealer()
	if err != nil {
		return err
	}
	if err := h.openTokens(); err != nil {
		return err
	}
	var providers []*auth.Provider
	for _, i := range h.cfg.Issuers {
		if i.Workloads {
			continue // nobody logs in there
		}
		secret, err := config.Secret(i.ClientSecret)
		if err != nil {
			return fmt.Errorf("issuer %s: %w", i.URL, err)
		}
		p, err := auth.Discover(ctx, h.issuer(i, secret))
		if err != nil {
			return fmt.Errorf("issuer %s: %w", i.URL, err)
		}
		providers = append(providers, p)
		h.clocks[i.URL] = append(h.clocks[i.URL], p)
	}
	h.logins, err = control.NewLogins(control.LoginOptions{Store: h.store, Desk: h.desk, Providers: providers,
		Tokens: h.tokens, Sealer: sealer, Refresh: h.cfg.Refresh, Web: strings.TrimSuffix(h.cfg.API.URL, "/") + web.CallbackPath, Log: h.log})
	h.links = control.NewLinks(h.store, h.decoy, h.cfg.API.URL)
	return err
}

// issuer is what of an issuer's configuration is the same for logins and for tokens.
func (h *house) issuer(i config.Issuer, secret string) auth.IssuerConfig {
	return auth.IssuerConfig{URL: i.URL, ClientID: i.ClientID, ClientSecret: secret,
		GroupsClaim: i.GroupsClaim, Claims: i.Claims, TrustEmail: i.TrustEmail, Scopes: i.Scopes,
		ACRValues: i.ACRValues, Declared: i.MFA == "declared", Log: h.log}
}

// targetInfo is what clients are told: where a target is served, never where it is. A listener of its own
// goes before one that serves others too.
func (h *house) targetInfo() (map[string]control.TargetInfo, error) {
	all := map[string]control.TargetInfo{}
	for name, t := range h.cfg.Targets {
		for _, l := range listenersOf(h.cfg, name) {
			host, port, _ := net.SplitHostPort(l.Address) // checked when it was read
			info := control.TargetInfo{Engine: t.Engine, Host: host, Database: databaseOf(t.URL), SSLMode: "disable"}
			info.Port, _ = strconv.Atoi(port)
			if l.TLS != nil {
				info.SSLMode = "verify-full"
			}
			if l.TLS != nil && l.TLS.CA != "" {
				ca, err := os.ReadFile(l.TLS.CA)
				if err != nil {
					return nil, fmt.Errorf("CA of the listener %s: %w", l.Listen, err)
				}
				info.CA = string(ca)
			}
			all[name] = info
			break
		}
	}
	return all, nil
}

// listenersOf are those that serve a target, its own first.
func listenersOf(cfg *config.Config, target string) []config.Listener {
	var own, shared []config.Listener
	for _, l := range cfg.Listeners {
		switch {
		case !l.Serves(target, cfg.Targets[target].Engine):
		case l.Target == target:
			own = append(own, l)
		default:
			shared = append(shared, l)
		}
	}
	return append(own, shared...)
}

func databaseOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(u.Path, "/")
}

func engineOf(cfg *config.Config) map[string]string {
	names := map[string]string{}
	for name, t := range cfg.Targets {
		names[name] = t.Engine
	}
	return names
}

// close gives back what build took, last first.
func (h *house) close() error {
	var errs []error
	for _, c := range slices.Backward(h.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}
