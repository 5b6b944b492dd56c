package control

import (
	"testing"
	"time"

	"github.com/curfewdb/curfew/policy"
)

func condition(t *testing.T, text string) *policy.Condition {
	t.Helper()
	l, err := policy.NewLanguage()
	if err != nil {
		t.Fatal(err)
	}
	c, wrong := l.Compile(text)
	if wrong != nil {
		t.Fatalf("%s: %+v", text, wrong)
	}
	return c
}

// The grants that somebody had are kept with a request if a condition may ask about them, and not otherwise.
func TestThePastIsKeptWhereItIsAskedAbout(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.Hash, p.Rules[2].When = "sha256:2", condition(t, `history.grants.exists(g, g.level == "reader")`)
		if err := w.Reload(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		_, err := w.Ask(t.Context(), alice, policy.Ask{Target: "orders", Level: "owner", Duration: time.Hour})
		w.refused(err, CodePolicy, "condition")
		read := w.ask(alice, "reader", time.Hour)
		time.Sleep(time.Minute)
		if r := w.ask(alice, "writer", time.Hour); len(r.Facts.Grants) != 0 {
			t.Errorf("nothing asks about %+v", r.Facts.Grants)
		}
		r := w.ask(alice, "owner", time.Hour)
		if len(r.Facts.Grants) != 1 || r.Facts.Grants[0].Level != "reader" || !r.Facts.Grants[0].Start.Equal(w.grant(read.Grant).Start) {
			t.Errorf("the past of this ask is %+v", r.Facts.Grants)
		}
	})
}

// A policy that asks about the past judges an open request by what it was when it was made, though the one that
// it was made under did not ask: what came later is not held against it, nor for it.
func TestThePastOfAnOpenRequestIsThatOfItsAsking(t *testing.T) {
	for text, want := range map[string]policy.Status{
		`history.grants.size() == 0`: policy.Denied, `history.grants.size() == 1`: policy.Open, `history.grants.size() == 2`: policy.Denied,
		`history.grants.all(g, g.target == "stock")`: policy.Denied, `history.grants[0].start + duration("1m") == now`: policy.Open,
	} {
		story(t, func(t *testing.T, w *world) {
			w.ask(alice, "reader", time.Hour)
			time.Sleep(time.Minute)
			r := w.ask(alice, "writer", time.Hour)
			time.Sleep(time.Minute)
			w.ask(alice, "reader", time.Hour)
			p := testPolicy()
			p.Hash, p.Rules[1].When = "sha256:2", condition(t, text)
			if err := w.Reload(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if now, err := w.Request(t.Context(), alice, r.ID); err != nil || now.Status != want {
				t.Errorf("%s: %v, %v, want %v", text, now.Status, err, want)
			}
		})
	}
}
