package config

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// Whatever stands in a file: an answer, with a line for every problem, and never a panic.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(goodPolicy))
	f.Add([]byte("a: &a [*a]\n? [x]\n: 1\n"))
	f.Add([]byte(sinks + "rules:\n  - {name: a, when: >\n      level ==\n\n      nope}\ncases: [{case: x, at: 2026-01-01 UTC}]\n"))
	f.Add([]byte("targets: {x: {url: 'postgres://:@/', levels: {a: }}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Count(string(text), "[")+strings.Count(string(text), "{") > 1000 {
			t.Skip("the parser is quadratic in nesting; both files are the operator's own")
		}
		d := &decoder{file: "curfew.yaml"}
		c := &Config{}
		d.decode(bytes.NewReader(text), c)
		c.defaults(d)
		c.check(d, kinds)
		p := &decoder{file: "policy.yaml"}
		var pf policyFile
		p.decode(bytes.NewReader(text), &pf)
		pf.check(p, string(text), c.Targets)
		for _, err := range []error{wrong(d.problems), wrong(p.problems)} {
			var es *Errors
			if errors.As(err, &es) {
				for _, problem := range es.Problems {
					if problem.Line < 1 || problem.Message == "" {
						t.Errorf("%+v", problem)
					}
				}
			}
		}
		pf.policy(c.Targets)
	})
}
