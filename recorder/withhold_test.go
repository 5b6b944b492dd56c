package recorder

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// What is bound to parameters is left out, however it comes; all else of a statement stays.
func TestValuesOfParametersAreLeftOut(t *testing.T) {
	lib, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer lib.Close()
	const secret = "SECRET"
	long := []byte(strings.Repeat(secret, maxPart/3)) // takes parts
	values := func() []Param {
		return []Param{{Type: "text", Value: []byte(secret)}, {Type: "int4", Null: true}, {Type: "bytea", Value: []byte(secret), Hex: true},
			{Type: "text", Name: []byte("attribute"), Value: []byte(secret)}, {Type: "text", Value: long}, {Type: "text", Value: []byte{}}}
	}
	events := func() []Event {
		return []Event{
			{Type: TypeStatement, ID: 1, Kind: KindPrepare, Text: []byte("insert into t values ($1)")},
			{Type: TypeStatement, ID: 2, Of: 1, Kind: KindBind, Params: values()},
			{Type: TypeStatement, ID: 3, Kind: KindExecute, Of: 2, Params: []Param{{Type: "text", Value: []byte(secret), More: true}}},
			{Type: TypePart, ID: 3, Field: FieldParam, Text: []byte(secret), More: true},
			{Type: TypePart, ID: 3, Field: FieldParam, Params: []Param{{Type: "text", Value: []byte(secret)}}},
			{Type: TypeStatement, ID: 4, Kind: KindCommand, Name: []byte("stmt_send_long_data"), Of: 1, Field: FieldParam, Index: 1, Text: []byte(secret), More: true},
			{Type: TypePart, ID: 4, Field: FieldText, Text: []byte(secret), More: true},
			{Type: TypePart, Of: 4, Field: FieldText, Text: long},
			{Type: TypeStatement, ID: 5, Kind: KindSimple, Text: []byte("select 'kept"), More: true},
			{Type: TypePart, ID: 5, Field: FieldText, Text: []byte(" as well'")},
			{Type: TypeResult, Of: 5, Tag: []byte("SELECT 1")},
		}
	}
	for _, c := range []struct {
		engine, parameters string
	}{{"postgres", ParametersTypes}, {"mysql", ParametersTypes}, {"postgres", ""}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			h := Header{Session: "s" + c.engine + c.parameters, Engine: c.engine, Parameters: c.parameters}
			w, err := lib.Create(h)
			if err != nil {
				t.Fatal(err)
			}
			given := events()
			if err := w.Record(given...); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(given[1].Params[0].Value, []byte(secret)) {
				t.Error("the caller's parameters were changed")
			}
			if _, err := w.Seal(End{Code: EndClient}); err != nil {
				t.Fatal(err)
			}
			r, err := lib.Open(h.Session)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var texts []string
			var params int
			lines := NewReader(r)
			for {
				line, e, err := lines.Next()
				if err != nil {
					break
				}
				if held := bytes.Contains(line, []byte(secret)) || bytes.Contains(line, []byte(fmt.Sprintf("%x", secret))); held && c.parameters != "" {
					t.Errorf("a value is on record: %.300s", line)
				}
				if e.Type == TypeHeader && e.Header.Parameters != c.parameters {
					t.Errorf("the header does not say so: %+v", e.Header)
				}
				texts = append(texts, string(e.Text))
				for _, p := range e.Params {
					params++
					if p.Withheld != (c.parameters != "" && !p.Null) || p.Type == "" {
						t.Errorf("%+v", p)
					}
				}
			}
			all := strings.Join(texts, "")
			if !strings.Contains(all, "insert into t values ($1)") || !strings.Contains(all, "select 'kept as well'") || params != 8 {
				t.Errorf("%d parameters; %.200q", params, all)
			}
			if (c.parameters == "") != strings.Contains(all, secret) {
				t.Errorf("%.300q", all)
			}
		})
	}
}
