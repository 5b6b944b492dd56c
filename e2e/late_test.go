package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestConnectingLateDoesNotStretchTheWindow(t *testing.T) {
	everywhere(t, connectingLate)
}

func connectingLate(t *testing.T, s *town) {
	w := word(t)
	g := must(s.alice.Granted(t.Context(), s.target, "writer", 5*time.Second, s.bob))(t)
	if got := g.End.Sub(g.Start); got != 5*time.Second {
		t.Fatalf("the window is %v", got)
	}
	creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
	time.Sleep(time.Until(g.End.Add(-1500 * time.Millisecond)))
	c := s.enter(t, creds)
	done := goExec(t.Context(), c, s.slowly(w))
	s.told(t, ends(t, done), "ended")
	if late := time.Since(g.End); late > 2*time.Second || late < -50*time.Millisecond {
		t.Errorf("cut %v after the end", late)
	}
	if after := must(s.alice.Grant(t.Context(), g.ID))(t); !after.End.Equal(g.End) || !after.Start.Equal(g.Start) {
		t.Errorf("the window moved: %v to %v", after.Start, after.End)
	}
	s.receipt(t, g.ID, "expired")
	if n := s.committed(t, w); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
}

func TestAnEndedGrantAdmitsNobody(t *testing.T) {
	everywhere(t, admitsNobody)
}

func admitsNobody(t *testing.T, s *town) {
	g, creds, c := s.connected(t, "reader", 10*time.Minute)
	exec1(t, c, "SELECT 1")
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
	if _, err := s.stage.login(t.Context(), creds); err == nil {
		t.Error("the old password still lets alice in")
	}
	_, err := s.alice.Run(t.Context(), "credentials", g.ID)
	refused(t, err, "released")
}

func TestShowingThePasswordAgainVoidsTheOldOne(t *testing.T) {
	everywhere(t, anotherPassword)
}

func anotherPassword(t *testing.T, s *town) {
	g, old, c := s.connected(t, "reader", 10*time.Minute)
	again := must(s.alice.Credentials(t.Context(), g.ID))(t)
	if again.Password == old.Password {
		t.Error("the same password twice")
	}
	if _, err := s.stage.login(t.Context(), old); err == nil || !strings.Contains(err.Error(), s.denied) {
		t.Errorf("with the old password: %v", err)
	}
	d := s.enter(t, again)
	exec1(t, d, "SELECT 1")
	exec1(t, c, "SELECT 1") // a session that is in stays in
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
}
