package policy

import (
	"errors"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/curfewdb/curfew/auth"
)

// Holds reports whether the policy gives who what the grant gives at all: what a grant in force must keep
// to when the policy or the person's groups change. Who, target, level and limits are judged again, and so
// is what a condition says of them, as far as it can be told without the moment of asking: the request, the
// time, the past and the login's evidence stay as they were judged then.
//
// A level that means something else by now is another level: g.Can is what the grant's account was given.
func (p *Policy) Holds(who auth.Identity, g Grant) bool {
	t, known := p.Targets[g.Target]
	if !known {
		return false
	}
	if now, known := t.Levels[g.Level]; !known || !now.equal(g.Can) {
		return false
	}
	a := &asking{policy: p, who: who, ask: Ask{Target: g.Target, Level: g.Level}, target: t, unknown: ofTheMoment()}
	if p.deniesAlways(a) {
		return false
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Deny || r.fits(a) != missNone || r.BreakGlass != g.BreakGlass || !g.Limits.within(r.Limits) || !g.Record.within(r.Record) {
			continue
		}
		s, err := r.When.stands(a)
		if err != nil {
			return false
		}
		if s != never {
			return true
		}
	}
	return false
}

// deniesAlways reports whether a rule denies this whatever the moment, or can't be evaluated.
func (p *Policy) deniesAlways(a *asking) bool {
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.Deny || r.fits(a) != missNone {
			continue
		}
		if s, err := r.When.stands(a); err != nil || s == always {
			return true
		}
	}
	return false
}

// Offer is one thing a person may ask for.
type Offer struct {
	Target    string
	Level     string
	Rule      string
	Longest   time.Duration
	Approvals int
	Reason    bool // a reason is required

	Terms      Terms
	When       string // the condition that must hold, if it is not known to
	MFA        *MFA
	BreakGlass bool
}

// Offers lists what who may ask for, sorted by target and level, and within a level in the order of the
// rules. What is denied to them whatever the moment is left out, and so is a rule that an earlier one always
// comes before.
func (p *Policy) Offers(who auth.Identity) []Offer { return p.offers(who, ofTheMoment()) }

func (p *Policy) offers(who auth.Identity, unknown []*cel.AttributePatternType) []Offer {
	var offers []Offer
	for name, t := range p.Targets {
		for level := range t.Levels {
			a := &asking{policy: p, who: who, ask: Ask{Target: name, Level: level}, target: t, unknown: unknown}
			if p.concerns(a) && !p.deniesAlways(a) {
				offers = append(offers, p.offer(a)...)
			}
		}
	}
	slices.SortStableFunc(offers, func(a, b Offer) int {
		return strings.Compare(a.Target+"\x00"+a.Level, b.Target+"\x00"+b.Level)
	})
	return offers
}

// offer lists what is offered of one level on one target.
func (p *Policy) offer(a *asking) (offers []Offer) {
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Deny || r.fits(a) != missNone || r.Longest < Shortest || r.Approvals.Count < 0 {
			continue
		}
		s, err := r.When.stands(a)
		if err != nil {
			return offers // whoever asks comes to this rule, and is denied
		}
		if s == never {
			continue
		}
		o := Offer{
			Target: a.ask.Target, Level: a.ask.Level, Rule: r.Name, Longest: r.Longest, Approvals: r.Approvals.Needed(), Reason: r.Reason,
			Terms: r.Terms(), MFA: r.MFA, BreakGlass: r.BreakGlass,
		}
		if s == unknown {
			o.When = r.When.line()
		}
		if !slices.ContainsFunc(offers, o.hiddenBy) {
			offers = append(offers, o)
		}
	}
	return offers
}

// hiddenBy reports whether whatever o would allow is allowed by an earlier offer already.
func (o Offer) hiddenBy(e Offer) bool {
	return e.BreakGlass == o.BreakGlass && e.When == "" && e.Longest >= o.Longest && (!e.Reason || o.Reason) &&
		(e.MFA == nil || e.MFA.equal(o.MFA)) && (e.Terms.Ticket == nil || e.Terms.Ticket.equal(o.Terms.Ticket))
}

// Why a policy is not put in force unless somebody insists.
var (
	ErrGivesNothing = errors.New("no rule of it can ever give anything to anybody")
	ErrLocksOut     = errors.New("nobody who holds a grant or may ask for one now could have either afterwards")
)

// LocksOut says whether putting p in force instead of previous leaves nobody with anything: no rule can
// ever match, or of all who may ask for something under previous, nobody may any more. People are those who
// are known: they hold grants or have asked; others are made up from the rules of previous, one for each
// group, e-mail and subject that it names. Nil: it does not.
func (p *Policy) LocksOut(previous *Policy, people ...auth.Identity) error {
	if !slices.ContainsFunc(p.Figures(), func(f Figure) bool { return len(p.OffersTo(f)) > 0 }) {
		return ErrGivesNothing
	}
	if previous == nil {
		return nil
	}
	before := false
	figures := previous.Figures()
	for _, id := range people {
		figures = append(figures, Figure{Identity: id, Known: true})
	}
	for _, f := range figures {
		if len(previous.OffersTo(f)) == 0 {
			continue
		}
		if len(p.OffersTo(f)) > 0 {
			return nil
		}
		before = true
	}
	if before {
		return ErrLocksOut
	}
	return nil
}

// Figure is somebody whom a policy's rules speak of.
type Figure struct {
	Identity auth.Identity
	Words    string // who that is, as the rule says it
	Known    bool   // a person; otherwise all that is known of them is what the rule asks for
}

// Figures makes up somebody for each group, e-mail and subject that the rules name, and for anyone.
func (p *Policy) Figures() (figures []Figure) {
	seen := map[string]bool{}
	for i := range p.Rules {
		for _, w := range p.Rules[i].Who.each() {
			words := w.Words()
			if p.Rules[i].Deny || seen[words] {
				continue
			}
			seen[words] = true
			figures = append(figures, Figure{Identity: w.somebody(), Words: words})
		}
	}
	return figures
}

// OffersTo is what a figure may ask for. Of one that is made up, conditions on who they are may hold.
func (p *Policy) OffersTo(f Figure) []Offer {
	if f.Known {
		return p.Offers(f.Identity)
	}
	return p.offers(f.Identity, append(ofTheMoment(), cel.AttributePattern("identity")))
}

// each splits w into those that name one of each kind.
func (w Who) each() []Who {
	all := []Who{{Anyone: w.Anyone}}
	split := func(values []string, set func(*Who, []string)) {
		if len(values) == 0 {
			return
		}
		var next []Who
		for _, one := range all {
			for i := range values {
				v := one
				set(&v, values[i:i+1])
				next = append(next, v)
			}
		}
		all = next
	}
	split(w.Groups, func(w *Who, v []string) { w.Groups = v })
	split(w.Emails, func(w *Who, v []string) { w.Emails = v })
	split(w.Subjects, func(w *Who, v []string) { w.Subjects = v })
	split(w.Issuers, func(w *Who, v []string) { w.Issuers = v })
	return all
}

// somebody makes up an identity that w selects.
func (w Who) somebody() auth.Identity {
	first := func(values []string, otherwise string) string {
		if len(values) > 0 {
			return values[0]
		}
		return otherwise
	}
	return auth.Identity{
		Issuer: first(w.Issuers, "an issuer"), Subject: first(w.Subjects, "somebody"), Email: first(w.Emails, ""), Groups: w.Groups,
	}
}
