package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/curfewdb/curfew/internal/config"
)

// deployed gives a file that operators take from this repository.
func deployed(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// offlineHouse is a Curfew whose databases and provider are not there.
func offlineHouse(t *testing.T, extra string) *house {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"curfew.yaml": `data: .
api: {listen: "127.0.0.1:0"}
listeners: [{engine: postgres, listen: "127.0.0.1:0"}, {engine: mysql, target: shop, listen: "127.0.0.1:0"}]
issuers: [{url: "http://127.0.0.1:1", client_id: curfew}]
targets:
  orders: {url: "postgres://broker@127.0.0.1:1/orders?sslmode=disable"}
  shop: {url: "mysql://broker@127.0.0.1:1/shop?sslmode=disable"}
anchors: [{file: anchors}]
` + extra,
		"policy.yaml": `targets: {orders: {levels: {reader: {roles: [r]}}}, shop: {levels: {reader: {roles: [r]}}}}
rules: [{name: a, who: {anyone: true}, targets: ["*"], levels: [reader], longest: 1h, approvals: {count: 0}}]
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, pol, err := config.Load(filepath.Join(dir, "curfew.yaml"), engineWords())
	if err != nil {
		t.Fatal(err)
	}
	h, err := build(t.Context(), cfg, pol, serveOptions{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

var (
	descName   = regexp.MustCompile(`fqName: "([^"]+)"`)
	descLabels = regexp.MustCompile(`variableLabels: \{([^}]*)\}`)
	descConst  = regexp.MustCompile(`constLabels: \{([^}]*)\}`)
)

// exposed gives every series that /metrics may have, with its labels.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	h := offlineHouse(t, "")
	ch := make(chan *prometheus.Desc, 1000)
	h.metrics.Describe(ch)
	close(ch)
	all := map[string][]string{}
	for d := range ch {
		name := descName.FindStringSubmatch(d.String())[1]
		var labels []string
		for _, l := range strings.Split(descLabels.FindStringSubmatch(d.String())[1], ",") {
			labels = append(labels, strings.TrimSpace(l))
		}
		for _, l := range strings.Split(descConst.FindStringSubmatch(d.String())[1], ",") {
			name, _, _ := strings.Cut(l, "=")
			labels = append(labels, name)
		}
		all[name] = labels
	}
	families, err := h.metrics.Gather() // those of Go and the process tell their names only so
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetType().String() == "HISTOGRAM" {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				all[f.GetName()+part] = append([]string{"le"}, all[f.GetName()]...)
			}
		} else if _, known := all[f.GetName()]; !known {
			all[f.GetName()] = nil
		}
	}
	return all
}

var (
	selector = regexp.MustCompile(`\b((?:curfew|process|go)_[a-z0-9_]+)(\{[^}]*\})?`)
	label    = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
	grouping = regexp.MustCompile(`\b(?:by|without)\s*\(([^)]*)\)`)
)

// Every series that an alert or a panel asks for is one that Curfew tells, with the labels it has: one that
// isn't never fires.
func TestDashboardAndAlertsAskForWhatThereIs(t *testing.T) {
	series := exposed(t)
	everywhere := []string{"instance", "job"} // Prometheus adds them
	check := func(what, expr string) {
		found := selector.FindAllStringSubmatch(expr, -1)
		if len(found) == 0 && !strings.HasPrefix(expr, "up{") {
			t.Errorf("%s asks for nothing: %s", what, expr)
		}
		known := slices.Clone(everywhere)
		for _, m := range found {
			labels, there := series[m[1]]
			if !there {
				t.Errorf("%s asks for %s, which there is not", what, m[1])
			}
			known = append(known, labels...)
			for _, l := range label.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(labels, l[1]) && !slices.Contains(everywhere, l[1]) {
					t.Errorf("%s: %s has no label %s", what, m[1], l[1])
				}
			}
		}
		for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
			for _, l := range strings.Split(g[1], ",") {
				if !slices.Contains(known, strings.TrimSpace(l)) {
					t.Errorf("%s groups by %s, which nothing has: %s", what, l, expr)
				}
			}
		}
	}
	for _, r := range alerts(t) {
		check(r.Alert, r.Expr)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(deployed(t, "deploy", "grafana", "curfew.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	panels := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			panels++
			check("panel "+p.Title, target.Expr)
		}
	}
	if panels < 20 {
		t.Errorf("%d queries in the dashboard", panels)
	}
}

type alert struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal([]byte(deployed(t, "deploy", "prometheus", "curfew.rules.yml")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) < 15 {
		t.Fatalf("%+v", file)
	}
	return file.Groups[0].Rules
}

// Each alert says what it means where its link leads, and what to do.
func TestEachAlertHasItsParagraph(t *testing.T) {
	manual := deployed(t, "docs", "OPERATIONS.md")
	for _, a := range alerts(t) {
		heading := "\n### " + a.Alert + "\n"
		_, paragraph, there := strings.Cut(manual, heading)
		if !there {
			t.Errorf("docs/OPERATIONS.md has no%s", heading)
			continue
		}
		paragraph, _, _ = strings.Cut(paragraph, "\n#")
		for _, word := range []string{"*Means*", "*Look at*", "*Do*"} {
			if !strings.Contains(paragraph, word) {
				t.Errorf("%s: no %s in %q", a.Alert, word, paragraph)
			}
		}
		if link := a.Annotations["runbook_url"]; !strings.HasSuffix(link, "/docs/OPERATIONS.md#"+strings.ToLower(a.Alert)) {
			t.Errorf("%s leads to %s", a.Alert, link)
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" || !slices.Contains([]string{"page", "ticket"}, a.Labels["severity"]) {
			t.Errorf("%+v", a)
		}
	}
}

// Prometheus' own tool agrees with the rules, and with when they fire.
func TestAlertsFire(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	switch {
	case err == nil:
	case os.Getenv("CI") != "": // .ci/deps installs it
		t.Fatal("promtool is not installed")
	default:
		t.Skip("promtool is not installed")
	}
	for _, args := range [][]string{{"check", "rules", "curfew.rules.yml"}, {"test", "rules", "curfew.rules_test.yml"}} {
		c := exec.CommandContext(t.Context(), promtool, args...)
		c.Dir = filepath.Join("..", "..", "deploy", "prometheus")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
