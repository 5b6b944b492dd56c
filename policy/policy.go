// Package policy decides who may ask, who may approve, who may read: rules, requests, decisions and
// grants as pure functions over values. No clock, no file, no network: the caller brings the time, so
// that a decision can be repeated by anybody who has the same values.
//
// Deny by default: what no rule allows is refused, and the verdict says why each rule did not.
// The order of rules is the order of the file, and the first rule that allows a request decides it.
package policy

import (
	"slices"
	"time"
)

// Policy is one policy file, checked and with every name resolved (internal/config loads it).
type Policy struct {
	Hash    string            `json:"hash"` // "sha256:" and hex of the file's bytes
	Text    string            `json:"-"`    // the file's bytes, for the ledger
	Targets map[string]Target `json:"targets"`
	Rules   []Rule            `json:"rules"`
	Readers []Reader          `json:"readers,omitempty"`
	Freezes []Freeze          `json:"freezes,omitempty"`

	// Lockdown: that it gives nobody anything is meant.
	Lockdown bool `json:"lockdown,omitempty"`
}

// Freeze is a span of time with a name, which conditions may read: frozen holds the names of those that
// the asked access would fall into.
type Freeze struct {
	Name string    `json:"name"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"` // the first moment after it
}

// Target is what the policy knows of a database server: the levels there are, and labels to name it by.
type Target struct {
	Labels map[string]string `json:"labels,omitempty"`
	Levels map[string]Level  `json:"levels"`
}

// Level is an access level: group roles in the database, and what its holder may do beyond them.
type Level struct {
	Roles                []string `json:"roles"`
	SetRole              bool     `json:"set_role,omitempty"`
	PreparedTransactions bool     `json:"prepared_transactions,omitempty"`
	LocalInfile          bool     `json:"local_infile,omitempty"`
	Sessions             int      `json:"sessions,omitempty"` // connections at once; 0 = DefaultSessions

	Idle time.Duration `json:"idle,omitempty"` // how long a session may do nothing; 0 = as long as the grant lasts
}

// DefaultSessions is the connection limit of an account whose level names none.
const DefaultSessions = 10

// ConnectionLimit is how many sessions an account of this level may have at once.
func (l Level) ConnectionLimit() int {
	if l.Sessions == 0 {
		return DefaultSessions
	}
	return l.Sessions
}

// equal reports whether an account of one level is as good as one of the other. Idle is no part of that: it
// ends sessions, and a grant keeps the one that it was given.
func (l Level) equal(m Level) bool {
	return l.SetRole == m.SetRole && l.PreparedTransactions == m.PreparedTransactions && l.LocalInfile == m.LocalInfile &&
		l.ConnectionLimit() == m.ConnectionLimit() && slices.Equal(l.Roles, m.Roles)
}

// Rule says who may get which levels on which targets, for how long, and who must agree; or, if it denies,
// who may not, whatever other rules say.
type Rule struct {
	Name    string        `json:"name"`
	Deny    bool          `json:"deny,omitempty"` // whoever it fits gets nothing; it says who, what and when, and no more
	Who     Who           `json:"who"`
	Targets []string      `json:"targets,omitempty"` // names; "*" is all
	Labels  Labels        `json:"labels,omitempty"`  // or every target with all of these labels
	Levels  []string      `json:"levels"`            // names; "*" is all, in a rule that denies
	When    *Condition    `json:"when,omitempty"`    // nil: always
	Longest time.Duration `json:"longest,omitempty"`
	Lapse   time.Duration `json:"lapse,omitempty"` // how long a request stays open; default 24h
	Reason  bool          `json:"reason"`          // a reason is required
	MFA     *MFA          `json:"mfa,omitempty"`   // what the asker's login must show; nil: nothing
	Ticket  *TicketRule   `json:"ticket,omitempty"`

	Approvals Approvals `json:"approvals"`

	// BreakGlass: the rule is for asks that break the glass, and for no others.
	BreakGlass      bool    `json:"break_glass,omitempty"`
	Review          *Review `json:"review,omitempty"`
	Limits          Limits  `json:"limits,omitzero"`
	WithLastSession bool    `json:"with_last_session,omitempty"` // the grant ends when its last session does
	Record          Record  `json:"record,omitzero"`
}

// Labels selects targets: all of them must match.
type Labels map[string]string

// Who selects identities. Fields of different names must all match; within one field any value matches.
// A Who without any field matches nobody.
type Who struct {
	Groups   []string `json:"groups,omitempty"`
	Emails   []string `json:"emails,omitempty"`
	Subjects []string `json:"subjects,omitempty"`
	Issuers  []string `json:"issuers,omitempty"`
	Anyone   bool     `json:"anyone,omitempty"` // every verified identity
}

// Approvals says how many distinct people, never the requester, must agree, and who they may be: somebody
// of From, and of each party at least one, of whom nobody stands for two.
type Approvals struct {
	Count   int   `json:"count"`
	From    Who   `json:"from"`
	Parties []Who `json:"parties,omitempty"`
	MFA     *MFA  `json:"mfa,omitempty"` // what the login of whoever decides must show
}

// Reader says who may read which targets' recordings. Nobody may read any without one.
type Reader struct {
	Who     Who      `json:"who"`
	Targets []string `json:"targets"` // names; "*" is all
}
