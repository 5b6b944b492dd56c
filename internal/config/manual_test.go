package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// keysOf lists the keys that a type may have in a file, as the manual writes them: api.tls.cert,
// listeners[].listen, targets.NAME.url. Whom a policy selects is said once, for every place that does.
func keysOf(t reflect.Type, prefix string) (keys []string) {
	for i := range t.NumField() {
		tag, ok := t.Field(i).Tag.Lookup("yaml")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(tag, ",")
		key, v := prefix+name, t.Field(i).Type
		for {
			switch {
			case v.Kind() == reflect.Pointer:
				v = v.Elem()
				continue
			case v.Kind() == reflect.Slice && v.Elem().Kind() == reflect.Struct:
				key, v = key+"[]", v.Elem()
				continue
			case v.Kind() == reflect.Map && v.Elem().Kind() == reflect.Struct:
				key, v = key+"."+map[string]string{"targets": "NAME", "levels": "LEVEL", "people": "NAME"}[name], v.Elem()
				continue
			}
			break
		}
		if v.Kind() == reflect.Struct && v != reflect.TypeFor[policyWho]() && v != timeType {
			keys = append(keys, keysOf(v, key+".")...)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

// Every key that the two files may have is in the manual, and nothing else is.
func TestManualHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, reference, _ := strings.Cut(string(text), "\n### curfew.yaml\n")
	first, rest, _ := strings.Cut(reference, "\n### policy.yaml\n")
	second, _, _ := strings.Cut(rest, "\n### ")
	who := keysOf(reflect.TypeFor[policyWho](), "who.")
	for name, c := range map[string]struct {
		keys []string
		text string
	}{
		"curfew.yaml": {keysOf(reflect.TypeFor[Config](), ""), first},
		"policy.yaml": {append(keysOf(reflect.TypeFor[policyFile](), ""), who...), second},
	} {
		var documented []string
		for line := range strings.Lines(c.text) {
			if key, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok && strings.HasPrefix(line, "| `") {
				documented = append(documented, key)
			}
		}
		for _, key := range c.keys {
			if !slices.Contains(documented, key) {
				t.Errorf("docs/OPERATIONS.md, %s: no row for `%s`", name, key)
			}
		}
		for _, key := range documented {
			if !slices.Contains(c.keys, key) {
				t.Errorf("docs/OPERATIONS.md, %s: there is no key `%s`", name, key)
			}
		}
	}
}

// The files that this repository is deployed with are right.
func TestDeployed(t *testing.T) {
	p, err := LoadPolicy(filepath.Join("..", "..", "deploy", "policy.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, loaded, err := Load(filepath.Join("..", "..", "deploy", "curfew.yaml"), kinds)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p.Rules, loaded.Rules) || c.Ops == nil {
		t.Errorf("%+v", c)
	}
}
