package policy

import (
	"regexp"
	"slices"
	"time"
)

// Terms is what a rule says of the access that it gives. A request and its grant keep those that held when
// it was asked, so that no later policy changes them silently.
type Terms struct {
	Approvals       Approvals     `json:"approvals"`
	Review          *Review       `json:"review,omitempty"`
	Limits          Limits        `json:"limits,omitzero"`
	WithLastSession bool          `json:"with_last_session,omitempty"`
	Record          Record        `json:"record,omitzero"`
	Longest         time.Duration `json:"longest,omitempty"`
	Ticket          *TicketRule   `json:"ticket_rule,omitempty"`
}

// Review says that somebody else must look at what was done, and until when.
type Review struct {
	Within time.Duration `json:"within"` // from the session's end; of a break-glass grant, from its begin
	By     Who           `json:"by"`     // nobody named: whoever may read the target's recordings
}

// Limits bound what a grant is good for, beyond what its level says; 0 sets none.
type Limits struct {
	Sessions int           `json:"sessions,omitempty"` // at once
	Idle     time.Duration `json:"idle,omitempty"`     // how long a session may do nothing
	Rows     uint64        `json:"rows,omitempty"`     // that a session may read
	Bytes    uint64        `json:"bytes,omitempty"`    // that a session may receive
}

// Record says what of a session is recorded where a rule may choose. Statements always are, in full.
type Record struct {
	Parameters string `json:"parameters,omitempty"` // empty: their values; ParametersTypes: their types alone
}

// ParametersTypes leaves out of a recording what was bound to parameters.
const ParametersTypes = "types"

// within reports whether what is recorded is as much as another asks for, or more.
func (r Record) within(s Record) bool { return r.Parameters == "" || r == s }

// Words says what is not recorded.
func (r Record) Words() string {
	if r.Parameters == ParametersTypes {
		return "the values of parameters are not recorded, only their types"
	}
	return ""
}

// TicketRule says that a ticket must be named, and what its number looks like.
type TicketRule struct {
	Pattern string `json:"pattern"`           // a regular expression that the whole number must match
	Confirm string `json:"confirm,omitempty"` // a URL that is asked whether the ticket is open and names this person

	compiled *regexp.Regexp // of the pattern; nil: not yet
}

// NewTicketRule makes a rule of a pattern.
func NewTicketRule(pattern, confirm string) (*TicketRule, error) {
	compiled, err := compileTicket(pattern)
	if err != nil {
		return nil, err
	}
	return &TicketRule{Pattern: pattern, Confirm: confirm, compiled: compiled}, nil
}

func (t *TicketRule) equal(u *TicketRule) bool {
	if t == nil || u == nil {
		return t == u
	}
	return t.Pattern == u.Pattern && t.Confirm == u.Confirm
}

// Terms gives the rule's.
func (r *Rule) Terms() Terms {
	return Terms{
		Approvals: r.Approvals, Review: r.Review, Limits: r.Limits, WithLastSession: r.WithLastSession, Record: r.Record,
		Longest: r.Longest, Ticket: r.Ticket,
	}
}

// equal reports whether what was decided under one is decided under the other. How long the rule would give
// at most is no part of that.
func (t Terms) equal(u Terms) bool {
	return t.Approvals.equal(u.Approvals) && t.Review.equal(u.Review) && t.Limits == u.Limits &&
		t.WithLastSession == u.WithLastSession && t.Record == u.Record && t.Ticket.equal(u.Ticket)
}

func (r *Review) equal(s *Review) bool {
	if r == nil || s == nil {
		return r == s
	}
	return r.Within == s.Within && r.By.equal(s.By)
}

// within reports whether limits are as narrow as others, or narrower.
func (l Limits) within(m Limits) bool {
	return narrow(l.Sessions, m.Sessions) && narrow(l.Idle, m.Idle) && narrow(l.Rows, m.Rows) && narrow(l.Bytes, m.Bytes)
}

// narrow compares one limit with another, of which 0 is none.
func narrow[N int | time.Duration | uint64](n, limit N) bool {
	return limit == 0 || (n != 0 && n <= limit)
}

func (a Approvals) equal(b Approvals) bool {
	return a.Count == b.Count && a.From.equal(b.From) && slices.EqualFunc(a.Parties, b.Parties, Who.equal) && a.MFA.equal(b.MFA)
}

func (w Who) equal(v Who) bool {
	return w.Anyone == v.Anyone && slices.Equal(w.Groups, v.Groups) && slices.Equal(w.Emails, v.Emails) &&
		slices.Equal(w.Subjects, v.Subjects) && slices.Equal(w.Issuers, v.Issuers)
}
