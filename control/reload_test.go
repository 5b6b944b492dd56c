package control

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

func TestReload(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		kept, changed := w.ask(alice, "owner", time.Hour), w.ask(alice, "writer", time.Hour)
		waited := make(chan policy.Request, 1)
		go func() {
			r, _ := w.Wait(t.Context(), alice, changed.ID)
			waited <- r
		}()
		synctest.Wait()

		p := testPolicy()
		p.Hash, p.Rules[1].Approvals.Count = "sha256:2", 2
		if err := w.Reload(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if r := <-waited; r.Status != policy.Denied || r.EndReason == "" {
			t.Errorf("%+v", r)
		}
		_, err := w.Decide(t.Context(), bob, changed.ID, true, "")
		w.refused(err, CodeConflict, "the policy has changed; ask again")
		r := w.approve(bob, kept.ID)
		if r.Status != policy.Open || r.Policy != testPolicy().Hash || r.Decisions[0].Policy != p.Hash {
			t.Errorf("%+v", r)
		}
		if d := into[ledger.RequestDecided](t, w.entries(ledger.TypeRequestDecided)[1]); d.Request != kept.ID || d.Policy != p.Hash {
			t.Errorf("which policy a decision was made under: %+v", d)
		}
		if held.Err() != nil {
			t.Error("a grant that a rule still gives has ended")
		}

		p = testPolicy()
		p.Hash, p.Rules = "sha256:3", p.Rules[:1]
		if err := w.Reload(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if causeOf(held) != "revoked" {
			t.Errorf("cause %v", context.Cause(held))
		}
		w.ended(g.ID, "revoked", "curfew")
		if n := len(w.entries(ledger.TypePolicyLoaded)); n != 3 {
			t.Errorf("%d policies on the ledger", n)
		}
	})
}

func TestAReloadThatFailsChangesNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		w.disk.full.Store(true)
		p := testPolicy()
		p.Hash, p.Rules, p.Lockdown = "sha256:2", nil, true
		w.refused(w.Reload(t.Context(), p), CodeUnavailable, "nothing was changed")
		if w.Policy().Hash != "sha256:1" || held.Err() != nil {
			t.Error("the new policy is in force")
		}
		w.disk.full.Store(false)
	})
}

// A policy that changed while Curfew was down counts from the start.
func TestAnotherPolicyAtStart(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g, r := w.granted(time.Hour), w.ask(alice, "writer", time.Hour)
		p := testPolicy()
		p.Hash, p.Rules = "sha256:2", nil
		w.again(p, 0)
		_, _, err := w.Hold(t.Context(), g.ID)
		w.refused(err, CodeConflict, "the policy gives writer on orders to alice@example.test no more")
		if r, err = w.Request(t.Context(), alice, r.ID); err != nil || r.Status != policy.Denied {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestDemotedAndDisabled(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g, r := w.granted(time.Hour), w.ask(alice, "writer", time.Hour)
		own := w.approve(bob, w.ask(dana, "writer", time.Hour).ID)
		held, other := w.hold(g.ID), w.hold(own.Grant)
		if people, _ := w.LiveIdentities(t.Context()); len(people) != 2 || !people[0].Same(alice) || !people[1].Same(dana) {
			t.Errorf("live: %v", people)
		}
		if err := w.Refreshed(t.Context(), alice); err != nil || held.Err() != nil {
			t.Errorf("nothing changed, and it ended: %v", err)
		}
		demoted := alice
		demoted.Groups = []string{"interns"}
		if err := w.Refreshed(t.Context(), demoted); err != nil {
			t.Fatal(err)
		}
		if causeOf(held) != "revoked" || other.Err() != nil {
			t.Errorf("alice: %v, dana: %v", context.Cause(held), context.Cause(other))
		}
		if r, err := w.Request(t.Context(), alice, r.ID); err != nil || r.Status != policy.Denied {
			t.Errorf("%+v, %v", r, err)
		}
		if err := w.EndAll(t.Context(), dana, "revoked", "your identity is disabled at the provider"); err != nil {
			t.Fatal(err)
		}
		if causeOf(other) != "revoked" {
			t.Errorf("dana: %v", context.Cause(other))
		}
		if people, _ := w.LiveIdentities(t.Context()); len(people) != 0 {
			t.Errorf("live: %v", people)
		}
		w.ended(own.Grant, "revoked", "curfew")
		w.refused(func() error { _, err := w.Find(t.Context(), own.Grant); return err }(), CodeConflict, "disabled at the provider")
	})
}

// Whoever asks an unknown person's grants to end changes nothing.
func TestEndAllOfNobody(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		if err := w.EndAll(t.Context(), auth.Identity{}, "revoked", "x"); err != nil {
			t.Fatal(err)
		}
		w.hold(g.ID)
	})
}

// While the store hangs, everything that a person held ends at once, open requests or not: only what is written
// of it waits.
func TestWhoIsGoneLosesEverythingAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		one, two := w.granted(time.Hour), w.granted(time.Hour)
		w.ask(alice, "writer", time.Hour)
		var held []context.Context
		for _, g := range []policy.Grant{one, two} {
			ctx, release, err := w.Hold(t.Context(), g.ID)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			held = append(held, ctx)
		}
		w.disk.stuck.Store(true)
		told := make(chan error, 1)
		go func() { told <- w.EndAll(t.Context(), alice, recorder.EndRevoked, "gone") }()
		synctest.Wait() // nothing more can happen before time passes
		for i, ctx := range held {
			if ctx.Err() == nil {
				t.Errorf("grant %d goes on until the store answers", i)
			}
		}
		if err := <-told; err == nil {
			t.Error("nobody is told that it is not written")
		}
		w.disk.stuck.Store(false)
		time.Sleep(2*patience + 2*time.Second)
		for _, g := range []policy.Grant{one, two} {
			if e := w.entries(ledger.TypeGrantEnded); len(e) != 2 || w.grant(g.ID).EndReason != "gone" {
				t.Errorf("%d ends are on the ledger: %+v", len(e), w.grant(g.ID))
			}
		}
	})
}
