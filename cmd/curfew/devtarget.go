package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"encoding/json"

	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/internal/provider"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/proxy"
)

// devBroker is the login that curfew dev makes on a database of one's own.
const devBroker = "curfew_broker"

// guardOwn makes a database ready to be guarded: given an administrator's URL it shows the setup SQL and
// runs it after a yes, given any other login it takes that one as the broker.
func (a *app) guardOwn(ctx context.Context, d *devHome, t ownTarget, yes bool) error {
	u, err := url.Parse(t.url)
	if err != nil {
		return err // it was one when the flag was read
	}
	admin, err := t.kind.Trial.Admin(ctx, t.url)
	if err != nil {
		return problem(exitUnreachable, "unreachable", fmt.Sprintf("%s can't be reached: %v", t.name, withoutPassword(err, u)), "check host, port, user and password in the URL, and that the server is up")
	}
	broker := u.User.Username()
	password, _ := u.User.Password()
	if admin {
		broker = devBroker
		if password, err = a.setUpOwn(ctx, d, t, yes); err != nil {
			return err
		}
	}
	if d.Targets[t.name], err = t.kind.Trial.BrokerURL(t.url, broker); err != nil {
		return err
	}
	return writePrivate(d.path(t.name+".password"), []byte(password+"\n"))
}

// setUpOwn runs the setup on an administrator's word, and gives the broker's password.
func (a *app) setUpOwn(ctx context.Context, d *devHome, t ownTarget, yes bool) (string, error) {
	broker, err := t.kind.Trial.BrokerURL(t.url, devBroker)
	if err != nil {
		return "", err
	}
	levels, err := d.levels(t.name)
	if err != nil {
		return "", err
	}
	old, err := os.ReadFile(d.path(t.name + ".password"))
	if err == nil && brokerIsGood(ctx, t.kind, broker, strings.TrimSpace(string(old)), levels) {
		return strings.TrimSpace(string(old)), nil
	}
	engine, err := t.kind.New(ctx, protocol.TargetConfig{Name: t.name, URL: broker, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	defer engine.Close()
	starter, err := t.kind.Trial.Starter(t.url, t.name+"_reader", t.name+"_writer")
	if err != nil {
		return "", err
	}
	sql := engine.Setup(levels) + "\n" + starter
	if !yes {
		fmt.Fprintf(a.stdout, "%s\n", sql)
		ok, err := a.confirm(fmt.Sprintf("Run this on %s as its administrator? It makes the login %s and the group roles %s_reader and %s_writer.", t.name, devBroker, t.name, t.name), false)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", problem(exitForbidden, "cancelled", "nothing was changed", "run the SQL yourself and give curfew dev the broker's URL, or use --yes")
		}
	}
	password := policy.NewID("", 32)
	return password, t.kind.Trial.Apply(ctx, t.url, sql, devBroker, password)
}

// brokerIsGood reports whether an earlier setup still holds.
func brokerIsGood(ctx context.Context, kind protocol.Kind, url, password string, levels []protocol.Level) bool {
	engine, err := kind.New(ctx, protocol.TargetConfig{URL: url, Password: password, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return false
	}
	defer engine.Close()
	findings, err := engine.Check(ctx, levels)
	return err == nil && !slices.ContainsFunc(findings, func(f protocol.Finding) bool { return f.Severity == "error" })
}

// levels are a target's access levels: those of a policy that is there already, or reader and writer.
func (d *devHome) levels(name string) ([]protocol.Level, error) {
	starter := []protocol.Level{{Name: "reader", Roles: []string{name + "_reader"}}, {Name: "writer", Roles: []string{name + "_writer"}}}
	if _, err := os.Stat(d.path("policy.yaml")); errors.Is(err, fs.ErrNotExist) {
		return starter, nil
	}
	p, err := config.LoadPolicy(d.path("policy.yaml"), nil)
	if err != nil {
		return nil, err
	}
	return append(levelsOf(p, name), starter...), nil
}

// levelsOf gives a target's access levels in an engine's words, sorted by name.
func levelsOf(p *policy.Policy, target string) []protocol.Level {
	all := p.Targets[target].Levels
	var levels []protocol.Level
	for _, name := range slices.Sorted(maps.Keys(all)) {
		levels = append(levels, proxy.LevelOf(name, all[name]))
	}
	return levels
}

// webhook settles whom curfew dev tells what happens: the flag, or the last time's; and makes the secret of its
// signatures.
func (d *devHome) webhook(f devFlags) error {
	d.Webhook = first(f.webhook, d.Webhook)
	if d.Webhook == "" {
		return nil
	}
	u, err := url.Parse(d.Webhook)
	if err != nil || u.Scheme != "http" || !net.ParseIP(u.Hostname()).IsLoopback() {
		return problem(exitUsage, "usage", fmt.Sprintf("curfew dev tells nobody at %s: what it plays is for this machine only", d.Webhook),
			"use an address like http://127.0.0.1:9000/")
	}
	if _, err := os.Stat(d.path("webhook.secret")); err == nil {
		return nil
	}
	return writePrivate(d.path("webhook.secret"), []byte(rand.Text()+"\n"))
}

// write writes the configuration, and a policy where there is none.
func (d *devHome) write() error {
	b, _ := json.MarshalIndent(d, "", "  ") // plain values: can't fail
	if err := writePrivate(d.path("home.json"), append(b, '\n')); err != nil {
		return err
	}
	var y strings.Builder
	fmt.Fprintf(&y, "# Written by curfew dev at every start.\nnode: dev\ndata: data\napi: {listen: %q, url: %q}\n", d.API, "http://"+d.API)
	if d.Ops != "" {
		fmt.Fprintf(&y, "ops: {listen: %q}\n", d.Ops)
	}
	y.WriteString("listeners:\n")
	for _, p := range slices.Sorted(maps.Keys(d.Listeners)) {
		engine, target, pinned := strings.Cut(p, "/")
		if pinned {
			target = ", target: " + target
		}
		fmt.Fprintf(&y, "  - {engine: %s%s, listen: %q, tls: {cert: tls.crt, key: tls.key, ca: tls.crt}}\n", engine, target, d.Listeners[p])
	}
	fmt.Fprintf(&y, "issuers:\n  - {url: %q, client_id: curfew-cli, acr_values: [%q], audiences: [curfew-cli], opaque: userinfo}\npolicy: policy.yaml\nrefresh: 1m\n", "http://"+d.Issuer, provider.ACR)
	if d.Webhook != "" {
		for _, to := range []string{"approvers", "requester"} {
			fmt.Fprintf(&y, "%s  - {name: %s, webhook: %q, secret: file:webhook.secret, to: %s}\n", map[string]string{"approvers": "notify:\n"}[to], to, d.Webhook, to)
		}
	}
	y.WriteString("anchors:\n  - {file: anchors}\ntargets:\n")
	for _, name := range slices.Sorted(maps.Keys(d.Targets)) {
		fmt.Fprintf(&y, "  %s:\n    url: %q\n", name, d.Targets[name])
		if secret, err := os.ReadFile(d.path(name + ".password")); err == nil && strings.TrimSpace(string(secret)) != "" {
			fmt.Fprintf(&y, "    password: %q\n", "file:"+d.path(name+".password"))
		}
	}
	if err := os.MkdirAll(d.path("data"), 0o700); err != nil {
		return err
	}
	if err := writePrivate(d.path("curfew.yaml"), []byte(y.String())); err != nil {
		return err
	}
	return d.writePolicy()
}

const devPolicyMark = "# Written by curfew dev; remove this line to keep your own changes.\n"

func (d *devHome) writePolicy() error {
	old, err := os.ReadFile(d.path("policy.yaml"))
	if err == nil && !strings.HasPrefix(string(old), devPolicyMark) {
		return nil
	}
	var y strings.Builder
	y.WriteString(devPolicyMark + "targets:\n")
	for _, name := range slices.Sorted(maps.Keys(d.Targets)) {
		fmt.Fprintf(&y, "  %s:\n    levels:\n      reader: {roles: [%s_reader]}\n      writer: {roles: [%s_writer]}\n", name, name, name)
	}
	y.WriteString(`rules:
  - name: developers-read-and-write
    who: {groups: [developers, leads]}
    targets: ["*"]
    levels: [reader, writer]
    longest: 8h
    reason: required
    approvals: {count: 1, from: {groups: [leads, security]}}
readers:
  - who: {groups: [security]}
    targets: ["*"]
`)
	return writePrivate(d.path("policy.yaml"), []byte(y.String()))
}

// withoutPassword keeps a URL's password out of an error about it.
func withoutPassword(err error, u *url.URL) string {
	text := err.Error()
	if p, ok := u.User.Password(); ok && p != "" {
		text = strings.ReplaceAll(text, p, "xxxxx")
	}
	return text
}

func firstKey(m map[string]string) string { return slices.Sorted(maps.Keys(m))[0] }
