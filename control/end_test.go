package control

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

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

// A store that can't be written is one that Curfew is not ready with, until it can be again.
func TestErrSaysWhetherTheStoreCanBeWritten(t *testing.T) {
	for name, broken := range map[string]func(*disk, bool){
		"full":  func(d *disk, on bool) { d.full.Store(on) },
		"stuck": func(d *disk, on bool) { d.stuck.Store(on) },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				time.Sleep(time.Minute)
				if err := w.Err(); err != nil {
					t.Errorf("while it can be written: %v", err)
				}
				broken(w.disk, true)
				time.Sleep(writable + 2*time.Second)
				if w.Err() == nil {
					t.Error("while it can't be written: ready")
				}
				broken(w.disk, false)
				time.Sleep(2*patience + 2*time.Second)
				if err := w.Err(); err != nil {
					t.Errorf("when it can be written again: %v", err)
				}
			})
		})
	}
}
