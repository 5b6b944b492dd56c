package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// source is one product file: its package's path below the module and its syntax.
type source struct {
	pkg  string
	name string
	test bool
	file *ast.File
}

// sources parses every Go file of the module, whatever its build tags say.
func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	root, fset := filepath.Join("..", ".."), token.NewFileSet()
	var all []source
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if name := e.Name(); p != root && (name == "testdata" || strings.HasPrefix(name, ".") || ownModule(p)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		all = append(all, source{pkg: filepath.ToSlash(rel), name: p, test: strings.HasSuffix(p, "_test.go"), file: f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fset, all
}

// ownModule: e2e is a module of its own and drives the binary.
func ownModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func plan() map[string]Package {
	m := map[string]Package{}
	for _, p := range Plan() {
		m[p.Path] = p
	}
	return m
}

func TestArrowsPointDown(t *testing.T) {
	layers := plan()
	fset, all := sources(t)
	for _, s := range all {
		from, listed := layers[s.pkg]
		if !listed {
			t.Errorf("%s: package %s has no place in the plan", s.name, s.pkg)
			continue
		}
		if s.test {
			continue
		}
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			to, ours := strings.CutPrefix(imported, Module+"/")
			if ours && (!allowed(from, to) || layers[to].Test && !from.Test) {
				t.Errorf("%s: %s may not import %s", fset.Position(spec.Pos()), s.pkg, to)
			}
		}
	}
}

func allowed(from Package, to string) bool {
	return slices.Contains(from.May, to) || slices.Contains(from.May, "*")
}

func TestPlanItselfPointsDown(t *testing.T) {
	layers := plan()
	for _, p := range Plan() {
		for _, to := range p.May {
			q, ok := layers[to]
			if q.Test && !p.Test {
				t.Errorf("%s may import %s, which is for tests", p.Path, to)
			}
			if to != "*" && (!ok || (p.Floor > 0 && q.Floor > p.Floor)) {
				t.Errorf("%s may import %s: unknown, or on a higher floor", p.Path, to)
			}
		}
		if p.Path != "cmd/curfew" && allowed(p, "internal/provider") {
			t.Errorf("%s may import internal/provider: only cmd may", p.Path)
		}
	}
}

// A control that never fires is none: the check must see an arrow that points up.
func TestUpwardArrowIsSeen(t *testing.T) {
	layers := plan()
	for from, to := range map[string]string{"proxy": "control", "recorder": "auth", "policy": "store", "control": "internal/provider", "protocol": "protocol/postgres"} {
		if allowed(layers[from], to) {
			t.Errorf("%s may import %s", from, to)
		}
	}
}

func TestNoInitAndNoBackgroundContextBelowMain(t *testing.T) {
	layers := plan()
	fset, all := sources(t)
	for _, s := range all {
		if s.test || layers[s.pkg].Test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: init() runs before main can say no", fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if ok && x.Name == "context" && (n.Sel.Name == "Background" || n.Sel.Name == "TODO") && !strings.HasPrefix(s.pkg, "cmd/") {
					t.Errorf("%s: context.%s() outside cmd: take the caller's, or context.WithoutCancel", fset.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestEveryPackageSaysWhatMayBeReliedOn(t *testing.T) {
	_, all := sources(t)
	documented := map[string]bool{}
	for _, s := range all {
		if s.test {
			continue
		}
		want := "Package " + path.Base(s.pkg) + " "
		if s.file.Name.Name == "main" {
			want = "Command " + path.Base(s.pkg) + " "
		}
		documented[s.pkg] = documented[s.pkg] || s.file.Doc != nil && strings.HasPrefix(s.file.Doc.Text(), want)
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %s has no package comment of the form \"Package %s …\" (or \"Command …\")", pkg, path.Base(pkg))
		}
	}
}
