package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/store"
)

// live is a grant that has not ended on the ledger. It is what "active" means on this node: the store is
// behind it by as much as a write takes.
type live struct {
	request policy.Request // what the grant came from; says who may revoke it
	grant   policy.Grant   // with its end, once that is decided
	over    time.Time      // when the grant ends by the monotonic clock
	timer   *time.Timer
	holds   map[*byte]context.CancelCauseFunc
}

// admit takes a grant up into memory, if it is not there.
func (d *Desk) admit(g policy.Grant, r policy.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live[g.ID] != nil {
		return
	}
	left := g.End.Sub(d.store.Now())
	d.live[g.ID] = &live{
		grant: g, request: r, over: time.Now().Add(left),
		timer: time.AfterFunc(left, func() { d.expire(g.ID) }),
		holds: map[*byte]context.CancelCauseFunc{},
	}
}

// past reports whether either clock is past the end: the wall clock, which goes on while the machine
// sleeps, or the monotonic one, which nobody can set back.
func (d *Desk) past(l *live) bool {
	return !time.Now().Before(l.over) || !d.store.Now().Before(l.grant.End)
}

// expire ends a grant whose time is up, if it still is: its end may have been moved while its timer fired.
func (d *Desk) expire(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.live[id]; l != nil && l.grant.Ended.IsZero() && d.past(l) {
		d.expired(l)
	}
}

// expired ends l by its time; the caller holds mu.
func (d *Desk) expired(l *live) {
	d.finish(l, recorder.EndExpired, "its time was up", bySelf, l.grant.End)
}

// finish ends l, wakes its holders and has the end written; the caller holds mu and has seen that it had
// not ended. From here on there is one end, whoever comes after.
func (d *Desk) finish(l *live, code, reason, by string, at time.Time) {
	g := &l.grant
	g.Ended, g.EndCode, g.EndReason, g.EndedBy = at, code, reason, by
	l.timer.Stop()
	cause := d.cause(ended(*g))
	for _, cancel := range l.holds {
		cancel(cause)
	}
	clear(l.holds)
	select {
	case d.kick <- struct{}{}:
	default:
	}
	d.log.Info("grant ended", "grant", g.ID, "person", g.Identity.Label(), "target", g.Target, "level", g.Level,
		"code", code, "reason", reason, "by", by, "at", at)
}

// Hold gives a context that ends the instant the grant does, with Options.Cause of its *EndedError as its cause, or when
// ctx does. The func gives the hold back and must be called.
func (d *Desk) Hold(ctx context.Context, grantID string) (context.Context, func(), error) {
	d.mu.Lock()
	l, err := d.active(grantID)
	if err != nil {
		d.mu.Unlock()
		return nil, nil, d.whyNot(ctx, grantID, err)
	}
	defer d.mu.Unlock()
	held, cancel := context.WithCancelCause(ctx)
	key := new(byte)
	l.holds[key] = cancel
	return held, func() {
		d.mu.Lock()
		delete(l.holds, key)
		d.mu.Unlock()
		cancel(context.Canceled)
	}, nil
}

// Find gives the active grant that a user name at the wire stands for.
func (d *Desk) Find(ctx context.Context, user string) (policy.Grant, error) {
	d.mu.Lock()
	l, err := d.active(user)
	if err != nil {
		d.mu.Unlock()
		return policy.Grant{}, d.whyNot(ctx, user, err)
	}
	defer d.mu.Unlock()
	return l.grant, nil
}

// Verifier gives what Enrol made of the grant's password, or nil when there is no grant of that name or
// no password yet: a stranger can't tell which. It proves who somebody is and opens nothing: whether
// the grant is active is Find's and Hold's to say, so that its holder, and nobody else, reads why not.
func (d *Desk) Verifier(ctx context.Context, user string) (verifier []byte, err error) {
	err = d.store.View(ctx, func(tx *store.Tx) error {
		verifier, err = tx.Verifier(user)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return verifier, failed(err, "grant", user)
}

// Recall gives a grant whether it is over or not, as of now: an end that could not be written yet counts.
func (d *Desk) Recall(ctx context.Context, grantID string) (g policy.Grant, err error) {
	if l, ok := d.alive(grantID); ok {
		return l.grant, nil
	}
	err = d.store.View(ctx, func(tx *store.Tx) error {
		g, err = tx.Grant(grantID)
		return err
	})
	return g, failed(err, "grant", grantID)
}

var errNotLive = errors.New("no such live grant")

// active gives a live grant that may be used now; the caller holds mu. One whose time is up ends here,
// so that nothing depends on a timer having fired.
func (d *Desk) active(id string) (*live, error) {
	l := d.live[id]
	if l == nil {
		return nil, errNotLive
	}
	if l.grant.Ended.IsZero() && d.past(l) {
		d.expired(l)
	}
	if !l.grant.Ended.IsZero() {
		return nil, ended(l.grant)
	}
	if d.store.Now().Before(l.grant.Start) {
		return nil, &Error{Code: CodeConflict, Public: fmt.Sprintf("your grant %s begins at %s", id, l.grant.Start.UTC().Format("2006-01-02 15:04 UTC")),
			Next: "connect again then"}
	}
	return l, nil
}

// whyNot is what somebody is told who may not use a grant now.
func (d *Desk) whyNot(ctx context.Context, id string, err error) error {
	if errors.Is(err, errNotLive) {
		g, recalled := d.Recall(ctx, id)
		if recalled != nil {
			return recalled
		}
		err = ended(g)
	}
	var over *EndedError
	if errors.As(err, &over) {
		return &Error{Code: CodeConflict, Public: over.Public, Err: over}
	}
	return err
}

// ended says how a grant has ended, to its holder.
func ended(g policy.Grant) *EndedError {
	how := fmt.Sprintf("ended at %s", clockTime(g.Ended))
	switch g.EndCode {
	case recorder.EndExpired:
	case recorder.EndReleased:
		how = fmt.Sprintf("was released at %s", clockTime(g.Ended))
	case recorder.EndRevoked:
		how = fmt.Sprintf("was revoked at %s: %s", clockTime(g.Ended), g.EndReason)
		if g.EndedBy != bySelf {
			how = fmt.Sprintf("was revoked at %s by %s: %s", clockTime(g.Ended), g.EndedBy, g.EndReason)
		}
	default:
		how += ", because " + g.EndReason
	}
	return &EndedError{Code: g.EndCode, At: g.Ended, Public: fmt.Sprintf("your grant %s %s; ask again: curfew request %s --level %s",
		g.ID, how, g.Target, g.Level)}
}

// alive gives a copy of what memory has of a grant.
func (d *Desk) alive(id string) (live, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.live[id]
	if l == nil {
		return live{}, false
	}
	return live{request: l.request, grant: l.grant}, true
}

// living lists the grants that have not ended, begun or not.
func (d *Desk) living() []live {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]live, 0, len(d.live))
	for _, l := range d.live {
		if l.grant.Ended.IsZero() {
			all = append(all, live{request: l.request, grant: l.grant})
		}
	}
	return all
}
