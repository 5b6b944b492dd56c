package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

var (
	//go:embed docs.html
	docsPage string
	//go:embed docs.css
	docsStyle string
)

// docsOperation is one operation, as the page shows it.
type docsOperation struct {
	ID, Method, Path, Summary, Description string
	Open                                   bool
	Params                                 []docsField
	Body, Answer                           string // schemas' names
}

// docsField is one parameter of an operation or one property of a schema.
type docsField struct {
	Name, In, Type, Doc string
	Required            bool
}

// docsGroup is what belongs together.
type docsGroup struct {
	Tag        string
	Operations []docsOperation
}

// docsSchema is the shape of a body.
type docsSchema struct {
	Name   string
	Fields []docsField
}

// docs is the page that describes the API, made of the same document as /openapi.json. It needs no script
// and nothing from elsewhere.
func (s *server) docs() http.HandlerFunc {
	page := template.Must(template.New("docs").Parse(docsPage)) // a constant, and tested
	var b bytes.Buffer
	doc := s.api.OpenAPI()
	err := page.Execute(&b, map[string]any{
		"Version": s.Version, "Style": template.CSS(docsStyle), "Groups": docsGroups(doc), "Schemas": docsSchemas(doc), "Codes": Codes(),
	})
	if err != nil {
		panic(err) // as with Must
	}
	sum := sha256.Sum256([]byte(docsStyle))
	csp := "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", csp)
		_, _ = w.Write(b.Bytes()) // the client has gone, if this fails
	}
}

func docsGroups(doc *huma.OpenAPI) (groups []docsGroup) {
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodDelete: item.Delete} {
			if op == nil {
				continue
			}
			tag := "other"
			if len(op.Tags) > 0 {
				tag = op.Tags[0]
			}
			i := slices.IndexFunc(groups, func(g docsGroup) bool { return g.Tag == tag })
			if i < 0 {
				i, groups = len(groups), append(groups, docsGroup{Tag: tag})
			}
			groups[i].Operations = append(groups[i].Operations, docsOf(method, path, op))
		}
	}
	for _, g := range groups {
		slices.SortFunc(g.Operations, func(a, b docsOperation) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
	}
	slices.SortFunc(groups, func(a, b docsGroup) int { return strings.Compare(a.Operations[0].Path, b.Operations[0].Path) })
	return groups
}

func docsOf(method, path string, op *huma.Operation) docsOperation {
	o := docsOperation{ID: op.OperationID, Method: method, Path: path, Summary: op.Summary, Description: op.Description, Open: len(op.Security) == 0}
	for _, p := range op.Parameters {
		o.Params = append(o.Params, docsField{Name: p.Name, In: p.In, Type: docsType(p.Schema), Doc: docsText(p), Required: p.Required})
	}
	if op.RequestBody != nil {
		o.Body = docsContent(op.RequestBody.Content)
	}
	for status, r := range op.Responses {
		if strings.HasPrefix(status, "2") && r.Content != nil && o.Answer == "" {
			o.Answer = docsContent(r.Content)
		}
	}
	return o
}

func docsText(p *huma.Param) string {
	if p.Description == "" && p.Schema != nil {
		return p.Schema.Description
	}
	return p.Description
}

// docsContent names what a body is.
func docsContent(content map[string]*huma.MediaType) string {
	for kind, m := range content {
		if m.Schema == nil {
			return kind
		}
		return docsType(m.Schema)
	}
	return ""
}

// docsType is a schema in words; one with a name of its own has that.
func docsType(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
	case s.Items != nil:
		return "list of " + docsType(s.Items)
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			words[i] = fmt.Sprint(v)
		}
		return strings.Join(words, " | ")
	case s.Format != "":
		return s.Type + " (" + s.Format + ")"
	}
	return s.Type
}

func docsSchemas(doc *huma.OpenAPI) (all []docsSchema) {
	for name, s := range doc.Components.Schemas.Map() {
		d := docsSchema{Name: name}
		for field, p := range s.Properties {
			if field == "$schema" {
				continue
			}
			d.Fields = append(d.Fields, docsField{Name: field, Type: docsType(p), Doc: p.Description, Required: slices.Contains(s.Required, field)})
		}
		slices.SortFunc(d.Fields, func(a, b docsField) int { return strings.Compare(a.Name, b.Name) })
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b docsSchema) int { return strings.Compare(a.Name, b.Name) })
	return all
}
