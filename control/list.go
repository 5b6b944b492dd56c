package control

import (
	"context"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// RequestFilter selects requests; empty fields select all that one may see.
type RequestFilter struct {
	Status policy.Status
	By     string // auth.Identity.Key of the requester
	Target string
	Mine   bool   // the asker's own
	Decide bool   // open ones that the asker may decide on now
	After  string // what comes behind this one, which the asker must see
	Limit  int    // 0 = no limit
}

// GrantFilter selects grants.
type GrantFilter struct {
	Live   bool // not ended: active or still to begin
	Active bool // may be used now
	By     string
	Target string
	Mine   bool
	After  string // what comes behind this one, which the asker must see
	Limit  int
}

// SessionFilter selects sessions.
type SessionFilter struct {
	Grant  string
	By     string
	Target string
	Open   bool
	Mine   bool
	After  string // what comes behind this one, which the asker must see
	Limit  int
}

// batch is how much of a list is read at once.
const batch = 256

// sift reads a list by batches until it has limit things to keep, 0 for all there are.
func sift[T any](after string, limit int, read func(after string, n int) ([]T, error), id func(T) string, keep func(*T) (bool, error)) (kept []T, err error) {
	for {
		some, err := read(after, batch)
		if err != nil {
			return nil, err
		}
		for i := range some {
			ok, err := keep(&some[i])
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if kept = append(kept, some[i]); len(kept) == limit {
				return kept, nil
			}
		}
		if len(some) < batch {
			return kept, nil
		}
		after = id(some[batch-1])
	}
}

// Session is one client connection under a grant, as the store keeps it.
type Session = store.Session

// mine narrows by to who's own; no is true when nothing can be left.
func mine(who auth.Identity, by string, only bool) (key string, no bool) {
	if !only {
		return by, false
	}
	return who.Key(), by != "" && by != who.Key()
}

// Requests lists the requests that who may see, newest first.
func (d *Desk) Requests(ctx context.Context, who auth.Identity, f RequestFilter) ([]policy.Request, error) {
	if err := nobody(who); err != nil {
		return nil, err
	}
	by, no := mine(who, f.By, f.Mine)
	if no {
		return nil, nil
	}
	if f.Decide && f.Status == "" {
		f.Status = policy.Open
	}
	p := d.Policy()
	var seen []policy.Request
	err := d.store.View(ctx, func(tx *store.Tx) (err error) {
		if f.After != "" {
			if _, err := visible(tx, p, who, f.After); err != nil {
				return failed(err, "request", f.After)
			}
		}
		seen, err = sift(f.After, f.Limit, func(after string, n int) ([]policy.Request, error) {
			return tx.Requests(store.RequestFilter{Status: f.Status, By: by, Target: f.Target, After: after, Limit: n})
		}, func(r policy.Request) string { return r.ID }, func(r *policy.Request) (bool, error) {
			return p.MaySee(who, *r) && (!f.Decide || p.MayDecide(who, *r, true, tx.Now()) == nil), nil
		})
		return err
	})
	return seen, failed(err, "request", "")
}

// Request gives one request that who may see.
func (d *Desk) Request(ctx context.Context, who auth.Identity, id string) (r policy.Request, err error) {
	if err := nobody(who); err != nil {
		return r, err
	}
	err = d.store.View(ctx, func(tx *store.Tx) error {
		r, err = visible(tx, d.Policy(), who, id)
		return err
	})
	return r, failed(err, "request", id)
}

// Wait gives a request as soon as it is not open any more, or as it stands when ctx ends.
func (d *Desk) Wait(ctx context.Context, who auth.Identity, id string) (policy.Request, error) {
	for {
		d.mu.Lock()
		changed := d.changed // taken before the look, so that no change falls between
		d.mu.Unlock()
		r, err := d.Request(ctx, who, id)
		if err != nil || r.Status != policy.Open {
			return r, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return r, nil
		}
		if ctx.Err() != nil {
			return r, nil
		}
	}
}

// Grants lists the grants that who may see, newest first.
func (d *Desk) Grants(ctx context.Context, who auth.Identity, f GrantFilter) ([]policy.Grant, error) {
	if err := nobody(who); err != nil {
		return nil, err
	}
	by, no := mine(who, f.By, f.Mine)
	if no {
		return nil, nil
	}
	if f.After != "" {
		if _, _, err := d.shown(ctx, who, f.After); err != nil {
			return nil, err
		}
	}
	p, live := d.Policy(), f.Live || f.Active
	var seen []policy.Grant
	err := d.store.View(ctx, func(tx *store.Tx) (err error) {
		seen, err = sift(f.After, f.Limit, func(after string, n int) ([]policy.Grant, error) {
			return tx.Grants(store.GrantFilter{Live: live, By: by, Target: f.Target, After: after, Limit: n})
		}, func(g policy.Grant) string { return g.ID }, func(g *policy.Grant) (bool, error) {
			if l, ok := d.alive(g.ID); ok {
				*g = l.grant
			}
			if (live && !g.Ended.IsZero()) || (f.Active && !g.Active(tx.Now())) {
				return false, nil
			}
			if g.Identity.Same(who) {
				return true, nil
			}
			r, err := tx.Request(g.Request)
			return err == nil && p.MaySee(who, r), err
		})
		return err
	})
	return seen, failed(err, "grant", "")
}

// Grant gives one grant that who may see.
func (d *Desk) Grant(ctx context.Context, who auth.Identity, id string) (policy.Grant, error) {
	g, _, err := d.shown(ctx, who, id)
	return g, err
}

// EngineOf is the engine of a target, or empty when none is served under that name.
func (d *Desk) EngineOf(target string) string { return d.targets[target].Engine }

// TargetOffer is a target that somebody may ask for.
type TargetOffer struct {
	Target string
	Engine string
	Offers []policy.Offer // by level, then in the order of the rules
}

// Targets lists what who may ask for.
func (d *Desk) Targets(_ context.Context, who auth.Identity) ([]TargetOffer, error) {
	if err := nobody(who); err != nil {
		return nil, err
	}
	var targets []TargetOffer
	for _, o := range d.Policy().Offers(who) {
		if n := len(targets); n == 0 || targets[n-1].Target != o.Target {
			targets = append(targets, TargetOffer{Target: o.Target, Engine: d.targets[o.Target].Engine})
		}
		t := &targets[len(targets)-1]
		t.Offers = append(t.Offers, o)
	}
	return targets, nil
}

// maySee reports whether who may know of a session: their own, those on targets whose recordings they may
// read, and, while it may still be ended, those of grants that they may end.
func (d *Desk) maySee(who auth.Identity, s Session) bool {
	p := d.Policy()
	if s.Identity.Same(who) || p.MayRead(who, s.Target) {
		return true
	}
	l, ok := d.alive(s.Grant)
	return ok && p.MayRevoke(who, l.request)
}

// Sessions lists the sessions that who may see, newest first.
func (d *Desk) Sessions(ctx context.Context, who auth.Identity, f SessionFilter) ([]Session, error) {
	if err := nobody(who); err != nil {
		return nil, err
	}
	by, no := mine(who, f.By, f.Mine)
	if no {
		return nil, nil
	}
	if f.After != "" {
		if _, err := d.Session(ctx, who, f.After); err != nil {
			return nil, err
		}
	}
	var seen []Session
	err := d.store.View(ctx, func(tx *store.Tx) (err error) {
		seen, err = sift(f.After, f.Limit, func(after string, n int) ([]Session, error) {
			return tx.Sessions(store.SessionFilter{Grant: f.Grant, By: by, Target: f.Target, Open: f.Open, After: after, Limit: n})
		}, func(s Session) string { return s.ID }, func(s *Session) (bool, error) { return d.maySee(who, *s), nil })
		return err
	})
	return seen, failed(err, "session", "")
}

// Session gives one session that who may see.
func (d *Desk) Session(ctx context.Context, who auth.Identity, id string) (s Session, err error) {
	if err := nobody(who); err != nil {
		return s, err
	}
	err = d.store.View(ctx, func(tx *store.Tx) error {
		s, err = tx.Session(id)
		return err
	})
	if err == nil && !d.maySee(who, s) {
		s, err = Session{}, store.ErrNotFound
	}
	return s, failed(err, "session", id)
}

// MayRead reports whether who may read the recordings of a target.
func (d *Desk) MayRead(who auth.Identity, target string) bool { return d.Policy().MayRead(who, target) }

// ReadRecording authorises the reading of a recording and puts it on the ledger; only after that may a
// byte of it be shown. how is "replay" or "export", from the reader's address.
func (d *Desk) ReadRecording(ctx context.Context, who auth.Identity, session, how, from string) (Session, error) {
	s, err := d.Session(ctx, who, session)
	if err != nil {
		return Session{}, err
	}
	err = d.transact(ctx, func(tx *store.Tx, p *policy.Policy) error {
		if !p.MayRead(who, s.Target) {
			return &Error{Code: CodeForbidden, Public: "the policy's readers for " + s.Target + " don't include you",
				Next: "ask one of them to replay it, or whoever keeps the policy to add you"}
		}
		return tx.Append(ledger.TypeRecordingRead, ledger.RecordingRead{Session: session, Person: personOf(who), How: how, From: from})
	}, func() {})
	if err != nil {
		return Session{}, failed(err, "session", session)
	}
	d.log.Info("recording read", "session", session, "person", who.Label(), "how", how, "from", from)
	return s, nil
}
