package control

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

func TestFromRequestToGrant(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "writer", 30*time.Minute)
		if r.Status != policy.Open || r.Grant != "" || !strings.HasPrefix(r.ID, "r") || len(r.ID) != 11 {
			t.Fatalf("%+v", r)
		}
		time.Sleep(5 * time.Minute)
		r = w.approve(bob, r.ID)
		g := w.grant(r.Grant)
		if !g.Start.Equal(w.disk.Now()) || !g.End.Equal(g.Start.Add(30*time.Minute)) {
			t.Errorf("start %v, end %v", g.Start, g.End)
		}
		for typ, want := range map[string]int{
			ledger.TypeRequestCreated: 1, ledger.TypeRequestDecided: 1, ledger.TypeRequestEnded: 1, ledger.TypeGrantCreated: 1,
		} {
			if got := w.entries(typ); len(got) != want {
				t.Errorf("%s: %d entries", typ, len(got))
			}
		}
		created := into[ledger.GrantCreated](t, w.entries(ledger.TypeGrantCreated)[0])
		if created.Grant != g.ID || created.Person.Subject != "alice" || !created.End.Equal(g.End) {
			t.Errorf("%+v", created)
		}
	})
}

// Connecting late, and every login before the end, finds the same window.
func TestTheWindowIsFixed(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(10 * time.Minute)
		time.Sleep(9 * time.Minute)
		held := w.hold(g.ID)
		time.Sleep(time.Minute - time.Millisecond)
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

func TestAnAskedStart(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.disk.Now().Add(time.Hour)
		r, err := w.Ask(t.Context(), alice, policy.Ask{Target: "orders", Level: "writer", Duration: 10 * time.Minute, Start: start, Reason: "x"})
		if err != nil {
			t.Fatal(err)
		}
		g := w.grant(w.approve(bob, r.ID).Grant)
		if !g.Start.Equal(start) || !g.End.Equal(start.Add(10*time.Minute)) {
			t.Errorf("%v to %v", g.Start, g.End)
		}
		_, _, err = w.Hold(t.Context(), g.ID)
		w.refused(err, CodeConflict, "begins at")
		_, err = w.Find(t.Context(), g.ID)
		w.refused(err, CodeConflict, "begins at")
		time.Sleep(time.Hour)
		held := w.hold(g.ID)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if causeOf(held) != "expired" {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}

func TestNoApprovalNeeded(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "reader", time.Minute)
		if r.Status != policy.Approved || r.Grant == "" {
			t.Fatalf("%+v", r)
		}
		w.hold(r.Grant)
		if end := into[ledger.RequestEnded](t, w.entries(ledger.TypeRequestEnded)[0]); end.By != "curfew" {
			t.Errorf("%+v", end)
		}
	})
}

func TestWhoMayNotDecide(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "owner", time.Hour)
		everything := alice
		everything.Groups = []string{"developers", "leads", "security", "admins"}
		for _, approve := range []bool{true, false} {
			_, err := w.Decide(t.Context(), everything, r.ID, approve, "")
			w.refused(err, CodeForbidden, "their own request")
			_, err = w.Decide(t.Context(), dana, r.ID, approve, "")
			w.refused(err, CodeNotFound, "there is no request")
		}
		if r = w.approve(carol, r.ID); r.Status != policy.Open {
			t.Fatal("one of two was enough")
		}
		again := carol
		again.Email, again.Groups = "c@elsewhere.test", []string{"security"}
		_, err := w.Decide(t.Context(), again, r.ID, true, "")
		w.refused(err, CodeConflict, "1 more approval")
		if r = w.approve(bob, r.ID); r.Status != policy.Approved {
			t.Fatal("two of two were not enough")
		}
		_, err = w.Decide(t.Context(), sam, r.ID, true, "")
		w.refused(err, CodeConflict, "curfew revoke "+r.Grant)
		if n := len(w.entries(ledger.TypeRequestDecided)); n != 2 {
			t.Errorf("%d decisions on the ledger", n)
		}

		// A reader sees a request that they may not decide on.
		r = w.ask(alice, "writer", time.Hour)
		_, err = w.Decide(t.Context(), sam, r.ID, true, "")
		w.refused(err, CodeForbidden, "not among those")

		// A lead's own request needs others, too.
		own := w.ask(bob, "owner", time.Hour)
		_, err = w.Decide(t.Context(), bob, own.ID, true, "")
		w.refused(err, CodeForbidden, "their own request")
	})
}

func TestOneDenyEndsIt(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "owner", time.Hour)
		w.approve(carol, r.ID)
		r, err := w.Decide(t.Context(), carol, r.ID, false, "on second thought")
		if err != nil || r.Status != policy.Denied || r.Grant != "" {
			t.Fatalf("%+v, %v", r, err)
		}
		_, err = w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeConflict, "is denied since")
		_, err = w.CancelRequest(t.Context(), alice, r.ID)
		w.refused(err, CodeConflict, "is denied since")
	})
}

func TestLapse(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "writer", time.Hour)
		waited := make(chan policy.Request, 1)
		go func() {
			r, err := w.Wait(t.Context(), alice, r.ID)
			if err != nil {
				t.Error(err)
			}
			waited <- r
		}()
		time.Sleep(10*time.Minute + time.Second)
		if r := <-waited; r.Status != policy.Lapsed {
			t.Errorf("%+v", r)
		}
		_, err := w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeConflict, "curfew request orders --level writer")
		if end := into[ledger.RequestEnded](t, w.entries(ledger.TypeRequestEnded)[0]); end.Status != "lapsed" || end.By != "curfew" {
			t.Errorf("%+v", end)
		}
	})
}

// A word that comes between the lapse and its entry comes too late, and lapses the request itself.
func TestLapseIsExact(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		time.Sleep(300 * time.Millisecond) // off the ticker's beat
		r := w.ask(alice, "writer", time.Hour)
		time.Sleep(10 * time.Minute)
		_, err := w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeConflict, "is lapsed since")
		time.Sleep(2 * time.Second)
		if got := w.entries(ledger.TypeRequestEnded); len(got) != 1 {
			t.Errorf("it ended %d times", len(got))
		}
	})
}

func TestCancel(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "writer", time.Hour)
		_, err := w.CancelRequest(t.Context(), dana, r.ID)
		w.refused(err, CodeNotFound, "there is no request")
		_, err = w.CancelRequest(t.Context(), bob, r.ID)
		w.refused(err, CodeForbidden, "curfew deny "+r.ID)
		if r, err = w.CancelRequest(t.Context(), alice, r.ID); err != nil || r.Status != policy.Cancelled {
			t.Fatalf("%+v, %v", r, err)
		}
		_, err = w.Decide(t.Context(), bob, r.ID, true, "")
		w.refused(err, CodeConflict, "is cancelled since")
	})
}

func TestWhatMayNotBeAsked(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		ask := policy.Ask{Target: "orders", Level: "writer", Duration: time.Hour, Reason: "x"}
		for name, c := range map[string]struct {
			who    auth.Identity
			change func(*policy.Ask)
			code   string
			says   string
		}{
			"no rule":       {eve, func(*policy.Ask) {}, CodePolicy, "curfew targets"},
			"no target":     {alice, func(a *policy.Ask) { a.Target = "payroll" }, CodePolicy, "curfew targets"},
			"too long":      {alice, func(a *policy.Ask) { a.Duration *= 2 }, CodePolicy, "--for 1h"},
			"no time":       {alice, func(a *policy.Ask) { a.Duration = 0 }, CodeInvalid, "--for 30m"},
			"no reason":     {alice, func(a *policy.Ask) { a.Reason = "" }, CodePolicy, "--reason"},
			"not logged in": {auth.Identity{}, func(*policy.Ask) {}, CodeUnauthenticated, "curfew login"},
			"escapes":       {alice, func(a *policy.Ask) { a.Reason = "\x1b[2Jhello" }, CodeInvalid, "control characters"},
			"reversed text": {alice, func(a *policy.Ask) { a.Reason = "\u202eolleh" }, CodeInvalid, "control characters"},
			"no text":       {alice, func(a *policy.Ask) { a.Reason = "\xff" }, CodeInvalid, "UTF-8"},
			"a novel":       {alice, func(a *policy.Ask) { a.Reason = strings.Repeat("x", MaxText+1) }, CodeInvalid, "longer than"},
		} {
			a := ask
			c.change(&a)
			_, err := w.Ask(t.Context(), c.who, a)
			t.Log(name)
			w.refused(err, c.code, c.says)
		}
		for range MaxOpen {
			w.ask(alice, "writer", time.Hour)
		}
		_, err := w.Ask(t.Context(), alice, ask)
		w.refused(err, CodeConflict, "curfew cancel")
		w.ask(dana, "writer", time.Hour)
	})
}

func TestWait(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r := w.ask(alice, "writer", time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		began := time.Now()
		if got, err := w.Wait(ctx, alice, r.ID); err != nil || got.Status != policy.Open || time.Since(began) != 30*time.Second {
			t.Errorf("%+v, %v after %v", got, err, time.Since(began))
		}
		_, err := w.Wait(t.Context(), dana, r.ID)
		w.refused(err, CodeNotFound, "there is no request")

		time.AfterFunc(time.Minute, func() { w.approve(bob, r.ID) })
		began = time.Now()
		if got, err := w.Wait(t.Context(), alice, r.ID); err != nil || got.Grant == "" || time.Since(began) != time.Minute {
			t.Errorf("%+v, %v after %v", got, err, time.Since(began))
		} else if _, err := w.Find(t.Context(), got.Grant); err != nil {
			t.Errorf("who has waited can't use the grant yet: %v", err)
		}
	})
}
