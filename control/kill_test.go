package control

import (
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// wire is a node with one session, s1, until it is killed.
type wire struct {
	grant  string
	killed []string // what the client read
}

func (w *wire) GrantOf(session string) (string, bool) {
	return w.grant, session == "s1" && w.grant != "" && len(w.killed) == 0
}

func (w *wire) Extended(string, time.Time) {}

func (w *wire) Kill(session, public string) bool {
	_, ok := w.GrantOf(session)
	w.killed = append(w.killed, public)
	return ok
}

// Whoever may end a grant may end a session of it; the grant goes on, and who did it and why is on the
// ledger and before the client's eyes.
func TestKill(t *testing.T) {
	for name, c := range map[string]struct {
		who  auth.Identity
		code string // of the refusal
	}{
		"holder": {alice, ""}, "approver": {bob, ""}, "security": {sam, ""},
		"another": {dana, CodeNotFound}, "a stranger": {eve, CodeNotFound}, "nobody": {auth.Identity{}, CodeUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				g, held := w.granted(time.Hour), &wire{}
				w.wire, held.grant = held, g.ID
				got, err := w.Kill(t.Context(), c.who, "s1", " too many locks ", false)
				entries := w.entries(ledger.TypeSessionKilled)
				if c.code != "" {
					w.refused(err, c.code, "")
					if len(held.killed)+len(entries) != 0 {
						t.Errorf("killed %q, on the ledger %d times", held.killed, len(entries))
					}
					return
				}
				if err != nil || got.ID != g.ID || len(held.killed) != 1 || len(entries) != 1 {
					t.Fatalf("%+v, %v; killed %q, on the ledger %d times", got, err, held.killed, len(entries))
				}
				for _, want := range []string{c.who.Email, ": too many locks;", clockTime(g.End), "connect again"} {
					if !strings.Contains(held.killed[0], want) {
						t.Errorf("the client reads %q, without %q", held.killed[0], want)
					}
				}
				e := into[ledger.SessionKilled](t, entries[0])
				if e.Session != "s1" || e.Grant != g.ID || e.Target != "orders" || e.Person.Subject != c.who.Subject || e.Reason != "too many locks" {
					t.Errorf("%+v", e)
				}
				if _, err := w.Find(t.Context(), g.ID); err != nil {
					t.Errorf("the grant: %v", err)
				}
				_, err = w.Kill(t.Context(), c.who, "s1", "", false)
				w.refused(err, CodeNotFound, "there is no session")
			})
		})
	}
}

// With revoke the grant is over, and that is what its sessions hear.
func TestKillAndRevoke(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		on := &wire{grant: g.ID}
		w.wire = on
		held := w.hold(g.ID)
		if _, err := w.Kill(t.Context(), sam, "s1", "leaked", true); err != nil {
			t.Fatal(err)
		}
		if causeOf(held) != "revoked" || len(on.killed) != 0 {
			t.Errorf("cause %s, killed %q", causeOf(held), on.killed)
		}
		if end := w.ended(g.ID, "revoked", sam.Email); end.Reason != "leaked" {
			t.Errorf("%+v", end)
		}
	})
}

// A store that can't be written keeps no session alive; what is asked of one that is not there is answered.
func TestKillWithoutAStore(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		g := w.granted(time.Hour)
		on := &wire{grant: g.ID}
		w.wire = on
		for _, s := range []string{"s2", "s3"} {
			if err := w.disk.Opened(t.Context(), ledger.SessionOpened{Session: s, Grant: g.ID, Target: "orders", Account: "a", Node: "n"}); err != nil {
				t.Fatal(err)
			}
		}
		sealed := ledger.SessionSealed{Grant: g.ID, Target: "orders"}
		sealed.Sealed.Session, sealed.Sealed.End.Code = "s2", "client"
		if err := w.disk.Sealed(t.Context(), sealed); err != nil {
			t.Fatal(err)
		}
		_, err := w.Kill(t.Context(), sam, "s2", "", false)
		w.refused(err, CodeConflict, "has ended already: client at")
		_, err = w.Kill(t.Context(), sam, "s3", "", false)
		w.refused(err, CodeConflict, "does not go on any more")
		_, err = w.Kill(t.Context(), dana, "s2", "", false)
		w.refused(err, CodeNotFound, "there is no session")
		_, err = w.Kill(t.Context(), sam, "s1", "a\x1b[2Jb", false)
		w.refused(err, CodeInvalid, "")

		w.disk.stuck.Store(true)
		began := time.Now()
		_, err = w.Kill(t.Context(), sam, "s1", "", false)
		w.refused(err, CodeUnavailable, "session s1 is ended")
		if len(on.killed) != 1 || !strings.Contains(on.killed[0], "no reason was given") || time.Since(began) > 2*patience {
			t.Errorf("killed %q in %s", on.killed, time.Since(began))
		}
		w.disk.stuck.Store(false)
	})
}
