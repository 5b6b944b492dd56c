package api_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/control/api"
)

// The page names every operation, every code and nothing from elsewhere, and runs nothing.
func TestDocsPage(t *testing.T) {
	c := serve(t, newFake())
	page := get(t, c, http.MethodGet, "/docs", "", "")
	if page.status != http.StatusOK || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d, %s", page.status, page.header.Get("Content-Type"))
	}
	for _, path := range []string{"/v1/requests/{id}/approve", "/v1/grants/{id}/revoke", "/v1/export", "/v1/login/start"} {
		if !strings.Contains(page.body, path) {
			t.Errorf("no word of %s", path)
		}
	}
	for _, code := range api.Codes() {
		if !strings.Contains(page.body, "<code>"+code.Code+"</code></td><td>"+strconv.Itoa(code.Status)) {
			t.Errorf("no word of the code %s", code.Code)
		}
	}
	for _, foreign := range []string{"<script", "href=\"http", "src=", "url("} {
		if strings.Contains(page.body, foreign) {
			t.Errorf("the page holds %q", foreign)
		}
	}
	if csp := page.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || !strings.Contains(csp, "style-src 'sha256-") {
		t.Errorf("policy %q", csp)
	}
}

// The table of codes has every code that the source names, each once.
func TestEveryCodeIsDocumented(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "problem.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var named, documented []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 && strings.HasPrefix(v.Names[0].Name, "Code") {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				code, _ := strconv.Unquote(lit.Value)
				named = append(named, code)
			}
		}
		return true
	})
	for _, c := range api.Codes() {
		documented = append(documented, c.Code)
	}
	named = slices.DeleteFunc(named, func(c string) bool { return c == api.CodeUnreachable })
	slices.Sort(named)
	slices.Sort(documented)
	if len(named) < 9 || !slices.Equal(named, documented) {
		t.Errorf("the source names %v, the table %v", named, documented)
	}
}
