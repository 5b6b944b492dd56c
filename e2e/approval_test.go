package e2e

import (
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
)

func TestTheRequesterApprovesNothing(t *testing.T) {
	t.Parallel()
	s := shared
	// Alice is a developer, and the rule lets developers approve: only herself she may not.
	r := must(s.alice.Ask(t.Context(), "orders", "writer", time.Minute))(t)
	_, err := s.alice.Approve(t.Context(), r.ID)
	refused(t, err, "own")
	s.stillOpen(t, r.ID)
	// A lead is no exception.
	r = must(s.bob.Ask(t.Context(), "orders", "writer", time.Minute))(t)
	_, err = s.bob.Approve(t.Context(), r.ID)
	refused(t, err, "own")
	s.stillOpen(t, r.ID)
	if r = must(s.dana.Approve(t.Context(), r.ID))(t); r.Status != "approved" || r.Grant == "" {
		t.Errorf("after dana's word: %+v", r)
	}
}

func TestOnePersonIsOneApproval(t *testing.T) {
	t.Parallel()
	s := shared
	r := must(s.alice.Ask(t.Context(), "orders", "owner", time.Minute))(t)
	if r.Needed != 2 {
		t.Fatalf("needs %d approvals", r.Needed)
	}
	if r = must(s.bob.Approve(t.Context(), r.ID))(t); r.Status != "open" {
		t.Errorf("after one of two: %s", r.Status)
	}
	_, err := s.bob.Approve(t.Context(), r.ID)
	refused(t, err, "already")
	s.stillOpen(t, r.ID)
	_, err = s.dana.Approve(t.Context(), r.ID) // a developer may not decide this one
	refused(t, err)
	s.stillOpen(t, r.ID)
	if r = must(s.sam.Approve(t.Context(), r.ID))(t); r.Status != "approved" || r.Grant == "" || len(r.Decisions) != 2 {
		t.Errorf("after two people's word: %+v", r)
	}
}

func TestOneDenialEndsARequest(t *testing.T) {
	t.Parallel()
	s := shared
	r := must(s.alice.Ask(t.Context(), "orders", "owner", time.Minute))(t)
	must(s.bob.Approve(t.Context(), r.ID))(t)
	must(s.sam.Run(t.Context(), "deny", r.ID))(t)
	_, err := s.bob.Approve(t.Context(), r.ID)
	refused(t, err, "denied")
	if r = s.request(t, r.ID); r.Status != "denied" || r.Grant != "" {
		t.Errorf("after a denial: %+v", r)
	}
}

func TestNobodySeesOthersRequests(t *testing.T) {
	t.Parallel()
	s := shared
	r := must(s.alice.Ask(t.Context(), "orders", "owner", time.Minute))(t)
	_, err := s.dana.Run(t.Context(), "requests", r.ID)
	refused(t, err)
	must(s.alice.Run(t.Context(), "cancel", r.ID))(t)
	if r = s.request(t, r.ID); r.Status != "cancelled" {
		t.Errorf("after cancelling: %s", r.Status)
	}
	_, err = s.bob.Approve(t.Context(), r.ID)
	refused(t, err, "cancelled")
}

func TestWhatNoRuleAllowsIsRefused(t *testing.T) {
	t.Parallel()
	s := shared
	_, err := s.sam.Ask(t.Context(), "orders", "writer", time.Minute) // security reads recordings, and asks for nothing
	refused(t, err)
	_, err = s.alice.Ask(t.Context(), "orders", "writer", 2*time.Hour)
	refused(t, err, "1h")
	_, err = s.alice.Ask(t.Context(), "orders", "nonsense", time.Minute)
	refused(t, err)
}

func (s *town) request(t *testing.T, id string) api.Request {
	t.Helper()
	var r api.Request
	if err := s.alice.JSON(t.Context(), &r, "requests", id); err != nil {
		if err := s.bob.JSON(t.Context(), &r, "requests", id); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (s *town) stillOpen(t *testing.T, id string) {
	t.Helper()
	if r := s.request(t, id); r.Status != "open" || r.Grant != "" {
		t.Errorf("request %s is %s, grant %q", id, r.Status, r.Grant)
	}
}
