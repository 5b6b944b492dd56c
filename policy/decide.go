package policy

import (
	"errors"
	"slices"
	"time"

	"github.com/curfewdb/curfew/auth"
)

// Why a person may not decide on a request. There is no exemption for anybody.
var (
	ErrSelf     = errors.New("nobody decides on their own request")
	ErrStranger = errors.New("not among those who may decide on this request")
	ErrTwice    = errors.New("this person has approved already")
	ErrEnded    = errors.New("the request has ended")
)

// StepUpError says that somebody may decide, but not with the login they have.
type StepUpError struct{ StepUp StepUp }

func (e *StepUpError) Error() string { return "deciding takes a login that shows " + e.StepUp.Words() }

// Tally counts the decisions of a request: the status they lead to, and how many approvals are still
// needed. One deny ends a request. Approvals count by human, however often one has spoken and under
// whichever identity, e-mail or group, and the requester's own never counts. Of each party there must be somebody, and
// nobody stands for two parties.
func Tally(r Request) (Status, int) {
	for _, d := range r.Decisions {
		if !d.Approve && d.Identity.Subject != "" && !d.Identity.SameHuman(r.Identity) {
			return Denied, 0
		}
	}
	if needed, _ := Lacking(r); needed > 0 {
		return Open, needed
	}
	return Approved, 0
}

// MayDecide says whether who may decide on the request now; nil if so. Somebody who has approved may
// still deny while the request is open; approve says which of the two it is about. To approve can take a
// stronger or newer login (*StepUpError); to deny never does.
func (p *Policy) MayDecide(who auth.Identity, r Request, approve bool, now time.Time) error {
	switch {
	case who.SameHuman(r.Identity):
		return ErrSelf
	case !p.Decider(who, r):
		return ErrStranger
	case r.Status != Open || r.Late(now):
		return ErrEnded
	case approve && slices.ContainsFunc(r.Decisions, func(d Decision) bool { return d.Identity.SameHuman(who) }):
		return ErrTwice
	case approve && r.Approvals.MFA != nil && !r.Approvals.MFA.Met(who, now):
		return &StepUpError{StepUp(*r.Approvals.MFA)}
	}
	return nil
}

// Late reports whether nobody decided on the request in time, be that noted in its status yet or not.
func (r Request) Late(now time.Time) bool {
	return (r.Status == Open && !now.Before(r.Lapses)) || r.Status == Lapsed
}

// Decider reports whether who is one of those whose word counts on this request, open or ended.
// The requester never is, under none of their identities, and no program is.
func (p *Policy) Decider(who auth.Identity, r Request) bool {
	if who.Workload || who.SameHuman(r.Identity) || !r.Approvals.selects(who) {
		return false
	}
	_, known := p.Targets[r.Target]
	return known
}

// MayRead reports whether who may read the recordings of a target.
func (p *Policy) MayRead(who auth.Identity, target string) bool {
	return slices.ContainsFunc(p.Readers, func(r Reader) bool {
		return named(r.Targets, target) && r.Who.Matches(who)
	})
}

// MayReview reports whether who may look at what somebody did on a target: one of the Reviewers, never that person
// themself, and no program.
func (p *Policy) MayReview(who, of auth.Identity, by Who, target string) bool {
	return !who.SameHuman(of) && !who.Workload && slices.ContainsFunc(p.Reviewers(by, target), func(w Who) bool { return w.Matches(who) })
}

// Reviewers are those whom a rule names for its reviews, or, where it names nobody, whoever may read the target's
// recordings.
func (p *Policy) Reviewers(by Who, target string) (all []Who) {
	if !by.empty() {
		return []Who{by}
	}
	for _, r := range p.Readers {
		if named(r.Targets, target) {
			all = append(all, r.Who)
		}
	}
	return all
}

// MayRevoke reports whether who may end a grant of this request: its holder, those who could have
// decided on it, and the readers of the target (security).
func (p *Policy) MayRevoke(who auth.Identity, r Request) bool {
	return who.Same(r.Identity) || p.Decider(who, r) || p.MayRead(who, r.Target)
}

// MaySee reports whether who may know of a request and of the grant it became.
func (p *Policy) MaySee(who auth.Identity, r Request) bool { return p.MayRevoke(who, r) }

// Stands reports whether an open request is still good under this policy and for who its requester is by
// now: it is allowed, on the same terms. If not it must be asked again, because what people have decided so
// far was decided under other terms: so too if the level means something else now. The time, the past and
// what the login showed are those of the asking.
func (p *Policy) Stands(who auth.Identity, r Request) bool {
	who.ACR, who.AMR, who.AuthTime, who.Declared = r.Identity.ACR, r.Identity.AMR, r.Identity.AuthTime, r.Identity.Declared
	v := p.Judge(who, r.Ask(), r.Facts, r.Created)
	return v.Allowed && v.Rule.Terms().equal(r.Terms) && p.Targets[r.Target].Levels[r.Level].equal(r.Can)
}

// Becomes makes the grant of an approved request: it starts at the last approval needed or at the asked
// start, whichever is later, and ends its duration after that. An extension alone moves the end.
func (r Request) Becomes(id string, approved time.Time) Grant {
	start := approved
	if r.Start.After(start) {
		start = r.Start
	}
	g := Grant{
		ID: id, Request: r.ID, Identity: r.Identity, Target: r.Target, Level: r.Level, Can: r.Can, Policy: r.Policy,
		Terms: r.Terms, BreakGlass: r.BreakGlass, Start: start.UTC(), End: start.Add(r.Duration).UTC(),
	}
	for _, who := range r.approvers() {
		g.Approvers = append(g.Approvers, who.Label())
	}
	return g
}
