package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// newestSession is the session of a grant that began last and goes on, as an approver sees it.
func (s *town) newestSession(t *testing.T, grant string) api.Session {
	t.Helper()
	var open []api.Session
	if err := s.bob.JSON(t.Context(), &open, "sessions", "--grant", grant, "--open"); err != nil {
		t.Fatal(err)
	}
	if len(open) == 0 {
		t.Fatal("bob, who may end the grant, sees no session of it")
	}
	return open[0]
}

// backends waits until the grant's account has so many connections in the database.
func (s *town) backends(t *testing.T, grant string, want int, patience time.Duration) {
	t.Helper()
	err := harness.Eventually(t.Context(), patience, func(ctx context.Context) error {
		got, err := s.server.Ask(ctx, s.target, s.open(grant))
		if err == nil && len(got) != want {
			err = fmt.Errorf("%d backends: %q, want %d", len(got), got, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// sealedAs waits for the session's recording to be sealed, and checks how it ended.
func (s *town) sealedAs(t *testing.T, session, code string, words ...string) api.Session {
	t.Helper()
	var got api.Session
	err := harness.Eventually(t.Context(), 10*time.Second, func(ctx context.Context) error {
		err := s.sam.JSON(ctx, &got, "sessions", session)
		if err == nil && got.Root == "" {
			err = fmt.Errorf("session %s is not sealed", session)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.EndCode != code || got.Fate == "" {
		t.Errorf("it ended as %s, fate %q: %s", got.EndCode, got.Fate, got.EndReason)
	}
	contains(t, got.EndReason, words...)
	return got
}

func TestKilledSession(t *testing.T) {
	everywhere(t, killedSession)
}

func killedSession(t *testing.T, s *town) {
	w := word(t)
	g, creds, stays := s.connected(t, "owner", 10*time.Minute, s.bob, s.sam)
	exec1(t, stays, "SELECT 1")
	victim := s.enter(t, creds)
	long := goExec(t.Context(), victim, s.slowly(w))
	s.underway(t, w)
	session := s.newestSession(t, g.ID)
	if session.Live == nil || session.Live.FromClient == 0 || session.Statements == 0 {
		t.Errorf("what goes on shows nothing of itself: %+v, %+v", session, session.Live)
	}
	if _, err := s.dana.Run(t.Context(), "sessions", "kill", session.ID); err == nil || !strings.Contains(err.Error(), "no session") {
		t.Errorf("dana, who has nothing to do with it: %v", err)
	}
	must(s.bob.Run(t.Context(), "sessions", "kill", session.ID, "--reason", "it holds a lock"))(t)
	s.told(t, ends(t, long), "was ended by bob@", "it holds a lock", "your grant goes on until")
	s.backends(t, g.ID, 1, 5*time.Second)
	if n := s.committed(t, w); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
	s.sealedAs(t, session.ID, "killed", "bob@", "it holds a lock")
	entries := s.ledger(t, ledger.TypeSessionKilled, g.ID)
	var said ledger.SessionKilled
	if len(entries) != 1 || json.Unmarshal([]byte(entries[0]), &said) != nil {
		t.Fatalf("on the ledger: %q", entries)
	}
	if said.Session != session.ID || !strings.HasPrefix(said.Person.Email, "bob@") || said.Reason != "it holds a lock" {
		t.Errorf("on the ledger: %+v", said)
	}
	// The grant goes on: who stayed, and who comes anew.
	exec1(t, stays, "SELECT 1")
	exec1(t, s.enter(t, creds), "SELECT 1")
	if now := must(s.alice.Grant(t.Context(), g.ID))(t); now.Status != api.GrantActive {
		t.Errorf("the grant is %s", now.Status)
	}
	// Unless it is to end, too.
	must(s.sam.Run(t.Context(), "sessions", "kill", s.newestSession(t, g.ID).ID, "--revoke", "--reason", "enough"))(t)
	s.receipt(t, g.ID, "revoked")
	s.backends(t, g.ID, 0, 5*time.Second)
}

func TestIdleSession(t *testing.T) {
	everywhere(t, idleSession)
}

// idleSession: the level allows two seconds. A transaction that is open idles like anything else; a
// statement that takes longer than that does not.
func idleSession(t *testing.T, s *town) {
	w := word(t)
	g, creds, idles := s.connected(t, "idler", 10*time.Minute)
	exec1(t, idles, "BEGIN")
	exec1(t, idles, "INSERT INTO orders (item) VALUES ('"+w+"-open')")
	session := s.newestSession(t, g.ID)
	works := s.enter(t, creds)
	long := goExec(t.Context(), works, s.slowly(w+"-slow"))
	s.underway(t, w)
	// Nobody says a word, and the backend of the one that idles is gone all the same.
	s.backends(t, g.ID, 1, 6*time.Second)
	s.told(t, ends(t, goExec(t.Context(), idles, "SELECT 1")), "did nothing for 2s", "idler allows no more", "your grant goes on until")
	if err := ends(t, long); err != nil {
		t.Errorf("a statement of four seconds: %v", err)
	}
	if n := s.committed(t, w+"-open"); n != "0" {
		t.Errorf("%s rows of the transaction that idled were committed", n)
	}
	if n := s.committed(t, w+"-slow"); n != "40" {
		t.Errorf("%s rows of the long statement were committed", n)
	}
	s.sealedAs(t, session.ID, "idle", "did nothing for 2s")
	exec1(t, s.enter(t, creds), "SELECT 1")
	if now := must(s.alice.Grant(t.Context(), g.ID))(t); now.Status != api.GrantActive {
		t.Errorf("the grant is %s", now.Status)
	}
}
