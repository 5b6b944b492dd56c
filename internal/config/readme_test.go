package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The policy that the README shows is one, its cases come as it says, and every rule of it decides in one.
func TestReadmePolicy(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n# policy.yaml")
	example, _, found := strings.Cut(rest, "```\n")
	if !found {
		t.Fatal("README.md shows no policy")
	}
	book, err := LoadBook(write(t, "policy.yaml", "#"+example), nil)
	if err != nil {
		t.Fatal(err)
	}
	var decide []string
	for _, c := range book.Cases {
		decide = append(decide, c.Expect.Allowed, c.Expect.Denied)
		for _, wrong := range book.Policy.Try(c) {
			t.Errorf("%s: %s", c.Name, wrong)
		}
	}
	for _, r := range book.Policy.Rules {
		if !slices.Contains(decide, r.Name) {
			t.Errorf("the rule %q decides in no case", r.Name)
		}
	}
}
