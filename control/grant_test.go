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
		// Who proves to be the holder is told why there is no way in any more.
		if v, err := w.Verifier(t.Context(), g.ID); v == nil || err != nil {
			t.Errorf("no verifier after the end: %v", err)
		}
		_, err = w.Find(t.Context(), g.ID)
		w.refused(err, CodeConflict, "ask again")
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
		_, err = w.Find(t.Context(), r.Grant)
		w.refused(err, CodeConflict, "begins at")
		time.Sleep(time.Hour)
		if _, err := w.Find(t.Context(), r.Grant); err != nil {
			t.Errorf("after the start: %v", err)
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

func requestIDs(rs []policy.Request, err error) []string {
	if err != nil {
		return []string{err.Error()}
	}
	var ids []string
	for _, r := range rs {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

func grantIDs(gs []policy.Grant, err error) []string {
	if err != nil {
		return []string{err.Error()}
	}
	var ids []string
	for _, g := range gs {
		ids = append(ids, g.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestWhoSeesWhat(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		own, g := w.ask(alice, "writer", time.Hour), w.granted(time.Hour)
		other := w.ask(dana, "reader", time.Hour) // nobody approves it: no lead sees it
		for _, c := range []struct {
			who      auth.Identity
			requests []string
			grants   []string
		}{
			{alice, []string{own.ID, g.Request}, []string{g.ID}},
			{dana, []string{other.ID}, []string{other.Grant}},
			{bob, []string{own.ID, g.Request}, []string{g.ID}},
			{sam, []string{own.ID, g.Request, other.ID}, []string{g.ID, other.Grant}},
			{eve, nil, nil},
		} {
			slices.Sort(c.requests)
			slices.Sort(c.grants)
			if got := requestIDs(w.Requests(t.Context(), c.who, RequestFilter{})); !slices.Equal(got, c.requests) {
				t.Errorf("%s sees requests %v, want %v", c.who.Email, got, c.requests)
			}
			if got := grantIDs(w.Grants(t.Context(), c.who, GrantFilter{})); !slices.Equal(got, c.grants) {
				t.Errorf("%s sees grants %v, want %v", c.who.Email, got, c.grants)
			}
			for _, id := range []string{own.ID, g.Request, other.ID, "r0000000000"} {
				_, err := w.Request(t.Context(), c.who, id)
				w.shownIf(slices.Contains(c.requests, id), err, "request", id)
			}
			for _, id := range []string{g.ID, other.Grant, "g0000000000"} {
				_, err := w.Grant(t.Context(), c.who, id)
				w.shownIf(slices.Contains(c.grants, id), err, "grant", id)
			}
		}
	})
}

// shownIf checks that who may not see something is told what somebody is told of what doesn't exist.
func (w *world) shownIf(may bool, err error, what, id string) {
	w.t.Helper()
	switch {
	case !may:
		w.refused(err, CodeNotFound, fmt.Sprintf("there is no %s %q that you may see; list what you may see", what, id))
	case err != nil:
		w.t.Errorf("%s %s is not shown: %v", what, id, err)
	}
}

func TestFilters(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		own, g, other := w.ask(alice, "writer", time.Hour), w.granted(time.Hour), w.ask(dana, "reader", time.Hour)
		all := []string{own.ID, g.Request, other.ID}
		for name, c := range map[string]struct {
			who  auth.Identity
			f    RequestFilter
			want []string
		}{
			"to decide":          {bob, RequestFilter{Decide: true}, []string{own.ID}},
			"nothing to decide":  {sam, RequestFilter{Decide: true}, nil},
			"mine":               {alice, RequestFilter{Mine: true}, []string{own.ID, g.Request}},
			"mine, none":         {sam, RequestFilter{Mine: true}, nil},
			"mine by another":    {sam, RequestFilter{Mine: true, By: dana.Key()}, nil},
			"by":                 {sam, RequestFilter{By: dana.Key()}, []string{other.ID}},
			"by, not to be seen": {bob, RequestFilter{By: dana.Key()}, nil},
			"status":             {sam, RequestFilter{Status: policy.Open}, []string{own.ID}},
			"target":             {sam, RequestFilter{Target: "stock"}, nil},
			"all":                {sam, RequestFilter{Limit: 3}, all},
		} {
			slices.Sort(c.want)
			if got := requestIDs(w.Requests(t.Context(), c.who, c.f)); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		if got := requestIDs(w.Requests(t.Context(), sam, RequestFilter{Limit: 2})); len(got) != 2 {
			t.Errorf("limited to 2: %v", got)
		}
		if got := grantIDs(w.Grants(t.Context(), sam, GrantFilter{Limit: 1})); len(got) != 1 {
			t.Errorf("limited to 1: %v", got)
		}
		if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			who  auth.Identity
			f    GrantFilter
			want []string
		}{
			"live": {alice, GrantFilter{Live: true}, nil}, "active": {sam, GrantFilter{Active: true}, []string{other.Grant}},
			"mine": {alice, GrantFilter{Mine: true}, []string{g.ID}}, "target": {alice, GrantFilter{Target: "stock"}, nil},
		} {
			if got := grantIDs(w.Grants(t.Context(), c.who, c.f)); !slices.Equal(got, c.want) {
				t.Errorf("grants, %s: %v, want %v", name, got, c.want)
			}
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
			{alice, true, CodeForbidden}, {sam, true, ""}, {bob, true, CodeForbidden}, {dana, false, CodeNotFound}, {auth.Identity{}, false, CodeUnauthenticated},
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

		// Who may end a grant sees its sessions while there is something to end.
		w.disk.full.Store(false)
		if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
		for who, sees := range map[*auth.Identity]bool{&alice: true, &sam: true, &bob: false} {
			all, _ := w.Sessions(t.Context(), *who, SessionFilter{})
			if _, err := w.Session(t.Context(), *who, "s1"); sees != (err == nil) || sees != (len(all) == 1) {
				t.Errorf("%s sees %v, %v when the grant is over", who.Email, all, err)
			}
		}
	})
}
