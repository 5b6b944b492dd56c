package control

import (
	"context"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// More is what the holder of a grant asks for who needs longer.
type More struct {
	For    time.Duration // beyond the present end
	Reason string
	Ticket string // empty: that of the grant's own request
}

// Extend asks for more time under a grant that has not ended. It is a request like any other: the rule that
// gave the grant must allow it now, and as many must agree as it wants. Measured from now on, nobody gets
// longer than that rule gives at most. Sessions go on as they are.
func (d *Desk) Extend(ctx context.Context, who auth.Identity, grantID string, more More) (policy.Request, error) {
	g, first, err := d.shown(ctx, who, grantID)
	if err != nil {
		return policy.Request{}, err
	}
	if !g.Identity.Same(who) {
		return policy.Request{}, &Error{Code: CodeForbidden, Public: "only " + g.Identity.Label() + " can ask for more time under this grant",
			Next: fmt.Sprintf("ask for access of your own: curfew request %s --level %s", g.Target, g.Level)}
	}
	if err := vouched(who); err != nil {
		return policy.Request{}, err
	}
	if more.For < policy.Shortest {
		return policy.Request{}, &Error{Code: CodeInvalid, Public: "say how much longer, a second at least", Next: "for example: curfew extend " + g.ID + " --for 30m"}
	}
	if more.Ticket == "" {
		more.Ticket = first.Ticket
	}
	ask := policy.Ask{Target: g.Target, Level: g.Level, Duration: more.For, Reason: more.Reason, Ticket: more.Ticket, SQL: first.SQL}
	if err := plain(ask); err != nil {
		return policy.Request{}, err
	}
	confirmed, err := d.confirmUnder(ctx, who, ask, first.Rule)
	if err != nil {
		return policy.Request{}, err
	}
	var r policy.Request
	var no error
	var longer *policy.Grant
	err = d.transact(ctx, func(tx *store.Tx, p *policy.Policy) (err error) {
		r, no, err = d.askForMore(tx, p, who, g.ID, first.Rule, ask, confirmed)
		if err != nil || no != nil {
			return err
		}
		longer, err = d.begin(tx, &r, moment(tx))
		return err
	}, func() { d.settled(r, longer) })
	if err == nil {
		err = no
	}
	if err != nil {
		return policy.Request{}, failed(err, "grant", grantID)
	}
	d.told(r, nil)
	return r, nil
}

// askForMore judges an extension, and drafts its request.
func (d *Desk) askForMore(tx *store.Tx, p *policy.Policy, who auth.Identity, id, rule string, ask policy.Ask, c confirmation) (r policy.Request, no, err error) {
	now := moment(tx)
	if err := d.goesOn(tx.Context(), id); err != nil {
		return r, nil, err
	}
	g, err := tx.Grant(id)
	if err != nil {
		return r, nil, err
	}
	if g.BreakGlass {
		return r, nil, &Error{Code: CodePolicy, Public: "access for which the glass was broken is not extended",
			Next: fmt.Sprintf("ask for ordinary access: curfew request %s --level %s", g.Target, g.Level)}
	}
	if other, err := openExtension(tx, g); err != nil || other != "" {
		if err == nil {
			err = &Error{Code: CodeConflict, Public: fmt.Sprintf("request %s asks for more time under this grant already", other),
				Next: "wait for its decision, or withdraw it: curfew cancel " + other}
		}
		return r, nil, err
	}
	past, err := needed(tx, p, who, ask, now)
	if err != nil {
		return r, nil, err
	}
	whole := until(ask, g, g.End.Add(ask.Duration), now)
	if most := longest(p, rule); most > 0 && whole.Duration > most {
		return r, nil, tooLong(g, most, whole.Duration-ask.Duration)
	}
	v := only(p, rule).Judge(who, whole, past, now)
	if !v.Allowed {
		no, err = d.refuse(tx, who, ask, g.ID, v)
		return r, no, err
	}
	if err := c.covers(v.Rule); err != nil {
		return r, nil, err
	}
	if r, err = draft(tx, who, ask, v.Rule, past, now); err != nil {
		return r, nil, err
	}
	r.Policy, r.Can, r.Extends = p.Hash, g.Can, g.ID
	if r.Lapses.After(g.End) {
		r.Lapses = g.End // there is nothing to extend any more
	}
	return r, nil, nil
}

// longest is what a rule gives at most; 0: there is none of this name.
func longest(p *policy.Policy, rule string) time.Duration {
	for _, r := range p.Rules {
		if r.Name == rule && !r.Deny {
			return r.Longest
		}
	}
	return 0
}

// tooLong says how much longer a grant may be made now of which that much is left.
func tooLong(g policy.Grant, most, left time.Duration) *Error {
	e := &Error{Code: CodePolicy, Public: fmt.Sprintf("the rule that gave it lets %s on %s last %s at most, from now on", g.Level, g.Target, most),
		Next: "ask again when less of it is left"}
	if more := (most - left).Truncate(time.Second); more >= policy.Shortest {
		e.Next = fmt.Sprintf("ask for less: curfew extend %s --for %s", g.ID, more)
	}
	return e
}

// until is the ask that an extension comes to: access from now, or from the grant's begin, up to its new end.
func until(ask policy.Ask, g policy.Grant, end, now time.Time) policy.Ask {
	from := now
	if g.Start.After(from) {
		from, ask.Start = g.Start, g.Start
	}
	ask.Duration = end.Sub(from)
	return ask
}

// only is the policy with no other rule that gives anything than the one of this name.
func only(p *policy.Policy, rule string) *policy.Policy {
	q := *p
	q.Rules = nil
	for _, r := range p.Rules {
		if r.Deny || r.Name == rule {
			q.Rules = append(q.Rules, r)
		}
	}
	return &q
}

// stands reports whether an open request is still good under a policy and for who its requester is by now.
func stands(tx *store.Tx, p *policy.Policy, who auth.Identity, r policy.Request) bool {
	if recall(tx, p, who, &r) != nil {
		return false
	}
	if r.Extends == "" {
		return p.Stands(who, r)
	}
	g, err := tx.Grant(r.Extends)
	if err != nil {
		return false
	}
	ask := until(policy.Ask{Duration: r.Duration}, g, g.End.Add(r.Duration), r.Created)
	r.Duration, r.Start = ask.Duration, ask.Start
	return only(p, r.Rule).Stands(who, r)
}

// goesOn says why a grant can't be extended any more; nil: it can.
func (d *Desk) goesOn(ctx context.Context, id string) error {
	d.mu.Lock()
	l := d.live[id]
	if l != nil && l.grant.Ended.IsZero() && d.past(l) {
		d.expired(l)
	}
	good := l != nil && l.grant.Ended.IsZero()
	d.mu.Unlock()
	if good {
		return nil
	}
	return d.whyNot(ctx, id, errNotLive)
}

// pointless says why nobody need decide on an extension any more: its grant has ended, and it will, too.
func (d *Desk) pointless(ctx context.Context, r policy.Request) error {
	if r.Extends == "" || d.goesOn(ctx, r.Extends) == nil {
		return nil
	}
	return &Error{Code: CodeConflict, Public: fmt.Sprintf("grant %s, which this request would extend, has ended", r.Extends), Next: "nothing is left to decide"}
}

// openExtension gives the id of the request that asks for more time under a grant, if there is one.
func openExtension(tx *store.Tx, g policy.Grant) (string, error) {
	open, err := tx.Requests(store.RequestFilter{Status: policy.Open, By: g.Identity.Key()})
	for _, r := range open {
		if r.Extends == g.ID && !r.Late(tx.Now()) {
			return r.ID, err
		}
	}
	return "", err
}

// voidExtensions ends the open requests for more time under a grant that has ended.
func voidExtensions(tx *store.Tx, g policy.Grant) (void []policy.Request, err error) {
	open, err := tx.Requests(store.RequestFilter{Status: policy.Open, By: g.Identity.Key()})
	for _, r := range open {
		if r.Extends != g.ID {
			continue
		}
		status := policy.Lapsed
		if !r.Late(tx.Now()) {
			status, r.EndReason = policy.Denied, "its grant has ended"
		}
		if err := endRequest(tx, &r, status, bySelf); err != nil {
			return nil, err
		}
		void = append(void, r)
	}
	return void, err
}

// lengthen moves a grant's end, as an approved request asks. Whether the grant still goes on was looked at in
// this transaction; if it ends before that is committed it has ended, by the end that it had.
func (d *Desk) lengthen(tx *store.Tx, r *policy.Request, now time.Time, by string) (*policy.Grant, error) {
	if err := d.goesOn(tx.Context(), r.Extends); err != nil {
		return nil, err
	}
	g, err := tx.Grant(r.Extends)
	if err != nil {
		return nil, err
	}
	r.Grant = g.ID
	if err := endRequest(tx, r, policy.Approved, by); err != nil {
		return nil, err
	}
	longer := policy.Extension{Request: r.ID, From: g.End, To: g.End.Add(r.Duration), At: now, Approvers: r.Becomes(g.ID, now).Approvers}
	g.End, g.Extensions = longer.To, append(g.Extensions, longer)
	if err := tx.PutGrant(g); err != nil {
		return nil, err
	}
	err = tx.Append(ledger.TypeGrantExtended, ledger.GrantExtended{Grant: g.ID, Request: r.ID, From: longer.From, To: longer.To})
	if err != nil {
		return nil, err
	}
	return &g, tx.Notify(store.Notice{Kind: store.NoticeGrantExtended, Request: r.ID, Grant: g.ID, By: by})
}

// lengthened has a grant end later that goes on: who holds it goes on holding it.
func (d *Desk) lengthened(g policy.Grant) {
	d.mu.Lock()
	l := d.live[g.ID]
	if l == nil || !g.End.After(l.grant.End) || !l.grant.Ended.IsZero() {
		d.mu.Unlock()
		return
	}
	l.timer.Stop()
	left := g.End.Sub(d.store.Now())
	l.grant.End, l.grant.Extensions = g.End, g.Extensions
	l.over = time.Now().Add(left)
	l.timer = time.AfterFunc(left, func() { d.expire(g.ID) })
	d.mu.Unlock()
	d.log.Info("grant extended", "grant", g.ID, "person", g.Identity.Label(), "target", g.Target, "end", g.End)
	d.wire.Extended(g.ID, g.End)
}
