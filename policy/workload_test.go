package policy

import (
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
)

// A program is let in by rules that name its issuer, and decides nothing.
func TestWorkloads(t *testing.T) {
	job := auth.Identity{Issuer: "https://ci.example", Subject: "repo:acme/shop", Groups: []string{"developers"}, Workload: true}
	for _, who := range []Who{{Anyone: true}, {Groups: []string{"developers"}}, {Subjects: []string{"repo:acme/shop"}},
		{Issuers: []string{"https://idp.example"}, Anyone: true}} {
		if who.Matches(job) {
			t.Errorf("%+v selects a program", who)
		}
	}
	for _, who := range []Who{{Issuers: []string{"https://ci.example"}}, {Issuers: []string{"https://ci.example"}, Subjects: []string{"repo:acme/shop"}}} {
		if !who.Matches(job) {
			t.Errorf("%+v does not select it", who)
		}
	}
	now := time.Now()
	all := Who{Issuers: []string{"https://ci.example", "https://idp.example"}}
	p := &Policy{Targets: map[string]Target{"orders": {}}}
	r := Request{ID: "r1", Target: "orders", Status: Open, Lapses: now.Add(time.Hour),
		Identity: auth.Identity{Issuer: "https://idp.example", Subject: "alice"},
		Terms:    Terms{Approvals: Approvals{Count: 1, From: all}}}
	person := auth.Identity{Issuer: "https://idp.example", Subject: "bob"}
	if err := p.MayDecide(person, r, true, now); err != nil {
		t.Errorf("a person: %v", err)
	}
	for _, approve := range []bool{true, false} {
		if p.MayDecide(job, r, approve, now) == nil {
			t.Errorf("a program decides (approve: %v)", approve)
		}
	}
	if p.MayRevoke(job, r) || p.MaySee(job, r) {
		t.Error("a program sees or ends what is somebody else's")
	}
}
