package export

import (
	"maps"
	"slices"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

func (s *story) commented(where string, c ledger.RequestCommented) {
	switch {
	case s.requests[c.Request] == nil:
		s.report.bad(where, "a comment on request %s, which is not on the ledger", c.Request)
	case c.Person.Subject == "":
		s.report.bad(where, "a comment on request %s by nobody", c.Request)
	}
}

// extended moves a grant's end, if its request says so and was approved.
func (s *story) extended(where string, at time.Time, e ledger.GrantExtended) {
	g := s.grantOf(where, e.Grant)
	if g == nil {
		return
	}
	r := s.requests[e.Request]
	switch {
	case r == nil:
		s.report.bad(where, "grant %s is extended by request %s, which is not on the ledger", e.Grant, e.Request)
		return
	case r.Extends != e.Grant:
		s.report.bad(where, "grant %s is extended by request %s, which did not ask for that", e.Grant, e.Request)
	case r.grant != "":
		s.report.bad(where, "request %s extends grant %s a second time", e.Request, e.Grant)
	case r.status != "approved":
		s.report.bad(where, "grant %s is extended before its request %s was approved", e.Grant, e.Request)
	}
	r.grant = e.Grant
	switch {
	case g.ended:
		s.report.bad(where, "grant %s is extended after it has ended", e.Grant)
		return
	case g.BreakGlass:
		s.report.bad(where, "grant %s is extended, for which the glass was broken", e.Grant)
	case !e.From.Equal(g.end):
		s.report.bad(where, "grant %s is extended from %s, its end was %s", e.Grant, stamp(e.From), stamp(g.end))
	case at.After(g.end.Add(slack)):
		s.report.bad(where, "grant %s is extended when its time was up", e.Grant)
	case !e.To.After(e.From) || e.To.Sub(e.From) > r.Duration:
		s.report.bad(where, "grant %s is extended by %s, its request %s asked for %s", e.Grant, e.To.Sub(e.From), e.Request, r.Duration)
	}
	g.end = e.To
}

func (s *story) reviewDue(where string, r ledger.ReviewDue) {
	g := s.grantOf(where, r.Grant)
	switch {
	case s.reviews[r.Review] != nil:
		s.report.bad(where, "review %s is due a second time", r.Review)
		return
	case r.Session == "" && r.Review != r.Grant, r.Session != "" && r.Review != r.Session:
		s.report.bad(where, "review %s is neither its session's nor its grant's", r.Review)
	case r.Session != "" && s.sessions[r.Session] == nil:
		s.report.bad(where, "session %s is to be reviewed and is not on the ledger", r.Session)
	case g != nil && key(g.Person) != key(r.Person):
		s.report.bad(where, "review %s names somebody else than the grant %s is for", r.Review, r.Grant)
	}
	s.reviews[r.Review] = &reviewStory{ReviewDue: r}
}

func (s *story) reviewDone(where string, d ledger.ReviewDone) {
	r := s.reviews[d.Review]
	switch {
	case r == nil:
		s.report.bad(where, "review %s is done and was never due", d.Review)
		return
	case r.done:
		s.report.bad(where, "review %s is done a second time", d.Review)
	case d.Person.Subject == "":
		s.report.bad(where, "review %s is done by nobody", d.Review)
	case key(d.Person) == key(r.Person):
		s.report.bad(where, "%s reviewed what they did themselves, in review %s", d.Person.Email, d.Review)
	case r.Session == "" && s.grants[r.Grant] != nil && !s.grants[r.Grant].ended:
		s.report.bad(where, "grant %s is reviewed before it has ended", r.Grant)
	case !d.OK && d.Finding == "":
		s.report.bad(where, "review %s found something, and does not say what", d.Review)
	}
	r.done = true
	if s.debts[key(r.Person)] == r.Review {
		delete(s.debts, key(r.Person))
	}
	if !d.OK {
		s.report.note(where, "review %s found: %s", d.Review, d.Finding)
	}
}

// finishReviews tells which are overdue.
func (s *story) finishReviews(now time.Time) {
	for _, id := range slices.Sorted(maps.Keys(s.reviews)) {
		if r := s.reviews[id]; !r.done && now.After(r.Due) {
			s.report.open("review "+id, "it was due at %s, and nobody has done it", stamp(r.Due))
		}
	}
}
