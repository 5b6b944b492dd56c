package config

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder walks the nodes of one YAML document into a struct and keeps everything that is wrong.
//
// Struct tags: `yaml:"key"`, with the options
//
//	required  the key must be there
//	secret    the value must be a reference (file:, env:), and is never echoed
//	path      a path; relative ones are relative to the file they stand in
//	zero      a duration that may be 0
//	size      a number of bytes, which may have a unit: 64MiB
//	formula   text that something else will find mistakes in: where it stands is kept
type decoder struct {
	file     string
	lines    map[string]int // line of each key path that the document has; "" is the document
	formulas map[string]*yaml.Node
	problems []Problem
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
)

// decode reads one document into out, a pointer to a struct. What is wrong is left in d.problems.
func (d *decoder) decode(r io.Reader, out any) {
	d.lines, d.formulas = map[string]int{}, map[string]*yaml.Node{}
	dec := yaml.NewDecoder(r)
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			d.add(1, "", "the file is empty")
			return
		}
		d.syntax(err)
		return
	}
	var more yaml.Node
	switch err := dec.Decode(&more); {
	case err == nil:
		d.add(more.Line, "", "a second document: one file holds one document")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	d.value(doc.Content[0], "", reflect.ValueOf(out).Elem(), nil)
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// syntax turns the parser's own error into one of ours: it stops at the first, so it is the only one.
func (d *decoder) syntax(err error) {
	line, msg := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1]) // the pattern lets only digits through
		msg = strings.Replace(msg, m[0], "", 1)
	}
	d.add(line, "", "not YAML: %s", msg)
}

func (d *decoder) add(line int, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Key: key, Message: fmt.Sprintf(format, args...)})
}

// at reports a problem at a key path; for a key that is not in the file, at the nearest one above it.
func (d *decoder) at(key, format string, args ...any) {
	at := key
	for at != "" && !d.has(at) {
		at = parent(at)
	}
	d.add(max(d.lines[at], 1), key, format, args...)
}

// has reports whether the document has something at the key path.
func (d *decoder) has(key string) bool {
	_, ok := d.lines[key]
	return ok
}

func parent(key string) string {
	if i := strings.LastIndexAny(key, ".["); i >= 0 {
		return key[:i]
	}
	return ""
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

func (d *decoder) value(n *yaml.Node, key string, out reflect.Value, options []string) {
	if !d.has(key) {
		d.lines[key] = n.Line
	}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.add(n.Line, key, "YAML anchors and aliases are not allowed: write the value out")
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.add(n.Line, key, "has no value: give one, or remove the key")
		return
	}
	switch {
	case out.Type() == durationType:
		d.duration(n, key, out, options)
	case out.Type() == timeType:
		d.time(n, key, out)
	case out.Kind() == reflect.Interface:
		d.anything(n, key, out)
	case out.Kind() == reflect.Struct:
		d.object(n, key, out)
	case out.Kind() == reflect.Pointer:
		out.Set(reflect.New(out.Type().Elem()))
		d.value(n, key, out.Elem(), options)
	case out.Kind() == reflect.Slice:
		d.list(n, key, out, options)
	case out.Kind() == reflect.Map:
		d.mapping(n, key, out, options)
	default:
		d.scalar(n, key, out, options)
	}
}

func (d *decoder) scalar(n *yaml.Node, key string, out reflect.Value, options []string) {
	if n.Kind != yaml.ScalarNode {
		d.add(n.Line, key, "must be a single value, not %s", kindName(n))
		return
	}
	switch out.Kind() {
	case reflect.String:
		d.text(n, key, out, options)
	case reflect.Bool:
		if n.Tag != "!!bool" {
			d.add(n.Line, key, "must be true or false, not %q", n.Value)
			return
		}
		out.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int:
		i, err := strconv.ParseInt(n.Value, 10, 32)
		if n.Tag != "!!int" || err != nil {
			d.add(n.Line, key, "must be a whole number, not %q", n.Value)
			return
		}
		out.SetInt(i)
	case reflect.Uint64:
		d.number(n, key, out, options)
	}
}

func (d *decoder) text(n *yaml.Node, key string, out reflect.Value, options []string) {
	secret := has(options, "secret")
	switch {
	case secret && !isReference(n.Value):
		d.add(n.Line, key, "a secret does not belong in this file: write file:/path or env:NAME")
	case n.Tag != "!!str":
		d.add(n.Line, key, "must be text, not %s: put it in quotes", n.Value)
	case n.Value == "":
		d.add(n.Line, key, "is empty: give a value, or remove the key")
	case secret:
		if path, ok := strings.CutPrefix(n.Value, "file:"); ok {
			out.SetString("file:" + d.beside(path))
			return
		}
		out.SetString(n.Value)
	case has(options, "path"):
		out.SetString(d.beside(n.Value))
	case has(options, "formula"):
		d.formulas[key] = n
		fallthrough
	default:
		out.SetString(n.Value)
	}
}

// beside makes a path that is written in the file relative to the file's own directory.
func (d *decoder) beside(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(d.file), path)
}

func (d *decoder) duration(n *yaml.Node, key string, out reflect.Value, options []string) {
	t, err := time.ParseDuration(n.Value)
	switch {
	case n.Kind != yaml.ScalarNode:
		d.add(n.Line, key, "must be a duration like 30m or 1h30m, not %s", kindName(n))
	case n.Tag == "!!int" && n.Value != "0":
		d.add(n.Line, key, "a duration needs a unit: %ss, %sm or %sh", n.Value, n.Value, n.Value)
	case err != nil:
		d.add(n.Line, key, "%q is not a duration: write it like 30m or 1h30m", n.Value)
	case t == 0 && has(options, "zero"):
	case t <= 0:
		d.add(n.Line, key, "must be longer than nothing")
	default:
		out.SetInt(int64(t))
	}
}

func (d *decoder) list(n *yaml.Node, key string, out reflect.Value, options []string) {
	if n.Kind != yaml.SequenceNode {
		d.add(n.Line, key, "must be a list, not %s", kindName(n))
		return
	}
	out.Set(reflect.MakeSlice(out.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		d.value(c, fmt.Sprintf("%s[%d]", key, i), out.Index(i), options)
	}
}

func (d *decoder) mapping(n *yaml.Node, key string, out reflect.Value, options []string) {
	out.Set(reflect.MakeMap(out.Type()))
	d.pairs(n, key, func(name string, v *yaml.Node) {
		e := reflect.New(out.Type().Elem()).Elem()
		d.value(v, join(key, name), e, options)
		out.SetMapIndex(reflect.ValueOf(name), e)
	})
}

func (d *decoder) object(n *yaml.Node, key string, out reflect.Value) {
	fields := fieldsOf(out.Type())
	ok := d.pairs(n, key, func(name string, v *yaml.Node) {
		for _, f := range fields {
			if f.key == name {
				d.value(v, join(key, name), out.Field(f.index), f.options)
				return
			}
		}
		names := make([]string, len(fields))
		for i, f := range fields {
			names[i] = f.key
		}
		d.add(v.Line, join(key, name), "unknown key%s", hint(name, names))
	})
	if !ok {
		return
	}
	for _, f := range fields {
		if has(f.options, "required") && !d.has(join(key, f.key)) {
			d.add(n.Line, join(key, f.key), "is missing")
		}
	}
}

// pairs calls fn for each key of a mapping, in the file's order.
func (d *decoder) pairs(n *yaml.Node, key string, fn func(name string, v *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		d.add(n.Line, key, "must be a mapping of keys to values, not %s", kindName(n))
		return false
	}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch line, twice := seen[k.Value]; {
		case k.Kind != yaml.ScalarNode || k.Tag != "!!str":
			d.add(k.Line, key, "keys must be plain text")
			continue
		case twice:
			d.add(k.Line, join(key, k.Value), "is there twice: first on line %d", line)
			continue
		}
		seen[k.Value], d.lines[join(key, k.Value)] = k.Line, k.Line
		fn(k.Value, v)
	}
	return true
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

type field struct {
	key     string
	index   int
	options []string
}

func fieldsOf(t reflect.Type) []field {
	var fs []field
	for i := range t.NumField() {
		if tag, ok := t.Field(i).Tag.Lookup("yaml"); ok {
			parts := strings.Split(tag, ",")
			fs = append(fs, field{key: parts[0], index: i, options: parts[1:]})
		}
	}
	return fs
}

func has(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}
