package policy

import (
	"fmt"
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
	Failed  error      // a condition could not be evaluated, so nothing is allowed
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
	missBroken
	missLongest
	missReason
	missNone
)

// Judge asks the rules in order; the first that allows the ask decides. It is a pure function of its
// arguments: whoever has the policy's text can repeat a verdict.
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
	var v Verdict
	best, furthest := missWho, -1
	for i := range p.Rules {
		r := &p.Rules[i]
		m := r.judge(who, ask, target)
		if m == missNone {
			v.Allowed, v.Rule = true, r
			return v
		}
		if v.Why == nil {
			v.Why = make([]RuleMiss, 0, len(p.Rules))
		}
		v.Why = append(v.Why, RuleMiss{Rule: r.Name, Why: m.why(r)})
		if m > best || (m == best && m == missLongest && r.Longest > p.Rules[furthest].Longest) {
			best, furthest = m, i
		}
	}
	v.Public = refused(ask)
	switch best {
	case missReason:
		v.Public = fmt.Sprintf("a reason is required for %s on %s; ask again with --reason \"…\"", ask.Level, ask.Target)
	case missLongest:
		longest := span(p.Rules[furthest].Longest)
		v.Public = fmt.Sprintf("%s on %s is given for %s at most; ask again with --for %s", ask.Level, ask.Target, longest, longest)
	}
	return v
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
	}
	return ""
}

// refused is the same sentence for what doesn't exist and for what no rule gives to the asker.
func refused(a Ask) string {
	return fmt.Sprintf("no rule gives you %s on %s; see what you may ask for: curfew targets", a.Level, a.Target)
}

func (r *Rule) judge(who auth.Identity, ask Ask, t Target) miss {
	switch {
	case !r.Who.Matches(who):
		return missWho
	case !r.covers(ask.Target, t):
		return missTarget
	case !slices.Contains(r.Levels, ask.Level):
		return missLevel
	case r.Approvals.Count < 0:
		return missBroken
	case ask.Duration > r.Longest:
		return missLongest
	case r.Reason && strings.TrimSpace(ask.Reason) == "":
		return missReason
	}
	return missNone
}

func (m miss) why(r *Rule) string {
	switch m {
	case missWho:
		return "it is for other people"
	case missTarget:
		return "it is for other targets"
	case missLevel:
		return "it is for other levels"
	case missLongest:
		return "it gives " + span(r.Longest) + " at most"
	case missReason:
		return "it requires a reason"
	}
	return "it asks for fewer than no approvals"
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

// Holds reports whether some rule gives who what the grant gives at all: what a grant in force must
// keep to when the policy or the person's groups change. Duration and reason were settled when it began.
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
	return slices.ContainsFunc(p.Rules, func(r Rule) bool {
		return r.Who.Matches(who) && r.covers(g.Target, t) && slices.Contains(r.Levels, g.Level)
	})
}

// Offer is one thing a person may ask for.
type Offer struct {
	Target    string
	Level     string
	Rule      string
	Longest   time.Duration
	Approvals int
	Reason    bool // a reason is required
}

// Offers lists what who may ask for, sorted by target and level, and within a level in the order of the
// rules. A rule that an earlier one always comes before is left out.
func (p *Policy) Offers(who auth.Identity) []Offer {
	var offers []Offer
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.Who.Matches(who) || r.Longest < Shortest || r.Approvals.Count < 0 {
			continue
		}
		for name, t := range p.Targets {
			if !r.covers(name, t) {
				continue
			}
			for _, level := range r.Levels {
				if _, known := t.Levels[level]; known {
					offers = offer(offers, Offer{name, level, r.Name, r.Longest, r.Approvals.Count, r.Reason})
				}
			}
		}
	}
	slices.SortStableFunc(offers, func(a, b Offer) int {
		return strings.Compare(a.Target+"\x00"+a.Level, b.Target+"\x00"+b.Level)
	})
	return offers
}

// offer appends o unless whatever it would allow is allowed by an earlier offer already.
func offer(offers []Offer, o Offer) []Offer {
	for _, e := range offers {
		if e.Target == o.Target && e.Level == o.Level && e.Longest >= o.Longest && (!e.Reason || o.Reason) {
			return offers
		}
	}
	return append(offers, o)
}
