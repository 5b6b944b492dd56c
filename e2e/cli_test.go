package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Each script is a story as it is typed: testdata/script/*.txtar. "as alice" sits down at alice's
// terminal, and logs her in the first time.
func TestStoriesAsTyped(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(shared.bin)+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("CURFEW_DEV", shared.curfew.Dir)
			e.Setenv("PAGER", "cat")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"as": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: as PERSON")
				}
				home := ts.MkAbs("home-" + args[0])
				ts.Setenv("CURFEW_HOME", home)
				if _, err := os.Stat(home); err != nil {
					ts.Check(ts.Exec("curfew", "login", "--as", args[0]))
				}
			},
		},
	})
}
