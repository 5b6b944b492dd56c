package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
)

// Explanation says what the policy makes of an ask, and what each rule had to do with it: enough to know
// what would come of another. It is for those who may read the policy.
type Explanation struct {
	Person  string      `json:"person"`
	Ask     Ask         `json:"ask"`
	At      time.Time   `json:"at"`
	Policy  string      `json:"policy,omitempty"` // hash of the one that judged
	Outcome Outcome     `json:"outcome"`
	Rule    string      `json:"rule,omitempty"` // that decides
	Says    string      `json:"says,omitempty"` // what the asker reads
	Next    []string    `json:"next,omitempty"` // what comes then, in order
	Rules   []RuleStory `json:"rules"`
}

// Outcome is what comes of an ask.
type Outcome string

const (
	OutcomeAllowed Outcome = "allowed"
	OutcomeStepUp  Outcome = "step_up"
	OutcomeDenied  Outcome = "denied"  // by a rule
	OutcomeRefused Outcome = "refused" // no rule allows it
	OutcomeFailed  Outcome = "failed"  // a condition can't be evaluated
	OutcomeInvalid Outcome = "invalid"
)

// RuleStory is one rule's part.
type RuleStory struct {
	Rule    string   `json:"rule"`
	Deny    bool     `json:"deny,omitempty"`
	Decides bool     `json:"decides,omitempty"`
	Gives   string   `json:"gives"`
	Because []string `json:"because,omitempty"` // why it does not decide: all of it
}

// Outcome says what came of the ask.
func (v Verdict) Outcome() Outcome {
	switch {
	case v.Allowed:
		return OutcomeAllowed
	case v.Invalid:
		return OutcomeInvalid
	case v.Failed != nil:
		return OutcomeFailed
	case v.Denied != "":
		return OutcomeDenied
	case v.StepUp != nil:
		return OutcomeStepUp
	}
	return OutcomeRefused
}

// Explain judges an ask and tells of every rule.
func (p *Policy) Explain(who auth.Identity, ask Ask, f Facts, now time.Time) Explanation {
	v := p.Judge(who, ask, f, now)
	e := Explanation{Person: who.Label(), Ask: ask, At: now, Policy: p.Hash, Outcome: v.Outcome(), Says: v.Public, Rules: []RuleStory{}}
	a := &asking{policy: p, who: who, ask: ask, target: p.Targets[ask.Target], facts: f, now: now}
	switch {
	case v.Allowed:
		e.Rule, e.Next = v.Rule.Name, v.Rule.next(a)
	case v.StepUp != nil:
		e.Next = []string{p.afterStepUp(a)}
	case v.Denied != "":
		e.Rule = v.Denied
	case v.Failed != nil:
		e.Rule, e.Next = v.Failed.(*FailedError).Rule, []string{v.Failed.Error()}
	}
	_, known := a.target.Levels[ask.Level]
	if v.Invalid || !known {
		e.Next = p.unknownName(ask)
		return e
	}
	// Those that deny come first, as they are asked.
	for _, deny := range []bool{true, false} {
		for i := range p.Rules {
			if r := &p.Rules[i]; r.Deny == deny {
				e.Rules = append(e.Rules, r.story(a, e))
			}
		}
	}
	return e
}

// afterStepUp says which rule would allow the ask of a better login.
func (p *Policy) afterStepUp(a *asking) string {
	for i := range p.Rules {
		r := &p.Rules[i]
		if m, err := r.judge(a); !r.Deny && err == nil && m == missMFA {
			return fmt.Sprintf("with a login %s the rule %q would allow it", r.MFA.words(), r.Name)
		}
	}
	return ""
}

// unknownName says which name of an ask is none.
func (p *Policy) unknownName(ask Ask) []string {
	t, known := p.Targets[ask.Target]
	switch {
	case ask.Target == "" || ask.Level == "":
		return nil
	case !known:
		return []string{fmt.Sprintf("the policy has no target %q; it has %s", ask.Target, strings.Join(sorted(p.Targets), ", "))}
	}
	if _, known := t.Levels[ask.Level]; !known {
		return []string{fmt.Sprintf("%s has no level %q; it has %s", ask.Target, ask.Level, strings.Join(sorted(t.Levels), ", "))}
	}
	return nil
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (r *Rule) story(a *asking, e Explanation) RuleStory {
	s := RuleStory{Rule: r.Name, Deny: r.Deny, Gives: r.Gives(), Because: r.misses(a)}
	s.Decides = e.Rule == r.Name
	switch {
	case s.Decides && e.Outcome != OutcomeFailed:
		s.Because = nil
	case len(s.Because) == 0 && e.Rule != "":
		s.Because = []string{fmt.Sprintf("it fits as well, but %q decides before it", e.Rule)}
	}
	return s
}

// Gives says what a rule gives to whom and on what terms, or what it forbids.
func (r *Rule) Gives() string {
	scope := fmt.Sprintf("%s on %s to %s", strings.Join(r.Levels, " or "), r.where(), r.Who.Words())
	if r.Deny {
		return "forbids " + scope + r.provided()
	}
	parts := []string{"gives " + scope, span(r.Longest) + " at most"}
	if r.BreakGlass {
		parts = append(parts, "by breaking the glass alone")
	}
	parts = append(parts, r.Approvals.sentence())
	if r.Reason {
		parts = append(parts, "with a reason")
	}
	if r.Ticket != nil {
		parts = append(parts, "with a ticket that matches "+r.Ticket.Pattern)
	}
	if r.MFA != nil {
		parts = append(parts, "by a login "+r.MFA.words())
	}
	return strings.Join(parts, "; ") + r.provided()
}

func (r *Rule) provided() string {
	if r.When == nil {
		return ""
	}
	return "; if " + r.When.line()
}

func (r *Rule) where() string {
	var all []string
	for _, name := range r.Targets {
		if name == "*" {
			name = "every target"
		}
		all = append(all, name)
	}
	if len(r.Labels) > 0 {
		all = append(all, "targets with "+r.Labels.words())
	}
	return strings.Join(all, ", ")
}

func (l Labels) words() string {
	if len(l) == 0 {
		return "no labels"
	}
	var all []string
	for _, k := range sorted(l) {
		all = append(all, k+"="+l[k])
	}
	return strings.Join(all, ", ")
}

// misses says all that keeps the rule from deciding; what it asks of a request only if the rule is about
// this person, target and level at all.
func (r *Rule) misses(a *asking) (all []string) {
	if !r.Who.Matches(a.who) {
		all = append(all, fmt.Sprintf("it is for %s, and %s", r.Who.Words(), about(a.who)))
	}
	if !r.covers(a.ask.Target, a.target) {
		why := "it is for " + r.where()
		if len(r.Labels) > 0 {
			why += fmt.Sprintf(", and %s has %s", a.ask.Target, Labels(a.target.Labels).words())
		}
		all = append(all, why)
	}
	if !r.levels(a.ask.Level) {
		all = append(all, fmt.Sprintf("it is for %s, not for %s", strings.Join(r.Levels, " and "), a.ask.Level))
	}
	if len(all) > 0 {
		return all
	}
	if !r.Deny && r.BreakGlass != a.ask.BreakGlass {
		return []string{missGlass.why(r)}
	}
	if yes, err := r.When.holds(a); err != nil {
		all = append(all, "its condition can't be evaluated: "+err.Error())
	} else if !yes {
		all = append(all, r.When.because(a)...)
	}
	if !r.Deny {
		all = append(all, r.missedTerms(a)...)
	}
	return all
}

func about(who auth.Identity) string {
	if who.Issuer == "" || who.Subject == "" {
		return "nobody is logged in"
	}
	name := who.Label()
	if len(who.Groups) == 0 {
		return name + " is in no group"
	}
	return name + " is in " + strings.Join(who.Groups, ", ")
}

func (r *Rule) missedTerms(a *asking) (all []string) {
	if a.ask.Duration > r.Longest {
		all = append(all, fmt.Sprintf("it gives %s at most, and %s is asked for", span(r.Longest), span(a.ask.Duration)))
	}
	if r.Reason && strings.TrimSpace(a.ask.Reason) == "" {
		all = append(all, "it requires a reason, and none is given: --reason")
	}
	if r.Ticket != nil && !r.Ticket.Matches(a.ask.Ticket) {
		all = append(all, fmt.Sprintf("it requires a ticket that matches %s, and it is %q: --ticket", r.Ticket.Pattern, a.ask.Ticket))
	}
	if a.ask.BreakGlass && a.facts.Debt {
		all = append(all, "their last breaking of the glass has not been reviewed by somebody else yet")
	}
	if r.MFA != nil && !r.MFA.Met(a.who, a.now) {
		all = append(all, fmt.Sprintf("it takes a login %s, and this one shows %s", r.MFA.words(), shown(a.who, a.now)))
	}
	return all
}

// shown says what a login shows.
func shown(who auth.Identity, now time.Time) string {
	var all []string
	if who.ACR != "" {
		all = append(all, "acr "+who.ACR)
	}
	if len(who.AMR) > 0 {
		all = append(all, "amr "+strings.Join(who.AMR, ", "))
	}
	if who.Declared {
		all = append(all, "MFA by declaration")
	}
	if len(all) == 0 {
		all = append(all, "neither acr nor amr")
	}
	if who.AuthTime.IsZero() {
		return strings.Join(all, ", ") + ", of unknown age"
	}
	return strings.Join(all, ", ") + ", " + ago(now.Sub(who.AuthTime))
}

// next says what comes of an ask that the rule allows.
func (r *Rule) next(a *asking) []string {
	var all []string
	if r.Ticket != nil && r.Ticket.Confirm != "" {
		all = append(all, fmt.Sprintf("%s is asked whether %s is open and names %s", r.Ticket.Confirm, a.ask.Ticket, a.who.Label()))
	}
	begins := "when it is granted"
	if n := r.Approvals.Needed(); n > 0 {
		all = append(all, fmt.Sprintf("it waits for %s; %s does not count", r.Approvals.Words(), a.who.Label()))
		if r.Approvals.MFA != nil {
			all = append(all, "whoever approves needs a login "+r.Approvals.MFA.words())
		}
		all = append(all, "undecided, it lapses after "+span(r.Lapses(a.now).Sub(a.now)))
		begins = "with the last approval"
	} else {
		all = append(all, "it is granted at once")
	}
	if a.ask.Start.After(a.now) {
		begins = "at " + a.ask.Start.Format(time.RFC3339) + ", or " + begins + " if that is later"
	}
	all = append(all, fmt.Sprintf("access begins %s and lasts %s; extended, it ends %s from then on at the latest", begins, span(a.ask.Duration), span(r.Longest)))
	if r.WithLastSession {
		all = append(all, "it ends earlier, when the last session does")
	}
	if words := r.Limits.Words(); words != "" {
		all = append(all, "limits of its sessions: "+words)
	}
	if words := r.Record.Words(); words != "" {
		all = append(all, words)
	}
	if r.Review != nil {
		by := "whoever may read its recordings"
		if !r.Review.By.empty() {
			by = r.Review.By.Words()
		}
		all = append(all, fmt.Sprintf("somebody else reviews it within %s: %s", span(r.Review.Within), by))
	}
	return all
}

// Withhold takes out of an explanation what is not for the eyes of whoever it is about: rules for others, and
// names of targets and levels that no rule for them has.
func (p *Policy) Withhold(e *Explanation, who auth.Identity) {
	theirs := map[string]bool{}
	for i := range p.Rules {
		theirs[p.Rules[i].Name] = p.Rules[i].Who.Matches(who)
	}
	e.Rules = slices.DeleteFunc(e.Rules, func(r RuleStory) bool { return !theirs[r.Rule] })
	if _, known := p.Targets[e.Ask.Target].Levels[e.Ask.Level]; !known {
		e.Next = nil
	}
}
