package e2e

import (
	"testing"
	"time"
)

func TestTwoSessionsOfOneGrant(t *testing.T) {
	everywhere(t, twoSessions)
}

func twoSessions(t *testing.T, s *town) {
	w := word(t)
	g, creds, first := s.connected(t, "writer", 10*time.Minute)
	second := s.enter(t, creds)
	third := s.enter(t, creds)
	if a, b := s.current(t, first), s.current(t, second); a != b {
		t.Errorf("two accounts: %s and %s", a, b)
	}
	// What is made in one session is theirs in the next.
	exec1(t, first, "CREATE TABLE mine_"+g.ID+" (a int)")
	exec1(t, second, "INSERT INTO mine_"+g.ID+" VALUES (1)")
	// One that leaves takes nothing along.
	if err := third.close(); err != nil {
		t.Error(err)
	}
	exec1(t, first, "SELECT 1")
	long := goExec(t.Context(), first, s.slowly(w))
	s.underway(t, w)
	must(s.bob.Run(t.Context(), "revoke", g.ID, "--reason", "both at once"))(t)
	s.told(t, ends(t, long), "revoked")
	s.told(t, ends(t, goExec(t.Context(), second, "SELECT 1")), "revoked")
	r := s.receipt(t, g.ID, "revoked")
	if len(r.Cut.Outcomes) != 2 {
		t.Errorf("outcomes: %+v", r.Cut.Outcomes)
	}
	if n := s.committed(t, w); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
	sessions := must(s.sam.Sessions(t.Context(), g.ID))(t)
	codes := map[string]int{}
	for _, x := range sessions {
		codes[x.EndCode]++
	}
	if len(sessions) != 3 || codes["client"] != 1 || codes["revoked"] != 2 {
		t.Errorf("sessions ended as %v", codes)
	}
}
