package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// debtDue is how long the review of a break-glass grant may take whose rule doesn't say.
const debtDue = 24 * time.Hour

// Review is what somebody else must look at.
type Review = store.Review

// ReviewFilter selects reviews.
type ReviewFilter struct {
	Mine   bool // about what the asker did
	Due    bool // still to be done, and the asker may
	Open   bool // still to be done
	Target string
	After  string // what comes behind this one
	Limit  int    // 0 = no limit
}

// Reviewing counts what is still to be reviewed.
type Reviewing struct{ Due, Overdue int }

// indebt makes the review that somebody owes who broke the glass.
func indebt(tx *store.Tx, g policy.Grant, reason string) error {
	r := Review{ID: g.ID, Grant: g.ID, Identity: g.Identity, Target: g.Target, Level: g.Level, Due: g.Start.Add(debtDue)}
	if g.Review != nil {
		r.By, r.Due = g.Review.By, g.Start.Add(g.Review.Within)
	}
	if err := tx.Owe(r); err != nil {
		return err
	}
	return tx.Notify(store.Notice{Kind: store.NoticeBreakGlass, Request: g.Request, Grant: g.ID, By: g.Identity.Label(), Text: reason})
}

// Reviews lists the reviews that who may know of, the earliest due first: of what they did, what they may
// review, and what they may read.
func (d *Desk) Reviews(ctx context.Context, who auth.Identity, f ReviewFilter) (seen []Review, err error) {
	if err := nobody(who); err != nil {
		return nil, err
	}
	by, _ := mine(who, "", f.Mine)
	p := d.Policy()
	knows := func(r Review) bool {
		return who.Same(r.Identity) || p.MayReview(who, r.Identity, r.By, r.Target) || p.MayRead(who, r.Target)
	}
	err = d.store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Reviews(store.ReviewFilter{Open: f.Open || f.Due, By: by, Target: f.Target})
		if f.After != "" {
			last, err := tx.Review(f.After)
			if err == nil && !knows(last) {
				err = store.ErrNotFound
			}
			if err != nil {
				return err
			}
			all = behind(all, last)
		}
		for _, r := range all {
			if !knows(r) || (f.Due && !p.MayReview(who, r.Identity, r.By, r.Target)) {
				continue
			}
			if seen = append(seen, r); len(seen) == f.Limit {
				break
			}
		}
		return err
	})
	return seen, failed(err, "review", f.After)
}

// behind is what comes behind a review in a list of them, be it in the list itself or not any more: it may have been
// done since the page before.
func behind(all []Review, last Review) []Review {
	at, found := slices.BinarySearchFunc(all, last, func(r, last Review) int {
		return cmp.Or(r.Due.Compare(last.Due), strings.Compare(r.ID, last.ID))
	})
	if found {
		at++
	}
	return all[at:]
}

// Review is somebody else's word on what was done. It is given once.
func (d *Desk) Review(ctx context.Context, who auth.Identity, id string, ok bool, finding string) (Review, error) {
	if err := nobody(who); err != nil {
		return Review{}, err
	}
	if err := readable("finding", finding); err != nil {
		return Review{}, err
	}
	if finding = strings.TrimSpace(finding); !ok && finding == "" {
		return Review{}, &Error{Code: CodeInvalid, Public: "say what you found", Next: fmt.Sprintf("curfew review %s --finding \"…\"; or --ok if there is nothing", id)}
	}
	var r Review
	err := d.transact(ctx, func(tx *store.Tx, p *policy.Policy) (err error) {
		if r, err = tx.Review(id); err != nil {
			return err
		}
		if err := reviewable(tx, p, who, r); err != nil {
			return err
		}
		r.Done, r.Reviewer, r.OK, r.Finding = moment(tx), who, ok, finding
		if err := tx.PutReview(r); err != nil {
			return err
		}
		err = tx.Append(ledger.TypeReviewDone, ledger.ReviewDone{Review: r.ID, Grant: r.Grant, Session: r.Session, Person: personOf(who), OK: ok, Finding: finding})
		if err != nil {
			return err
		}
		return tx.Notify(store.Notice{Kind: store.NoticeReviewDone, Grant: r.Grant, Session: r.Session, By: who.Label(), Text: finding})
	}, func() {})
	if err != nil {
		return Review{}, failed(err, "review", id)
	}
	d.log.Info("review", "review", r.ID, "grant", r.Grant, "person", who.Label(), "of", r.Identity.Label(), "ok", ok, "finding", finding)
	return r, nil
}

// reviewable says why somebody can't review this now; nil: they can.
func reviewable(tx *store.Tx, p *policy.Policy, who auth.Identity, r Review) error {
	switch {
	case who.SameHuman(r.Identity):
		return &Error{Code: CodeForbidden, Public: "nobody reviews what they did themselves", Next: "somebody else has to: curfew reviews --due shows it to them"}
	case !p.MayReview(who, r.Identity, r.By, r.Target) && p.MayRead(who, r.Target):
		return &Error{Code: CodeForbidden, Public: "you may read this and are not among those who may review it", Next: "whoever may sees it with: curfew reviews --due"}
	case !p.MayReview(who, r.Identity, r.By, r.Target):
		return store.ErrNotFound
	case !r.Done.IsZero():
		return &Error{Code: CodeConflict, Public: fmt.Sprintf("%s has reviewed it already, at %s", r.Reviewer.Label(), clockTime(r.Done)), Next: "nothing is left to do"}
	case r.Session != "":
		return nil
	}
	g, err := tx.Grant(r.Grant)
	if err != nil {
		return err
	}
	sessions, err := tx.Sessions(store.SessionFilter{Grant: r.Grant, Open: true})
	if err == nil && (g.Ended.IsZero() || len(sessions) > 0) {
		err = &Error{Code: CodeConflict, Public: fmt.Sprintf("grant %s goes on, and there may be more to review", r.Grant),
			Next: "review it when it has ended, which can be now: curfew revoke " + r.Grant}
	}
	return err
}

// tallied is how old the count of reviews may be: they are due in days.
const tallied = time.Minute

// tallyReviews counts what is still to be reviewed, and has people told of what has just become overdue.
func (d *Desk) tallyReviews(ctx context.Context) error {
	if time.Since(d.tallied) < tallied {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	now := d.store.Now()
	var n Reviewing
	fresh := false
	err := d.store.View(ctx, func(tx *store.Tx) (err error) {
		if n.Due, n.Overdue, fresh, err = tx.CountReviews(now); err != nil {
			return fmt.Errorf("count reviews: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.reviews = n
	d.mu.Unlock()
	if !fresh {
		d.tallied = time.Now()
		return nil
	}
	return d.transact(ctx, func(tx *store.Tx, _ *policy.Policy) error {
		late, err := tx.Reviews(store.ReviewFilter{Open: true, Due: tx.Now()})
		for _, r := range late {
			if !r.Alerted {
				r.Alerted = true
				err = errors.Join(err, tx.PutReview(r), tx.Notify(store.Notice{Kind: store.NoticeReviewOverdue, Grant: r.Grant, Session: r.Session}))
				d.log.Warn("ALERT a review is overdue", "review", r.ID, "grant", r.Grant, "of", r.Identity.Label(), "due", r.Due)
			}
		}
		return err
	}, func() {})
}

// Now is the desk's time.
func (d *Desk) Now() time.Time { return d.store.Now() }
