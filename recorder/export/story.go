package export

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/intended"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// slack is how much later than a grant's end the last of it may be put on record: what was begun in
// time is still being written down.
const slack = 5 * time.Second

// opening is how long a session may take from its recording's first line to its entry in the ledger: a slow
// disk is no forgery. One that took longer was refused.
const opening = 30 * time.Second

// story is what a ledger tells, and the rules that it must obey. Signatures prove that Curfew wrote
// it; the story shows whether what Curfew wrote is what Curfew promises.
type story struct {
	report       *Report
	key          string
	installation string
	entries      int
	skew         time.Duration // how far a node's clock, by which recordings are timed, was behind the ledger's
	policies     map[string]bool
	requests     map[string]*requestStory
	grants       map[string]*grantStory
	sessions     map[string]*sessionStory
	order        []string // sessions as they were opened
	reviews      map[string]*reviewStory
	debts        map[string]string // by person: the break-glass grant that nobody has reviewed yet

	dialects map[string]recorder.Dialect
	judges   map[string]*intended.Judge // by grant
}

type requestStory struct {
	ledger.RequestCreated
	approvers map[string]bool // keys of distinct people
	denied    bool
	status    string
	grant     string
}

type grantStory struct {
	ledger.GrantCreated
	end      time.Time // the fixed end, or earlier if it was ended earlier
	ended    bool
	intended bool
	cut      bool
	cleaned  bool
	over     ledger.GrantEnded // once it has ended
	cuts     []cutStory
}

// cutStory is the deadline that a receipt names.
type cutStory struct {
	where, code string
	deadline    time.Time
}

// counts reports whether a receipt counts from its grant's end. One that was written before a crash may count
// from an earlier end, which nobody had written down.
func (c cutStory) counts(over ledger.GrantEnded) bool {
	if over.Code == recorder.EndExpired && c.code == recorder.EndExpired {
		return c.deadline.Equal(over.At)
	}
	return !c.deadline.After(over.At)
}

// reviewStory is a review that is owed.
type reviewStory struct {
	ledger.ReviewDue
	done bool
}

type sessionStory struct {
	ledger.SessionOpened
	at     time.Time
	began  time.Time // as the recording says; else at
	moved  []recorder.TreeState
	sealed *recorder.Sealed
	file   bool // its recording was in the bundle
}

func newStory(r *Report, key string) *story {
	return &story{
		report: r, key: key,
		policies: map[string]bool{}, requests: map[string]*requestStory{},
		grants: map[string]*grantStory{}, sessions: map[string]*sessionStory{},
		reviews: map[string]*reviewStory{}, debts: map[string]string{},
		judges: map[string]*intended.Judge{},
	}
}

// entry takes the next entry that the bundle shows whole.
func (s *story) entry(where string, e ledger.Entry) {
	if (e.Index == 0) != (e.Type == ledger.TypeGenesis) {
		s.report.bad(where, "the first entry, and no other, is the genesis; this is %s", e.Type)
	}
	if s.entries == 0 {
		s.report.First = e.Time
	} else if e.Time.Before(s.report.Last) {
		s.report.bad(where, "its time is before that of the entry before it")
	}
	s.entries++
	s.report.Last = e.Time
	if err := s.tell(where, e); err != nil {
		s.report.bad(where, "%v", err)
	}
}

func (s *story) tell(where string, e ledger.Entry) error {
	switch e.Type {
	case ledger.TypeGenesis:
		return with(e, func(g ledger.Genesis) { s.genesis(where, g) })
	case ledger.TypePolicyLoaded:
		return with(e, func(p ledger.PolicyLoaded) { s.policy(where, p) })
	case ledger.TypeRequestCreated:
		return with(e, func(r ledger.RequestCreated) { s.requested(where, r) })
	case ledger.TypeRequestDecided:
		return with(e, func(d ledger.RequestDecided) { s.decided(where, d) })
	case ledger.TypeRequestEnded:
		return with(e, func(r ledger.RequestEnded) { s.requestEnded(where, e.Time, r) })
	case ledger.TypeGrantCreated:
		return with(e, func(g ledger.GrantCreated) { s.granted(where, e.Time, g) })
	case ledger.TypeRequestCommented:
		return with(e, func(c ledger.RequestCommented) { s.commented(where, c) })
	case ledger.TypeRequestRefused:
		return with(e, func(r ledger.RequestRefused) {
			if !s.policies[r.Policy] {
				s.report.bad(where, "an ask was refused by a policy that is not on the ledger")
			}
		})
	case ledger.TypeReviewDue:
		return with(e, func(r ledger.ReviewDue) { s.reviewDue(where, r) })
	case ledger.TypeReviewDone:
		return with(e, func(r ledger.ReviewDone) { s.reviewDone(where, r) })
	case ledger.TypeGrantExtended:
		return with(e, func(g ledger.GrantExtended) { s.extended(where, e.Time, g) })
	case ledger.TypeGrantEnded:
		return with(e, func(g ledger.GrantEnded) { s.grantEnded(where, g) })
	case ledger.TypeGrantPassword:
		return with(e, func(g ledger.GrantPassword) { s.grantOf(where, g.Grant) })
	case ledger.TypeSessionOpened:
		return with(e, func(o ledger.SessionOpened) { s.opened(where, e.Time, o) })
	case ledger.TypeSessionsMoved:
		return with(e, func(m ledger.SessionsMoved) { s.moved(where, m) })
	case ledger.TypeSessionSealed:
		return with(e, func(d ledger.SessionSealed) { s.sealed(where, d) })
	case ledger.TypeClockSetBack:
		return with(e, func(c ledger.ClockSetBack) {
			s.skew = max(s.skew, c.High.Sub(c.Wall))
			s.report.note(where, "the clock of node %s was set back by %s", c.Node, c.High.Sub(c.Wall).Round(time.Second))
		})
	case ledger.TypeRecorderDegraded:
		return with(e, func(d ledger.RecorderDegraded) {
			s.report.note(where, "node %s could not keep recordings: %s", d.Node, d.Error)
		})
	}
	return s.tellAccount(where, e)
}

func (s *story) tellAccount(where string, e ledger.Entry) error {
	switch e.Type {
	case ledger.TypeAccountIntended:
		return with(e, func(a ledger.AccountIntended) { s.intended(where, e.Time, a) })
	case ledger.TypeAccountCut:
		return with(e, func(a ledger.AccountCut) { s.cut(where, a) })
	case ledger.TypeAccountCleaned:
		return with(e, func(a ledger.AccountCleaned) {
			if g := s.grantOf(where, a.Grant); g != nil {
				g.cleaned = true
			}
		})
	case ledger.TypeAccountOpen:
		return with(e, func(a ledger.AccountOpen) {
			s.report.note(where, "the %s of %s was overdue after %d attempts: %s", a.Part, a.Account, a.Attempts, a.Error)
		})
	case ledger.TypeAccountForeign:
		return with(e, func(a ledger.AccountForeign) {
			s.report.note(where, "account %s was used past Curfew, from %s", a.Account, a.Address)
		})
	}
	return nil
}

// with unpacks an entry's data for fn.
func with[T any](e ledger.Entry, fn func(T)) error {
	var data T
	if err := e.Into(&data); err != nil {
		return err
	}
	fn(data)
	return nil
}

func (s *story) genesis(where string, g ledger.Genesis) {
	s.installation, s.report.Installation = g.Installation, g.Installation
	if g.Key != s.key {
		s.report.bad(where, "the ledger was begun with another key than the one given")
	}
	if g.Format != Format {
		s.report.bad(where, "its format is %d, this program knows %d", g.Format, Format)
	}
}

func (s *story) policy(where string, p ledger.PolicyLoaded) {
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(p.Text))); p.Hash != want {
		s.report.bad(where, "the policy's hash is not that of its text")
	}
	s.policies[p.Hash] = true
}

func (s *story) requested(where string, r ledger.RequestCreated) {
	if s.requests[r.Request] != nil {
		s.report.bad(where, "request %s is made a second time", r.Request)
		return
	}
	if !s.policies[r.Policy] {
		s.report.bad(where, "request %s was judged by a policy that is not on the ledger", r.Request)
	}
	if r.Person.Subject == "" {
		s.report.bad(where, "request %s is nobody's", r.Request)
	}
	if r.BreakGlass && r.Approvals != 0 {
		s.report.bad(where, "request %s breaks the glass and waits for approvals", r.Request)
	}
	if r.Extends != "" {
		if g := s.grantOf(where, r.Extends); g != nil && (key(g.Person) != key(r.Person) || g.Target != r.Target || g.Level != r.Level) {
			s.report.bad(where, "request %s would extend grant %s, which is not theirs or for something else", r.Request, r.Extends)
		}
	}
	s.requests[r.Request] = &requestStory{RequestCreated: r, approvers: map[string]bool{}}
	s.report.Requests++
}

func (s *story) decided(where string, d ledger.RequestDecided) {
	r := s.requests[d.Request]
	switch {
	case r == nil:
		s.report.bad(where, "a decision on request %s, which is not on the ledger", d.Request)
	case r.status != "":
		s.report.bad(where, "a decision on request %s after it was %s", d.Request, r.status)
	case d.Person.Subject == "":
		s.report.bad(where, "a decision on request %s by nobody", d.Request)
	case key(d.Person) == key(r.Person):
		s.report.bad(where, "%s decided on their own request %s", d.Person.Email, d.Request)
	case d.Approve:
		r.approvers[key(d.Person)] = true
	default:
		r.denied = true
	}
}

func (s *story) requestEnded(where string, at time.Time, e ledger.RequestEnded) {
	r := s.requests[e.Request]
	switch {
	case r == nil:
		s.report.bad(where, "the end of request %s, which is not on the ledger", e.Request)
		return
	case r.status != "":
		s.report.bad(where, "request %s is %s after it was %s", e.Request, e.Status, r.status)
		return
	case e.Status == "approved" && r.denied:
		s.report.bad(where, "request %s is approved although somebody denied it", e.Request)
	case e.Status == "approved" && len(r.approvers) < r.Approvals:
		s.report.bad(where, "request %s is approved by %d people who are not the requester, it needs %d",
			e.Request, len(r.approvers), r.Approvals)
	case e.Status == "approved" && at.After(r.Lapses.Add(slack)):
		s.report.bad(where, "request %s is approved after it had lapsed", e.Request)
	}
	r.status = e.Status
}

func (s *story) granted(where string, at time.Time, g ledger.GrantCreated) {
	if s.grants[g.Grant] != nil {
		s.report.bad(where, "grant %s is made a second time", g.Grant)
		return
	}
	s.grants[g.Grant] = &grantStory{GrantCreated: g, end: g.End}
	s.report.Grants++
	r := s.requests[g.Request]
	if r == nil {
		s.report.bad(where, "grant %s has no request on the ledger", g.Grant)
		return
	}
	if r.grant != "" {
		s.report.bad(where, "request %s became grant %s before, now %s", g.Request, r.grant, g.Grant)
	}
	r.grant = g.Grant
	if len(r.approvers) < r.Approvals || r.denied {
		s.report.bad(where, "grant %s is made before its request was approved", g.Grant)
	}
	if r.Extends != "" {
		s.report.bad(where, "grant %s is made of request %s, which asked for more time under another", g.Grant, g.Request)
	}
	if r.BreakGlass != g.BreakGlass {
		s.report.bad(where, "grant %s and its request %s differ in whether the glass was broken", g.Grant, g.Request)
	}
	if debt := s.debts[key(g.Person)]; g.BreakGlass && debt != "" {
		s.report.bad(where, "grant %s breaks the glass although nobody has reviewed grant %s of the same person", g.Grant, debt)
	}
	if g.BreakGlass {
		s.debts[key(g.Person)] = g.Grant
	}
	if key(r.Person) != key(g.Person) || r.Target != g.Target || r.Level != g.Level {
		s.report.bad(where, "grant %s is not for whom, or what, its request %s asked", g.Grant, g.Request)
	}
	if g.End.Sub(g.Start) > r.Duration {
		s.report.bad(where, "grant %s lasts %s, its request asked for %s", g.Grant, g.End.Sub(g.Start), r.Duration)
	}
	if g.Start.Before(at.Add(-slack)) || g.Start.Before(r.Start) {
		s.report.bad(where, "grant %s starts at %s, before it was approved or asked to start", g.Grant, stamp(g.Start))
	}
}

func (s *story) grantOf(where, id string) *grantStory {
	g := s.grants[id]
	if g == nil {
		s.report.bad(where, "grant %s is not on the ledger", id)
	}
	return g
}

func (s *story) grantEnded(where string, e ledger.GrantEnded) {
	g := s.grantOf(where, e.Grant)
	if g == nil {
		return
	}
	if g.ended {
		s.report.bad(where, "grant %s ends a second time", e.Grant)
		return
	}
	g.ended, g.over = true, e
	if e.At.After(g.end.Add(slack)) {
		s.report.bad(where, "grant %s ends at %s, after the end that it had: %s", e.Grant, stamp(e.At), stamp(g.end))
	}
	if e.At.Before(g.end) {
		g.end = e.At
	}
}

func (s *story) intended(where string, at time.Time, a ledger.AccountIntended) {
	g := s.grantOf(where, a.Grant)
	if g == nil {
		return
	}
	if want := "curfew_" + s.installation + "_" + a.Grant; a.Account != want {
		s.report.bad(where, "the account of grant %s is called %s, not %s", a.Grant, a.Account, want)
	}
	if at.After(g.end.Add(slack)) {
		s.report.bad(where, "an account for grant %s is made after its end", a.Grant)
	}
	g.intended, g.cut, g.cleaned = true, false, false
}

func (s *story) cut(where string, a ledger.AccountCut) {
	g := s.grantOf(where, a.Grant)
	if g == nil {
		return
	}
	g.cuts = append(g.cuts, cutStory{where, a.Code, a.Deadline})
	var cut struct {
		Left int `json:"left"`
	}
	if err := json.Unmarshal(a.Cut, &cut); err != nil {
		s.report.bad(where, "the receipt of grant %s can't be read: %v", a.Grant, err)
	}
	if cut.Left != 0 {
		s.report.open(where, "the receipt of grant %s says that %d sessions were left in the database", a.Grant, cut.Left)
		return
	}
	g.cut = true
}

func (s *story) opened(where string, at time.Time, o ledger.SessionOpened) {
	if s.sessions[o.Session] != nil {
		s.report.bad(where, "session %s begins a second time", o.Session)
		return
	}
	s.sessions[o.Session] = &sessionStory{SessionOpened: o, at: at, began: at}
	s.order = append(s.order, o.Session)
	s.report.Sessions++
	if g := s.grantOf(where, o.Grant); g != nil && g.Target != o.Target {
		s.report.bad(where, "session %s is on %s, its grant %s is for %s", o.Session, o.Target, o.Grant, g.Target)
	}
}

func (s *story) moved(where string, m ledger.SessionsMoved) {
	for _, state := range m.Sessions {
		session := s.sessions[state.Session]
		if session == nil {
			// A bundle with a scope shows these entries for the sake of other sessions.
			if s.report.Scope.All() {
				s.report.bad(where, "session %s is not on the ledger", state.Session)
			}
			continue
		}
		if n := len(session.moved); n > 0 && state.Count < session.moved[n-1].Count {
			s.report.bad(where, "the recording of session %s got shorter", state.Session)
		}
		if session.sealed != nil {
			s.report.bad(where, "session %s moves after it was sealed", state.Session)
		}
		session.moved = append(session.moved, state)
	}
}

func (s *story) sealed(where string, d ledger.SessionSealed) {
	session := s.sessions[d.Sealed.Session]
	switch {
	case session == nil:
		s.report.bad(where, "session %s is sealed and was never opened", d.Sealed.Session)
		return
	case session.sealed != nil && (session.sealed.Count != d.Sealed.Count || session.sealed.Root != d.Sealed.Root):
		s.report.bad(where, "session %s is sealed a second time, as something else", d.Sealed.Session)
		return
	case session.sealed != nil:
		s.report.note(where, "session %s is sealed again, with the same events: some were erased", d.Sealed.Session)
	case d.Grant != session.Grant || d.Target != session.Target:
		s.report.bad(where, "session %s is sealed under another grant or target than it was opened", d.Sealed.Session)
	}
	session.sealed = &d.Sealed
	if d.Sealed.Interrupted {
		s.report.note(where, "session %s was interrupted by a crash; its recording has no end of its own", d.Sealed.Session)
	}
}

// finish tells what did not happen by the time of the last entry.
func (s *story) finish() {
	now := s.report.Last
	for _, id := range s.order {
		s.finishSession(id, s.sessions[id], now)
	}
	s.finishReviews(now)
	ids := make([]string, 0, len(s.grants))
	for id := range s.grants {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		g, where := s.grants[id], "grant "+id
		if now.After(g.end) && !g.ended {
			s.report.open(where, "its time was up at %s, and nothing says that it was ended", stamp(g.end))
		}
		if r := s.requests[g.Request]; r != nil && r.status != "approved" {
			s.report.bad(where, "its request %s was never approved", g.Request)
		}
		if g.BreakGlass && s.reviews[id] == nil {
			s.report.bad(where, "the glass was broken, and nobody was asked to review it")
		}
		// A receipt may be written before its grant's end is: they are held against each other here.
		for _, cut := range g.cuts {
			if g.ended && !cut.counts(g.over) {
				s.report.bad(cut.where, "the receipt of grant %s counts from %s, the grant ended at %s", id,
					cut.deadline.UTC().Format(time.RFC3339Nano), g.over.At.UTC().Format(time.RFC3339Nano))
			}
		}
		if !g.intended || !g.ended {
			continue
		}
		if !g.cut {
			s.report.open(where, "it ended, and no receipt says that its account was cut off")
		}
		if !g.cleaned {
			s.report.open(where, "it ended, and no receipt says that its account is gone")
		}
	}
}

func (s *story) finishSession(id string, session *sessionStory, now time.Time) {
	where := "session " + id
	if session.sealed != nil && session.sealed.File == "" {
		s.report.bad(where, "its recording was lost")
	} else if !session.file {
		s.report.bad(where, "its recording is missing from the bundle")
	}
	g := s.grants[session.Grant]
	if g == nil {
		return
	}
	if session.began.Before(g.Start.Add(-slack-s.skew)) || session.began.After(g.end.Add(slack)) {
		s.report.bad(where, "it began at %s, outside the time of its grant: %s to %s", stamp(session.began), stamp(g.Start), stamp(g.end))
	}
	if session.sealed == nil && now.After(g.end.Add(slack)) {
		s.report.open(where, "its grant ended at %s, and it is not sealed", stamp(g.end))
	} else if session.sealed == nil {
		s.report.note(where, "it was still open; what the last sessions.moved entry does not cover is not proven yet")
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
