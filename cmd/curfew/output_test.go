package main

import (
	"context"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/protocol"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode 日本 😀":     "plain ünïcode 日本 😀",
		"\x1b[31mred":            `\x1b[31mred`,
		"a\x00b\x7f\u0085\u009b": `a\x00b\x7f\x85\x9b`,
		"two\nlines\r\tx":        `two\nlines\r\tx`,
		"\u202egnp.exe":          `\u202egnp.exe`,
		"\u2066\u200f\u200b":     `\u2066\u200f\u200b`,
		"bad \xff\xc3":           `bad \xff\xc3`,
		"\u2028":                 `\u2028`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := visibleLines("a\nb\x1b"); got != "a\nb\\x1b" {
		t.Errorf("%q", got)
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("a\x1b[2J\u202e\xff\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := visible(s)
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
				t.Fatalf("%q has %U", got, r)
			}
		}
		if visible(got) != got {
			t.Fatalf("%q changes again", got)
		}
	})
}

func TestTableFits(t *testing.T) {
	a := &app{env: func(string) string { return "" }}
	widths := []int{11, 20, 100, 16}
	fit(widths, 60, 2)
	total := 2 * 3
	for _, n := range widths {
		total += n
	}
	if total > 60 {
		t.Errorf("%v needs %d columns", widths, total)
	}
	if widths[0] != 11 || widths[3] != 16 {
		t.Errorf("an id or a time was cut while text could give way: %v", widths)
	}
	if got := clip("日本語の理由", 6); cells(got) > 6 || !strings.HasSuffix(got, "…") {
		t.Errorf("%q has %d columns", got, cells(got))
	}
	var b strings.Builder // no terminal: nothing is cut
	a.table(&b, []string{"A", "B"}, [][]string{{"x\x1b", strings.Repeat("long ", 60)}, {"日本", "y"}}, 1)
	if !strings.Contains(b.String(), strings.TrimSpace(strings.Repeat("long ", 60))) || strings.Contains(b.String(), "\x1b") {
		t.Errorf("%q", b.String())
	}
	if !strings.Contains(b.String(), "\n日本   y\n") {
		t.Errorf("columns don't line up: %q", b.String())
	}
}

func TestWhen(t *testing.T) {
	now := time.Date(2026, 3, 1, 14, 0, 0, 0, time.Local)
	a := &app{now: func() time.Time { return now }}
	for d, want := range map[time.Duration]string{
		0: "14:00:00 (now)", 20 * time.Second: "14:00:20 (in 20s)", 90 * time.Minute: "15:30:00 (in 1h30m)",
		-5 * time.Minute: "13:55:00 (5m ago)", 26 * time.Hour: "2026-03-02 16:00 (in 1d2h)",
		-48 * time.Hour: "2026-02-27 14:00 (2d ago)",
	} {
		if got := a.when(now.Add(d)); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if a.when(time.Time{}) != "" {
		t.Error("no time is shown as a time")
	}
}

// TestEveryCommandHelps: --help of each says what it is for and shows how it is used.
func TestEveryCommandHelps(t *testing.T) {
	a := &app{env: func(string) string { return "" }, inspect: func(context.Context, string, []string) (checkReport, error) { return checkReport{}, nil }}
	root := a.newRoot()
	names := map[string]bool{}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		names[c.Name()] = true
		if c.Long == "" || c.Example == "" || c.Short == "" {
			t.Errorf("%s lacks a description or an example", c.CommandPath())
		}
		for line := range strings.Lines(c.Long) {
			if len(line) > 101 {
				t.Errorf("%s: a line of %d characters: %s", c.CommandPath(), len(line), line)
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
	for _, want := range strings.Fields("login whoami logout targets request requests approve deny cancel grants release revoke connect credentials sessions replay export verify check version") {
		if !names[want] {
			t.Errorf("no command %s", want)
		}
	}
}

func TestShowCheck(t *testing.T) {
	r := checkReport{
		Config:   "curfew.yaml",
		Problems: []fileProblem{{File: "curfew.yaml", Line: 3, Key: "api.listen", Message: "is missing"}},
		Targets: []targetReport{
			{Target: "orders", Findings: []protocol.Finding{{Severity: "error", What: "the broker lacks CREATEROLE", Fix: "ALTER ROLE b CREATEROLE;\nSELECT 1;"}}, Setup: "CREATE ROLE b;"},
			{Target: "billing", Error: "no route\x1b[2J"}, {Target: "stock"},
		},
	}
	var b, notes strings.Builder
	showCheck(&b, &notes, r)
	want := `curfew.yaml:3: api.listen: is missing
orders:
  error    the broker lacks CREATEROLE
           ALTER ROLE b CREATEROLE;
           SELECT 1;
billing: can't be checked: no route\x1b[2J
stock: good
The SQL that sets all of it up: curfew check --print-setup TARGET
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
	if r.ok() || !(checkReport{Targets: []targetReport{{Target: "stock", Findings: []protocol.Finding{{Severity: "warning"}}}}}).ok() {
		t.Error("ok is wrong")
	}
	b.Reset()
	showSetup(&b, &notes, r)
	if !strings.HasPrefix(b.String(), "-- target orders\nCREATE ROLE b;\n") || !strings.Contains(notes.String(), "is missing") {
		t.Errorf("%q %q", b.String(), notes.String())
	}
}
