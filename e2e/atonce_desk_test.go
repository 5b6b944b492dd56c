package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// meanwhile does all of this at one instant, and says how each came out.
func meanwhile(does ...func() error) []error {
	errs := make([]error, len(does))
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i, do := range does {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			errs[i] = do()
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return errs
}

// rounds is how often each is tried: which of two comes first differs.
const rounds = 5

// What two people do at one instant comes out one way, for both of them, in the database, and on the ledger: two approvals, an approval and
// a denial or a withdrawal, an extension and a revocation, a release and a revocation, two extensions, two reviews.
func TestAtOneInstant(t *testing.T) { everywhere(t, atOneInstant) }

func atOneInstant(t *testing.T, s *town) {
	who := s.sits(t, "alice", "bob", "dana", "sam")
	alice, bob, dana, sam := who["alice"], who["bob"], who["dana"], who["sam"]
	asked := func() api.Request {
		t.Helper()
		return must(asks(t, alice, api.Ask{Target: s.target, Level: "reader", Reason: "at once"}))(t)
	}
	approve := func(c *api.Client, id string) func() error {
		return func() error { _, err := c.Approve(t.Context(), id, ""); return err }
	}
	begun := time.Now().Add(-time.Second)
	var requests, grants, extended []string
	for range rounds {
		r := asked()
		s.one(t, meanwhile(approve(bob, r.ID), approve(dana, r.ID)), "conflict")
		requests = append(requests, r.ID)

		r = asked()
		s.one(t, meanwhile(approve(bob, r.ID), func() error { _, err := dana.Deny(t.Context(), r.ID, ""); return err }), "conflict")
		requests = append(requests, r.ID)

		r = asked()
		s.one(t, meanwhile(approve(bob, r.ID), func() error { _, err := alice.Cancel(t.Context(), r.ID); return err }), "conflict")
		requests = append(requests, r.ID)

		r = must(bob.Approve(t.Context(), asked().ID, ""))(t)
		s.one(t, meanwhile(
			func() error { _, err := alice.Release(t.Context(), r.Grant); return err },
			func() error { _, err := bob.Revoke(t.Context(), r.Grant, ""); return err },
			func() error { _, err := dana.Revoke(t.Context(), r.Grant, ""); return err }), "conflict")
		grants = append(grants, r.Grant)

		r = must(bob.Approve(t.Context(), asked().ID, ""))(t)
		more := func() error {
			_, err := alice.Extend(t.Context(), r.Grant, api.Extend{Duration: api.Duration(time.Minute), Reason: "more"})
			return err
		}
		s.one(t, meanwhile(more, more), "conflict")
		for _, one := range must(alice.Requests(t.Context(), api.RequestFilter{Mine: true, Status: "open", Target: s.target, Limit: 100}))(t) {
			if one.Extends == r.Grant {
				extended = append(extended, one.ID)
			}
		}
		ext := extended[len(extended)-1]
		errs := meanwhile(approve(dana, ext), func() error { _, err := bob.Revoke(t.Context(), r.Grant, "over"); return err })
		if errs[1] != nil {
			t.Errorf("a grant that goes on can be revoked: %v", errs[1])
		}
		grants = append(grants, r.Grant)
		now, g := must(alice.Request(t.Context(), ext, 0))(t), must(alice.Grant(t.Context(), r.Grant))(t)
		if (errs[0] == nil) != (now.Status == "approved") || (now.Status == "approved") != (len(g.Extensions) == 1) || now.Status == "open" || g.EndCode != "revoked" {
			t.Errorf("%v; the extension is %s, the grant %+v", errs, now.Status, g)
		}
	}
	// Whoever holds what came of it is in, or is not.
	for _, id := range requests[:3] {
		r := must(alice.Request(t.Context(), id, 0))(t)
		if (r.Status == "approved") != (r.Grant != "") {
			t.Errorf("%+v", r)
		}
		if r.Grant != "" {
			exec1(t, must(s.enters(t, alice, r.Grant))(t), "SELECT 1")
			must(alice.Release(t.Context(), r.Grant))(t)
			s.receipt(t, r.Grant, "released")
		}
	}
	c := must(asks(t, alice, api.Ask{Target: s.target, Level: "counted", Reason: "at once"}))(t)
	in := must(s.enters(t, alice, c.Grant))(t)
	exec1(t, in, "SELECT 1")
	session := s.newestSessionOf(t, c.Grant)
	must(alice.Release(t.Context(), c.Grant))(t)
	s.sealedAs(t, session.ID, "released")
	look := func(ok bool) func() error {
		return func() error {
			_, err := sam.Review(t.Context(), session.ID, api.Reviewed{OK: ok, Finding: "x"})
			return err
		}
	}
	s.one(t, meanwhile(look(true), look(false)), "conflict")
	s.onceOnRecord(t, begun, requests, grants, extended)
}

// one checks that one of them had their way, and the others were told that they came too late.
func (s *town) one(t *testing.T, errs []error, code string) {
	t.Helper()
	n := 0
	for _, err := range errs {
		if err == nil {
			n++
			continue
		}
		no(t, err, code)
	}
	if n != 1 {
		t.Errorf("%d had their way: %v", n, errs)
	}
}

// onceOnRecord reads the ledger: each request and each grant has one end, and what was extended had not ended.
func (s *town) onceOnRecord(t *testing.T, begun time.Time, requests, grants, extended []string) {
	t.Helper()
	bundle := s.exported(t, "--target", s.target, "--from", begun.UTC().Format(time.RFC3339))
	ends, made := map[string]int{}, map[string]int{}
	for line := range strings.Lines(string(must(os.ReadFile(filepath.Join(bundle, "ledger.jsonl")))(t))) {
		var e struct {
			Type string `json:"type"`
			Data struct{ Request, Grant, Status string }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		switch e.Type {
		case ledger.TypeRequestEnded:
			ends[e.Data.Request]++
			if e.Data.Status == "approved" {
				made[e.Data.Request]++
			}
		case ledger.TypeGrantCreated:
			made[e.Data.Request]--
		case ledger.TypeGrantExtended:
			made[e.Data.Request]--
			if ends[e.Data.Grant] > 0 {
				t.Errorf("grant %s was extended after its end", e.Data.Grant)
			}
		case ledger.TypeGrantEnded:
			ends[e.Data.Grant]++
		}
	}
	for _, id := range append(append(requests, grants...), extended...) {
		if ends[id] != 1 || made[id] != 0 {
			t.Errorf("%s has %d ends on the ledger, %d approvals without a grant", id, ends[id], made[id])
		}
	}
}
