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

// facts is what a policy may ask about somebody's past.
func facts(tx *store.Tx, who auth.Identity, now time.Time) (f policy.Facts, err error) {
	grants, err := tx.Begun(who.Key(), now.Add(-remembered), now)
	if err != nil {
		return f, err
	}
	for _, g := range grants {
		if g.Ended.IsZero() || g.Ended.After(g.Start) { // else it was ended before it began
			f.Grants = append(f.Grants, policy.Past{Target: g.Target, Level: g.Level, Start: g.Start, BreakGlass: g.BreakGlass})
		}
	}
	owed, err := tx.Reviews(store.ReviewFilter{Open: true, By: who.Key()})
	for _, r := range owed {
		f.OpenReviews++
		f.Debt = f.Debt || r.Session == ""
	}
	return f, err
}

// debtElsewhere reports whether somebody owes a review for a glass that they broke under another of their identities.
func debtElsewhere(tx *store.Tx, who auth.Identity) (bool, error) {
	open, err := tx.Reviews(store.ReviewFilter{Open: true})
	return slices.ContainsFunc(open, func(r store.Review) bool { return r.Session == "" && r.Identity.SameHuman(who) }), err
}
