package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/internal/config"
)

// manuals gives what people read about Curfew, by path.
func manuals(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	texts := map[string]string{}
	for _, file := range append(files, filepath.Join("..", "..", "README.md")) {
		path, err := filepath.Rel(filepath.Join("..", ".."), file)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = deployed(t, path)
	}
	return texts
}

var (
	fenced = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```$")
	coded  = regexp.MustCompile("`([^`]+)`")
	spoken = regexp.MustCompile(`^(?:\$ |sudo |[A-Z_]+=\S+ )*curfew (.+)$`)
	word   = regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`)
)

// commandLines gives the command lines of Curfew that a text shows: those in blocks are told to be run as they are.
func commandLines(text string) (run, named []string) {
	for _, block := range fenced.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[2], "\\\n", " ")) {
			if m := spoken.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				run = append(run, m[1])
			}
		}
	}
	prose := strings.ReplaceAll(fenced.ReplaceAllString(text, ""), "\n", " ")
	for _, s := range coded.FindAllStringSubmatch(prose, -1) {
		if m := spoken.FindStringSubmatch(s[1]); m != nil {
			named = append(named, m[1])
		}
	}
	return run, named
}

// commandOf finds the command of a line, and parses its flags.
func commandOf(line string) (c *cobra.Command, args []string, err error) {
	a := &app{env: func(string) string { return "" }, inspect: func(context.Context, string, []string) (checkReport, error) { return checkReport{}, nil }}
	var words []string
	for _, w := range word.FindAllString(line, -1) {
		if w == "#" || w == "|" || w == "&&" || w == ">" {
			break
		}
		words = append(words, strings.Trim(w, `"'`))
	}
	c, rest, err := a.newRoot().Find(words)
	if err != nil {
		return nil, nil, err
	}
	c.InitDefaultHelpFlag()
	rest = slices.DeleteFunc(rest, func(w string) bool { return w == "…" })
	if n := len(rest); n > 0 && strings.HasPrefix(rest[n-1], "--") && !strings.Contains(rest[n-1], "=") {
		if f := c.Flag(strings.TrimPrefix(rest[n-1], "--")); f != nil && f.NoOptDefVal == "" {
			rest = append(rest, map[string]string{"duration": "1h", "int": "1"}[f.Value.Type()]) // named without a value
		}
	}
	err = c.ParseFlags(rest)
	return c, c.Flags().Args(), err
}

// TestManualsNameCommandsThatThereAre: whoever types what the manuals show is not told that the command line is wrong.
func TestManualsNameCommandsThatThereAre(t *testing.T) {
	count := 0
	for path, text := range manuals(t) {
		run, named := commandLines(text)
		count += len(run) + len(named)
		for _, line := range run {
			c, args, err := commandOf(line)
			if err == nil {
				err = c.ValidateArgs(args)
			}
			if err == nil && !c.Runnable() {
				err = os.ErrInvalid
			}
			if err != nil {
				t.Errorf("%s has people run curfew %s: %v", path, line, err)
			}
		}
		for _, line := range named {
			if c, args, err := commandOf(line); err != nil || !c.Runnable() && len(args) > 0 {
				t.Errorf("%s names curfew %s: %v", path, line, err)
			}
		}
	}
	if count < 100 {
		t.Errorf("%d command lines were found", count)
	}
}

// TestManualNamesMetricsAndAlerts: what operators are told to look at is there, and every alert that is spoken of.
func TestManualNamesMetricsAndAlerts(t *testing.T) {
	manual := deployed(t, "docs", "OPERATIONS.md")
	series := exposed(t)
	for _, name := range regexp.MustCompile(`\b(?:curfew|go|process)_[a-z0-9_]+`).FindAllString(manual, -1) {
		if _, there := series[name]; !there && !slices.Contains([]string{"curfew_broker", "curfew_quarantine"}, name) {
			t.Errorf("docs/OPERATIONS.md names %s, which there is not", name)
		}
	}
	var known []string
	for _, a := range alerts(t) {
		known = append(known, a.Alert)
	}
	for _, name := range regexp.MustCompile(`\bCurfew[A-Z][A-Za-z]+`).FindAllString(manual, -1) {
		if !slices.Contains(known, name) {
			t.Errorf("docs/OPERATIONS.md speaks of %s, which is no alert", name)
		}
	}
	for _, c := range []string{checkStarted, checkAccepting, checkRecordings, checkStore, "target:NAME"} {
		if row := regexp.MustCompile("(?m)^\\| `/readyz` \\|.*$").FindString(manual); !strings.Contains(row, "`"+c+"`") {
			t.Errorf("docs/OPERATIONS.md, /readyz: no word of %s", c)
		}
	}
}

// TestManualNamesLedgerEntries: the entries that somebody should see are some that the ledger has.
func TestManualNamesLedgerEntries(t *testing.T) {
	manual, source := deployed(t, "docs", "OPERATIONS.md"), deployed(t, "recorder", "ledger", "entry.go")
	var types []string
	for _, m := range regexp.MustCompile(`(?m)^\tType\w+ += "([a-z_.]+)"`).FindAllStringSubmatch(source, -1) {
		types = append(types, m[1])
	}
	_, table, _ := strings.Cut(manual, "\n### On the ledger\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `([a-z_.]+)`").FindAllStringSubmatch(table, -1)
	if len(types) < 20 || len(rows) < 8 {
		t.Fatalf("%d types, %d rows", len(types), len(rows))
	}
	for _, row := range rows {
		if !slices.Contains(types, row[1]) {
			t.Errorf("docs/OPERATIONS.md: the ledger has no %s", row[1])
		}
	}
}

// TestManualsExamplesHaveKeysThatThereAre: what is shown of curfew.yaml can be copied.
func TestManualsExamplesHaveKeysThatThereAre(t *testing.T) {
	examples := 0
	for _, block := range fenced.FindAllStringSubmatch(deployed(t, "docs", "OPERATIONS.md"), -1) {
		if block[1] != "yaml" {
			continue
		}
		examples++
		file := filepath.Join(t.TempDir(), "curfew.yaml")
		if err := os.WriteFile(file, []byte(block[2]), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := config.Load(file, engineWords()) // fails in any case: an example is not the whole
		var problems *config.Errors
		if !errors.As(err, &problems) || len(problems.Problems) == 0 {
			t.Fatal(err)
		}
		for _, p := range problems.Problems {
			if strings.Contains(p.Message, "unknown") {
				t.Errorf("%s: %s in\n%s", p.Key, p.Message, block[2])
			}
		}
	}
	if examples < 4 {
		t.Errorf("%d examples", examples)
	}
}

// TestManualsLinksLead: to a heading or a file that there is, as do the paths of what operators take from here.
func TestManualsLinksLead(t *testing.T) {
	texts := manuals(t)
	headings := map[string][]string{}
	for path, text := range texts {
		for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			kept := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(h[1]), "")
			headings[path] = append(headings[path], strings.ReplaceAll(kept, " ", "-"))
		}
	}
	there := func(path string) bool {
		_, err := os.Stat(filepath.Join("..", "..", path))
		return err == nil
	}
	for path, text := range texts {
		text = fenced.ReplaceAllString(text, "")
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, within := strings.Cut(m[1], "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			if !there(to) || within && !slices.Contains(headings[to], anchor) {
				t.Errorf("%s: a link to %s leads nowhere", path, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`(deploy/[A-Za-z0-9_./-]+)`").FindAllStringSubmatch(text, -1) {
			if !there(m[1]) {
				t.Errorf("%s: there is no %s", path, m[1])
			}
		}
	}
}
