package control

import (
	"slices"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

// remembered is how far back conditions can look.
const remembered = 90 * 24 * time.Hour

// needed is what a verdict on an ask takes of somebody's past. The grants that they had are read only if a
// condition that will be asked speaks of them: they are many, and most policies ask about none.
func needed(tx *store.Tx, p *policy.Policy, who auth.Identity, ask policy.Ask, now time.Time) (policy.Facts, error) {
	if p.Recalls(who, ask) {
		return facts(tx, who, now)
	}
	return owed(tx, who)
}

// facts is what a policy may ask about somebody's past.
func facts(tx *store.Tx, who auth.Identity, now time.Time) (policy.Facts, error) {
	f, err := owed(tx, who)
	if err == nil {
		f.Grants, err = had(tx, who, now)
	}
	return f, err
}

// had lists the grants that somebody had by then.
func had(tx *store.Tx, who auth.Identity, now time.Time) ([]policy.Past, error) {
	return tx.Begun(who.Key(), now.Add(-remembered), now)
}

// owed counts the reviews that are open of what somebody did.
func owed(tx *store.Tx, who auth.Identity) (f policy.Facts, err error) {
	open, err := tx.Reviews(store.ReviewFilter{Open: true, By: who.Key()})
	for _, r := range open {
		f.OpenReviews++
		f.Debt = f.Debt || r.Session == ""
	}
	return f, err
}

// recall gives an open request the grants that its requester had when they asked, if the policy of now asks
// about them and that of then did not: a grant's begin stays, so the answer is the same at any time.
func recall(tx *store.Tx, p *policy.Policy, who auth.Identity, r *policy.Request) (err error) {
	if len(r.Facts.Grants) == 0 && p.Recalls(who, r.Ask()) {
		r.Facts.Grants, err = had(tx, r.Identity, r.Created)
	}
	return err
}

// debtElsewhere reports whether somebody owes a review for a glass that they broke under another of their identities.
func debtElsewhere(tx *store.Tx, who auth.Identity) (bool, error) {
	open, err := tx.Reviews(store.ReviewFilter{Open: true})
	return slices.ContainsFunc(open, func(r store.Review) bool { return r.Session == "" && r.Identity.SameHuman(who) }), err
}
