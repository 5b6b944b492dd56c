package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/curfewdb/curfew/auth"
)

// Change is what one policy gives to somebody and another doesn't, or gives on other terms.
type Change struct {
	Who    string   `json:"who"`
	Target string   `json:"target"`
	Level  string   `json:"level,omitempty"` // none: it is about reading recordings
	Change string   `json:"change"`          // gains, loses, changes
	Old    []string `json:"old,omitempty"`   // what each rule gave, in order
	New    []string `json:"new,omitempty"`
}

const (
	Gains   = "gains"
	Loses   = "loses"
	Changes = "changes"
)

// Diff says who gains and who loses what between two policies: for the people who are given, or, without
// any, for somebody of each group, e-mail and subject that either policy names.
func Diff(before, after *Policy, people ...auth.Identity) []Change {
	changes := []Change{}
	for _, f := range figures(before, after, people) {
		old, now := before.given(f), after.given(f)
		for _, what := range union(old, now) {
			o, n := old[what], now[what]
			if slices.Equal(o, n) {
				continue
			}
			target, level, _ := strings.Cut(what, "\x00")
			c := Change{Who: f.Words, Target: target, Level: level, Change: Changes, Old: o, New: n}
			switch {
			case o == nil:
				c.Change = Gains
			case n == nil:
				c.Change = Loses
			}
			changes = append(changes, c)
		}
	}
	return changes
}

func figures(before, after *Policy, people []auth.Identity) (all []Figure) {
	for _, id := range people {
		words := id.Label()
		if len(id.Groups) > 0 {
			words += " (" + strings.Join(id.Groups, ", ") + ")"
		}
		all = append(all, Figure{Identity: id, Words: words, Known: true})
	}
	if len(people) > 0 {
		return all
	}
	for _, p := range []*Policy{before, after} {
		for _, f := range append(p.Figures(), p.readersOf()...) {
			if !slices.ContainsFunc(all, func(g Figure) bool { return g.Words == f.Words }) {
				all = append(all, f)
			}
		}
	}
	return all
}

// readersOf makes up somebody for each kind of reader.
func (p *Policy) readersOf() (figures []Figure) {
	for _, r := range p.Readers {
		for _, w := range r.Who.each() {
			figures = append(figures, Figure{Identity: w.somebody(), Words: w.Words()})
		}
	}
	return figures
}

// given lists what somebody may have, by target and level, and the recordings that they may read.
func (p *Policy) given(f Figure) map[string][]string {
	all := map[string][]string{}
	for _, o := range p.OffersTo(f) {
		what := o.Target + "\x00" + o.Level
		all[what] = append(all[what], o.Words())
	}
	for name := range p.Targets {
		if p.MayRead(f.Identity, name) {
			all[name+"\x00"] = []string{"reads the recordings"}
		}
	}
	return all
}

func union(a, b map[string][]string) []string {
	all := sorted(a)
	for _, k := range sorted(b) {
		if _, known := a[k]; !known {
			all = append(all, k)
		}
	}
	slices.Sort(all)
	return all
}

// Words says on what terms something is offered, and by which rule.
func (o Offer) Words() string {
	parts := []string{span(o.Longest) + " at most", o.Terms.Approvals.sentence()}
	add := func(yes bool, format string, args ...any) {
		if yes {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	if m := o.Terms.Approvals.MFA; m != nil {
		parts = append(parts, "whose login is "+m.words())
	}
	add(o.BreakGlass, "by breaking the glass alone")
	add(o.Reason, "with a reason")
	if t := o.Terms.Ticket; t != nil {
		add(true, "with a ticket that matches %s", t.Pattern)
		add(t.Confirm != "", "that %s confirms", t.Confirm)
	}
	if o.MFA != nil {
		add(true, "by a login %s", o.MFA.words())
	}
	add(o.Terms.Limits != Limits{}, "within %s", o.Terms.Limits.Words())
	add(o.Terms.Record != Record{}, "%s", o.Terms.Record.Words())
	add(o.Terms.WithLastSession, "until the last session ends")
	if r := o.Terms.Review; r != nil {
		add(true, "reviewed within %s", span(r.Within))
		add(!r.By.empty(), "by %s", r.By.Words())
	}
	add(o.When != "", "if %s", o.When)
	return fmt.Sprintf("%q: %s", o.Rule, strings.Join(parts, "; "))
}
