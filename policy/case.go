package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
)

// Case is a story about a policy: who asks what and when, who says what to it, and what must come of it.
type Case struct {
	Name  string
	Place string // file:line
	Who   auth.Identity
	Ask   Ask
	At    time.Time
	Facts Facts

	Approve, Deny []auth.Identity // in this order, once it is asked
	Expect        Expect
}

// Expect is what must come of a case. What is not named may be anything.
type Expect struct {
	Allowed   string // the rule that allows it
	Denied    string // the rule that denies it
	Refused   string // words that the asker reads
	StepUp    string // words of what a new login must show
	Failed    string // the rule whose condition can't be evaluated
	Approvals *int   // how many people must agree
	From      string // words of who they are
	Then      Status // after the decisions
}

// Try plays a case and says what came otherwise; nothing, if all is as expected.
func (p *Policy) Try(c Case) (wrong []string) {
	v := p.Judge(c.Who, c.Ask, c.Facts, c.At)
	if want, got := c.Expect.outcome(), v.outcome(); !c.Expect.met(v) {
		return []string{"expected " + want + ", and it is " + got}
	}
	if !v.Allowed {
		return nil
	}
	if n := v.Rule.Approvals.Needed(); c.Expect.Approvals != nil && *c.Expect.Approvals != n {
		wrong = append(wrong, fmt.Sprintf("expected %d approvals, and it takes %d", *c.Expect.Approvals, n))
	}
	if words := v.Rule.Approvals.Words(); !strings.Contains(words, c.Expect.From) {
		wrong = append(wrong, fmt.Sprintf("expected approvals from %q, and it takes %s", c.Expect.From, words))
	}
	return append(wrong, p.decided(c, v.Rule)...)
}

// decided plays the decisions.
func (p *Policy) decided(c Case, rule *Rule) (wrong []string) {
	r := Request{
		Identity: c.Who, Target: c.Ask.Target, Level: c.Ask.Level, Created: c.At, Lapses: rule.Lapses(c.At),
		Terms: rule.Terms(), Status: Open,
	}
	speak := func(people []auth.Identity, approve bool) {
		for _, who := range people {
			if err := p.MayDecide(who, r, approve, c.At); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s can't decide: %s", who.Label(), err))
				continue
			}
			r.Decisions = append(r.Decisions, Decision{Identity: who, Approve: approve, At: c.At})
			r.Status, _ = Tally(r)
		}
	}
	speak(c.Approve, true)
	speak(c.Deny, false)
	if status, _ := Tally(r); c.Expect.Then != "" && status != c.Expect.Then {
		why := fmt.Sprintf("expected it to be %s then, and it is %s", c.Expect.Then, status)
		if people, parties := Lacking(r); status == Open {
			why += fmt.Sprintf(": %d more must agree", people)
			for _, w := range parties {
				why += ", one of " + w.Words()
			}
		}
		return append(wrong, why)
	}
	if c.Expect.Then == Open {
		return nil // that somebody could not decide is what the case is about
	}
	return wrong
}

func (e Expect) met(v Verdict) bool {
	switch {
	case e.Allowed != "":
		return v.Allowed && v.Rule.Name == e.Allowed
	case e.Denied != "":
		return v.Denied == e.Denied
	case e.StepUp != "":
		return v.StepUp != nil && strings.Contains(v.StepUp.Words(), e.StepUp)
	case e.Failed != "":
		return v.Failed != nil && v.Failed.(*FailedError).Rule == e.Failed
	}
	return !v.Allowed && v.Denied == "" && v.StepUp == nil && v.Failed == nil && strings.Contains(v.Public, e.Refused)
}

func (e Expect) outcome() string {
	switch {
	case e.Allowed != "":
		return fmt.Sprintf("allowed by %q", e.Allowed)
	case e.Denied != "":
		return fmt.Sprintf("denied by %q", e.Denied)
	case e.StepUp != "":
		return fmt.Sprintf("a step-up to %q", e.StepUp)
	case e.Failed != "":
		return fmt.Sprintf("a failed condition of %q", e.Failed)
	}
	return fmt.Sprintf("refused with %q", e.Refused)
}

// outcome says a verdict in a few words.
func (v Verdict) outcome() string {
	switch {
	case v.Allowed:
		return fmt.Sprintf("allowed by %q", v.Rule.Name)
	case v.Failed != nil:
		return "denied, because " + v.Failed.Error()
	case v.Denied != "":
		return fmt.Sprintf("denied by %q", v.Denied)
	case v.StepUp != nil:
		return "a step-up to " + v.StepUp.Words()
	}
	return "refused: " + v.Public
}
