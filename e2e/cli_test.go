package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/curfewdb/curfew/e2e/harness"
)

// Each script is a story as it is typed: testdata/script/*.txtar. A person is one shell:
//
//	as alice         from here on, alice types
func TestStoriesAsTyped(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			homes := filepath.Join(e.WorkDir, ".homes")
			for _, p := range []*harness.Person{shared.alice, shared.dana, shared.bob, shared.sam} {
				if err := os.CopyFS(filepath.Join(homes, p.Name), os.DirFS(p.Home)); err != nil {
					return err
				}
			}
			e.Setenv("HOMES", homes)
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
				ts.Setenv("CURFEW_HOME", filepath.Join(ts.Getenv("HOMES"), args[0]))
			},
		},
	})
}
