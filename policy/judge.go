package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
)

const (
	// DefaultLapse is how long a request stays open under a rule that doesn't say.
	DefaultLapse = 24 * time.Hour
	// Shortest is the shortest access there is.
	Shortest = time.Second
	// ShortestIdle is the shortest time that a level may let a session do nothing.
	ShortestIdle = time.Second
	// Ahead is how far ahead a start may be asked for: what begins later is standing access in waiting.
	Ahead = 30 * 24 * time.Hour
	// MaxTicket is how many bytes the number of a ticket may have.
	MaxTicket = 200
)

// Ask is what somebody wishes for, before any rule has looked at it.
type Ask struct {
	Target   string        `json:"target"`
	Level    string        `json:"level"`
	Duration time.Duration `json:"duration"`
	Start    time.Time     `json:"start,omitzero"` // zero, or past: when approved
	Reason   string        `json:"reason"`

	Ticket     string `json:"ticket,omitempty"`
	SQL        string `json:"sql,omitempty"` // what they intend to run
	BreakGlass bool   `json:"break_glass,omitempty"`
}

// Facts is what the caller knows of the asker's past, as of the asking.
type Facts struct {
	Grants      []Past `json:"grants,omitempty"` // that began in the last 90 days, newest first
	OpenReviews int    `json:"open_reviews,omitempty"`
	Debt        bool   `json:"debt,omitempty"` // a break-glass grant of theirs has not been reviewed
}

// Past is a grant that somebody had.
type Past struct {
	Target     string    `json:"target"`
	Level      string    `json:"level"`
	Start      time.Time `json:"start"`
	BreakGlass bool      `json:"break_glass,omitempty"`
}

// Verdict is what the policy says to an Ask.
type Verdict struct {
	Allowed bool
	Invalid bool       // the ask makes no sense under any policy
	Rule    *Rule      // the first that allows it; points into the Policy
	Why     []RuleMiss // why each rule before it did not, for the log and for auditors
	Public  string     // if not allowed: for the asker's eyes; tells nothing of rules made for others
	StepUp  *StepUp    // if not allowed: a new login that shows this would be
	Denied  string     // the name of the rule that denies it
	Failed  error      // a *FailedError: a condition could not be evaluated, so nothing is allowed
}

// RuleMiss says why one rule did not allow an Ask.
type RuleMiss struct {
	Rule string
	Why  string
}

// miss says how far a rule went along with an Ask; the further, the more its asker may know of it.
type miss int

const (
	missWho miss = iota
	missTarget
	missLevel
	missGlass // it is for breaking the glass, and the ask does not; or the other way round
	missWhen
	missBroken
	missLongest
	missReason
	missTicket
	missDebt
	missMFA
	missNone
)

// Judge asks the rules that deny, and then the others in order; the first that allows the ask decides. A
// condition that can't be evaluated denies, whatever rule it stands in, if its rule was asked at all. Judge
// is a pure function of its arguments: whoever has the policy's text can repeat a verdict.
func (p *Policy) Judge(who auth.Identity, ask Ask, f Facts, now time.Time) Verdict {
	if public := ask.malformed(now); public != "" {
		return Verdict{Invalid: true, Public: public}
	}
	target, known := p.Targets[ask.Target]
	if known {
		_, known = target.Levels[ask.Level]
	}
	if !known {
		return Verdict{Public: refused(ask)}
	}
	a := &asking{policy: p, who: who, ask: ask, target: target, facts: f, now: now}
	var v Verdict
	if p.denies(a, &v) {
		return v
	}
	furthest, best := -1, missWho
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Deny {
			continue
		}
		m, err := r.judge(a)
		if err != nil {
			v.fail(p, a, r, err)
			return v
		}
		if m == missNone {
			v.Allowed, v.Rule = true, r
			return v
		}
		v.miss(p, r, m.why(r))
		if m > best || (m == best && m == missLongest && r.Longest > p.Rules[furthest].Longest) {
			best, furthest = m, i
		}
	}
	v.Public = refused(ask)
	if furthest >= 0 {
		v.Public = p.Rules[furthest].public(best, a)
	}
	if best == missMFA {
		v.StepUp = (*StepUp)(p.Rules[furthest].MFA)
	}
	return v
}

// denies asks the rules that deny.
func (p *Policy) denies(a *asking, v *Verdict) bool {
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.Deny {
			continue
		}
		m := r.fits(a)
		if m == missNone {
			yes, err := r.When.holds(a)
			if err != nil {
				v.fail(p, a, r, err)
				return true
			}
			if yes {
				v.Denied, v.Public = r.Name, refused(a.ask)
				if p.concerns(a) {
					v.Public = fmt.Sprintf("the rule %q forbids %s on %s%s; %s", r.Name, a.ask.Level, a.ask.Target, p.freezes(a, r),
						"why, whoever keeps the policy can say")
				}
				return true
			}
			m = missWhen
		}
		v.miss(p, r, m.why(r))
	}
	return false
}

func (v *Verdict) miss(p *Policy, r *Rule, why string) {
	if v.Why == nil {
		v.Why = make([]RuleMiss, 0, len(p.Rules))
	}
	v.Why = append(v.Why, RuleMiss{Rule: r.Name, Why: why})
}

func (v *Verdict) fail(p *Policy, a *asking, r *Rule, err error) {
	v.Failed, v.Public = &FailedError{Rule: r.Name, Place: r.When.Place, Err: err}, refused(a.ask)
	if p.concerns(a) {
		v.Public = fmt.Sprintf("the condition of the rule %q can't be evaluated, so nothing is given; tell whoever keeps the policy", r.Name)
	}
}

// concerns reports whether some rule gives the asker this level on this target, under whatever terms: then
// they may know that it exists.
func (p *Policy) concerns(a *asking) bool {
	for i := range p.Rules {
		if r := &p.Rules[i]; !r.Deny && r.fits(a) == missNone {
			return true
		}
	}
	return false
}

// freezes names those that a rule goes by, and when they end.
func (p *Policy) freezes(a *asking, r *Rule) string {
	if !r.When.reads("frozen") {
		return ""
	}
	var in []string
	start := a.ask.begins(a.now)
	for _, f := range p.Freezes {
		if f.touches(start, start.Add(a.ask.Duration)) {
			in = append(in, fmt.Sprintf("%s until %s", f.Name, f.To.UTC().Format("2006-01-02 15:04 UTC")))
		}
	}
	if len(in) == 0 {
		return ""
	}
	return ": " + strings.Join(in, ", ")
}

// malformed says what is wrong with an ask under any policy.
func (a Ask) malformed(now time.Time) string {
	switch {
	case a.Target == "" || a.Level == "":
		return "a target and an access level are needed; see what you may ask for: curfew targets"
	case a.Duration < Shortest:
		return "say for how long, a second at least; for example --for 30m"
	case a.Start.After(now.Add(Ahead)):
		return "a start can be asked for 30 days ahead at most; ask again when it is nearer"
	case a.BreakGlass && a.Start.After(now):
		return "breaking the glass is for now, not for a later start; leave out --start, or ask without --break-glass"
	case len(a.Ticket) > MaxTicket:
		return fmt.Sprintf("a ticket's number has %d bytes at most; give the number alone, and the rest in --reason", MaxTicket)
	}
	return ""
}

// refused is the same sentence for what doesn't exist and for what no rule gives to the asker.
func refused(a Ask) string {
	return fmt.Sprintf("no rule gives you %s on %s; see what you may ask for: curfew targets", a.Level, a.Target)
}

// fits says whether the rule is about this person, target and level.
func (r *Rule) fits(a *asking) miss {
	switch {
	case !r.Who.Matches(a.who):
		return missWho
	case !r.covers(a.ask.Target, a.target):
		return missTarget
	case !r.levels(a.ask.Level):
		return missLevel
	}
	return missNone
}

func (r *Rule) levels(level string) bool {
	return slices.Contains(r.Levels, level) || (r.Deny && slices.Contains(r.Levels, "*"))
}

func (r *Rule) judge(a *asking) (miss, error) {
	if m := r.fits(a); m != missNone {
		return m, nil
	}
	if r.BreakGlass != a.ask.BreakGlass {
		return missGlass, nil
	}
	if yes, err := r.When.holds(a); err != nil || !yes {
		return missWhen, err
	}
	return r.terms(a), nil
}

// terms says whether the ask is within the rule's terms.
func (r *Rule) terms(a *asking) miss {
	switch {
	case r.Approvals.Count < 0:
		return missBroken
	case a.ask.Duration > r.Longest:
		return missLongest
	case r.Reason && strings.TrimSpace(a.ask.Reason) == "":
		return missReason
	case r.Ticket != nil && !r.Ticket.Matches(a.ask.Ticket):
		return missTicket
	case a.ask.BreakGlass && a.facts.Debt:
		return missDebt
	case r.MFA != nil && !r.MFA.Met(a.who, a.now):
		return missMFA
	}
	return missNone
}

// why is for the log, in words that cost nothing to make.
func (m miss) why(r *Rule) string {
	switch m {
	case missWho:
		return "it is for other people"
	case missTarget:
		return "it is for other targets"
	case missLevel:
		return "it is for other levels"
	case missGlass:
		if r.BreakGlass {
			return "it is for breaking the glass"
		}
		return "it is not for breaking the glass"
	case missWhen:
		return "its condition does not hold"
	case missLongest:
		return "it gives " + span(r.Longest) + " at most"
	case missReason:
		return "it requires a reason"
	case missTicket:
		return "it requires a ticket"
	case missDebt:
		return "the last breaking of the glass has not been reviewed"
	case missMFA:
		return "it requires a stronger or newer login"
	}
	return "it asks for fewer than no approvals"
}

// public says to the asker how the rule that went furthest did not allow the ask, and what would help.
func (r *Rule) public(m miss, a *asking) string {
	what := a.ask.Level + " on " + a.ask.Target
	switch m {
	case missMFA:
		return fmt.Sprintf("%s takes a login %s; log in again: curfew login", what, r.MFA.words())
	case missDebt:
		return "your last breaking of the glass has not been reviewed yet; somebody else has to: curfew reviews"
	case missTicket:
		return fmt.Sprintf("a ticket is required for %s; ask again with --ticket and a number that matches %s", what, r.Ticket.Pattern)
	case missReason:
		return fmt.Sprintf("a reason is required for %s; ask again with --reason \"…\"", what)
	case missLongest:
		return fmt.Sprintf("%s is given for %s at most; ask again with --for %s", what, span(r.Longest), span(r.Longest))
	case missWhen:
		return fmt.Sprintf("the rule %q gives %s under a condition that does not hold%s; it is: %s", r.Name, what, a.policy.freezes(a, r), r.When.line())
	case missGlass:
		if r.BreakGlass {
			return fmt.Sprintf("%s is given for emergencies alone; in one, ask with --break-glass", what)
		}
		return fmt.Sprintf("no rule lets you break the glass for %s; ask without --break-glass", what)
	}
	return refused(a.ask)
}

// span writes a duration as people do: 1h30m, not 1h30m0s.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Lapses is when a request made now under this rule lapses.
func (r *Rule) Lapses(now time.Time) time.Time {
	if r.Lapse > 0 {
		return now.Add(r.Lapse)
	}
	return now.Add(DefaultLapse)
}

// Matches reports whether this is a ticket's number as the rule wants them. A pattern that is none matches
// nothing.
func (t *TicketRule) Matches(ticket string) bool {
	pattern := t.compiled
	if pattern == nil {
		var err error
		if pattern, err = compileTicket(t.Pattern); err != nil {
			return false
		}
	}
	return pattern.MatchString(ticket)
}

func compileTicket(pattern string) (*regexp.Regexp, error) {
	return regexp.Compile(`^(?:` + pattern + `)$`)
}
