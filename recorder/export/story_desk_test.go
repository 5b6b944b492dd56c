package export

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// newDeskWorld goes on where newWorld ends: carol's grant g2 is extended by an hour, and she talks about it; alice
// breaks the glass (g4), which bob reviews, and does it again (g5); an ask of hers is denied.
func newDeskWorld(t testing.TB, key *ledger.Signer) *world {
	w := newWorld(t, key)
	end := w.start.Add(2 * time.Hour)
	w.tell(ledger.TypeRequestCreated, ledger.RequestCreated{Request: "r3", Person: carol, Target: "orders", Level: "writer", Duration: time.Hour,
		Reason: "it takes longer", Rule: "writers", Policy: policyHash, Approvals: 1, Lapses: end, Extends: "g2"})
	w.tell(ledger.TypeRequestCommented, ledger.RequestCommented{Request: "r3", Person: carol, Text: "sorry"})
	w.tell(ledger.TypeRequestDecided, ledger.RequestDecided{Request: "r3", Person: bob, Approve: true})
	w.tell(ledger.TypeRequestEnded, ledger.RequestEnded{Request: "r3", Status: "approved", By: bob.Email})
	w.tell(ledger.TypeGrantExtended, ledger.GrantExtended{Grant: "g2", Request: "r3", From: end, To: end.Add(time.Hour)})
	w.tell(ledger.TypeRequestRefused, ledger.RequestRefused{Person: alice, Target: "orders", Level: "owner", Policy: policyHash, Rule: "never"})
	for _, n := range []string{"4", "5"} {
		w.glass(n)
	}
	return w
}

// glass is one of alice's break-glass grants, from its request to its review.
func (w *world) glass(n string) {
	at := w.start.Add(time.Duration(len(w.facts)) * time.Millisecond)
	w.tell(ledger.TypeRequestCreated, ledger.RequestCreated{Request: "r" + n, Person: alice, Target: "orders", Level: "owner", Duration: time.Minute,
		Reason: "orders are down", Rule: "glass", Policy: policyHash, Lapses: w.start.Add(time.Hour), BreakGlass: true})
	w.tell(ledger.TypeRequestEnded, ledger.RequestEnded{Request: "r" + n, Status: "approved", By: "curfew"})
	w.tell(ledger.TypeGrantCreated, ledger.GrantCreated{Grant: "g" + n, Request: "r" + n, Person: alice, Target: "orders", Level: "owner",
		Start: at, End: at.Add(time.Minute), BreakGlass: true})
	w.tell(ledger.TypeReviewDue, ledger.ReviewDue{Review: "g" + n, Grant: "g" + n, Person: alice, Target: "orders", Due: at.Add(time.Hour)})
	w.tell(ledger.TypeAccountIntended, ledger.AccountIntended{Grant: "g" + n, Target: "orders", Account: "curfew_abc123_g" + n, End: at.Add(time.Minute)})
	over := at.Add(8 * time.Millisecond)
	w.tell(ledger.TypeGrantEnded, ledger.GrantEnded{Grant: "g" + n, Code: recorder.EndReleased, By: alice.Email, At: over})
	w.tell(ledger.TypeAccountCut, ledger.AccountCut{Grant: "g" + n, Target: "orders", Account: "curfew_abc123_g" + n, Code: recorder.EndReleased,
		Deadline: over, Cut: json.RawMessage(`{"left":0}`)})
	w.tell(ledger.TypeAccountCleaned, ledger.AccountCleaned{Grant: "g" + n, Target: "orders", Account: "curfew_abc123_g" + n, Clean: json.RawMessage(`{}`)})
	w.tell(ledger.TypeReviewDone, ledger.ReviewDone{Review: "g" + n, Grant: "g" + n, Person: bob, Finding: "salaries were read"})
}

func TestTheDesksStory(t *testing.T) {
	w := newDeskWorld(t, newKey(t))
	w.sign()
	for _, scope := range []Scope{{}, {Grant: "g2"}, {Grant: "g5"}, {Person: alice.Email}, {Target: "orders"}, {Session: "s3"}} {
		r := verify(t, w.bundle(scope), w.VerifierKey(), "")
		if !r.OK() || r.count(SeverityOpen) != 0 {
			t.Errorf("%+v: %+v", scope, r.Findings)
		}
	}
	if r := verify(t, w.bundle(Scope{}), w.VerifierKey(), ""); !says(r, SeverityNote, "review g4 found: salaries were read") {
		t.Errorf("%+v", r.Findings)
	}
}

// of forges the facts of one type that are about one thing.
func of[T any](about func(T) bool, change func(*T)) func(*fact) bool {
	return func(f *fact) bool {
		if d, ok := f.data.(T); ok && about(d) {
			change(&d)
			f.data = d
		}
		return true
	}
}

func lose[T any](about func(T) bool) func(*fact) bool {
	return func(f *fact) bool {
		d, ok := f.data.(T)
		return !ok || !about(d)
	}
}

func TestTheDesksRules(t *testing.T) {
	w := newDeskWorld(t, newKey(t))
	r3 := func(r ledger.RequestCreated) bool { return r.Request == "r3" }
	g4 := func(g ledger.GrantCreated) bool { return g.Grant == "g4" }
	ended3 := func(e ledger.RequestEnded) bool { return e.Request == "r3" }
	any4 := func(r ledger.ReviewDone) bool { return r.Review == "g4" }
	for name, c := range map[string]struct {
		want  string
		forge func(*fact) bool
	}{
		"extended without a request":   {"by request r3, which is not on the ledger", lose(r3)},
		"by another's request":         {"which did not ask for that", of(r3, func(r *ledger.RequestCreated) { r.Extends = "" })},
		"of somebody else's grant":     {"which is not theirs", of(r3, func(r *ledger.RequestCreated) { r.Person = alice })},
		"of an unknown grant":          {"grant g9 is not on the ledger", of(r3, func(r *ledger.RequestCreated) { r.Extends = "g9" })},
		"before it was approved":       {"extended before its request r3 was approved", of(ended3, func(e *ledger.RequestEnded) { e.Status = "denied" })},
		"by more than was asked":       {"its request r3 asked for", on(func(e *ledger.GrantExtended) { e.To = e.To.Add(time.Second) })},
		"backwards":                    {"its request r3 asked for", on(func(e *ledger.GrantExtended) { e.To = e.From.Add(-time.Second) })},
		"from another end":             {"its end was", on(func(e *ledger.GrantExtended) { e.From = e.From.Add(time.Second) })},
		"after its end":                {"extended after it has ended", on(func(e *ledger.GrantExtended) { e.Grant = "g1" })},
		"with one approver too few":    {"is approved by 1 people", of(r3, func(r *ledger.RequestCreated) { r.Approvals = 2 })},
		"a comment on nothing":         {"a comment on request r9", on(func(c *ledger.RequestCommented) { c.Request = "r9" })},
		"a comment by nobody":          {"by nobody", on(func(c *ledger.RequestCommented) { c.Person.Subject = "" })},
		"refused by another policy":    {"refused by a policy that is not on the ledger", on(func(r *ledger.RequestRefused) { r.Policy = "sha256:00" })},
		"glass that nobody asked for":  {"differ in whether the glass was broken", of(g4, func(g *ledger.GrantCreated) { g.BreakGlass = false })},
		"glass that awaits approvals":  {"waits for approvals", on(func(r *ledger.RequestCreated) { r.BreakGlass = true })},
		"glass without a review":       {"nobody was asked to review it", lose(func(r ledger.ReviewDue) bool { return r.Review == "g4" })},
		"glass again without a review": {"although nobody has reviewed grant g4", lose(any4)},
		"reviewed by themself":         {"reviewed what they did themselves", of(any4, func(r *ledger.ReviewDone) { r.Person = alice })},
		"reviewed by nobody":           {"is done by nobody", of(any4, func(r *ledger.ReviewDone) { r.Person.Subject = "" })},
		"reviewed before the end":      {"is reviewed before it has ended", lose(func(e ledger.GrantEnded) bool { return e.Grant == "g4" })},
		"a finding of nothing":         {"does not say what", of(any4, func(r *ledger.ReviewDone) { r.Finding = "" })},
		"a review that was not due":    {"was never due", of(any4, func(r *ledger.ReviewDone) { r.Review = "g2" })},
		"a review twice":               {"done a second time", of(func(r ledger.ReviewDone) bool { return r.Review == "g5" }, func(r *ledger.ReviewDone) { r.Review = "g4" })},
		"due twice":                    {"due a second time", of(func(r ledger.ReviewDue) bool { return r.Review == "g5" }, func(r *ledger.ReviewDue) { r.Review = "g4" })},
		"of an unknown session":        {"is to be reviewed and is not on the ledger", on(func(r *ledger.ReviewDue) { r.Review, r.Session = "s9", "s9" })},
		"of somebody else":             {"names somebody else", on(func(r *ledger.ReviewDue) { r.Person = carol })},
		"a receipt that counts late":   {"the receipt of grant g4 counts from", of(func(a ledger.AccountCut) bool { return a.Grant == "g4" }, func(a *ledger.AccountCut) { a.Deadline = a.Deadline.Add(time.Second) })},
		"an end after the end":         {"after the end that it had", of(func(e ledger.GrantEnded) bool { return e.Grant == "g4" }, func(e *ledger.GrantEnded) { e.At = e.At.Add(2 * time.Minute) })},
	} {
		w.sign(c.forge)
		if r := verify(t, w.bundle(Scope{}), w.VerifierKey(), ""); !says(r, SeverityError, c.want) {
			t.Errorf("%s: want %q in %+v", name, c.want, r.Findings)
		}
	}
	w.sign(of(func(r ledger.ReviewDue) bool { return r.Review == "g5" }, func(r *ledger.ReviewDue) { r.Due = w.start }),
		lose(func(r ledger.ReviewDone) bool { return r.Review == "g5" }))
	if r := verify(t, w.bundle(Scope{}), w.VerifierKey(), ""); !r.OK() || !says(r, SeverityOpen, "review g5: it was due at") {
		t.Errorf("overdue: %+v", r.Findings)
	}
	// A receipt of a grant whose time was up counts from the extended end, and from no other.
	for _, c := range []struct {
		deadline time.Duration
		good     bool
	}{{3 * time.Hour, true}, {2 * time.Hour, false}} {
		w := newDeskWorld(t, newKey(t))
		w.tell(ledger.TypeGrantEnded, ledger.GrantEnded{Grant: "g2", Code: recorder.EndExpired, By: "curfew", At: w.start.Add(3 * time.Hour)})
		w.tell(ledger.TypeAccountCut, ledger.AccountCut{Grant: "g2", Target: "orders", Account: "curfew_abc123_g2", Code: recorder.EndExpired,
			Deadline: w.start.Add(c.deadline), Cut: json.RawMessage(`{"left":0}`)})
		w.sign()
		if r := verify(t, w.bundle(Scope{}), w.VerifierKey(), ""); r.OK() != c.good {
			t.Errorf("%v: %+v", c.deadline, r.Findings)
		}
	}
}
