package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/protocol"
)

// What a kind leaves out would be missed only when somebody gets there.
func TestEveryKindIsWhole(t *testing.T) {
	ports := map[int]string{}
	for name, k := range engines() {
		if k.NewFront == nil || k.New == nil || k.Client.Run == nil || k.Client.Print == nil || len(k.Client.Programs) == 0 || k.Client.Install == "" {
			t.Errorf("%s: %+v", name, k)
		}
		trial := k.Trial
		if trial.Admin == nil || trial.Starter == nil || trial.Apply == nil || trial.BrokerURL == nil || ports[trial.Port] != "" {
			t.Errorf("%s: %+v", name, trial)
		}
		ports[trial.Port] = name
		if u, err := url.Parse(trial.Example); err != nil || u.Scheme != name || !config.IsTargetName(strings.Trim(u.Path, "/")) {
			t.Errorf("%s: example %q", name, trial.Example)
		}
		for _, scheme := range append([]string{name}, k.Aliases...) {
			if got, _, ok := engineOfURL(scheme); !ok || got != name {
				t.Errorf("%s:// is %q", scheme, got)
			}
		}
		if len(k.Client.Formats) == 0 || k.Client.Formats[0] != "dsn" {
			t.Errorf("%s: the default of credentials is %q", name, k.Client.Formats)
		}
		// Each form is another, holds the password once, and ends a line.
		c, seen := protocol.Credentials{Host: "h", Port: 1, User: "u", Password: "hunter2", Database: "d", TLS: protocol.TLSVerify}, map[string]bool{}
		for _, f := range k.Client.Formats {
			text := k.Client.Print(c, f)
			if seen[text] || strings.Count(text, "hunter2") != 1 || !strings.HasSuffix(text, "\n") {
				t.Errorf("%s, %s: %q", name, f, text)
			}
			seen[text] = true
		}
		front, err := k.NewFront(protocol.ListenerConfig{})
		if (err == nil) == k.Pinned || (front == nil) != k.Pinned {
			t.Errorf("%s: a listener without a target of its own: %v", name, err)
		}
		if k.Pinned {
			if _, err := (&house{}).front(config.Listener{Engine: name}, nil, false); err == nil {
				t.Errorf("%s: a listener of nobody's", name)
			}
		}
	}
	if _, _, ok := engineOfURL("oracle"); ok {
		t.Error("oracle is known")
	}
}

// Check asks the targets that are named, or all of them, and says which there are when one isn't.
func TestCheckAsksTheTargetsThatAreNamed(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"curfew.yaml": `
data: data
issuers: [{url: "http://127.0.0.1:1", client_id: x}]
listeners:
  - {engine: postgres, listen: 127.0.0.1:6432}
  - {engine: mysql, target: shop, listen: 127.0.0.1:7306}
targets:
  orders: {url: "postgres://broker@127.0.0.1:1/orders?sslmode=disable"}
  shop: {url: "mysql://broker@127.0.0.1:1/shop?sslmode=disable"}
`, "policy.yaml": `
targets:
  orders: {levels: {reader: {roles: [orders_reader]}}}
  shop: {levels: {reader: {roles: [shop_reader]}}}
rules:
  - {name: r, who: {anyone: true}, targets: ["*"], levels: [reader], longest: 1h, approvals: {count: 0}}
`}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "curfew.yaml")
	for _, c := range []struct{ ask, want string }{{"", "orders shop"}, {"shop", "shop"}, {"shop orders", "shop orders"}} {
		r, err := inspectHouse(t.Context(), path, strings.Fields(c.ask))
		if err != nil || len(r.Problems) > 0 {
			t.Fatalf("%+v, %v", r.Problems, err)
		}
		var got []string
		for _, target := range r.Targets {
			got = append(got, target.Target)
			if target.ok() {
				t.Errorf("%s is good, and nothing listens there", target.Target)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("asked %q, got %q", c.ask, got)
		}
	}
	_, err := inspectHouse(t.Context(), path, []string{"shpo"})
	if _, p := (&app{}).explain(nil, err, false); p == nil || !strings.Contains(p.Detail, `has no target "shpo"`) || p.Next != "it has orders, shop" {
		t.Errorf("%+v", p)
	}
}
