package control

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// A grant ends for its holders on time when the store can't be written, and its end is on the ledger once
// as soon as the store can be.
func TestExpiryNeedsNoStore(t *testing.T) {
	for name, broken := range map[string]func(*disk, bool){
		"full":  func(d *disk, on bool) { d.full.Store(on) },
		"lying": func(d *disk, on bool) { d.lying.Store(on) },
		"stuck": func(d *disk, on bool) { d.stuck.Store(on) },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				g := w.granted(20 * time.Second)
				held := w.hold(g.ID)
				broken(w.disk, true)
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if causeOf(held) != "expired" {
					t.Fatalf("cause %v", context.Cause(held))
				}
				_, _, err := w.Hold(t.Context(), g.ID)
				w.refused(err, CodeConflict, "ask again")
				if got, err := w.Grants(t.Context(), alice, GrantFilter{Live: true}); err != nil || len(got) != 0 {
					t.Errorf("it is listed as live: %v, %v", got, err)
				}
				if got, err := w.Grant(t.Context(), alice, g.ID); err != nil || got.EndCode != "expired" {
					t.Errorf("it is shown as %+v, %v", got, err)
				}
				time.Sleep(time.Minute)
				broken(w.disk, false)
				time.Sleep(patience + time.Second)
				synctest.Wait()
				if end := w.ended(g.ID, "expired", "curfew"); !end.At.Equal(g.End) {
					t.Errorf("ended at %v", end.At)
				}
				if _, ok := w.alive(g.ID); ok {
					t.Error("memory still has it")
				}
			})
		})
	}
}

// Nor does it need Run: the timer alone wakes the holders, at the instant.
func TestExpiryNeedsNoLoop(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(20 * time.Second)
		held := w.hold(g.ID)
		w.halt()
		time.Sleep(20*time.Second - time.Nanosecond)
		synctest.Wait()
		if held.Err() != nil {
			t.Error("ended early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}

// Nor does it wait for whoever has the store.
func TestExpiryWaitsForNoTurn(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(20 * time.Second)
		held := w.hold(g.ID)
		<-w.turn
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
		w.turn <- struct{}{}
		time.Sleep(2 * time.Second)
		w.ended(g.ID, "expired", "curfew")
	})
}

func TestRevocationTakesEffectWhenTheStoreFails(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		w.disk.full.Store(true)
		_, err := w.Revoke(t.Context(), sam, g.ID, "now")
		w.refused(err, CodeUnavailable, "has ended, but that could not be written")
		if causeOf(held) != "revoked" {
			t.Errorf("cause %v", context.Cause(held))
		}
		_, err = w.Revoke(t.Context(), bob, g.ID, "me too")
		w.refused(err, CodeConflict, "has ended already: revoked")
		w.disk.full.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.ended(g.ID, "revoked", sam.Email)
		time.Sleep(time.Hour)
		synctest.Wait()
		w.ended(g.ID, "revoked", sam.Email)
	})
}

// A decision that can't be written did not happen.
func TestNoDecisionWithoutTheLedger(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "writer", time.Hour)
		w.disk.full.Store(true)
		_, err := w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeUnavailable, "nothing was changed")
		_, err = w.Ask(t.Context(), alice, policy.Ask{Target: "orders", Level: "reader", Duration: time.Hour})
		w.refused(err, CodeUnavailable, "nothing was changed")
		w.disk.full.Store(false)
		time.Sleep(2 * time.Second)
		if r, err = w.Request(t.Context(), alice, r.ID); err != nil || r.Status != policy.Open || len(r.Decisions) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if n := len(w.entries(ledger.TypeGrantCreated)); n != 0 {
			t.Errorf("%d grants", n)
		}
		w.approve(bob, r.ID)
	})
}

// A decision that was stored and reported as failed is found within a second.
func TestADecisionThatWasStoredAfterAll(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "writer", time.Minute)
		w.disk.lying.Store(true)
		_, err := w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeUnavailable, "")
		w.disk.lying.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r, err = w.Wait(t.Context(), alice, r.ID); err != nil || r.Grant == "" {
			t.Fatalf("%+v, %v", r, err)
		}
		held := w.hold(r.Grant)
		time.Sleep(time.Minute)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
		if w.grant(r.Grant); len(w.entries(ledger.TypeGrantCreated)) != 1 {
			t.Error("it was granted twice")
		}
	})
}

// The wall clock went on while the machine slept, or was set ahead: the ticker sees it within a second.
func TestTheWallClockIsAhead(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		time.Sleep(time.Minute)
		w.disk.moved.Store(int64(59 * time.Minute))
		time.Sleep(time.Second)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}

// Who comes before the ticker is not let in either.
func TestTheWallClockIsAheadOfTheTicker(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		w.disk.moved.Store(int64(time.Hour))
		_, _, err := w.Hold(t.Context(), g.ID)
		w.refused(err, CodeConflict, "ask again")
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}

// Without its timer, the ticker ends a grant by the monotonic clock, too.
func TestTheTickerSeesBothClocks(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Minute)
		held := w.hold(g.ID)
		w.disk.moved.Store(-int64(time.Hour))
		w.mu.Lock()
		w.live[g.ID].timer.Stop()
		w.mu.Unlock()
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}

// A clock set back extends nothing: the monotonic clock ends the grant.
func TestTheWallClockIsBehind(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		w.disk.moved.Store(-int64(30 * time.Minute))
		time.Sleep(time.Hour - time.Millisecond)
		synctest.Wait()
		if held.Err() != nil {
			t.Error("ended early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}

func TestRestart(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		short, long := w.granted(time.Minute), w.granted(time.Hour)
		gone := w.granted(time.Hour)
		if _, err := w.Release(t.Context(), alice, gone.ID); err != nil {
			t.Fatal(err)
		}
		r := w.ask(alice, "writer", time.Hour)
		w.disk.full.Store(true) // whatever was left to write was not written
		w.again(testPolicy(), 5*time.Minute)

		_, _, err := w.Hold(t.Context(), short.ID)
		w.refused(err, CodeConflict, "ask again")
		_, _, err = w.Hold(t.Context(), gone.ID)
		w.refused(err, CodeConflict, "was released at")
		held := w.hold(long.ID)
		synctest.Wait()
		if end := w.ended(short.ID, "expired", "curfew"); !end.At.Equal(short.End) {
			t.Errorf("ended at %v, not at its end %v", end.At, short.End)
		}
		w.approve(bob, r.ID)
		time.Sleep(55*time.Minute - time.Millisecond)
		synctest.Wait()
		if held.Err() != nil {
			t.Error("ended early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
		w.ended(gone.ID, "released", alice.Email)
		if n := len(w.entries(ledger.TypePolicyLoaded)); n != 1 {
			t.Errorf("the policy was loaded %d times", n)
		}
	})
}

// race runs all fns at one instant.
func race(fns ...func()) {
	start := make(chan struct{})
	var all sync.WaitGroup
	for _, fn := range fns {
		all.Go(func() {
			<-start
			fn()
		})
	}
	close(start)
	all.Wait()
}

func TestTwoApproversAtOnce(t *testing.T) {
	for range 20 {
		story(t, func(t *testing.T, w *world) {
			r := w.ask(alice, "writer", time.Hour)
			errs := make([]error, 2)
			race(
				func() { _, errs[0] = w.Decide(t.Context(), bob, r.ID, true, "") },
				func() { _, errs[1] = w.Decide(t.Context(), carol, r.ID, true, "") },
			)
			if (errs[0] == nil) == (errs[1] == nil) {
				t.Errorf("not exactly one was in time: %v", errs)
			}
			for _, err := range errs {
				if err != nil {
					w.refused(err, CodeConflict, "is approved since")
				}
			}
			if n := len(w.entries(ledger.TypeGrantCreated)); n != 1 {
				t.Errorf("%d grants", n)
			}
		})
	}
}

func TestApproveAndCancelAtOnce(t *testing.T) {
	for range 20 {
		story(t, func(t *testing.T, w *world) {
			r := w.ask(alice, "writer", time.Hour)
			var approved, cancelled, denied error
			race(
				func() { _, approved = w.Decide(t.Context(), bob, r.ID, true, "") },
				func() { _, cancelled = w.CancelRequest(t.Context(), alice, r.ID) },
				func() { _, denied = w.Decide(t.Context(), carol, r.ID, false, "") },
			)
			ends := w.entries(ledger.TypeRequestEnded)
			if len(ends) != 1 {
				t.Fatalf("the request ended %d times", len(ends))
			}
			want := map[bool]string{approved == nil: "approved", cancelled == nil: "cancelled", denied == nil: "denied"}[true]
			if end := into[ledger.RequestEnded](t, ends[0]); end.Status != want {
				t.Errorf("ledger: %s; callers: %v, %v, %v", end.Status, approved, cancelled, denied)
			}
			if n := len(w.entries(ledger.TypeGrantCreated)); (n == 1) != (approved == nil) {
				t.Errorf("%d grants, approve said %v", n, approved)
			}
		})
	}
}

func TestRevokeAndExpireAtOnce(t *testing.T) {
	for range 20 {
		story(t, func(t *testing.T, w *world) {
			g := w.granted(20 * time.Second)
			held := w.hold(g.ID)
			time.Sleep(time.Until(g.End)) // wakes with the grant's own timer, in no order
			var revoked, released error
			race(
				func() { _, revoked = w.Revoke(t.Context(), sam, g.ID, "x") },
				func() { _, released = w.Release(t.Context(), alice, g.ID) },
			)
			synctest.Wait()
			w.refused(revoked, CodeConflict, "expired")
			w.refused(released, CodeConflict, "expired")
			if causeOf(held) != "expired" {
				t.Errorf("cause %v", context.Cause(held))
			}
			w.ended(g.ID, "expired", "curfew")
		})
	}
}

func TestRevokeAndReleaseAtOnce(t *testing.T) {
	for range 20 {
		story(t, func(t *testing.T, w *world) {
			g := w.granted(time.Hour)
			held := w.hold(g.ID)
			var revoked, released error
			race(
				func() { _, revoked = w.Revoke(t.Context(), sam, g.ID, "x") },
				func() { _, released = w.Release(t.Context(), alice, g.ID) },
			)
			if (revoked == nil) == (released == nil) {
				t.Fatalf("not exactly one: %v, %v", revoked, released)
			}
			code, by := "revoked", sam.Email
			if released == nil {
				code, by = "released", alice.Email
			}
			if causeOf(held) != code {
				t.Errorf("cause %v", context.Cause(held))
			}
			w.ended(g.ID, code, by)
		})
	}
}

// Whoever gets a hold while a grant is being revoked is woken by that: check and subscription are one.
func TestHoldAndRevokeAtOnce(t *testing.T) {
	for range 20 {
		story(t, func(t *testing.T, w *world) {
			g := w.granted(time.Hour)
			var fns []func()
			held := make([]context.Context, 16)
			for i := range held {
				fns = append(fns, func() {
					ctx, release, err := w.Hold(t.Context(), g.ID)
					if err == nil {
						held[i] = ctx
						_ = release // kept to the end of the test: the end must come from the grant
					}
				})
			}
			race(append(fns, func() {
				if _, err := w.Revoke(t.Context(), sam, g.ID, "x"); err != nil {
					t.Error(err)
				}
			})...)
			for i, ctx := range held {
				if ctx != nil && ctx.Err() == nil {
					t.Errorf("holder %d was not woken", i)
				}
			}
		})
	}
}

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
		if r := w.approve(bob, kept.ID); r.Status != policy.Open {
			t.Errorf("%+v", r)
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
		p.Hash, p.Rules = "sha256:2", nil
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
