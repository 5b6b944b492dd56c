package control

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

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
