package export

import (
	"context"
	"slices"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// catalog is what one pass over the ledger tells of requests, grants and sessions: enough to choose
// among them, and to join their facts to events.
type catalog struct {
	scope    Scope
	requests map[string]*ledger.RequestCreated
	grants   map[string]*grantInfo
	sessions map[string]*sessionInfo
	order    []string // sessions, in the order of the ledger
	created  map[string]time.Time
	policies map[string]bool // hashes in scope
	in       map[string]bool // requests, grants and sessions in scope: their ids begin differently

	extending map[string][]string // requests by which a grant was made longer
}

type grantInfo struct {
	ledger.GrantCreated
	ended time.Time // when it was ended, else its end
}

type sessionInfo struct {
	ledger.SessionOpened
	began  time.Time
	ended  time.Time // zero while it is open
	sealed *recorder.Sealed
}

// survey reads the first size entries and marks what is in scope.
func survey(ctx context.Context, l Ledger, size int64, scope Scope) (*catalog, error) {
	c := &catalog{
		scope:    scope,
		requests: map[string]*ledger.RequestCreated{},
		grants:   map[string]*grantInfo{},
		sessions: map[string]*sessionInfo{},
		created:  map[string]time.Time{},
		policies: map[string]bool{},
		in:       map[string]bool{},

		extending: map[string][]string{},
	}
	err := entries(ctx, l, size, func(line []byte) error {
		e, err := ledger.Decode(line)
		if err != nil {
			return err
		}
		return c.see(e)
	})
	if err != nil {
		return nil, err
	}
	c.choose()
	return c, nil
}

func (c *catalog) see(e ledger.Entry) error {
	switch e.Type {
	case ledger.TypeRequestCreated:
		r := &ledger.RequestCreated{}
		if err := e.Into(r); err != nil {
			return err
		}
		c.requests[r.Request], c.created[r.Request] = r, e.Time
	case ledger.TypeGrantCreated:
		g := &grantInfo{}
		if err := e.Into(&g.GrantCreated); err != nil {
			return err
		}
		g.ended = g.End
		c.grants[g.Grant] = g
	case ledger.TypeGrantExtended:
		var longer ledger.GrantExtended
		if err := e.Into(&longer); err != nil {
			return err
		}
		if g := c.grants[longer.Grant]; g != nil {
			g.End, g.ended = longer.To, longer.To
			c.extending[longer.Grant] = append(c.extending[longer.Grant], longer.Request)
		}
	case ledger.TypeGrantEnded:
		var ended ledger.GrantEnded
		if err := e.Into(&ended); err != nil {
			return err
		}
		if g := c.grants[ended.Grant]; g != nil {
			g.ended = ended.At
		}
	case ledger.TypeSessionOpened:
		s := &sessionInfo{began: e.Time}
		if err := e.Into(&s.SessionOpened); err != nil {
			return err
		}
		c.sessions[s.Session] = s
		c.order = append(c.order, s.Session)
	case ledger.TypeSessionSealed:
		var sealed ledger.SessionSealed
		if err := e.Into(&sealed); err != nil {
			return err
		}
		if s := c.sessions[sealed.Sealed.Session]; s != nil {
			s.sealed, s.ended = &sealed.Sealed, e.Time
		}
	}
	return nil
}

func (c *catalog) choose() {
	sc := c.scope
	for id, s := range c.sessions {
		g := c.grants[s.Grant]
		if g == nil || !sc.takes(g) || sc.Session != "" && id != sc.Session || !sc.during(s.began, s.ended) {
			continue
		}
		c.in[id], c.in[s.Grant] = true, true
	}
	for id, g := range c.grants {
		if sc.Session == "" && sc.takes(g) && sc.during(g.Start, g.ended) {
			c.in[id] = true
		}
		if c.in[id] {
			c.in[g.Request] = true
			for _, r := range c.extending[id] {
				c.in[r] = true
			}
		}
	}
	for id, r := range c.requests {
		if sc.Session == "" && sc.Grant == "" && (sc.Target == "" || sc.Target == r.Target) &&
			sc.is(r.Person) && sc.during(c.created[id], r.Lapses) {
			c.in[id] = true
		}
		if c.in[id] {
			c.policies[r.Policy] = true
		}
	}
}

func (s Scope) takes(g *grantInfo) bool {
	return (s.Grant == "" || s.Grant == g.Grant) && (s.Target == "" || s.Target == g.Target) && s.is(g.Person)
}

func (s Scope) is(p ledger.Person) bool {
	return s.Person == "" || s.Person == p.Email || s.Person == p.Subject || s.Person == key(p)
}

// during reports whether the time from a to b (zero: still going on) overlaps the scope's.
func (s Scope) during(a, b time.Time) bool {
	return (s.To.IsZero() || a.Before(s.To)) && (s.From.IsZero() || b.IsZero() || !b.Before(s.From))
}

// key names a person as auth.Identity.Key does.
func key(p ledger.Person) string { return p.Issuer + "#" + p.Subject }

// subject is what an entry is about; each type fills the names it has.
type subject struct {
	Session  string          `json:"session"`
	Grant    string          `json:"grant"`
	Request  string          `json:"request"`
	Hash     string          `json:"hash"`
	Target   string          `json:"target"`
	Policy   string          `json:"policy"`
	Person   ledger.Person   `json:"person"`
	Sessions []subject       `json:"sessions"`
	Sealed   recorder.Sealed `json:"sealed"`
}

// whole reports whether an entry goes into the bundle as it is, and not as its hash alone.
func (c *catalog) whole(e ledger.Entry) (bool, error) {
	if c.scope.All() {
		return true, nil
	}
	var s subject
	if err := e.Into(&s); err != nil {
		return false, err
	}
	sc := c.scope
	switch e.Type {
	case ledger.TypeGenesis, ledger.TypeClockSetBack, ledger.TypeRecorderDegraded:
		return true, nil // about the installation, and no scope can be judged without them
	case ledger.TypePolicyLoaded:
		return c.policies[s.Hash], nil
	case ledger.TypeLogin, ledger.TypeLogout:
		return sc.Session+sc.Grant+sc.Target == "" && sc.is(s.Person) && sc.during(e.Time, e.Time), nil
	case ledger.TypeLoginsFailed:
		return sc.Session+sc.Grant+sc.Target+sc.Person == "" && sc.during(e.Time, e.Time), nil
	case ledger.TypeSessionsMoved:
		return slices.ContainsFunc(s.Sessions, func(m subject) bool { return c.in[m.Session] }), nil
	case ledger.TypeSessionSealed:
		return c.in[s.Sealed.Session], nil
	case ledger.TypeSessionOpened, ledger.TypeSessionKilled, ledger.TypeRecordingRead:
		return c.in[s.Session], nil
	case ledger.TypeRequestCreated, ledger.TypeRequestCommented, ledger.TypeRequestDecided, ledger.TypeRequestEnded, ledger.TypeLinkUsed:
		return c.in[s.Request], nil
	case ledger.TypeRequestRefused:
		return sc.Session+sc.Grant == "" && (sc.Target == "" || sc.Target == s.Target) && sc.is(s.Person) && sc.during(e.Time, e.Time) && c.policies[s.Policy], nil
	case ledger.TypeReviewDue, ledger.TypeReviewDone:
		return c.in[s.Grant] && (s.Session == "" || c.in[s.Session]), nil
	case ledger.TypeGrantCreated, ledger.TypeGrantExtended, ledger.TypeGrantEnded, ledger.TypeGrantPassword, ledger.TypeAccountIntended,
		ledger.TypeAccountCut, ledger.TypeAccountCleaned, ledger.TypeAccountOpen, ledger.TypeAccountForeign:
		return c.in[s.Grant], nil
	}
	return false, nil
}
