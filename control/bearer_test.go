package control

import (
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// While the provider can't be asked about somebody, nobody gets access by their word; all that ends or refuses
// access goes on, and so does what is granted.
func TestNothingNewOnAStaleWord(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		stale := func(who auth.Identity) auth.Identity { who.Stale = true; return who }
		const why = "can't be asked about you"
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		for _, ask := range []policy.Ask{
			{Target: "orders", Level: "reader", Duration: time.Minute},
			{Target: "orders", Level: "writer", Duration: time.Minute, Reason: "x"},
		} {
			_, err := w.Ask(t.Context(), stale(alice), ask)
			w.refused(err, CodeUnavailable, why)
		}
		_, err := w.Extend(t.Context(), stale(alice), g.ID, More{For: time.Minute, Reason: "x"})
		w.refused(err, CodeUnavailable, why)
		first, second := w.ask(alice, "writer", time.Minute), w.ask(alice, "writer", time.Minute)
		_, err = w.Decide(t.Context(), stale(bob), first.ID, true, "")
		w.refused(err, CodeUnavailable, why)
		if r, err := w.Decide(t.Context(), stale(bob), first.ID, false, ""); err != nil || r.Status != policy.Denied {
			t.Errorf("a denial: %+v %v", r, err)
		}
		if r := w.approve(bob, second.ID); r.Status != policy.Approved {
			t.Errorf("%+v", r)
		}
		if held.Err() != nil {
			t.Error("a grant does not go on")
		}
		if _, err := w.Revoke(t.Context(), stale(bob), g.ID, "x"); err != nil || held.Err() == nil {
			t.Errorf("a revocation: %v", err)
		}
	})
}

// Of the grants that somebody may use, none is taken by guess, and nobody hears of another's.
func TestGrantForAToken(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		all := func(string) bool { return true }
		job := alice
		job.Email, job.Workload = "", true // by its key it is the holder of alice's grants, and has no e-mail
		_, err := w.GrantFor(alice, "", all)
		w.refused(err, CodeConflict, "alice@example.test has no active grant here")
		one := w.granted(time.Hour)
		for _, choice := range []string{"", one.ID, "orders"} {
			if g, err := w.GrantFor(alice, choice, all); err != nil || g.ID != one.ID {
				t.Errorf("%q: %+v %v", choice, g, err)
			}
		}
		two := w.granted(time.Hour)
		for who, say := range map[*auth.Identity]string{&alice: "alice@example.test/", &job: "oauth:"} {
			_, err = w.GrantFor(*who, "", all)
			w.refused(err, CodeConflict, "you have 2 active grants here")
			for _, word := range []string{one.ID, two.ID, say} {
				if !strings.Contains(err.Error()+err.(*Error).Next, word) {
					t.Errorf("%v (%s) lacks %s", err, err.(*Error).Next, word)
				}
			}
		}
		if g, err := w.GrantFor(job, two.ID, all); err != nil || g.ID != two.ID {
			t.Errorf("%+v %v", g, err)
		}
		_, err = w.GrantFor(alice, "gnobodys", all)
		w.refused(err, CodeConflict, "no active grant \"gnobodys\" here")
		_, err = w.GrantFor(dana, one.ID, all)
		w.refused(err, CodeConflict, "dana@example.test has no active grant here")
		_, err = w.GrantFor(alice, one.ID, func(target string) bool { return target == "stock" })
		w.refused(err, CodeConflict, "no active grant here")
	})
}
