package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/recorder/ledger"
)

func TestExtendedWithoutReconnecting(t *testing.T) {
	everywhere(t, extendedWithoutReconnecting)
}

// extendedWithoutReconnecting: a statement that runs across the old end goes on, the session does, and so does
// who comes anew; the new end is kept to the moment.
func extendedWithoutReconnecting(t *testing.T, s *town) {
	w := word(t)
	g, creds, c := s.connected(t, "writer", 8*time.Second)
	exec1(t, c, "SELECT 1")
	var r api.Request
	if err := s.alice.JSON(t.Context(), &r, "extend", g.ID, "--for", "10s", "--reason", "it takes longer"); err != nil {
		t.Fatal(err)
	}
	if r.Status != "open" || r.Extends != g.ID {
		t.Fatalf("%+v", r)
	}
	must(s.bob.Approve(t.Context(), r.ID))(t)
	long := g.End.Add(10 * time.Second)
	if now := must(s.alice.Grant(t.Context(), g.ID))(t); !now.End.Equal(long) || len(now.Extensions) != 1 || now.Status != api.GrantActive {
		t.Fatalf("%+v", now)
	}
	time.Sleep(time.Until(g.End.Add(-time.Second)))
	if err := ends(t, goExec(t.Context(), c, s.slowly(w))); err != nil {
		t.Fatalf("a statement across the end that it had: %v", err)
	}
	if over := time.Until(g.End); over > 0 {
		t.Fatalf("the old end is still %v away", over)
	}
	if n := s.committed(t, w); n != "40" {
		t.Errorf("%s rows were committed", n)
	}
	exec1(t, c, "SELECT 1")
	exec1(t, s.enter(t, creds), "SELECT 1")
	time.Sleep(time.Until(long.Add(-time.Second)))
	s.told(t, ends(t, goExec(t.Context(), c, s.slowly(w+"-cut"))), "ended at", g.ID)
	if late := time.Since(long); late > 2*time.Second || late < -100*time.Millisecond {
		t.Errorf("cut %v after the end", late)
	}
	if receipt := s.receipt(t, g.ID, "expired"); !receipt.Deadline.Equal(long) {
		t.Errorf("the receipt counts from %v, the end was %v", receipt.Deadline, long)
	}
	var said ledger.GrantExtended
	entries := s.ledger(t, ledger.TypeGrantExtended, g.ID)
	if len(entries) != 1 || json.Unmarshal([]byte(entries[0]), &said) != nil || !said.From.Equal(g.End) || !said.To.Equal(long) {
		t.Errorf("on the ledger: %q", entries)
	}
}

// counting asks for so many rows.
func counting(n int) string {
	return fmt.Sprintf("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT CAST(i AS CHAR(10)) FROM n", n)
}

func TestLimitsOfARule(t *testing.T) {
	everywhere(t, limitsOfARule)
}

// limitsOfARule: what a session may read is counted over all that it reads; the one that would read more is
// ended before it does, the grant goes on, and the session is to be reviewed.
func limitsOfARule(t *testing.T, s *town) {
	g := must(s.alice.Granted(t.Context(), s.target, "counted", 10*time.Minute))(t)
	creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
	reads := s.enter(t, creds)
	session := s.newestSessionOf(t, g.ID)
	for range 2 {
		if got := must(reads.column(t.Context(), counting(20)))(t); len(got) != 20 {
			t.Errorf("%d rows", len(got))
		}
	}
	_, err := reads.column(t.Context(), counting(200))
	s.limited(t, err, "lets a session read 50 rows")
	s.sealedAs(t, session.ID, "limit", "50 rows", "your grant goes on")
	// In the middle of a row nobody can be told; the recording says it.
	wide := s.enter(t, creds)
	session2 := s.newestSessionOf(t, g.ID)
	if _, err = wide.column(t.Context(), "SELECT REPEAT('x', 2000000)"); err == nil {
		t.Error("more bytes than a session may receive")
	}
	s.sealedAs(t, session2.ID, "limit", "lets a session read 1000000 bytes")

	exec1(t, s.enter(t, creds), "SELECT 1")
	second := s.enter(t, creds)
	exec1(t, second, "SELECT 1")
	if _, err := s.stage.login(t.Context(), creds); err == nil || !strings.Contains(err.Error(), "2 sessions at once") {
		t.Errorf("a third session: %v", err)
	}
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
	var due []api.Review
	if err := s.sam.JSON(t.Context(), &due, "reviews", "--due", "--target", s.target); err != nil {
		t.Fatal(err)
	}
	for _, r := range due {
		if r.Session == session.ID && r.Status == "due" {
			must(s.sam.Run(t.Context(), "review", session.ID, "--ok"))(t)
			return
		}
	}
	t.Errorf("the session %s is not to be reviewed: %+v", session.ID, due)
}

// limited checks that a client was told of a limit, in whichever of its protocol's codes.
func (s *town) limited(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "connect again and ask for less") {
		t.Errorf("the client was told %v", err)
	}
}

// newestSessionOf is the session of a grant that began last, as security sees it.
func (s *town) newestSessionOf(t *testing.T, grant string) api.Session {
	t.Helper()
	var all []api.Session
	if err := s.sam.JSON(t.Context(), &all, "sessions", "--grant", grant); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no session")
	}
	return all[0]
}

func TestEndsWithTheLastSession(t *testing.T) {
	everywhere(t, endsWithTheLastSession)
}

func endsWithTheLastSession(t *testing.T, s *town) {
	g := must(s.alice.Granted(t.Context(), s.target, "brief", 10*time.Minute))(t)
	creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
	first, second := s.enter(t, creds), s.enter(t, creds)
	exec1(t, first, "SELECT 1")
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	s.backends(t, g.ID, 1, 5*time.Second)
	exec1(t, second, "SELECT 1")
	if err := second.close(); err != nil {
		t.Fatal(err)
	}
	s.receipt(t, g.ID, "released")
	ended := must(s.alice.Grant(t.Context(), g.ID))(t)
	if ended.EndedBy != "curfew" || !strings.Contains(ended.EndReason, "its last session was closed") {
		t.Errorf("%+v", ended)
	}
	if _, err := s.stage.login(t.Context(), creds); err == nil {
		t.Error("somebody came in after the last one had left")
	}
}

func TestBreakGlass(t *testing.T) {
	everywhere(t, breakGlass)
}

// breakGlass: in at once, with proof of who it is; what was done is reviewed by somebody else before the next time.
// A debt is a person's, whatever the target: so it is another person on each stage.
func breakGlass(t *testing.T, s *town) {
	who := map[string]string{"postgres": "alice", "mysql": "dana"}[s.kind]
	p := must(s.curfew.Login(t.Context(), who, filepath.Join(t.TempDir(), "glass")))(t) // a terminal of their own: the login is replaced by a stronger one
	args := []string{"request", s.target, "--level", "glass", "--for", "5m", "--reason", "orders are down", "--break-glass"}
	var r api.Request
	if err := p.JSON(t.Context(), &r, args...); err != nil {
		t.Fatal(err)
	}
	if r.Status != "approved" || !r.BreakGlass || r.Person.ACR != "urn:curfew:mfa" {
		t.Fatalf("%+v", r)
	}
	creds := must(p.Credentials(t.Context(), r.Grant))(t)
	c := s.enter(t, creds)
	exec1(t, c, "SELECT 1")
	session := s.newestSessionOf(t, r.Grant)
	_, err := p.Run(t.Context(), args...)
	refused(t, err, "has not been reviewed yet")
	_, err = p.Run(t.Context(), "extend", r.Grant, "--for", "1m", "--reason", "more")
	refused(t, err, "is not extended")
	_, err = s.sam.Run(t.Context(), "review", r.Grant, "--ok")
	refused(t, err, "goes on")
	must(p.Run(t.Context(), "release", r.Grant))(t)
	s.receipt(t, r.Grant, "released")
	s.sealedAs(t, session.ID, "released")
	_, err = p.Run(t.Context(), "review", r.Grant, "--ok")
	refused(t, err, "what they did themselves")
	var done api.Review
	err = harness.Eventually(t.Context(), 10*time.Second, func(ctx context.Context) error {
		err := s.sam.JSON(ctx, &done, "review", r.Grant, "--finding", "nothing was down")
		var said *harness.CommandError
		if errors.As(err, &said) && said.Code == 6 { // its last session is still being sealed
			return err
		}
		if err != nil {
			t.Fatal(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if done.Status != "finding" || done.Session != "" {
		t.Errorf("%+v", done)
	}
	again := must(p.Run(t.Context(), append(args, "-o", "json")...))(t)
	if err := json.Unmarshal([]byte(again), &r); err != nil || r.Status != "approved" {
		t.Errorf("%s, %v", again, err)
	}
	must(p.Run(t.Context(), "release", r.Grant))(t)
	must(s.sam.Run(t.Context(), "review", r.Grant, "--ok"))(t)
}
