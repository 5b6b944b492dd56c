package control

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

func TestExpiry(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(20 * time.Second)
		first, second := w.hold(g.ID), w.hold(g.ID)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		for _, held := range []context.Context{first, second} {
			if causeOf(held) != "expired" {
				t.Errorf("cause %v", context.Cause(held))
			}
		}
		_, _, err := w.Hold(t.Context(), g.ID)
		w.refused(err, CodeConflict, "ask again: curfew request orders --level writer")
		_, err = w.Find(t.Context(), g.ID)
		w.refused(err, CodeConflict, "your grant "+g.ID+" ended at ")
		if end := w.ended(g.ID, "expired", "curfew"); !end.At.Equal(g.End) {
			t.Errorf("ended at %v, not at its end %v", end.At, g.End)
		}
	})
}

func TestAHoldThatWasGivenBack(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Minute)
		held, release, err := w.Hold(t.Context(), g.ID)
		if err != nil {
			t.Fatal(err)
		}
		release()
		release()
		if context.Cause(held) != context.Canceled {
			t.Errorf("cause %v", context.Cause(held))
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := len(w.live[g.ID].holds); n != 0 {
			t.Errorf("%d holds are left", n)
		}
	})
}

func TestAHoldEndsWithItsContext(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Minute)
		ctx, cancel := context.WithCancelCause(t.Context())
		held, release, err := w.Hold(ctx, g.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		cancel(fmt.Errorf("drained"))
		if causeOf(held) != "drained" {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}

func TestRelease(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		_, err := w.Release(t.Context(), dana, g.ID)
		w.refused(err, CodeNotFound, "there is no grant")
		_, err = w.Release(t.Context(), bob, g.ID)
		w.refused(err, CodeForbidden, "curfew revoke "+g.ID)
		if held.Err() != nil {
			t.Fatal("it ended")
		}
		got, err := w.Release(t.Context(), alice, g.ID)
		if err != nil || got.EndCode != recorder.EndReleased {
			t.Fatalf("%+v, %v", got, err)
		}
		if causeOf(held) != "released" {
			t.Errorf("cause %v", context.Cause(held))
		}
		_, err = w.Release(t.Context(), alice, g.ID)
		w.refused(err, CodeConflict, "has ended already: released at")
		w.ended(g.ID, "released", alice.Email)
	})
}

func TestRevoke(t *testing.T) {
	for _, who := range []auth.Identity{alice, bob, carol, sam} {
		t.Run(who.Email, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				g := w.granted(time.Hour)
				held := w.hold(g.ID)
				for _, stranger := range []auth.Identity{dana, eve} {
					_, err := w.Revoke(t.Context(), stranger, g.ID, "because")
					w.refused(err, CodeNotFound, "there is no grant")
				}
				_, err := w.Revoke(t.Context(), auth.Identity{}, g.ID, "because")
				w.refused(err, CodeUnauthenticated, "curfew login")
				got, err := w.Revoke(t.Context(), who, g.ID, "a bad feeling")
				if err != nil || got.EndReason != "a bad feeling" {
					t.Fatalf("%+v, %v", got, err)
				}
				if causeOf(held) != "revoked" {
					t.Errorf("cause %v", context.Cause(held))
				}
				_, _, err = w.Hold(t.Context(), g.ID)
				w.refused(err, CodeConflict, "by "+who.Email+": a bad feeling; ask again")
				w.ended(g.ID, "revoked", who.Email)
			})
		})
	}
}

// A grant can be revoked before it begins.
func TestRevokeBeforeTheStart(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r, err := w.Ask(t.Context(), alice, policy.Ask{Target: "orders", Level: "reader", Duration: time.Hour, Start: w.disk.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Revoke(t.Context(), sam, r.Grant, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Minute)
		_, _, err = w.Hold(t.Context(), r.Grant)
		w.refused(err, CodeConflict, "no reason was given")
		w.ended(r.Grant, "revoked", sam.Email)
	})
}

func TestEndByCurfew(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		held := w.hold(g.ID)
		for range 2 {
			if err := w.End(t.Context(), g.ID, recorder.EndForeign, "its account was used past Curfew", "curfew"); err != nil {
				t.Fatal(err)
			}
		}
		if causeOf(held) != "foreign" {
			t.Errorf("cause %v", context.Cause(held))
		}
		w.ended(g.ID, "foreign", "curfew")
		w.refused(w.End(t.Context(), "g0000000000", recorder.EndForeign, "x", "curfew"), CodeNotFound, "there is no grant")
	})
}

func TestPasswords(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		if v, err := w.Verifier(t.Context(), g.ID); v != nil || err != nil {
			t.Errorf("a verifier before there is a password: %q, %v", v, err)
		}
		first, err := w.Password(t.Context(), alice, g.ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(first.Password) != 32 || first.User != g.ID || first.Host != "curfew.example.test" || !first.End.Equal(g.End) {
			t.Errorf("%+v", first)
		}
		second, err := w.Password(t.Context(), alice, g.ID)
		if err != nil || second.Password == first.Password {
			t.Fatalf("%v, or the same password twice", err)
		}
		v, err := w.Verifier(t.Context(), g.ID)
		if err != nil || string(v) != "orders:"+second.Password {
			t.Errorf("the verifier is not the last password's: %v", err)
		}
		for _, who := range []auth.Identity{bob, sam} {
			_, err := w.Password(t.Context(), who, g.ID)
			w.refused(err, CodeForbidden, "only "+alice.Email)
		}
		_, err = w.Password(t.Context(), dana, g.ID)
		w.refused(err, CodeNotFound, "there is no grant")
		if n := len(w.entries(ledger.TypeGrantPassword)); n != 2 {
			t.Errorf("%d passwords on the ledger", n)
		}
		err = w.disk.Entries(t.Context(), 0, func(line []byte) error {
			if bytes.Contains(line, []byte(second.Password)) {
				t.Errorf("a password is on the ledger: %s", line)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}

		time.Sleep(time.Hour)
		synctest.Wait()
		if v, err := w.Verifier(t.Context(), g.ID); v != nil || err != nil {
			t.Errorf("a verifier after the end: %q, %v", v, err)
		}
		_, err = w.Password(t.Context(), alice, g.ID)
		w.refused(err, CodeConflict, "ask again")
	})
}

// A password may be had before the grant begins; it opens nothing until then.
func TestPasswordBeforeTheStart(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		r, err := w.Ask(t.Context(), alice, policy.Ask{Target: "orders", Level: "reader", Duration: time.Hour, Start: w.disk.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Password(t.Context(), alice, r.Grant); err != nil {
			t.Fatal(err)
		}
		if v, err := w.Verifier(t.Context(), r.Grant); v != nil || err != nil {
			t.Errorf("a verifier before the start: %q, %v", v, err)
		}
		time.Sleep(time.Hour)
		if v, err := w.Verifier(t.Context(), r.Grant); v == nil || err != nil {
			t.Errorf("no verifier after the start: %v", err)
		}
	})
}

func TestFind(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		got, err := w.Find(t.Context(), g.ID)
		if err != nil || got.ID != g.ID || got.Can.Sessions != 3 {
			t.Errorf("%+v, %v", got, err)
		}
		_, err = w.Find(t.Context(), "postgres")
		w.refused(err, CodeNotFound, "")
		_, _, err = w.Hold(t.Context(), "postgres")
		w.refused(err, CodeNotFound, "")
		if v, err := w.Verifier(t.Context(), "postgres"); v != nil || err != nil {
			t.Errorf("%q, %v", v, err)
		}
	})
}

func TestWhoSeesWhat(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		own := w.ask(alice, "writer", time.Hour)
		g := w.granted(time.Hour)
		other := w.ask(dana, "reader", time.Hour) // nobody approves it: its leads don't see it
		ids := func(rs []policy.Request, err error) (ids []string) {
			if err != nil {
				t.Error(err)
			}
			for _, r := range rs {
				ids = append(ids, r.ID)
			}
			slices.Sort(ids)
			return ids
		}
		gids := func(gs []policy.Grant, err error) (ids []string) {
			if err != nil {
				t.Error(err)
			}
			for _, g := range gs {
				ids = append(ids, g.ID)
			}
			slices.Sort(ids)
			return ids
		}
		sorted := func(ids ...string) []string { slices.Sort(ids); return ids }
		for _, c := range []struct {
			who      auth.Identity
			requests []string
			grants   []string
		}{
			{alice, sorted(own.ID, g.Request), sorted(g.ID)},
			{dana, sorted(other.ID), sorted(other.Grant)},
			{bob, sorted(own.ID, g.Request), sorted(g.ID)},
			{sam, sorted(own.ID, g.Request, other.ID), sorted(g.ID, other.Grant)},
			{eve, nil, nil},
		} {
			if got := ids(w.Requests(t.Context(), c.who, RequestFilter{})); !slices.Equal(got, c.requests) {
				t.Errorf("%s sees requests %v, want %v", c.who.Email, got, c.requests)
			}
			if got := gids(w.Grants(t.Context(), c.who, GrantFilter{})); !slices.Equal(got, c.grants) {
				t.Errorf("%s sees grants %v, want %v", c.who.Email, got, c.grants)
			}
			for _, r := range []string{own.ID, g.Request, other.ID, "r0000000000"} {
				_, err := w.Request(t.Context(), c.who, r)
				if seen := slices.Contains(c.requests, r); seen != (err == nil) {
					t.Errorf("%s sees request %s: %v", c.who.Email, r, err)
				} else if !seen {
					w.refused(err, CodeNotFound, fmt.Sprintf("there is no request %q that you may see", r))
				}
			}
			for _, id := range []string{g.ID, other.Grant, "g0000000000"} {
				_, err := w.Grant(t.Context(), c.who, id)
				if seen := slices.Contains(c.grants, id); seen != (err == nil) {
					t.Errorf("%s sees grant %s: %v", c.who.Email, id, err)
				} else if !seen {
					w.refused(err, CodeNotFound, fmt.Sprintf("there is no grant %q that you may see", id))
				}
			}
		}
		if got := ids(w.Requests(t.Context(), bob, RequestFilter{Decide: true})); !slices.Equal(got, []string{own.ID}) {
			t.Errorf("bob may decide on %v", got)
		}
		if got := ids(w.Requests(t.Context(), sam, RequestFilter{Decide: true})); got != nil {
			t.Errorf("sam may decide on %v", got)
		}
		if got := ids(w.Requests(t.Context(), sam, RequestFilter{Mine: true})); got != nil {
			t.Errorf("sam asked for %v", got)
		}
		if got := ids(w.Requests(t.Context(), sam, RequestFilter{Limit: 2})); len(got) != 2 {
			t.Errorf("limited to 2: %v", got)
		}
		if got := ids(w.Requests(t.Context(), sam, RequestFilter{By: dana.Key()})); !slices.Equal(got, []string{other.ID}) {
			t.Errorf("by dana: %v", got)
		}
		if got := gids(w.Grants(t.Context(), alice, GrantFilter{Target: "stock"})); got != nil {
			t.Errorf("on stock: %v", got)
		}
		if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
		if got := gids(w.Grants(t.Context(), alice, GrantFilter{Live: true})); got != nil {
			t.Errorf("live after the release: %v", got)
		}
		if got := gids(w.Grants(t.Context(), alice, GrantFilter{})); !slices.Equal(got, []string{g.ID}) {
			t.Errorf("all after the release: %v", got)
		}
	})
}

func TestTargets(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		got, err := w.Targets(t.Context(), bob)
		if err != nil || len(got) != 2 || got[0].Target != "orders" || got[0].Engine != "postgres" ||
			len(got[0].Offers) != 1 || got[0].Offers[0].Level != "owner" || got[0].Offers[0].Approvals != 2 {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := w.Targets(t.Context(), eve); err != nil || got != nil {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestSessionsAndRecordings(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		if err := w.disk.Opened(t.Context(), ledger.SessionOpened{Session: "s1", Grant: g.ID, Target: "orders", Account: "a", Node: "n"}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			who  auth.Identity
			sees bool
			read string // code of the refusal
		}{
			{alice, true, CodeForbidden}, {sam, true, ""}, {bob, false, CodeNotFound}, {dana, false, CodeNotFound}, {auth.Identity{}, false, CodeUnauthenticated},
		} {
			all, _ := w.Sessions(t.Context(), c.who, SessionFilter{})
			_, err := w.Session(t.Context(), c.who, "s1")
			if c.sees != (len(all) == 1) || c.sees != (err == nil) {
				t.Errorf("%s sees %v, %v", c.who.Email, all, err)
			}
			before := len(w.entries(ledger.TypeRecordingRead))
			_, err = w.ReadRecording(t.Context(), c.who, "s1", "replay", "192.0.2.7")
			read := w.entries(ledger.TypeRecordingRead)[before:]
			if c.read != "" {
				w.refused(err, c.read, "")
				if len(read) != 0 {
					t.Errorf("a reading that was refused is on the ledger: %+v", read)
				}
				continue
			}
			if err != nil || len(read) != 1 {
				t.Fatalf("%s reads: %v, on the ledger %d times", c.who.Email, err, len(read))
			}
			if e := into[ledger.RecordingRead](t, read[0]); e.Person.Subject != c.who.Subject || e.Session != "s1" || e.From != "192.0.2.7" {
				t.Errorf("%+v", e)
			}
		}
		w.disk.full.Store(true)
		_, err := w.ReadRecording(t.Context(), sam, "s1", "replay", "192.0.2.7")
		w.refused(err, CodeUnavailable, "try again")
	})
}
