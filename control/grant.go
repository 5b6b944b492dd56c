package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// Release ends a grant by the word of its holder: the task is done.
func (d *Desk) Release(ctx context.Context, who auth.Identity, id string) (policy.Grant, error) {
	g, _, err := d.shown(ctx, who, id)
	if err != nil {
		return policy.Grant{}, err
	}
	if !g.Identity.Same(who) {
		return policy.Grant{}, &Error{Code: CodeForbidden, Public: "only " + g.Identity.Label() + " can release this grant",
			Next: "to end it for them: curfew revoke " + id}
	}
	return d.end(ctx, id, recorder.EndReleased, "its holder said that the task is done", who.Label())
}

// Revoke ends a grant by the word of its holder, of somebody who could have decided on it, or of a
// reader of its target.
func (d *Desk) Revoke(ctx context.Context, who auth.Identity, id, reason string) (policy.Grant, error) {
	if err := readable("reason", reason); err != nil {
		return policy.Grant{}, err
	}
	// Who may see a grant may end it; the two are one rule in package policy.
	_, r, err := d.shown(ctx, who, id)
	if err != nil {
		return policy.Grant{}, err
	}
	if !d.Policy().MayRevoke(who, r) {
		return policy.Grant{}, &Error{Code: CodeForbidden, Public: "you may see this grant and not revoke it",
			Next: "ask its holder or an approver: " + r.Identity.Label()}
	}
	if reason = strings.TrimSpace(reason); reason == "" {
		reason = "no reason was given"
	}
	return d.end(ctx, id, recorder.EndRevoked, reason, who.Label())
}

// End ends a grant for a reason that Curfew itself has found: its account was used past the proxy, its
// identity is gone. Ending a grant that has ended is nothing.
func (d *Desk) End(ctx context.Context, grantID, code, reason, by string) error {
	_, err := d.end(ctx, grantID, code, reason, by)
	if isCode(err, CodeConflict) {
		return nil
	}
	return err
}

// end ends a grant: in memory at once, which wakes its holders, and then on the ledger.
func (d *Desk) end(ctx context.Context, id, code, reason, by string) (policy.Grant, error) {
	g, first := d.finishNow(id, code, reason, by)
	if !first && g.ID == "" {
		var err error
		if g, err = d.Recall(ctx, id); err != nil {
			return policy.Grant{}, err
		}
	}
	if !first {
		return g, &Error{Code: CodeConflict, Public: fmt.Sprintf("grant %s has ended already: %s at %s", id, g.EndCode, clockTime(g.Ended)),
			Next: "nothing is left to do"}
	}
	return g, d.putEnd(ctx, g)
}

// putEnd writes a decided end, or says that this is still to be done.
func (d *Desk) putEnd(ctx context.Context, g policy.Grant) error {
	err := d.writeEnd(ctx, g)
	if err == nil {
		return nil
	}
	return &Error{Code: CodeUnavailable,
		Public: fmt.Sprintf("grant %s has ended, but that could not be written to the ledger", g.ID),
		Next:   "it is being tried again each second; the server's log says why it fails", Err: err}
}

// endWhere revokes, by Curfew's own word, the grants for which why gives a reason: all of them in memory, which
// is what cuts people off, before it gives those whose end is to be written.
func (d *Desk) endWhere(code string, why func(policy.Grant) string) (ended []policy.Grant) {
	for _, l := range d.living() {
		reason := why(l.grant)
		if reason == "" {
			continue
		}
		if g, first := d.finishNow(l.grant.ID, code, reason, bySelf); first {
			ended = append(ended, g)
		}
	}
	return ended
}

// finishNow decides how a grant ends, if nothing has yet; a grant whose time is up has expired, whatever
// else is said of it. The grant is empty if memory has none.
func (d *Desk) finishNow(id, code, reason, by string) (g policy.Grant, first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.live[id]
	if l == nil {
		return policy.Grant{}, false
	}
	if l.grant.Ended.IsZero() {
		if d.past(l) {
			d.expired(l)
		} else {
			d.finish(l, code, reason, by, d.store.Now().UTC().Truncate(time.Microsecond))
			first = true
		}
	}
	return l.grant, first
}

// writeEnd puts a decided end into the store, once: an attempt that was stored but reported as failed is
// recognised by the next. The end's own turn is part of it, so that no reload can bring the grant back.
func (d *Desk) writeEnd(ctx context.Context, g policy.Grant) error {
	ctx, done, err := d.take(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer done()
	var void []policy.Request
	err = d.update(ctx, func(tx *store.Tx) error {
		was, err := tx.Grant(g.ID)
		if err != nil || !was.Ended.IsZero() {
			return err
		}
		// Its end may have been moved in the very moment in which it came: what is kept is the store's row.
		was.Ended, was.EndCode, was.EndReason, was.EndedBy = g.Ended, g.EndCode, g.EndReason, g.EndedBy
		if err := tx.PutGrant(was); err != nil {
			return err
		}
		err = tx.Append(ledger.TypeGrantEnded, ledger.GrantEnded{
			Grant: g.ID, Code: g.EndCode, Reason: g.EndReason, By: g.EndedBy, At: g.Ended})
		if err == nil && (g.EndCode == recorder.EndRevoked || g.EndCode == recorder.EndForeign) && g.EndedBy != g.Identity.Label() {
			err = tx.Notify(store.Notice{Kind: store.NoticeGrantEnded, Request: g.Request, Grant: g.ID, By: g.EndedBy, Text: g.EndReason})
		}
		if err == nil {
			void, err = voidExtensions(tx, g)
		}
		return err
	})
	if err != nil {
		return err
	}
	d.note(void...)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.live, g.ID)
	return nil
}

// shown gives a grant and its request to somebody who may see them. Memory answers before the store is
// asked: a grant can be revoked while the store can't be read.
func (d *Desk) shown(ctx context.Context, who auth.Identity, id string) (g policy.Grant, r policy.Request, err error) {
	if err := nobody(who); err != nil {
		return g, r, err
	}
	if l, ok := d.alive(id); ok {
		g, r = l.grant, l.request
	} else {
		err = d.store.View(ctx, func(tx *store.Tx) (err error) {
			if g, err = tx.Grant(id); err == nil {
				r, err = tx.Request(g.Request)
			}
			return err
		})
	}
	if err == nil && !d.Policy().MaySee(who, r) {
		err = store.ErrNotFound
	}
	if err != nil {
		return policy.Grant{}, policy.Request{}, failed(err, "grant", id)
	}
	return g, r, nil
}

// Credentials is what a stock client needs to connect under a grant.
type Credentials struct {
	Grant    string
	User     string // the grant's id
	Password string // shown here and never again
	Target   string
	TargetInfo
	Start, End time.Time
}

// Password makes a new grant password for the holder. Older ones are void for new logins; sessions that
// are there stay.
func (d *Desk) Password(ctx context.Context, who auth.Identity, grantID string) (Credentials, error) {
	g, _, err := d.shown(ctx, who, grantID)
	if err != nil {
		return Credentials{}, err
	}
	if !g.Identity.Same(who) {
		return Credentials{}, &Error{Code: CodeForbidden, Public: "only " + g.Identity.Label() + " can have this grant's password",
			Next: fmt.Sprintf("ask for access of your own: curfew request %s --level %s", g.Target, g.Level)}
	}
	info, known := d.targets[g.Target]
	if !known {
		return Credentials{}, &Error{Code: CodeUnavailable, Public: "this Curfew serves no target " + g.Target + " any more",
			Next: "ask whoever runs Curfew"}
	}
	password := random(passwordLength)
	verifier, err := d.enrol(g.Target, password)
	if err != nil {
		return Credentials{}, unavailable(fmt.Errorf("enrol for %s: %w", g.Target, err))
	}
	err = d.transact(ctx, func(tx *store.Tx, _ *policy.Policy) error {
		if !tx.Now().Before(g.End) {
			d.expire(grantID)
		}
		if l, ok := d.alive(grantID); !ok || !l.grant.Ended.IsZero() {
			return d.whyNot(ctx, grantID, errNotLive)
		}
		if err := tx.PutVerifier(grantID, verifier); err != nil {
			return err
		}
		return tx.Append(ledger.TypeGrantPassword, ledger.GrantPassword{Grant: grantID, By: who.Label()})
	}, func() {})
	if err != nil {
		return Credentials{}, failed(err, "grant", grantID)
	}
	d.log.Info("grant password made", "grant", g.ID, "person", who.Label())
	return Credentials{Grant: g.ID, User: g.ID, Password: password, Target: g.Target, TargetInfo: info, Start: g.Start, End: g.End}, nil
}
