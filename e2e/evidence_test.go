package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/protocol"
)

// exported gives the exported bundle of a scope as a directory.
func (s *town) exported(t testing.TB, scope ...string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "bundle.tar.zst")
	must(s.sam.Run(t.Context(), append([]string{"export", "--file", file}, scope...)...))(t)
	out := filepath.Join(dir, "bundle")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	tar := exec.CommandContext(t.Context(), "tar", "-x", "--zstd", "-f", file, "-C", out)
	must(harness.Run(tar))(t)
	if found := must(filepath.Glob(filepath.Join(out, "*", "bundle.json")))(t); len(found) == 1 {
		return filepath.Dir(found[0])
	}
	return out
}

// ledger gives the data of the entries of a type that are about a grant.
func (s *town) ledger(t testing.TB, kind, grant string) []string {
	t.Helper()
	text := must(os.ReadFile(filepath.Join(s.exported(t, "--grant", grant), "ledger.jsonl")))(t)
	var found []string
	for line := range bytes.Lines(text) {
		var e struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == kind && bytes.Contains(e.Data, []byte(`"`+grant+`"`)) {
			found = append(found, string(e.Data))
		}
	}
	return found
}

// recorded gives all the lines of a grant's recordings, decompressed by the stock zstd.
func (s *town) recorded(t testing.TB, grant string) []string {
	t.Helper()
	var lines []string
	for _, file := range must(filepath.Glob(filepath.Join(s.exported(t, "--grant", grant), "recordings", "*")))(t) {
		lines = append(lines, plainLines(t, file)...)
	}
	return lines
}

func plainLines(t testing.TB, file string) []string {
	t.Helper()
	text := ""
	if strings.HasSuffix(file, ".zst") {
		text = must(harness.Run(exec.CommandContext(t.Context(), "zstd", "-dcq", file)))(t)
	} else {
		text = string(must(os.ReadFile(file))(t))
	}
	return slices.Collect(strings.Lines(text))
}

func kinds(rs []protocol.Residue) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Database+" "+r.Kind+" "+r.Object+" "+r.Action)
	}
	slices.Sort(out)
	return out
}
