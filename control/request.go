package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

const (
	// MaxOpen is how many open requests one person may have, so that nobody can fill the ledger.
	MaxOpen = 32
	// MaxText is how many bytes a reason or a comment may have.
	MaxText = 4000
	// MaxSQL is how many bytes the SQL may have that somebody intends to run.
	MaxSQL = 32 << 10
)

// Ask makes a request, if a rule allows it. A rule that wants no approval grants it at once, and so does one
// for those who break the glass: they owe a review for it from then on.
func (d *Desk) Ask(ctx context.Context, who auth.Identity, ask policy.Ask) (policy.Request, error) {
	if err := vouched(who); err != nil {
		return policy.Request{}, err
	}
	if err := plain(ask); err != nil {
		return policy.Request{}, err
	}
	confirmed, err := d.confirmTicket(ctx, who, ask)
	if err != nil {
		return policy.Request{}, err
	}
	var r policy.Request
	var g *policy.Grant
	var no error // what the policy says that is on the ledger
	err = d.transact(ctx, func(tx *store.Tx, p *policy.Policy) error {
		now := moment(tx)
		past, err := needed(tx, p, who, ask, now)
		if err == nil && ask.BreakGlass && !past.Debt {
			past.Debt, err = debtElsewhere(tx, who)
		}
		if err != nil {
			return err
		}
		v := p.Judge(who, ask, past, now)
		if !v.Allowed {
			no, err = d.refuse(tx, who, ask, "", v)
			return err
		}
		if err := confirmed.covers(v.Rule); err != nil {
			return err
		}
		if r, err = draft(tx, who, ask, v.Rule, past, now); err != nil {
			return err
		}
		r.Policy, r.Can = p.Hash, p.Targets[ask.Target].Levels[ask.Level]
		g, err = d.begin(tx, &r, now)
		return err
	}, func() { d.settled(r, g) })
	if err == nil {
		err = no
	}
	if err != nil {
		return policy.Request{}, failed(err, "target", ask.Target)
	}
	d.told(r, g)
	return r, nil
}

// told says in the log what became of an ask.
func (d *Desk) told(r policy.Request, g *policy.Grant) {
	d.log.Info("request", "request", r.ID, "person", r.Identity.Label(), "target", r.Target, "level", r.Level,
		"duration", r.Duration, "rule", r.Rule, "status", r.Status, "grant", r.Grant, "extends", r.Extends)
	if g != nil && g.BreakGlass {
		d.log.Warn("ALERT the glass was broken", "grant", g.ID, "person", r.Identity.Label(), "target", r.Target, "level", r.Level,
			"reason", r.Reason, "end", g.End)
	}
}

// plain refuses an ask whose texts would not read the same for everybody, and one that contradicts itself.
func plain(ask policy.Ask) error {
	for _, text := range []struct {
		what, text string
		most       int
	}{{"reason", ask.Reason, MaxText}, {"ticket", ask.Ticket, policy.MaxTicket}, {"intended SQL", ask.SQL, MaxSQL}} {
		if err := legible(text.what, text.text, text.most); err != nil {
			return err
		}
	}
	if strings.ContainsAny(ask.Ticket, "\n\t") {
		return &Error{Code: CodeInvalid, Public: "the ticket has more than one line", Next: "give its number: --ticket OPS-4711"}
	}
	return nil
}

// refuse says a verdict's no. What a rule denies, and what could not be judged, goes on the ledger: then the
// answer is no, and the error nil.
func (d *Desk) refuse(tx *store.Tx, who auth.Identity, ask policy.Ask, extends string, v policy.Verdict) (no, err error) {
	d.log.Info("ask refused", "person", who.Label(), "target", ask.Target, "level", ask.Level, "rules", v.Why, "denied", v.Denied, "error", v.Failed)
	if v.Denied == "" && v.Failed == nil {
		return nil, refusal(v)
	}
	e := ledger.RequestRefused{
		Person: personOf(who), Target: ask.Target, Level: ask.Level, Duration: ask.Duration, Start: ask.Start, Reason: strings.TrimSpace(ask.Reason),
		Ticket: ask.Ticket, BreakGlass: ask.BreakGlass, Extends: extends, Policy: d.Policy().Hash, Rule: v.Denied,
	}
	if v.Failed != nil {
		d.log.Error("ALERT a condition of the policy could not be evaluated, so the ask is refused", "person", who.Label(), "error", v.Failed)
		e.Error = v.Failed.Error()
	}
	return refusal(v), tx.Append(ledger.TypeRequestRefused, e)
}

// draft makes the request that an allowed ask becomes; its policy and what its level means are the caller's to add.
func draft(tx *store.Tx, who auth.Identity, ask policy.Ask, rule *policy.Rule, past policy.Facts, now time.Time) (r policy.Request, err error) {
	open, err := tx.Requests(store.RequestFilter{Status: policy.Open, By: who.Key(), Limit: MaxOpen})
	if err != nil {
		return r, err
	}
	if len(open) >= MaxOpen {
		return r, &Error{Code: CodeConflict, Public: fmt.Sprintf("you have %d open requests already", MaxOpen),
			Next: "cancel what you no longer need: curfew requests, curfew cancel"}
	}
	id, err := fresh("r", func(id string) error { _, err := tx.Request(id); return err })
	if err != nil {
		return r, err
	}
	r = policy.Request{
		ID: id, Identity: who, Target: ask.Target, Level: ask.Level, Duration: ask.Duration, Start: ask.Start,
		Reason: strings.TrimSpace(ask.Reason), Ticket: strings.TrimSpace(ask.Ticket), SQL: ask.SQL, BreakGlass: ask.BreakGlass,
		Created: now, Lapses: rule.Lapses(now), Rule: rule.Name, Terms: rule.Terms(), Facts: past, Status: policy.Open,
	}
	if r.BreakGlass {
		r.Approvals.Count, r.Approvals.Parties = 0, nil // nobody is waited for
	}
	if !r.Start.IsZero() {
		r.Start = r.Start.UTC()
	}
	return r, nil
}

// begin puts a new request on the ledger, and settles it: nobody may need to agree.
func (d *Desk) begin(tx *store.Tx, r *policy.Request, now time.Time) (*policy.Grant, error) {
	err := tx.Append(ledger.TypeRequestCreated, ledger.RequestCreated{
		Request: r.ID, Person: personOf(r.Identity), Target: r.Target, Level: r.Level, Duration: r.Duration, Start: r.Start,
		Reason: r.Reason, Rule: r.Rule, Policy: r.Policy, Approvals: r.Approvals.Needed(), Lapses: r.Lapses,
		Ticket: r.Ticket, SQL: r.SQL, BreakGlass: r.BreakGlass, Extends: r.Extends,
	})
	if err != nil {
		return nil, err
	}
	g, err := d.settle(tx, r, now, bySelf)
	if err == nil && r.Status == policy.Open {
		err = tx.Notify(store.Notice{Kind: store.NoticeRequestCreated, Request: r.ID, By: r.Identity.Label(), Text: r.Reason})
	}
	return g, err
}

// settle stores a request after each word that was said on it, and ends it if that is what they add up
// to; an approved one becomes a grant, or makes one longer.
func (d *Desk) settle(tx *store.Tx, r *policy.Request, now time.Time, by string) (*policy.Grant, error) {
	status, _ := policy.Tally(*r)
	switch {
	case status == policy.Open:
		return nil, tx.PutRequest(*r)
	case status != policy.Approved:
		return nil, endRequest(tx, r, status, by)
	case r.Extends != "":
		return d.lengthen(tx, r, now, by)
	}
	id, err := fresh("g", func(id string) error { _, err := tx.Grant(id); return err })
	if err != nil {
		return nil, err
	}
	r.Grant = id
	if err := endRequest(tx, r, status, by); err != nil {
		return nil, err
	}
	g := r.Becomes(id, now)
	if err := tx.PutGrant(g); err != nil {
		return nil, err
	}
	err = tx.Append(ledger.TypeGrantCreated, ledger.GrantCreated{
		Grant: g.ID, Request: r.ID, Person: personOf(g.Identity), Target: g.Target, Level: g.Level, Start: g.Start, End: g.End, BreakGlass: g.BreakGlass,
		Parameters: g.Record.Parameters,
	})
	if err == nil && g.BreakGlass {
		err = indebt(tx, g, r.Reason)
	}
	return &g, err
}

// endRequest ends a request in one of its four ways.
func endRequest(tx *store.Tx, r *policy.Request, status policy.Status, by string) error {
	r.Status, r.Ended = status, moment(tx)
	if err := tx.PutRequest(*r); err != nil {
		return err
	}
	err := tx.Append(ledger.TypeRequestEnded, ledger.RequestEnded{Request: r.ID, Status: string(status), By: by, Reason: r.EndReason})
	if err != nil || by == r.Identity.Label() || (by == bySelf && status == policy.Approved) {
		return err // they know: it was their own word, or the answer to it
	}
	text := r.EndReason
	if n := len(r.Decisions); text == "" && n > 0 && r.Decisions[n-1].Identity.Label() == by {
		text = r.Decisions[n-1].Comment
	}
	return tx.Notify(store.Notice{Kind: store.NoticeRequestEnded, Request: r.ID, Grant: r.Grant, By: by, Text: text})
}

// Decide is one person's word on a request. The last approval needed makes the grant, which starts then.
func (d *Desk) Decide(ctx context.Context, who auth.Identity, id string, approve bool, comment string) (policy.Request, error) {
	if err := readable("comment", comment); err != nil {
		return policy.Request{}, err
	}
	if approve {
		if err := vouched(who); err != nil {
			return policy.Request{}, err
		}
	}
	var r policy.Request
	var g *policy.Grant
	var late error // it had lapsed: that is written, and is the answer
	err := d.transact(ctx, func(tx *store.Tx, p *policy.Policy) (err error) {
		if r, err = visible(tx, p, who, id); err != nil {
			return err
		}
		switch err := p.MayDecide(who, r, approve, tx.Now()); {
		case errors.Is(err, policy.ErrEnded) && r.Status == policy.Open:
			late, err = lapse(tx, &r)
			return err
		case err != nil:
			return undecided(err, r)
		}
		if err := d.pointless(ctx, r); err != nil {
			return err
		}
		now := moment(tx)
		r.Decisions = append(r.Decisions, policy.Decision{Identity: who, Approve: approve, Comment: strings.TrimSpace(comment), Policy: p.Hash, At: now})
		err = tx.Append(ledger.TypeRequestDecided, ledger.RequestDecided{
			Request: r.ID, Person: personOf(who), Approve: approve, Comment: strings.TrimSpace(comment), Policy: p.Hash})
		if err != nil {
			return err
		}
		if g, err = d.settle(tx, &r, now, who.Label()); err == nil && r.Status == policy.Open {
			err = tx.Notify(store.Notice{Kind: store.NoticeRequestDecided, Request: r.ID, By: who.Label(), Text: strings.TrimSpace(comment)})
		}
		return err
	}, func() { d.settled(r, g) })
	if err == nil {
		err = late
	}
	if err != nil {
		return policy.Request{}, failed(err, "request", id)
	}
	d.log.Info("decision", "request", r.ID, "person", who.Label(), "approve", approve, "status", r.Status, "grant", r.Grant)
	return r, nil
}

// CancelRequest ends an open request by the word of its requester.
func (d *Desk) CancelRequest(ctx context.Context, who auth.Identity, id string) (policy.Request, error) {
	var r policy.Request
	var late error
	err := d.transact(ctx, func(tx *store.Tx, p *policy.Policy) (err error) {
		if r, err = visible(tx, p, who, id); err != nil {
			return err
		}
		if !who.Same(r.Identity) {
			return &Error{Code: CodeForbidden, Public: "only " + r.Identity.Label() + " can cancel this request",
				Next: "if you may decide on it, deny it: curfew deny " + r.ID}
		}
		if late, err = lapse(tx, &r); late != nil || err != nil {
			return err
		}
		if r.Status != policy.Open {
			return over(r)
		}
		return endRequest(tx, &r, policy.Cancelled, who.Label())
	}, func() { d.settled(r, nil) })
	if err == nil {
		err = late
	}
	if err != nil {
		return policy.Request{}, failed(err, "request", id)
	}
	d.log.Info("request cancelled", "request", r.ID, "person", who.Label())
	return r, nil
}

// transact runs one transaction under the policy in force, and then, in the same turn, the func that
// brings memory up to it.
func (d *Desk) transact(ctx context.Context, fn func(*store.Tx, *policy.Policy) error, after func()) error {
	ctx, done, err := d.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := d.update(ctx, func(tx *store.Tx) error { return fn(tx, d.Policy()) }); err != nil {
		return err
	}
	after()
	return nil
}

// settled brings memory up to a request, and to the grant that it may have become or made longer.
func (d *Desk) settled(r policy.Request, g *policy.Grant) {
	switch {
	case g == nil:
	case r.Extends != "":
		d.lengthened(*g)
	default:
		d.admit(*g, r)
	}
	if r.ID != "" {
		d.note(r)
	}
}

// note keeps track of which requests are open, and wakes those who wait for one that is not any more.
func (d *Desk) note(requests ...policy.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range requests {
		if r.Status == policy.Open {
			d.open[r.ID] = r
			continue
		}
		delete(d.open, r.ID)
		d.announce()
	}
}

// lapse ends an open request that nobody has decided in time; the error is what a latecomer is told.
func lapse(tx *store.Tx, r *policy.Request) (late, err error) {
	if r.Status != policy.Open || !r.Late(tx.Now()) {
		return nil, nil
	}
	if err := endRequest(tx, r, policy.Lapsed, bySelf); err != nil {
		return nil, err
	}
	return over(*r), nil
}

// visible reads a request that who may see.
func visible(tx *store.Tx, p *policy.Policy, who auth.Identity, id string) (policy.Request, error) {
	r, err := tx.Request(id)
	if err == nil && !p.MaySee(who, r) {
		err = store.ErrNotFound
	}
	if err != nil {
		return policy.Request{}, failed(err, "request", id)
	}
	return r, nil
}

// fresh makes an id that get doesn't find.
func fresh(prefix string, get func(id string) error) (string, error) {
	for {
		id := prefix + random(10)
		if err := get(id); errors.Is(err, store.ErrNotFound) {
			return id, nil
		} else if err != nil {
			return "", err
		}
	}
}

// moment is the transaction's time as it is kept: UTC, to the microsecond.
func moment(tx *store.Tx) time.Time { return tx.Now().UTC().Truncate(time.Microsecond) }

func nobody(who auth.Identity) error {
	if who.Issuer == "" || who.Subject == "" {
		return &Error{Code: CodeUnauthenticated, Public: "you are not logged in", Next: "log in: curfew login"}
	}
	return nil
}

// vouched refuses somebody about whom the provider could not be asked lately: nobody gets access, and nobody gives
// it, on what may not be true any more. What is granted already goes on to its end.
func vouched(who auth.Identity) error {
	if who.Stale {
		return &Error{Code: CodeUnavailable, Public: "the identity provider can't be asked about you, and until it can nobody gets new access by your word",
			Next: "try again in a minute; what is granted already goes on to its end"}
	}
	return nobody(who)
}

// readable refuses text that would not read the same on everybody's terminal.
func readable(what, s string) error { return legible(what, s, MaxText) }

func legible(what, s string, most int) error {
	problem := ""
	switch {
	case len(s) > most:
		problem = fmt.Sprintf("is longer than %d bytes", most)
	case !utf8.ValidString(s):
		problem = "is not UTF-8"
	case strings.ContainsFunc(s, func(c rune) bool {
		return c != '\n' && c != '\t' && (unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c))
	}):
		problem = "holds control characters"
	default:
		return nil
	}
	return &Error{Code: CodeInvalid, Public: "the " + what + " " + problem, Next: "say it in plain text, and shorter if need be"}
}

// refusal says a verdict's no.
func refusal(v policy.Verdict) *Error {
	if v.StepUp != nil {
		return stepUp(*v.StepUp, v.Public)
	}
	code := CodePolicy
	if v.Invalid {
		code = CodeInvalid
	}
	public, next, _ := strings.Cut(v.Public, "; ")
	return &Error{Code: code, Public: public, Next: next}
}

// undecided says why somebody who sees a request may not decide on it.
func undecided(err error, r policy.Request) error {
	var weak *policy.StepUpError
	switch {
	case errors.As(err, &weak):
		return stepUp(weak.StepUp, "to approve this request takes a login that shows "+weak.StepUp.Words())
	case errors.Is(err, policy.ErrSelf):
		return &Error{Code: CodeForbidden, Public: "nobody decides on their own request",
			Next: "somebody else has to; to withdraw it: curfew cancel " + r.ID, Err: err}
	case errors.Is(err, policy.ErrTwice):
		_, needed := policy.Tally(r)
		return &Error{Code: CodeConflict, Public: "you have approved this request already",
			Next: fmt.Sprintf("%d more approval(s) are needed, from other people", needed), Err: err}
	case errors.Is(err, policy.ErrEnded):
		return over(r)
	}
	return &Error{Code: CodeForbidden, Public: "you are not among those who may decide on this request",
		Next: "whoever may sees it with: curfew requests", Err: err}
}

// over says how a request has ended.
func over(r policy.Request) *Error {
	e := &Error{Code: CodeConflict, Public: fmt.Sprintf("request %s is %s since %s", r.ID, r.Status, clockTime(r.Ended))}
	switch {
	case r.Status == policy.Approved:
		e.Next = "to end the access it gave: curfew revoke " + r.Grant
	case r.EndReason != "":
		e.Next = r.EndReason
	default:
		e.Next = fmt.Sprintf("if it is still needed, it must be asked again: curfew request %s --level %s", r.Target, r.Level)
	}
	return e
}

func isCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
