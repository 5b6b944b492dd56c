package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What is an engine's own: its name, its databases' names, its drivers, its clients and their words.
var (
	engineWord   = regexp.MustCompile(`(?i)postgres|mysql|mariadb|psql|\bpg_?[a-z]+|libpq|scram|innodb`)
	engineImport = regexp.MustCompile(`^` + regexp.QuoteMeta(Module) + `/protocol/(postgres|mysql)|jackc/pg|go-sql-driver`)
)

// engineFolder reports whether a file is one that may know its engine.
func engineFolder(pkg string) bool {
	return pkg == "protocol/postgres" || pkg == "protocol/mysql" || strings.HasPrefix(pkg, "protocol/postgres/") || strings.HasPrefix(pkg, "protocol/mysql/")
}

// knowing finds what a file says of an engine in its code: imports, names and strings. Comments may name
// engines, and so may what people read for help (Short, Long, Example of a command, and the doc of a field).
func knowing(f *ast.File) (found []ast.Node) {
	help := map[ast.Node]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			if path, err := strconv.Unquote(n.Path.Value); err == nil && engineImport.MatchString(path) {
				found = append(found, n)
			}
			return false
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Short" || key.Name == "Long" || key.Name == "Example") {
				help[n.Value] = true
			}
		case *ast.Field:
			if n.Tag != nil {
				help[n.Tag] = true
			}
		case *ast.Ident:
			if engineWord.MatchString(n.Name) {
				found = append(found, n)
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING && engineWord.MatchString(n.Value) && !help[n] {
				found = append(found, n)
			}
		}
		return !help[n]
	})
	return found
}

// Nothing outside the engines' folders knows which database it has before it, but for a line of the map of
// engines each.
func TestNobodyElseKnowsTheEngine(t *testing.T) {
	fset, all := sources(t)
	lines := map[int]bool{}
	for _, s := range all {
		if s.test || engineFolder(s.pkg) || s.pkg == "internal/layers" { // the plan names folders
			continue
		}
		for _, n := range knowing(s.file) {
			if s.pkg == "cmd/curfew" && strings.HasSuffix(s.name, "/engines.go") {
				if _, imported := n.(*ast.ImportSpec); !imported {
					lines[fset.Position(n.Pos()).Line] = true
				}
				continue
			}
			t.Errorf("%s: knows an engine", fset.Position(n.Pos()))
		}
	}
	if len(lines) == 0 || len(lines) > 2 {
		t.Errorf("engines.go names engines on %d lines: one for each", len(lines))
	}
}

// A control that never fires is none.
func TestKnowledgeOfAnEngineIsSeen(t *testing.T) {
	for code, want := range map[string]int{
		`import "github.com/curfewdb/curfew/protocol/mysql"`:         1,
		`import _ "github.com/jackc/pgx/v5"`:                         1,
		`func f(engine string) bool { return engine == "postgres" }`: 1,
		`func runPsql() {}`:                                                   1,
		`type devFile struct { Postgres string }`:                             1,
		`var env = []string{"PGHOST=h"}`:                                      1,
		`var c = Command{Use: "psql", Long: "runs psql, " + "or mariadb"}`:    1,
		"type grant struct { Engine string `json:\"engine\" doc:\"mysql\"` }": 0,
		"// PostgreSQL may be named.\nvar page = 1":                           0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+code, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(knowing(f)); got != want {
			t.Errorf("%d found in %s", got, code)
		}
	}
}
