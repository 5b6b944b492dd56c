package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestConnectingLateDoesNotStretchTheWindow(t *testing.T) {
	t.Parallel()
	s, w := shared, word(t)
	g := must(s.alice.Granted(t.Context(), "writer", 5*time.Second, s.bob))(t)
	if got := g.End.Sub(g.Start); got != 5*time.Second {
		t.Fatalf("the window is %v", got)
	}
	creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
	time.Sleep(time.Until(g.End.Add(-1500 * time.Millisecond)))
	c := must(creds.Connect(t.Context()))(t)
	done := goExec(t.Context(), c, slowly(w))
	told(t, ends(t, done), "ended")
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
	t.Parallel()
	s := shared
	g, creds, c := s.connected(t, "reader", 10*time.Minute)
	exec1(t, c, "SELECT 1")
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
	if _, err := creds.Connect(t.Context()); err == nil {
		t.Error("the old password still lets alice in")
	}
	_, err := s.alice.Run(t.Context(), "credentials", g.ID)
	refused(t, err, "released")
}

func TestShowingThePasswordAgainVoidsTheOldOne(t *testing.T) {
	t.Parallel()
	s := shared
	g, old, c := s.connected(t, "reader", 10*time.Minute)
	again := must(s.alice.Credentials(t.Context(), g.ID))(t)
	if again.Password == old.Password {
		t.Error("the same password twice")
	}
	if _, err := old.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "28P01") {
		t.Errorf("with the old password: %v", err)
	}
	d := must(again.Connect(t.Context()))(t)
	exec1(t, d, "SELECT 1")
	exec1(t, c, "SELECT 1") // a session that is in stays in
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
}
