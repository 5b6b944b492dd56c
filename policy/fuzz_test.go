package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/policy"
)

// Whatever stands in a condition: mistakes that lie within its text, or something that says yes or no, or
// fails and denies, in bounded time; and never a panic.
func FuzzCondition(f *testing.F) {
	for _, text := range []string{
		`level == "writer" && "leads" in identity.groups`, `now.getHours("Europe/Berlin") < 8 || frozen.size() > 0`,
		`history.grants.filter(g, now - g.start < duration("1h")).size() > 2`, `identity.claims.a.b[3].c == 1 && has(identity.claims.d)`,
		`request.reason.matches("(a+)+$")`, `identiy == [`, "level ==\n\tnope", `"` + "\xff" + `" == level`, `[1,2].map(x, [x].map(y, y))[0] == dyn(1)`,
		`string(request.start) + string(request.duration) == "x"`, `now.getHours(identity.name) == 1`, `1/0 == 1`,
	} {
		f.Add(text)
	}
	l, err := policy.NewLanguage()
	if err != nil {
		f.Fatal(err)
	}
	who := alice
	who.Claims = map[string]any{"a": map[string]any{"b": []any{1.0, "x", nil, map[string]any{"c": 1.0}}}, "d": true}
	f.Fuzz(func(t *testing.T, text string) {
		c, wrong := l.Compile(text)
		if (c == nil) != (len(wrong) > 0) {
			t.Fatalf("%v, %v", c, wrong)
		}
		lines := strings.Split(text, "\n")
		for _, m := range wrong {
			if m.Line < 1 || m.Line > len(lines)+1 || m.Column < 1 || m.Message == "" {
				t.Errorf("%+v in %q", m, text)
			}
		}
		if c == nil {
			return
		}
		p := one(func(r *policy.Rule) { r.When = c })
		began := time.Now()
		v := p.Judge(who, ask(), policy.Facts{Grants: []policy.Past{{Target: "orders", Level: "reader", Start: now}}}, now)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%q took %v", text, took)
		}
		if v.Failed != nil && v.Allowed {
			t.Errorf("%q fails, and allows", text)
		}
		e := p.Explain(who, ask(), policy.Facts{}, now)
		if len(e.Rules) != 1 {
			t.Errorf("%+v", e)
		}
		p.Offers(who)
	})
}
