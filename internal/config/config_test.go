package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/policy"
)

const good = `
data: data
api: {listen: 127.0.0.1:7433}
listeners:
  - {engine: postgres, listen: 127.0.0.1:6432}
issuers:
  - {url: https://idp.example.com, client_id: curfew, client_secret: file:secrets/idp}
targets:
  orders:
    url: postgresql://broker@db.example.com:5432/orders
    password: env:BROKER
    labels: {env: prod}
  local:
    url: postgres://broker@127.0.0.1/local
anchors: [{file: /mnt/witness/anchors}]
`

const goodPolicy = `
targets:
  orders:
    levels:
      reader: {roles: [orders_reader]}
      writer: {roles: [orders_writer], set_role: true, prepared_transactions: true, local_infile: true, sessions: 3, idle: 30m}
      watcher: {roles: [orders_reader], idle: 0}
rules:
  - name: writers
    who: {groups: [developers]}
    labels: {env: prod}
    levels: [writer, reader]
    longest: 1h
    approvals: {count: 1, from: {groups: [leads]}}
  - name: robots
    who: {subjects: [ci]}
    targets: ["*"]
    levels: [reader]
    longest: 5m
    lapse: 1m
    reason: optional
    approvals: {count: 0}
readers:
  - {who: {groups: [security]}, targets: ["*"]}
`

// kinds are two engines: one with a URL scheme beside its name, one whose listeners are pinned.
var kinds = Engines{"postgres": {Aliases: []string{"postgresql"}, Cleartext: true}, "mysql": {Aliases: []string{"mariadb"}, Pinned: true}}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadFillsInDefaultsAndResolvesPaths(t *testing.T) {
	path := write(t, "curfew.yaml", good)
	c, err := readConfig(path, kinds)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	host, _ := os.Hostname()
	for _, v := range [][2]any{
		{c.Node, host},
		{c.Data, filepath.Join(dir, "data")},
		{c.Policy, filepath.Join(dir, "policy.yaml")},
		{c.API.URL, "http://127.0.0.1:7433"},
		{c.Listeners[0].Address, "127.0.0.1:6432"},
		{c.Issuers[0].GroupsClaim, "groups"},
		{c.Issuers[0].ClientSecret, "file:" + filepath.Join(dir, "secrets/idp")},
		{c.Refresh, 5 * time.Minute},
		{c.Recording.Durability, "process"},
		{c.Targets["orders"].Engine, "postgres"},
		{c.Targets["orders"].URL, "postgres://broker@db.example.com:5432/orders"},
		{c.Targets["local"].URL, "postgres://broker@127.0.0.1/local"},
	} {
		if !reflect.DeepEqual(v[0], v[1]) {
			t.Errorf("got %v, want %v", v[0], v[1])
		}
	}
}

// An address has a quarter of the places for strangers, unless somebody knows better.
func TestLimits(t *testing.T) {
	for text, want := range map[string]Limits{
		"":                             {Strangers: 256, PerAddress: 64},
		"limits: {strangers: 2}\n":     {Strangers: 2, PerAddress: 1},
		"limits: {per_address: 256}\n": {Strangers: 256, PerAddress: 256},
	} {
		c, err := readConfig(write(t, "curfew.yaml", good+text), kinds)
		if err != nil || c.Limits != want {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

// What machines look at is asked for, on loopback; in clear beyond that only by a word.
func TestOps(t *testing.T) {
	for text, want := range map[string]*Ops{
		"":                           nil,
		"ops: {}\n":                  {Listen: "127.0.0.1:7434"},
		"ops: {listen: '[::1]:9'}\n": {Listen: "[::1]:9"},
		"ops: {listen: '0.0.0.0:7434', insecure: true}\n":                   {Listen: "0.0.0.0:7434", Insecure: true},
		"ops: {listen: '0.0.0.0:7434', tls: {cert: /c.pem, key: /c.key}}\n": {Listen: "0.0.0.0:7434", TLS: &TLS{Cert: "/c.pem", Key: "/c.key"}},
	} {
		c, err := readConfig(write(t, "curfew.yaml", good+text), kinds)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(c.Ops, want) {
			t.Errorf("%s: %+v", text, c.Ops)
		}
	}
}

// A password is asked for in clear where the file says so, inside TLS, and of clients of such an engine.
func TestCleartext(t *testing.T) {
	for listener, wrong := range map[string]string{
		"{engine: postgres, listen: 127.0.0.1:6433, cleartext: true, tls: {cert: /c.pem, key: /c.key}}":            "",
		"{engine: postgres, listen: 127.0.0.1:6433, cleartext: false}":                                             "",
		"{engine: postgres, listen: 127.0.0.1:6433, cleartext: true}":                                              "through TLS alone",
		"{engine: mysql, listen: 127.0.0.1:6433, target: shop, cleartext: true, tls: {cert: /c.pem, key: /c.key}}": "of no use with mysql",
	} {
		text := strings.Replace(good, "issuers:", "  - "+listener+"\nissuers:", 1)
		text = strings.Replace(text, "anchors:", "  shop: {url: 'mariadb://broker@db/shop'}\n  store: {url: 'mysql://broker@db/store'}\nanchors:", 1)
		text = strings.Replace(text, "issuers:", "  - {engine: mysql, target: shop, listen: 127.0.0.1:7306}\n  - {engine: mysql, target: store, listen: 127.0.0.1:7307}\nissuers:", 1)
		c, err := readConfig(write(t, "curfew.yaml", text), kinds)
		switch {
		case wrong == "" && err != nil:
			t.Errorf("%s: %v", listener, err)
		case wrong == "" && c.Listeners[1].Cleartext != strings.Contains(listener, "true"):
			t.Errorf("%s: %+v", listener, c.Listeners[1])
		case wrong != "" && (err == nil || !strings.Contains(err.Error(), "listeners[1].cleartext") || !strings.Contains(err.Error(), wrong)):
			t.Errorf("%s: %v", listener, err)
		}
	}
}

// A listener of one target's own may stand beside one that serves all, whatever the order, and an engine's
// URLs may have another scheme.
func TestListenersMayBeATargetsOwn(t *testing.T) {
	text := strings.Replace(good, "issuers:", `  - {engine: postgres, listen: 127.0.0.1:6433, target: local}
  - {engine: mysql, listen: 127.0.0.1:7306, target: shop}
issuers:`, 1)
	text = strings.Replace(text, "anchors:", "  shop: {url: 'mariadb://broker@db/shop'}\nanchors:", 1)
	c, err := readConfig(write(t, "curfew.yaml", text), kinds)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Targets["shop"]; got.Engine != "mysql" || got.URL != "mysql://broker@db/shop" {
		t.Errorf("%+v", got)
	}
	for i, want := range []string{"", "local", "shop"} {
		l := c.Listeners[i]
		if l.Target != want || !l.Serves("local", "postgres") == (i < 2) || l.Serves("orders", "postgres") != (i == 0) || l.Serves("shop", "mysql") != (i == 2) {
			t.Errorf("listener %d: %+v", i, l)
		}
	}
}

func TestLoadPolicyResolves(t *testing.T) {
	c, err := readConfig(write(t, "curfew.yaml", good), kinds)
	if err != nil {
		t.Fatal(err)
	}
	p, err := LoadPolicy(write(t, "policy.yaml", goodPolicy), c.Targets)
	if err != nil {
		t.Fatal(err)
	}
	if p.Text != goodPolicy || !strings.HasPrefix(p.Hash, "sha256:") || len(p.Hash) != 7+64 {
		t.Errorf("text or hash %q", p.Hash)
	}
	if got := p.Targets["orders"]; got.Labels["env"] != "prod" || !reflect.DeepEqual(got.Levels["writer"],
		policy.Level{Roles: []string{"orders_writer"}, SetRole: true, PreparedTransactions: true, LocalInfile: true, Sessions: 3,
			Idle: 30 * time.Minute}) || got.Levels["reader"].LocalInfile || got.Levels["reader"].Idle != 0 || got.Levels["watcher"].Idle != 0 {
		t.Errorf("target %+v", got)
	}
	want := policy.Rule{
		Name: "writers", Who: policy.Who{Groups: []string{"developers"}}, Labels: policy.Labels{"env": "prod"},
		Levels: []string{"writer", "reader"}, Longest: time.Hour, Lapse: 24 * time.Hour, Reason: true,
		Approvals: policy.Approvals{Count: 1, From: policy.Who{Groups: []string{"leads"}}},
	}
	if !reflect.DeepEqual(p.Rules[0], want) {
		t.Errorf("rule %+v\nwant %+v", p.Rules[0], want)
	}
	if r := p.Rules[1]; r.Reason || r.Lapse != time.Minute {
		t.Errorf("rule %+v", r)
	}
	if len(p.Readers) != 1 || p.Readers[0].Who.Groups[0] != "security" {
		t.Errorf("readers %+v", p.Readers)
	}
}

// The tables below hold a whole file and everything that is to be said of it, at once and in order;
// FILE stands for its path.
func TestLoadReportsEverythingAtOnce(t *testing.T) {
	tests := map[string]struct{ file, want string }{
		"all kinds": {`
dta: /var/lib/curfew
api: {listen: 0.0.0.0:7433, url: http://curfew.example.com}
listeners:
  - engine: postgrs
    listen: 6432
    tls: {cert: c.pem}
issuers:
  - url: https://idp.example.com
    client_id: 7
    client_secret: hunter2
  - {url: "https://idp.example.com", client_id: x, scopes: openid}
refresh: 300
recording: {durability: tape}
targets:
  Orders:
    url: postgres://broker:hunter2@db/orders
    pasword: env:X
  db2: {url: oracle://db2}
node: a
node: b
`, `
FILE:2: dta: unknown key: did you mean "data"?
FILE:2: data: is missing
FILE:3: api.listen: 0.0.0.0:7433 is not loopback, so tls: {cert: …, key: …} is required beside it
FILE:3: api.url: "http://curfew.example.com" sends secrets in clear: https:// is required off loopback
FILE:5: listeners[0].engine: engine "postgrs" is unknown: did you mean "postgres"?
FILE:6: listeners[0].listen: must be text, not 6432: put it in quotes
FILE:7: listeners[0].tls.key: is missing
FILE:10: issuers[0].client_id: must be text, not 7: put it in quotes
FILE:11: issuers[0].client_secret: a secret does not belong in this file: write file:/path or env:NAME
FILE:12: issuers[1].scopes: must be a list, not a single value
FILE:12: issuers[1].url: an issuer with this URL is there already
FILE:13: refresh: a duration needs a unit: 300s, 300m or 300h
FILE:14: recording.durability: "tape" is unknown: process or disk
FILE:16: targets.Orders: a target's name is small letters, digits, - and _, at most 63
FILE:17: targets.Orders.url: a password does not belong in this file: remove it, and write password: file:/path or env:NAME beside the url
FILE:18: targets.Orders.pasword: unknown key: did you mean "password"?
FILE:19: targets.db2.url: names no user: write oracle://broker@db2
FILE:19: targets.db2.url: engine "oracle" is unknown: known here: mysql, postgres
FILE:21: node: is there twice: first on line 20
`},
		"empty":                 {"", "FILE:1: the file is empty\n"},
		"nothing but a comment": {"# later\n", "FILE:1: the file is empty\n"},
		"not yaml":              {"data: [\n", "FILE:1: not YAML: did not find expected node content\n"},
		"not a mapping":         {"- a\n", "FILE:1: must be a mapping of keys to values, not a list\n"},
		"two documents":         {good + "---\nnode: x\n", "FILE:16: a second document: one file holds one document\n"},
		"empty parts": {`
data: /d
listeners: []
issuers:
targets: {}
`, `
FILE:3: listeners: is empty: at least one is needed
FILE:4: issuers: has no value: give one, or remove the key
FILE:5: targets: is empty: at least one is needed
`},
		"listeners and targets": {`
data: /d
issuers: [{url: https://idp.example.com, client_id: x}]
listeners:
  - {engine: mysql, listen: 127.0.0.1:7306}
  - {engine: mysql, listen: 127.0.0.1:7307, target: shpo}
  - {engine: mysql, listen: 127.0.0.1:7308, target: orders}
  - {engine: postgres, listen: 127.0.0.1:6432, target: ""}
targets:
  shop: {url: mysql://broker@db/shop}
  baskets: {url: mariadb://broker@db/baskets}
  orders: {url: postgres://broker@db/orders}
`, `
FILE:5: listeners[0].target: is missing: with mysql a listener serves one target, since the server speaks first: known here: baskets, shop
FILE:6: listeners[1].target: no such target: did you mean "shop"?
FILE:7: listeners[2].target: the target orders is of the engine postgres, and this listener of mysql
FILE:8: listeners[3].target: is empty: give a value, or remove the key
`},
		"targets without a listener": {`
data: /d
issuers: [{url: https://idp.example.com, client_id: x}]
listeners:
  - {engine: mysql, listen: 127.0.0.1:7306, target: shop}
  - {engine: postgres, listen: 127.0.0.1:6432, target: orders}
targets:
  shop: {url: mysql://broker@db/shop}
  baskets: {url: mysql://broker@db/baskets}
  orders: {url: postgres://broker@db/orders}
  stock: {url: postgres://broker@db/stock}
`, `
FILE:9: targets.baskets: no listener serves it: add - {engine: mysql, target: baskets, listen: host:port} to listeners
FILE:11: targets.stock: no listener serves it: add - {engine: postgres, listen: host:port} to listeners
`},
		"limits": {good + "limits:\n  strangers: -1\n  per_address: -2\n", `
FILE:17: limits.strangers: must not be negative
FILE:18: limits.per_address: must not be negative
`},
		"more from one than from all": {good + "limits: {per_address: 300}\n", "FILE:16: limits.per_address: is more than the 256 that there are for everybody (limits.strangers)\n"},
		"ops in clear":                {good + "ops:\n  listen: 0.0.0.0:7434\n", "FILE:17: ops.listen: 0.0.0.0:7434 is not loopback, so tls: {cert: …, key: …} is required beside it, or insecure: true on a network that may read it\n"},
		"ops in clear and not": {good + "ops:\n  insecure: true\n  tls: {cert: a, key: b}\n  listn: x\n", `
FILE:17: ops.insecure: insecure: true beside tls: remove one of them
FILE:19: ops.listn: unknown key: did you mean "listen"?
`},
		"aliases": {good + "node: &n x\n", "FILE:16: node: YAML anchors and aliases are not allowed: write the value out\n"},
		"unreadable url": {strings.Replace(good, "postgresql://broker@", "postgres://broker:hunter2%zz@", 1),
			"FILE:10: targets.orders.url: is not a URL: write engine://broker@host:port/database\n"},
		"secret of a wrong type": {strings.Replace(good, "env:BROKER", "[hunter2]", 1),
			"FILE:11: targets.orders.password: must be a single value, not a list\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := write(t, "curfew.yaml", tt.file)
			_, err := readConfig(path, kinds)
			same(t, path, tt.want, err)
		})
	}
}

func TestLoadPolicyReportsEverythingAtOnce(t *testing.T) {
	c, err := readConfig(write(t, "curfew.yaml", good), kinds)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "policy.yaml", `
targets:
  order:
    levels:
      writer: {roles: [curfew_quarantine], set_role: yes, sessions: -1}
      reader: {role: [x], local_infile: 1, idle: 30}
      hasty: {roles: [x], idle: 999ms}
      back: {roles: [x], idle: -1m}
rules:
  - name: a
    who: {}
    targets: [ordres]
    levels: [writr]
    longest: 1hour
    reason: maybe
    approvals: {count: 1}
  - name: a
    who: {groups: [x], anyone: true}
    labels: {enw: prod}
    levels: []
    longest: 0
    approvals: {count: two, from: {}}
  - {name: b, who: {anyone: true}, targets: [order], levels: [readr], approvals: {count: -1}}
  - {name: c, who: {anyone: true}, levels: [x], longest: 1h}
readers:
  - who: {groups: []}
    targets: [nowhere]
`)
	_, err = LoadPolicy(path, c.Targets)
	same(t, path, `
FILE:3: targets.order: no such target in the configuration: did you mean "orders"?
FILE:5: targets.order.levels.writer.set_role: must be true or false, not "yes"
FILE:5: targets.order.levels.writer.roles[0]: "curfew_quarantine": roles named curfew_… are Curfew's own
FILE:5: targets.order.levels.writer.sessions: must not be negative
FILE:6: targets.order.levels.reader.role: unknown key: did you mean "roles"?
FILE:6: targets.order.levels.reader.local_infile: must be true or false, not "1"
FILE:6: targets.order.levels.reader.idle: a duration needs a unit: 30s, 30m or 30h
FILE:6: targets.order.levels.reader.roles: is missing
FILE:7: targets.order.levels.hasty.idle: 999ms is too short: a second at least, or 0 for as long as the grant lasts
FILE:8: targets.order.levels.back.idle: must be longer than nothing
FILE:11: rules[0].who: selects nobody: name groups, emails, subjects or issuers, or write anyone: true
FILE:12: rules[0].targets[0]: no target "ordres" in this policy: did you mean "order"?
FILE:14: rules[0].longest: "1hour" is not a duration: write it like 30m or 1h30m
FILE:15: rules[0].reason: "maybe" is unknown: required or optional
FILE:16: rules[0].approvals.from: is missing: who may approve?
FILE:17: rules[1].name: a rule named "a" is there already
FILE:18: rules[1].who.anyone: anyone: true beside a narrower selection: remove one of them
FILE:19: rules[1].labels.enw: no target has a label "enw": did you mean "env"?
FILE:20: rules[1].levels: is empty: name an access level
FILE:21: rules[1].longest: must be longer than nothing
FILE:22: rules[1].approvals.count: must be a whole number, not "two"
FILE:23: rules[2].longest: is missing
FILE:23: rules[2].levels[0]: target "order" has no level "readr": did you mean "reader"?
FILE:23: rules[2].approvals.count: must not be negative
FILE:24: rules[3].approvals: is missing
FILE:24: rules[3]: names no target: add targets: [name] or labels: {key: value}
FILE:26: readers[0].who: selects nobody: name groups, emails, subjects or issuers, or write anyone: true
FILE:27: readers[0].targets[0]: no target "nowhere" in this policy: known here: order
`, err)
}

func TestLoadReportsBothFiles(t *testing.T) {
	path := write(t, "curfew.yaml", good+"nod: x\n")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "policy.yaml"), []byte("rule: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Load(path, kinds)
	var es *Errors
	if !errors.As(err, &es) || !strings.Contains(err.Error(), "curfew.yaml:16: nod: unknown key") ||
		!strings.Contains(err.Error(), "policy.yaml:1: rule: unknown key") {
		t.Errorf("got %v", err)
	}
}

func TestMissingFileIsAProblemToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "curfew.yaml")
	_, _, err := Load(path, kinds)
	same(t, path, "FILE: can't be read: no such file or directory\n", err)
}

func TestSecret(t *testing.T) {
	path := write(t, "secret", "hunter2\n")
	t.Setenv("CURFEW_TEST_SECRET", "hunter3")
	t.Setenv("CURFEW_TEST_EMPTY", "")
	for ref, want := range map[string]string{"file:" + path: "hunter2", "env:CURFEW_TEST_SECRET": "hunter3", "": ""} {
		if got, err := Secret(ref); err != nil || got != want {
			t.Errorf("Secret(%q) = %q, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"hunter2", "file:", "env:CURFEW_TEST_NONE", "env:CURFEW_TEST_EMPTY", "file:/nowhere", "http://hunter2"} {
		if _, err := Secret(ref); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Secret(%q): %v", ref, err)
		}
	}
}

func same(t *testing.T, path, want string, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	var es *Errors
	if !errors.As(err, &es) {
		t.Fatalf("a %T", err)
	}
	got := strings.ReplaceAll(err.Error(), path, "FILE") + "\n"
	if strings.Contains(got, "hunter2") {
		t.Error("a secret is shown")
	}
	if want = strings.TrimPrefix(want, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The example that docker-compose.yml mounts must load, and what it tells people must be published there.
func TestDeployedExampleLoads(t *testing.T) {
	root := filepath.Join("..", "..")
	c, p, err := Load(filepath.Join(root, "deploy", "curfew.yaml"), kinds)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules) == 0 || c.Targets["orders"].Engine != "postgres" || c.Targets["shop"].Engine != "mysql" || len(p.Targets) != len(c.Targets) {
		t.Errorf("%+v", p)
	}
	compose, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range c.Listeners {
		_, port, _ := strings.Cut(l.Address, ":")
		if l.TLS == nil || l.TLS.CA == "" || !strings.HasSuffix(l.Listen, ":"+port) || !strings.Contains(string(compose), "127.0.0.1:"+port+":"+port) {
			t.Errorf("%+v is not as docker-compose.yml publishes it", l)
		}
	}
	setup, err := os.ReadFile(filepath.Join(root, "deploy", "setup.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range c.Targets {
		if secret := strings.TrimSuffix(filepath.Base(target.Password), ".password"); !strings.Contains(string(setup), "\npassword "+secret+" 65532:") {
			t.Errorf("deploy/setup.sh makes no password %s for the target %s", secret, name)
		}
	}
}

// readConfig reads curfew.yaml alone.
func readConfig(path string, engines Engines) (*Config, error) {
	c, problems := load(path, engines)
	if err := wrong(problems); err != nil {
		return nil, err
	}
	return c, nil
}
