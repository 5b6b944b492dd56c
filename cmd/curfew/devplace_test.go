package main

import (
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/internal/config"
)

// devFor plays a start of curfew dev up to the databases, which are taken as set up.
func devFor(t *testing.T, dir string, f devFlags) (*devHome, error) {
	t.Helper()
	d := &devHome{dir: dir, Targets: map[string]string{}, Listeners: map[string]string{}}
	if err := d.load(); err != nil {
		t.Fatal(err)
	}
	asked, err := parseTargets(f.targets)
	if err != nil {
		return nil, err
	}
	if err := d.addresses(f, asked); err != nil {
		return nil, err
	}
	if err := d.certificate(); err != nil {
		t.Fatal(err)
	}
	for _, a := range asked {
		d.Targets[a.name] = a.url
	}
	if err := d.write(); err != nil {
		t.Fatal(err)
	}
	return d, nil
}

// Each target whose server speaks first has a listener and a port of its own, the others share one; both
// are the same at the next start. What is written is a configuration that serve takes.
func TestDevGivesEachTargetItsPlace(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0") // somebody else's
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	flags := devFlags{api: "127.0.0.1:17433", listen: []string{"127.0.0.1:16432", "shop=127.0.0.2:17306"}, targets: []string{
		"orders=postgres://a@localhost/orders", "stock=postgresql://a@localhost/stock", "shop=mysql://a@localhost/shop", "baskets=mariadb://a@localhost/b"}}
	d, err := devFor(t, dir, flags)
	if err != nil {
		t.Fatal(err)
	}
	if d.Listeners["postgres"] != "127.0.0.1:16432" || d.Listeners["mysql/shop"] != "127.0.0.2:17306" || len(d.Listeners) != 3 ||
		!strings.HasPrefix(d.Listeners["mysql/baskets"], "127.0.0.1:73") {
		t.Errorf("%v", d.Listeners)
	}
	again, err := devFor(t, dir, devFlags{})
	if err != nil || !maps.Equal(again.Listeners, d.Listeners) || again.API != flags.api {
		t.Errorf("%v, %v", again, err)
	}
	served := again.served()
	if served["stock"] != served["orders"] || served["shop"] != "127.0.0.2:17306" || len(served) != 4 {
		t.Errorf("%v", served)
	}
	c, p, err := config.Load(d.path("curfew.yaml"), engineWords())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Listeners) != 3 || len(p.Targets) != 4 || c.Targets["baskets"].Engine != "mysql" {
		t.Errorf("%+v", c.Listeners)
	}
	info, err := (&house{cfg: c}).targetInfo()
	if err != nil {
		t.Fatal(err)
	}
	if info["shop"].Host != "127.0.0.2" || info["shop"].Port != 17306 || info["stock"].Port != 16432 || info["shop"].Database != "shop" ||
		info["shop"].SSLMode != "verify-full" || info["shop"].CA == "" {
		t.Errorf("%+v", info)
	}
	if d.certified([]string{"127.0.0.3"}) || !d.certified([]string{"127.0.0.1", "127.0.0.2", "localhost"}) {
		t.Error("the certificate is for other hosts than those that are served")
	}
	before, err := os.ReadFile(d.path("tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	moved, err := devFor(t, dir, devFlags{listen: []string{"shop=127.0.0.3:17306"}})
	if err != nil || moved.Listeners["mysql/shop"] != "127.0.0.3:17306" || moved.Listeners["postgres"] != d.Listeners["postgres"] {
		t.Errorf("%v, %v", moved, err)
	}
	if after, err := os.ReadFile(d.path("tls.crt")); err != nil || string(after) == string(before) {
		t.Error("a host that the certificate doesn't have is served with it")
	}
}

func TestDevTakesTheNextFreePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	addr, err := nextFree(port, nil)
	if err != nil || addr == l.Addr().String() {
		t.Errorf("%s, %v", addr, err)
	}
	if next, err := nextFree(port, []string{addr}); err != nil || next == addr {
		t.Errorf("%s, %v", next, err)
	}
}

// Mistakes are told with what to write instead, and never with a password.
func TestDevMistakes(t *testing.T) {
	pg, my := "orders=postgres://a:hunter2@localhost/orders", "shop=mysql://a:hunter2@localhost/shop"
	for want, f := range map[string]devFlags{
		"--target is not NAME=URL":                                     {targets: []string{"postgres://a:hunter2@localhost/orders?"}},
		`"Orders" can't name a target`:                                 {targets: []string{"Orders=" + pg[7:]}},
		"the URL of the target x is not one, or names no user":         {targets: []string{"x=mysql://localhost/x"}},
		"oracle:// is no database that Curfew knows":                   {targets: []string{"x=oracle://a:hunter2@localhost/x"}},
		"there is no target orders with a listener of its own":         {targets: []string{pg}, listen: []string{"orders=127.0.0.1:1"}},
		"every target here has a listener of its own, none of them at": {targets: []string{my}, listen: []string{"127.0.0.1:1"}},
		"there is one for that already":                                {targets: []string{my}, listen: []string{"shop=127.0.0.1:1", "shop=127.0.0.1:2"}},
		"curfew dev does not listen on 0.0.0.0:7306":                   {targets: []string{my}, listen: []string{"shop=0.0.0.0:7306"}},
	} {
		_, err := devFor(t, t.TempDir(), f)
		if err == nil {
			t.Errorf("no error: %s", want)
			continue
		}
		_, p := (&app{}).explain(nil, err, false)
		if !strings.Contains(p.Detail, want) || p.Next == "" || strings.Contains(p.Detail+p.Next, "hunter2") {
			t.Errorf("%s; next: %s", p.Detail, p.Next)
		}
	}
}

// A listener of a target's own goes before one that serves others too, wherever they stand.
func TestTargetsOwnListenerFirst(t *testing.T) {
	shared, own := config.Listener{Engine: "e", Address: "s:1"}, config.Listener{Engine: "e", Target: "orders", Address: "o:2"}
	other := config.Listener{Engine: "f", Address: "f:3"}
	for _, listeners := range [][]config.Listener{{other, shared, own}, {own, other, shared}} {
		cfg := &config.Config{Listeners: listeners, Targets: map[string]config.Target{"orders": {Engine: "e"}, "stock": {Engine: "e"}, "x": {Engine: "g"}}}
		if got := listenersOf(cfg, "orders"); len(got) != 2 || got[0] != own {
			t.Errorf("orders: %+v", got)
		}
		if got := listenersOf(cfg, "stock"); !slices.Equal(got, []config.Listener{shared}) {
			t.Errorf("stock: %+v", got)
		}
		if got := listenersOf(cfg, "x"); len(got) != 0 {
			t.Errorf("x: %+v", got)
		}
	}
}
