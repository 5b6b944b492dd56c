package control

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

func (w *world) more(who auth.Identity, grant string, d time.Duration) policy.Request {
	w.t.Helper()
	r, err := w.Extend(w.t.Context(), who, grant, More{For: d, Reason: "it takes longer"})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) noMore(who auth.Identity, grant string, d time.Duration, code, says string) {
	w.t.Helper()
	_, err := w.Extend(w.t.Context(), who, grant, More{For: d, Reason: "it takes longer"})
	w.refused(err, code, says)
}

// heard is a node that is told of extensions.
type heard struct {
	noWire
	end atomic.Pointer[time.Time]
}

func (h *heard) Extended(_ string, end time.Time) { h.end.Store(&end) }

// An extension is decided as its grant was; then the grant ends later, whoever holds it goes on holding it, and
// that is on the ledger.
func TestExtend(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		node := &heard{}
		w.wire = node
		g := w.granted(20 * time.Minute)
		held := w.hold(g.ID)
		time.Sleep(10 * time.Minute)
		r := w.more(alice, g.ID, 30*time.Minute)
		if r.Status != policy.Open || r.Extends != g.ID || r.Approvals.Count != 1 || r.Rule != "write" {
			t.Fatalf("%+v", r)
		}
		w.noMore(alice, g.ID, time.Minute, CodeConflict, "asks for more time under this grant already")
		_, err := w.Decide(t.Context(), alice, r.ID, true, "")
		w.refused(err, CodeForbidden, "their own request")
		r = w.approve(carol, r.ID)
		if r.Status != policy.Approved || r.Grant != g.ID {
			t.Errorf("%+v", r)
		}
		end := g.End.Add(30 * time.Minute)
		now := w.grant(g.ID)
		if !now.End.Equal(end) || !now.Start.Equal(g.Start) || len(now.Extensions) != 1 {
			t.Errorf("%+v", now)
		}
		want := policy.Extension{Request: r.ID, From: g.End, To: end, At: now.Extensions[0].At, Approvers: []string{carol.Email}}
		if x := now.Extensions[0]; x.Request != want.Request || !x.From.Equal(want.From) || !x.To.Equal(want.To) || x.Approvers[0] != carol.Email {
			t.Errorf("%+v, want %+v", x, want)
		}
		if told := node.end.Load(); told == nil || !told.Equal(end) {
			t.Errorf("the node was told %v", told)
		}
		entries := w.entries(ledger.TypeGrantExtended)
		if len(entries) != 1 {
			t.Fatalf("%d on the ledger", len(entries))
		}
		if e := into[ledger.GrantExtended](t, entries[0]); e.Grant != g.ID || e.Request != r.ID || !e.From.Equal(g.End) || !e.To.Equal(end) {
			t.Errorf("%+v", e)
		}
		time.Sleep(time.Until(end) - time.Millisecond)
		synctest.Wait()
		if held.Err() != nil {
			t.Fatalf("the holder lost it before the new end: %v", context.Cause(held))
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("%v", context.Cause(held))
		}
		if e := w.ended(g.ID, "expired", "curfew"); !e.At.Equal(end) {
			t.Errorf("it ended at %v, not %v", e.At, end)
		}
	})
}

// A rule that wants nobody's word extends at once; measured from now it never gives longer than it gives at most.
func TestExtendWithinTheRule(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.grant(w.ask(alice, "reader", 30*time.Minute).Grant)
		w.noMore(alice, g.ID, 31*time.Minute, CodePolicy, "last 1h0m0s at most, from now on; ask for less: curfew extend "+g.ID+" --for 30m0s")
		if r := w.more(alice, g.ID, 30*time.Minute); r.Status != policy.Approved {
			t.Errorf("%+v", r)
		}
		w.noMore(alice, g.ID, time.Minute, CodePolicy, "ask again when less of it is left")
		time.Sleep(20 * time.Minute)
		w.more(alice, g.ID, 20*time.Minute)
		if now := w.grant(g.ID); now.End.Sub(now.Start) != 80*time.Minute {
			t.Errorf("%v", now.End.Sub(now.Start))
		}
		w.noMore(alice, g.ID, 0, CodeInvalid, "a second at least")
		w.noMore(sam, g.ID, time.Minute, CodeForbidden, "only alice@example.test")
		w.noMore(dana, g.ID, time.Minute, CodeNotFound, "no grant")
		w.noMore(alice, "g0", time.Minute, CodeNotFound, "no grant")
		if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
		w.noMore(alice, g.ID, time.Minute, CodeConflict, "was released")
	})
}

// One that is still to begin is extended, too: its time is measured from its begin.
func TestExtendBeforeTheBegin(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r, err := w.Ask(t.Context(), alice, policy.Ask{Target: "orders", Level: "reader", Duration: 30 * time.Minute, Reason: "x", Start: w.disk.Now().Add(24 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		w.more(alice, r.Grant, 30*time.Minute)
		w.noMore(alice, r.Grant, time.Second, CodePolicy, "at most")
	})
}

// What asks for more time under a grant ends with it.
func TestAnEndedGrantIsNotExtended(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(20 * time.Minute)
		r := w.more(alice, g.ID, 20*time.Minute)
		if _, err := w.Revoke(t.Context(), sam, g.ID, "x"); err != nil {
			t.Fatal(err)
		}
		_, err := w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeConflict, "is denied since")
		if r, err = w.Request(t.Context(), alice, r.ID); r.Status != policy.Denied || r.EndReason != "its grant has ended" {
			t.Errorf("%+v, %v", r, err)
		}
		// By its own time it lapses: nobody said a word.
		g = w.granted(20 * time.Minute)
		r = w.more(alice, g.ID, 20*time.Minute)
		time.Sleep(time.Until(g.End) + time.Millisecond)
		synctest.Wait()
		_, err = w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeConflict, "is lapsed since")
		if n := len(w.entries(ledger.TypeGrantExtended)); n != 0 {
			t.Errorf("%d extensions", n)
		}
	})
}

// Revoke and extend at one instant: the grant is revoked, once, whether it was extended before or not, and the
// ledger has them in an order in which they can have happened.
func TestRevokeAndExtendAtOnce(t *testing.T) {
	for range 8 {
		story(t, func(t *testing.T, w *world) {
			g := w.granted(20 * time.Minute)
			held := w.hold(g.ID)
			r := w.more(alice, g.ID, 20*time.Minute)
			var revoked, approved error
			race(
				func() { _, revoked = w.Revoke(t.Context(), sam, g.ID, "x") },
				func() { _, approved = w.Decide(t.Context(), bob, r.ID, true, "") },
			)
			synctest.Wait()
			if revoked != nil || causeOf(held) != "revoked" {
				t.Errorf("%v, %v", revoked, context.Cause(held))
			}
			w.ended(g.ID, "revoked", sam.Email)
			extended := w.entries(ledger.TypeGrantExtended)
			if (approved == nil) != (len(extended) == 1) {
				t.Errorf("%d extensions, and the approver was told %v", len(extended), approved)
			}
			if approved != nil {
				w.refused(approved, CodeConflict, "")
			} else if over := w.entries(ledger.TypeGrantEnded)[0]; over.Index < extended[0].Index {
				t.Error("it was extended after its end")
			}
			if r, err := w.Request(t.Context(), alice, r.ID); err != nil || (r.Status == policy.Approved) != (approved == nil) || r.Status == policy.Open {
				t.Errorf("%+v, %v", r, err)
			}
			if now := w.grant(g.ID); now.End.Equal(g.End) != (approved != nil) {
				t.Errorf("it was to end at %v, says the row; the approver was told %v", now.End, approved)
			}
		})
	}
}

// Expiry and extension at one instant: either it goes on to the new end, or it has ended.
func TestExpireAndExtendAtOnce(t *testing.T) {
	for range 8 {
		story(t, func(t *testing.T, w *world) {
			g := w.granted(2 * time.Minute)
			held := w.hold(g.ID)
			r := w.more(alice, g.ID, 2*time.Minute)
			time.Sleep(time.Until(g.End) - time.Nanosecond)
			var approved error
			race(
				func() { time.Sleep(time.Nanosecond) },
				func() { _, approved = w.Decide(t.Context(), bob, r.ID, true, "") },
			)
			synctest.Wait()
			if goesOn := held.Err() == nil; goesOn != (approved == nil) {
				t.Errorf("it goes on: %v; the approver was told %v", goesOn, approved)
			}
		})
	}
}

// An extension that was stored and reported as failed is in force as soon as that is known; and all of them are
// after a restart.
func TestAnExtensionSurvives(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(2 * time.Minute)
		held := w.hold(g.ID)
		r := w.more(alice, g.ID, 2*time.Minute)
		w.disk.lying.Store(true)
		_, err := w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeUnavailable, "")
		w.disk.lying.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if now := w.grant(g.ID); !now.End.Equal(g.End.Add(2 * time.Minute)) {
			t.Errorf("it ends at %v", now.End)
		}
		time.Sleep(time.Until(g.End) + time.Second)
		if held.Err() != nil {
			t.Error(context.Cause(held))
		}
		w.again(testPolicy(), 0)
		held = w.hold(g.ID)
		time.Sleep(time.Until(g.End.Add(2*time.Minute)) + time.Millisecond)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("%v", context.Cause(held))
		}
	})
}

// A reload denies an open extension that the grant's rule gives no more, or on other terms.
func TestReloadJudgesExtensionsAgain(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*policy.Policy)
		want   policy.Status
	}{
		"nothing":         {func(*policy.Policy) {}, policy.Open},
		"another rule":    {func(p *policy.Policy) { p.Rules[0].Longest = 2 * time.Hour }, policy.Open},
		"more approvals":  {func(p *policy.Policy) { p.Rules[1].Approvals.Count = 2 }, policy.Denied},
		"a shorter limit": {func(p *policy.Policy) { p.Rules[1].Longest = 30 * time.Minute }, policy.Denied},
	} {
		story(t, func(t *testing.T, w *world) {
			g := w.granted(20 * time.Minute)
			r := w.more(alice, g.ID, 20*time.Minute)
			time.Sleep(time.Minute)
			p := testPolicy()
			p.Hash = "sha256:2"
			c.change(p)
			if err := w.Reload(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if got, _ := w.Request(t.Context(), alice, r.ID); got.Status != c.want {
				t.Errorf("%s: %s", name, got.Status)
			}
		})
	}
}

// breakable is testPolicy with a rule for breaking the glass, and reviews of writers' sessions.
func breakable() *policy.Policy {
	p := testPolicy()
	p.Hash, p.Text = "sha256:glass", "glass"
	p.Rules[1].Review = &policy.Review{Within: 48 * time.Hour}
	p.Rules = append(p.Rules, policy.Rule{Name: "glass", Who: policy.Who{Groups: []string{"developers"}}, Targets: []string{"*"}, Levels: []string{"owner"},
		Longest: 15 * time.Minute, Reason: true, BreakGlass: true, Review: &policy.Review{Within: time.Hour}})
	return p
}

func (w *world) smash(who auth.Identity) (policy.Request, error) {
	return w.Ask(w.t.Context(), who, policy.Ask{Target: "orders", Level: "owner", Duration: 10 * time.Minute, Reason: "orders are down", BreakGlass: true})
}

// Who breaks the glass is in at once, owes a review from then on, and can't do it again before somebody else has
// looked at all of it.
func TestBreakGlass(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		if err := w.Reload(t.Context(), breakable()); err != nil {
			t.Fatal(err)
		}
		r, err := w.smash(alice)
		if err != nil || r.Status != policy.Approved || !r.BreakGlass {
			t.Fatalf("%+v, %v", r, err)
		}
		g := w.grant(r.Grant)
		w.hold(g.ID)
		if !g.BreakGlass || !into[ledger.GrantCreated](t, w.entries(ledger.TypeGrantCreated)[0]).BreakGlass {
			t.Errorf("%+v", g)
		}
		due := into[ledger.ReviewDue](t, w.entries(ledger.TypeReviewDue)[0])
		if due.Review != g.ID || due.Session != "" || !due.Due.Equal(g.Start.Add(time.Hour)) || due.Person.Email != alice.Email {
			t.Errorf("%+v", due)
		}
		if c := w.Census(); c.Broken != 1 {
			t.Errorf("%+v", c)
		}
		w.noMore(alice, g.ID, time.Minute, CodePolicy, "is not extended")
		_, err = w.smash(alice)
		w.refused(err, CodePolicy, "has not been reviewed yet")
		_, err = w.Review(t.Context(), alice, g.ID, true, "")
		w.refused(err, CodeForbidden, "what they did themselves")
		_, err = w.Review(t.Context(), dana, g.ID, true, "")
		w.refused(err, CodeNotFound, "no review")
		_, err = w.Review(t.Context(), sam, g.ID, true, "")
		w.refused(err, CodeConflict, "goes on")
		if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
		_, err = w.Review(t.Context(), sam, g.ID, false, " ")
		w.refused(err, CodeInvalid, "what you found")
		// What she is at another issuer does not make her somebody else.
		double := auth.Identity{Issuer: "https://other.test", Subject: "4711", Email: "Alice@example.test", Groups: []string{"developers", "security"}}
		_, err = w.smash(double)
		w.refused(err, CodePolicy, "has not been reviewed yet")
		_, err = w.Review(t.Context(), double, g.ID, true, "")
		w.refused(err, CodeForbidden, "what they did themselves")
		if list, err := w.Reviews(t.Context(), sam, ReviewFilter{Due: true}); err != nil || len(list) != 1 {
			t.Errorf("%v, %v", list, err)
		}
		for who, n := range map[*auth.Identity]int{&alice: 1, &dana: 0, &sam: 1} {
			if list, err := w.Reviews(t.Context(), *who, ReviewFilter{}); err != nil || len(list) != n {
				t.Errorf("%s: %v, %v", who.Email, list, err)
			}
		}
		if list, _ := w.Reviews(t.Context(), alice, ReviewFilter{Due: true}); len(list) != 0 {
			t.Errorf("alice may review herself: %v", list)
		}
		rv, err := w.Review(t.Context(), sam, g.ID, false, "she read the salaries")
		if err != nil || rv.Done.IsZero() || !rv.Reviewer.Same(sam) {
			t.Errorf("%+v, %v", rv, err)
		}
		done := into[ledger.ReviewDone](t, w.entries(ledger.TypeReviewDone)[0])
		if done.Review != g.ID || done.OK || done.Finding != "she read the salaries" || done.Person.Email != sam.Email {
			t.Errorf("%+v", done)
		}
		_, err = w.Review(t.Context(), carol, g.ID, true, "")
		w.refused(err, CodeConflict, "has reviewed it already")
		if _, err := w.smash(alice); err != nil {
			t.Error(err)
		}
	})
}

// The next page of reviews begins behind the last one, also when that was done meanwhile.
func TestPagesOfReviews(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		if err := w.Reload(t.Context(), breakable()); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, who := range []auth.Identity{alice, dana} {
			r, err := w.smash(who)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Release(t.Context(), who, r.Grant); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.Grant)
			time.Sleep(time.Second) // so that the one is due before the other
		}
		if _, err := w.Review(t.Context(), sam, ids[0], true, ""); err != nil {
			t.Fatal(err)
		}
		for after, want := range map[string]string{"": ids[1], ids[0]: ids[1], ids[1]: ""} {
			list, err := w.Reviews(t.Context(), sam, ReviewFilter{Due: true, After: after})
			if err != nil || len(list) > 1 || (len(list) == 1) != (want != "") || (want != "" && list[0].ID != want) {
				t.Errorf("behind %q: %v, %v", after, list, err)
			}
		}
		for who, after := range map[*auth.Identity]string{&sam: "gnone", &dana: ids[0]} {
			_, err := w.Reviews(t.Context(), *who, ReviewFilter{After: after})
			w.refused(err, CodeNotFound, "no review")
		}
	})
}

// A review that is not done in time alerts, once.
func TestOverdueReviews(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		if err := w.Reload(t.Context(), breakable()); err != nil {
			t.Fatal(err)
		}
		r, err := w.smash(alice)
		if err != nil {
			t.Fatal(err)
		}
		overdue := func() (n int) {
			err := w.disk.View(t.Context(), func(tx *store.Tx) error {
				all, err := tx.Notices(0, 100)
				for _, n2 := range all {
					if n2.Kind == store.NoticeReviewOverdue && n2.Grant == r.Grant {
						n++
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if c := w.Census().Reviews; c.Due != 1 || c.Overdue != 0 || overdue() != 0 {
			t.Errorf("%+v, %d notices", c, overdue())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if c := w.Census().Reviews; c.Due != 1 || c.Overdue != 1 || overdue() != 1 {
			t.Errorf("%+v, %d notices", c, overdue())
		}
		if _, err := w.Review(t.Context(), sam, r.Grant, true, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c := w.Census().Reviews; c.Due != 0 || c.Overdue != 0 || overdue() != 1 {
			t.Errorf("%+v, %d notices", c, overdue())
		}
	})
}

// A policy that gives nobody anything is refused unless it says that this is meant; then everything ends.
func TestAPolicyThatLocksEverybodyOut(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		p := testPolicy()
		p.Hash, p.Rules = "sha256:2", nil
		w.refused(w.Reload(t.Context(), p), CodePolicy, "lockdown: true")
		if w.Policy().Hash != "sha256:1" || held.Err() != nil {
			t.Error("it is in force")
		}
		p.Lockdown = true
		if err := w.Reload(t.Context(), p); err != nil || causeOf(held) != "revoked" {
			t.Errorf("%v, %v", err, context.Cause(held))
		}
		if err := w.Reload(t.Context(), testPolicy()); err != nil {
			t.Errorf("out of a lockdown again: %v", err)
		}
	})
}

// A target that the policy names no more takes its grants along.
func TestATargetIsTakenOut(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		p := testPolicy()
		p.Hash = "sha256:2"
		delete(p.Targets, "orders")
		if err := w.Reload(t.Context(), p); err != nil || causeOf(held) != "revoked" {
			t.Errorf("%v, %v", err, context.Cause(held))
		}
	})
}

func TestComments(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "writer", time.Hour)
		for _, who := range []auth.Identity{bob, alice, sam} {
			if _, err := w.Comment(t.Context(), who, r.ID, " which order? "); err != nil {
				t.Error(err)
			}
		}
		_, err := w.Comment(t.Context(), dana, r.ID, "let me")
		w.refused(err, CodeNotFound, "no request")
		_, err = w.Comment(t.Context(), bob, r.ID, " ")
		w.refused(err, CodeInvalid, "is empty")
		_, err = w.Comment(t.Context(), bob, r.ID, "\x1b[2J")
		w.refused(err, CodeInvalid, "control characters")
		r = w.approve(bob, r.ID)
		if len(r.Comments) != 3 || r.Comments[0].Text != "which order?" || !r.Comments[1].Identity.Same(alice) {
			t.Errorf("%+v", r.Comments)
		}
		for range MaxComments - 3 {
			if _, err := w.Comment(t.Context(), bob, r.ID, "and so on"); err != nil {
				t.Fatal(err)
			}
		}
		_, err = w.Comment(t.Context(), bob, r.ID, "one more")
		w.refused(err, CodeConflict, "comments already")
		if n := len(w.entries(ledger.TypeRequestCommented)); n != MaxComments {
			t.Errorf("%d on the ledger", n)
		}
	})
}

// What a rule denies, and what could not be judged, is on the ledger with who asked; what merely no rule gives is not.
func TestRefusalsOnTheLedger(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.Hash = "sha256:2"
		p.Rules = append(p.Rules, policy.Rule{Name: "never dana", Deny: true, Who: policy.Who{Emails: []string{dana.Email}}, Targets: []string{"*"}, Levels: []string{"*"}})
		if err := w.Reload(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		_, err := w.Ask(t.Context(), dana, policy.Ask{Target: "orders", Level: "reader", Duration: time.Minute, Reason: "x", Ticket: "OPS-1"})
		w.refused(err, CodePolicy, "never dana")
		_, err = w.Ask(t.Context(), eve, policy.Ask{Target: "orders", Level: "reader", Duration: time.Minute})
		w.refused(err, CodePolicy, "no rule gives you")
		entries := w.entries(ledger.TypeRequestRefused)
		if len(entries) != 1 {
			t.Fatalf("%d on the ledger", len(entries))
		}
		if e := into[ledger.RequestRefused](t, entries[0]); e.Rule != "never dana" || e.Person.Email != dana.Email || e.Policy != "sha256:2" || e.Ticket != "OPS-1" {
			t.Errorf("%+v", e)
		}
	})
}
