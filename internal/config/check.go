package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// IsTargetName reports whether a target can be called that.
func IsTargetName(name string) bool { return targetName.MatchString(name) }

var targetName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// check reports what is well-formed YAML and still can't be meant. It runs on whatever could be read.
func (c *Config) check(d *decoder, engines Engines) {
	c.checkAPI(d)
	c.checkOps(d)
	c.Limits.check(d)
	for i := range c.Listeners {
		c.Listeners[i].check(d, fmt.Sprintf("listeners[%d]", i), engines)
	}
	for _, key := range []string{"listeners", "issuers", "targets"} {
		c.checkSome(d, key)
	}
	c.checkIssuers(d)
	for _, name := range sortedKeys(c.Targets) {
		t := c.Targets[name]
		key := "targets." + name
		if !IsTargetName(name) {
			d.at(key, "a target's name is small letters, digits, - and _, at most 63")
		}
		t.check(d, key, engines)
		c.Targets[name] = t
	}
	c.checkServed(d, engines)
	c.checkNotify(d)
	if dur := c.Recording.Durability; dur != "process" && dur != "disk" {
		d.at("recording.durability", "%q is unknown: process or disk", dur)
	}
}

// What a destination may be told, and to whom its messages go; package control/notify has what they mean.
var (
	notifyTo     = []string{"approvers", "channel", "requester"}
	notifyEvents = []string{"request.created", "request.decided", "request.ended", "break_glass", "grant.extended", "grant.ended",
		"review.due", "review.done", "review.overdue"}
)

func (c *Config) checkNotify(d *decoder) {
	seen := map[string]bool{}
	for i, n := range c.Notify {
		key := fmt.Sprintf("notify[%d]", i)
		if n.Name != "" && seen[n.Name] {
			d.at(key+".name", "a destination of this name is there already")
		}
		seen[n.Name] = true
		if n.To != "" && !slices.Contains(notifyTo, n.To) {
			d.at(key+".to", "%q is unknown%s", n.To, hint(n.To, notifyTo))
		}
		for j, e := range n.Events {
			if !slices.Contains(notifyEvents, e) {
				d.at(fmt.Sprintf("%s.events[%d]", key, j), "%q is unknown%s", e, hint(e, notifyEvents))
			}
		}
		switch {
		case n.Webhook != "" && d.has(key+".url"):
			d.at(key+".url", "url: beside webhook: remove one of them")
		case n.Webhook != "" && n.Secret == "" && !d.complained(key+".secret"):
			d.at(key+".secret", "is missing: a webhook is signed with it")
		case n.Webhook == "" && !d.has(key+".url"):
			d.at(key, "says nowhere to go: add url: file:/path with a slack://, teams://, smtp:// or pagerduty:// address in it, or webhook: https://…")
		case n.Webhook == "" && d.has(key+".secret"):
			d.at(key+".secret", "is of no use without webhook: leave it out")
		}
		checkURL(d, key+".webhook", n.Webhook)
	}
}

// checkSome reports a list or mapping that is there and empty: nothing could work.
func (c *Config) checkSome(d *decoder, key string) {
	n := map[string]int{"listeners": len(c.Listeners), "issuers": len(c.Issuers), "targets": len(c.Targets)}[key]
	if n == 0 && d.has(key) && !d.complained(key) {
		d.at(key, "is empty: at least one is needed")
	}
}

func (c *Config) checkAPI(d *decoder) {
	checkListen(d, "api.listen", c.API.Listen, c.API.TLS != nil)
	checkURL(d, "api.url", c.API.URL)
}

func (l Limits) check(d *decoder) {
	if l.Strangers < 0 {
		d.at("limits.strangers", "must not be negative")
	}
	switch {
	case l.PerAddress < 0:
		d.at("limits.per_address", "must not be negative")
	case l.Strangers > 0 && l.PerAddress > l.Strangers:
		d.at("limits.per_address", "is more than the %d that there are for everybody (limits.strangers)", l.Strangers)
	}
}

func (c *Config) checkOps(d *decoder) {
	if c.Ops == nil {
		return
	}
	if c.Ops.Insecure && c.Ops.TLS != nil {
		d.at("ops.insecure", "insecure: true beside tls: remove one of them")
	}
	checkListen(d, "ops.listen", c.Ops.Listen, c.Ops.TLS != nil || c.Ops.Insecure)
}

func (l *Listener) check(d *decoder, key string, engines Engines) {
	checkEngine(d, key+".engine", l.Engine, engines)
	checkListen(d, key+".listen", l.Listen, l.TLS != nil)
	if _, _, err := net.SplitHostPort(l.Address); l.Address != "" && err != nil {
		d.at(key+".address", "%q is not host:port", l.Address)
	}
	switch kind, known := engines[l.Engine]; {
	case !l.Cleartext:
	case known && !kind.Cleartext:
		d.at(key+".cleartext", "is of no use with %s: leave it out", l.Engine)
	case l.TLS == nil:
		d.at(key+".cleartext", "a password goes in clear through TLS alone: name tls.cert and tls.key, or leave it out")
	}
}

func checkEngine(d *decoder, key, engine string, engines Engines) {
	if _, known := engines[engine]; engine != "" && len(engines) > 0 && !known {
		d.at(key, "engine %q is unknown%s", engine, hint(engine, sortedKeys(engines)))
	}
}

// checkServed holds listeners against targets: what a listener names is there and of its engine, and every
// target can be reached.
func (c *Config) checkServed(d *decoder, engines Engines) {
	for i, l := range c.Listeners {
		if _, known := engines[l.Engine]; known || len(engines) == 0 {
			c.checkPin(d, fmt.Sprintf("listeners[%d].target", i), l, engines[l.Engine].Pinned)
		}
	}
	if slices.ContainsFunc(d.problems, func(p Problem) bool { return strings.HasPrefix(p.Key, "listeners") }) {
		return // when those are right, the target may be served
	}
	for _, name := range sortedKeys(c.Targets) {
		engine := c.Targets[name].Engine
		kind, known := engines[engine]
		if !known || slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Serves(name, engine) }) {
			continue
		}
		pin := ""
		if kind.Pinned {
			pin = ", target: " + name
		}
		d.at("targets."+name, "no listener serves it: add - {engine: %s%s, listen: host:port} to listeners", engine, pin)
	}
}

// Serves reports whether grants on a target of an engine can be used there.
func (l Listener) Serves(target, engine string) bool {
	return l.Engine == engine && (l.Target == "" || l.Target == target)
}

// checkPin looks at the target that a listener names, or should name.
func (c *Config) checkPin(d *decoder, key string, l Listener, pinned bool) {
	t, there := c.Targets[l.Target]
	switch {
	case l.Target == "" && !d.has(key) && pinned:
		var names []string
		for _, name := range sortedKeys(c.Targets) {
			if c.Targets[name].Engine == l.Engine {
				names = append(names, name)
			}
		}
		d.at(key, "is missing: with %s a listener serves one target, since the server speaks first%s", l.Engine, hint("", names))
	case l.Target == "": // reported already, if it is there
	case !there && len(c.Targets) > 0:
		d.at(key, "no such target%s", hint(l.Target, sortedKeys(c.Targets)))
	case there && t.Engine != "" && t.Engine != l.Engine:
		d.at(key, "the target %s is of the engine %s, and this listener of %s", l.Target, t.Engine, l.Engine)
	}
}

// checkListen holds the promise that nothing is served in clear off loopback.
func checkListen(d *decoder, key, listen string, tls bool) {
	if listen == "" {
		return // reported as missing
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		d.at(key, "%q is not host:port", listen)
		return
	}
	if !tls && !loopback(host) {
		or := ""
		if key == "ops.listen" {
			or = ", or insecure: true on a network that may read it"
		}
		d.at(key, "%s is not loopback, so tls: {cert: …, key: …} is required beside it%s", listen, or)
	}
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.IsLoopback()
}

func checkURL(d *decoder, key, raw string) {
	if raw == "" {
		return
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		d.at(key, "is not a URL")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		d.at(key, "%q is not an https:// address", raw)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		d.at(key, "%q sends secrets in clear: https:// is required off loopback", raw)
	}
}

func (t *Target) check(d *decoder, key string, engines Engines) {
	if t.URL == "" {
		return // reported already
	}
	u, err := url.Parse(t.URL)
	if err != nil {
		d.at(key+".url", "is not a URL: write engine://broker@host:port/database") // never the text: it may hold a password
		return
	}
	if _, literal := u.User.Password(); literal || u.Query().Has("password") {
		d.at(key+".url", "a password does not belong in this file: remove it, and write password: file:/path or env:NAME beside the url")
		return
	}
	t.Engine = engines.named(u.Scheme)
	u.Scheme = t.Engine
	switch {
	case u.Scheme == "" || u.Opaque != "":
		d.at(key+".url", "%q is not a target: write engine://broker@host:port/database", t.URL)
		return
	case u.User.Username() == "":
		d.at(key+".url", "names no user: write %s://broker@%s%s", u.Scheme, u.Host, u.Path)
	case strings.Trim(u.Path, "/") == "":
		d.at(key+".url", "names no database: write %s://%s@%s/database", u.Scheme, u.User.Username(), u.Host)
	}
	checkEngine(d, key+".url", t.Engine, engines)
	t.URL = u.String()
}

// complained reports whether there is a problem at the key already.
func (d *decoder) complained(key string) bool {
	return slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Key == key })
}
