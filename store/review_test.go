package store

import (
	"errors"
	"testing"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// A session of a grant whose rule wants a review owes one as soon as it is sealed, in the same transaction
// and once; under a break-glass grant it does not, for there the whole grant is reviewed.
func TestASealedSessionOwesAReview(t *testing.T) {
	s := open(t, t.TempDir())
	within := &policy.Review{Within: 48 * time.Hour, By: policy.Who{Groups: []string{"security"}}}
	grant := func(id string, terms policy.Terms, breakGlass bool) policy.Grant {
		return policy.Grant{ID: id, Request: "r" + id, Identity: alice, Target: "orders", Level: "writer", Terms: terms, BreakGlass: breakGlass,
			Start: s.Now(), End: s.Now().Add(time.Hour)}
	}
	for _, g := range []policy.Grant{
		grant("g1", policy.Terms{Review: within}, false), grant("g2", policy.Terms{}, false), grant("g3", policy.Terms{Review: within}, true),
	} {
		session := "s" + g.ID
		update(t, s, func(tx *Tx) error { return tx.PutGrant(g) })
		check := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		check(s.Opened(t.Context(), ledger.SessionOpened{Session: session, Grant: g.ID, Target: "orders"}))
		for range 2 {
			check(s.Sealed(t.Context(), ledger.SessionSealed{Grant: g.ID, Target: "orders", Sealed: recorder.Sealed{TreeState: recorder.TreeState{Session: session}}}))
		}
	}
	err := s.View(t.Context(), func(tx *Tx) error {
		all, err := tx.Reviews(ReviewFilter{Open: true})
		if err != nil {
			return err
		}
		if len(all) != 1 || all[0].ID != "sg1" || all[0].Session != "sg1" || !all[0].Identity.Same(alice) ||
			all[0].Due.Sub(all[0].Made) != within.Within || len(all[0].By.Groups) != 1 {
			t.Errorf("%+v", all)
		}
		notices, err := tx.Notices(0, 10)
		if len(notices) != 1 || notices[0].Kind != NoticeReviewDue || notices[0].Session != "sg1" {
			t.Errorf("%+v", notices)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, ledger.TypeReviewDue); n != 1 {
		t.Errorf("%d on the ledger", n)
	}
}

func TestReviewsFilters(t *testing.T) {
	s := open(t, t.TempDir())
	other := alice
	other.Subject = "2"
	now := s.Now()
	update(t, s, func(tx *Tx) error {
		return errors.Join(
			tx.PutReview(Review{ID: "s1", Grant: "g1", Identity: alice, Target: "orders", Due: now.Add(time.Hour)}),
			tx.PutReview(Review{ID: "s2", Grant: "g1", Identity: other, Target: "stock", Due: now}),
			tx.PutReview(Review{ID: "s3", Grant: "g1", Identity: alice, Target: "stock", Due: now, Done: now, OK: true}),
		)
	})
	for want, f := range map[string]ReviewFilter{
		"s2 s3 s1": {}, "s2 s1": {Open: true}, "s2": {Open: true, Due: now}, "s3 s1": {By: alice.Key()}, "s1": {Target: "orders"}, "s2 s3": {Limit: 2},
	} {
		err := s.View(t.Context(), func(tx *Tx) error {
			all, err := tx.Reviews(f)
			got := ""
			for i, r := range all {
				if i > 0 {
					got += " "
				}
				got += r.ID
			}
			if got != want {
				t.Errorf("%+v: %s, want %s", f, got, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err := s.View(t.Context(), func(tx *Tx) error { _, err := tx.Review("s4"); return err })
	if !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// The end that the ledger says is the extended one: a row that lasts longer, or one that was set back, is refused.
func TestAnExtendedGrantIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		shift time.Duration
		good  bool
	}{"as extended": {0, true}, "longer": {time.Second, false}, "as it was before": {-time.Hour, false}} {
		dir := t.TempDir()
		s, err := Open(t.Context(), options(dir))
		if err != nil {
			t.Fatal(err)
		}
		g := policy.Grant{ID: "g1", Request: "r1", Identity: alice, Target: "orders", Level: "writer", Start: s.Now(), End: s.Now().Add(time.Hour)}
		update(t, s, func(tx *Tx) error {
			return errors.Join(tx.PutGrant(g), tx.Append(ledger.TypeGrantCreated, ledger.GrantCreated{Grant: "g1", Request: "r1",
				Person: PersonOf(alice), Target: "orders", Level: "writer", Start: g.Start, End: g.End}))
		})
		update(t, s, func(tx *Tx) error {
			longer := ledger.GrantExtended{Grant: "g1", Request: "r2", From: g.End, To: g.End.Add(time.Hour)}
			g.End = longer.To.Add(c.shift)
			return errors.Join(tx.PutGrant(g), tx.Append(ledger.TypeGrantExtended, longer))
		})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err = Open(t.Context(), options(dir))
		if (err == nil) != c.good || (err != nil && !errors.Is(err, ErrTampered)) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			s.Close()
		}
	}
}
