// Package config reads Curfew's two files, curfew.yaml and policy.yaml, strictly: unknown keys,
// wrong types, unknown names, missing values and literal secrets are errors, and all of them are
// reported at once, each as file:line: key.path: message with the nearest known name as a hint.
//
// What a caller may rely on: what Load and LoadPolicy return without an error is whole. Defaults are
// filled in, relative paths are resolved against the file they stand in, every name that one part
// gives is known to the other. An error is always an *Errors, and never shows a secret's value.
//
// Secrets are references, file:/path or env:NAME; nothing here reads one before Secret is called.
package config

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/curfewdb/curfew/policy"
)

// Config is curfew.yaml. docs/OPERATIONS.md is its reference.
type Config struct {
	Path      string            // of the file itself
	Node      string            `yaml:"node"`               // this process's name in recordings; default: the host's
	Data      string            `yaml:"data,path,required"` // directory of store.db, keys and recordings
	API       API               `yaml:"api"`
	Ops       *Ops              `yaml:"ops"` // nil: there is none
	Listeners []Listener        `yaml:"listeners,required"`
	Policy    string            `yaml:"policy,path"` // default: policy.yaml beside the file
	Issuers   []Issuer          `yaml:"issuers,required"`
	Refresh   time.Duration     `yaml:"refresh"` // how often identities with a grant are asked for again; default 5m
	Targets   map[string]Target `yaml:"targets,required"`
	Recording Recording         `yaml:"recording"`
	Limits    Limits            `yaml:"limits"`
	Anchors   []Anchor          `yaml:"anchors"`
	Notify    []Notify          `yaml:"notify"`
}

// Limits are how many may be in the middle of a login at once, on this node.
type Limits struct {
	Strangers  int `yaml:"strangers"`   // default 256
	PerAddress int `yaml:"per_address"` // default a quarter of them
}

// API is where the HTTP API listens and what clients call it.
type API struct {
	Listen string `yaml:"listen"` // default 127.0.0.1:7433
	URL    string `yaml:"url"`    // default: made from Listen
	TLS    *TLS   `yaml:"tls"`    // required off loopback
}

// Ops is where machines look whether Curfew is well: /healthz, /readyz and /metrics.
type Ops struct {
	Listen   string `yaml:"listen"`   // default 127.0.0.1:7434
	TLS      *TLS   `yaml:"tls"`      // required off loopback
	Insecure bool   `yaml:"insecure"` // or this: in clear, for a network that is trusted with it
}

// TLS names a certificate and its key, PEM files that are read again on reload.
type TLS struct {
	Cert string `yaml:"cert,path,required"`
	Key  string `yaml:"key,path,required"`
	CA   string `yaml:"ca,path"` // PEM that clients verify Cert by, where their own CAs would not; handed out with credentials
}

// Listener is where database clients connect.
type Listener struct {
	Engine  string `yaml:"engine,required"`
	Target  string `yaml:"target"` // the one target that it serves; empty: every target of its engine
	Listen  string `yaml:"listen,required"`
	Address string `yaml:"address"` // host:port that clients are told; default: Listen
	TLS     *TLS   `yaml:"tls"`     // required off loopback
	// Cleartext asks for the grant password itself, inside TLS, for drivers that know nothing better.
	Cleartext bool `yaml:"cleartext"`
}

// Issuer is an OpenID Connect provider whose identities are believed.
type Issuer struct {
	URL          string   `yaml:"url,required"`
	ClientID     string   `yaml:"client_id"`            // required but for workloads
	ClientSecret string   `yaml:"client_secret,secret"` // reference; empty for a public client
	GroupsClaim  string   `yaml:"groups_claim"`         // default "groups"
	Claims       []string `yaml:"claims"`               // further claims that conditions may look at
	TrustEmail   bool     `yaml:"trust_email"`          // take an e-mail as verified where the issuer says nothing about that
	ACRValues    []string `yaml:"acr_values"`           // asked for where a rule names methods (amr) only
	MFA          string   `yaml:"mfa"`                  // "declared": nobody logs in there without, though it asserts nothing
	Scopes       []string `yaml:"scopes"`               // default openid email profile groups offline_access
	Audiences    []string `yaml:"audiences"`            // tokens made for one of these are taken from other clients; none: no tokens
	Clients      []string `yaml:"clients"`              // of those tokens, only what these clients were given; default all
	Opaque       string   `yaml:"opaque"`               // "introspection" or "userinfo": how the issuer is asked about tokens that are not signed
	TokenScopes  []string `yaml:"token_scopes"`         // what clients are told to ask for; default Scopes without offline_access
	Workloads    bool     `yaml:"workloads"`            // its tokens are programs'; nobody logs in there
}

// Target is a database server guarded by Curfew.
type Target struct {
	URL      string            `yaml:"url,required"`    // engine://broker@host:port/database?sslmode=…, never with a password
	Password string            `yaml:"password,secret"` // the broker's, a reference; empty where the server asks for none
	Labels   map[string]string `yaml:"labels"`
	Engine   string            // from the URL's scheme
}

// Recording says how recordings are kept.
type Recording struct {
	// Durability is what a statement waits for before it is forwarded: "process" (default) survives
	// the end of Curfew's process, "disk" the end of the machine.
	Durability string `yaml:"durability"`
}

// Anchor is a place that somebody else keeps, to which signed checkpoints are appended.
type Anchor struct {
	File string `yaml:"file,path,required"`
}

// Notify is a destination that is told what happens at the desk.
type Notify struct {
	Name    string   `yaml:"name,required"`
	URL     string   `yaml:"url,secret"` // reference to slack://…, teams://…, smtp://…, pagerduty://…
	Webhook string   `yaml:"webhook"`    // or an address that is told in JSON
	Secret  string   `yaml:"secret,secret"`
	To      string   `yaml:"to,required"` // approvers, requester, channel
	Events  []string `yaml:"events"`      // default: those that go with To
}

// Engine is what the files have to know of one kind of database.
type Engine struct {
	Aliases []string // other schemes of its targets' URLs, beside its name
	Pinned  bool     // a listener serves one target, which it must name
	// Cleartext says that a listener can be told to ask for passwords in clear.
	Cleartext bool
}

// Engines are those that there are, by name.
type Engines map[string]Engine

// named gives the engine that a URL's scheme means, which may be unknown.
func (e Engines) named(scheme string) string {
	for name, engine := range e {
		if slices.Contains(engine.Aliases, scheme) {
			return name
		}
	}
	return scheme
}

// Load reads curfew.yaml and the policy that it names, and reports what is wrong in either at once. Without
// engines, what has to do with them is not checked.
func Load(path string, engines Engines) (*Config, *policy.Policy, error) {
	c, problems := load(path, engines)
	err := wrong(problems)
	if c == nil || c.Policy == "" {
		return nil, nil, err
	}
	p, perr := LoadPolicy(c.Policy, c.Targets)
	if err != nil || perr != nil {
		return nil, nil, together(err, perr)
	}
	return c, p, nil
}

// load gives whatever could be read beside the problems; nil when the file could not be read at all.
func load(path string, engines Engines) (*Config, []Problem) {
	text, problems := readFile(path)
	if problems != nil {
		return nil, problems
	}
	d := &decoder{file: path}
	c := &Config{Path: path}
	d.decode(bytes.NewReader(text), c)
	c.defaults(d)
	c.check(d, engines)
	return c, d.problems
}

func readFile(path string) ([]byte, []Problem) {
	text, err := os.ReadFile(path)
	if err == nil {
		return text, nil
	}
	msg := "can't be read: " + err.Error()
	var pe *fs.PathError
	if errors.As(err, &pe) {
		msg = "can't be read: " + pe.Err.Error()
	}
	return nil, []Problem{{File: path, Message: msg}}
}

func (c *Config) defaults(d *decoder) {
	set := func(s *string, to string) {
		if *s == "" {
			*s = to
		}
	}
	if c.Node == "" {
		if host, err := os.Hostname(); err == nil {
			c.Node = host
		}
	}
	set(&c.API.Listen, "127.0.0.1:7433")
	if c.API.URL == "" {
		scheme := "http://"
		if c.API.TLS != nil {
			scheme = "https://"
		}
		c.API.URL = scheme + c.API.Listen
	}
	if c.Limits.Strangers == 0 {
		c.Limits.Strangers = 256
	}
	if c.Limits.PerAddress == 0 {
		c.Limits.PerAddress = max(1, c.Limits.Strangers/4)
	}
	if c.Ops != nil {
		set(&c.Ops.Listen, "127.0.0.1:7434")
	}
	if !d.has("policy") {
		c.Policy = d.beside("policy.yaml")
	}
	for i := range c.Listeners {
		set(&c.Listeners[i].Address, c.Listeners[i].Listen)
	}
	for i := range c.Issuers {
		set(&c.Issuers[i].GroupsClaim, "groups")
		if len(c.Issuers[i].Scopes) == 0 {
			c.Issuers[i].Scopes = []string{"openid", "email", "profile", "groups", "offline_access"}
		}
		if len(c.Issuers[i].TokenScopes) == 0 && len(c.Issuers[i].Audiences) > 0 {
			c.Issuers[i].TokenScopes = slices.DeleteFunc(slices.Clone(c.Issuers[i].Scopes), func(s string) bool { return s == "offline_access" })
		}
	}
	if c.Refresh == 0 {
		c.Refresh = 5 * time.Minute
	}
	if c.Recording.Durability == "" {
		c.Recording.Durability = "process"
	}
}
