package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// tampering is one thing that somebody does to a bundle, and that verify must find.
type tampering struct {
	name string
	do   func(t *testing.T, dir string)
}

func recordingFile(t *testing.T, dir string) string {
	t.Helper()
	files := must(filepath.Glob(filepath.Join(dir, "recordings", "*.jsonl.zst")))(t)
	if len(files) != 2 {
		t.Fatalf("recordings: %v", files)
	}
	return files[0]
}

// relined lets fn change the lines of a file, and writes it again as it was: compressed or not.
func relined(t *testing.T, file string, fn func(lines []string) []string) {
	t.Helper()
	text := strings.Join(fn(plainLines(t, file)), "")
	if !strings.HasSuffix(file, ".zst") {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	zstd := exec.CommandContext(t.Context(), "zstd", "-qf", "-o", file)
	zstd.Stdin = strings.NewReader(text)
	must(harness.Run(zstd))(t)
}

func edited(t *testing.T, old, new string) func([]string) []string {
	return func(lines []string) []string {
		for i, l := range lines {
			if strings.Contains(l, old) {
				lines[i] = strings.Replace(l, old, new, 1)
				return lines
			}
		}
		t.Fatalf("no line has %q", old)
		return nil
	}
}

func tamperings() []tampering {
	recording := func(fn func(t *testing.T) func([]string) []string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { relined(t, recordingFile(t, dir), fn(t)) }
	}
	entries := func(fn func(t *testing.T) func([]string) []string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { relined(t, filepath.Join(dir, "ledger.jsonl"), fn(t)) }
	}
	dropped := func(*testing.T) func([]string) []string {
		return func(l []string) []string { return slices.Delete(l, len(l)/2, len(l)/2+1) }
	}
	swapped := func(*testing.T) func([]string) []string {
		return func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }
	}
	cut := func(*testing.T) func([]string) []string {
		return func(l []string) []string { return l[:len(l)-1] }
	}
	return []tampering{
		{"a statement is edited", recording(func(t *testing.T) func([]string) []string { return edited(t, "tampered", "honoured") })},
		{"an event is deleted", recording(dropped)},
		{"two events are swapped", recording(swapped)},
		{"the end of a recording is cut off", recording(cut)},
		{"a recording's file is cut short", func(t *testing.T, dir string) {
			file := recordingFile(t, dir)
			text := must(os.ReadFile(file))(t)
			if err := os.WriteFile(file, text[:len(text)-20], 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"a session's recording is dropped", func(t *testing.T, dir string) {
			if err := os.Remove(recordingFile(t, dir)); err != nil {
				t.Fatal(err)
			}
		}},
		{"two recordings change places", func(t *testing.T, dir string) {
			files := must(filepath.Glob(filepath.Join(dir, "recordings", "*")))(t)
			a, b := must(os.ReadFile(files[0]))(t), must(os.ReadFile(files[1]))(t)
			if err := os.WriteFile(files[0], b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files[1], a, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"an approver is edited in the ledger", entries(func(t *testing.T) func([]string) []string { return edited(t, "bob@", "sam@") })},
		{"an entry is deleted", entries(dropped)},
		{"two entries are swapped", entries(swapped)},
		{"the ledger's last entry is cut off", entries(cut)},
		{"an entry is hidden behind another hash", entries(func(t *testing.T) func([]string) []string {
			return edited(t, `"hash":"`, `"hash":"00`)
		})},
		{"the checkpoint is edited", func(t *testing.T, dir string) {
			file := filepath.Join(dir, "checkpoint")
			text := bytes.Replace(must(os.ReadFile(file))(t), []byte("\n"), []byte("\n1"), 1)
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	}
}

func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	s := shared
	g, creds, c := s.connected(t, "writer", 10*time.Minute)
	d := s.enter(t, creds)
	for range 3 {
		exec1(t, c, "SELECT 'tampered'")
		exec1(t, d, "SELECT 'tampered'")
	}
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
	key := must(s.sam.VerifierKey(t.Context()))(t)
	older := s.exported(t, "--grant", g.ID)
	bundle := s.exported(t, "--grant", g.ID) // the first export is on the ledger by now
	must(s.sam.Run(t.Context(), "verify", bundle, "--key", key))(t)

	for _, tt := range tamperings() {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "bundle")
			if err := os.CopyFS(dir, os.DirFS(bundle)); err != nil {
				t.Fatal(err)
			}
			tt.do(t, dir)
			out, err := s.sam.Run(t.Context(), "verify", dir, "--key", key)
			if found(t, err); err == nil {
				t.Errorf("not found:\n%s", out)
			}
		})
	}
	t.Run("an older ledger than the anchor's", func(t *testing.T) {
		anchor := filepath.Join(bundle, "checkpoint")
		must(s.sam.Run(t.Context(), "verify", bundle, "--key", key, "--anchor", anchor))(t)
		must(s.sam.Run(t.Context(), "verify", older, "--key", key))(t) // by itself it is whole
		_, err := s.sam.Run(t.Context(), "verify", older, "--key", key, "--anchor", anchor)
		found(t, err)
	})
	t.Run("another key", func(t *testing.T) {
		other := strings.Replace(key, key[len(key)-8:len(key)-4], "AAAA", 1)
		if out, err := s.sam.Run(t.Context(), "verify", bundle, "--key", other); err == nil {
			t.Errorf("not found:\n%s", out)
		}
	})
}

// found: verify has an exit code of its own for what it finds, so that a script can tell it from a mistake.
func found(t *testing.T, err error) {
	t.Helper()
	ce, ok := err.(*harness.CommandError)
	if !ok || ce.Code != 8 {
		t.Errorf("want exit code 8, got %v", err)
	}
}
