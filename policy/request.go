package policy

import (
	"time"

	"github.com/curfewdb/curfew/auth"
)

// Status is where a request stands. A request is open or ended in one of four ways; it never changes again.
type Status string

const (
	Open      Status = "open"
	Approved  Status = "approved"
	Denied    Status = "denied"
	Lapsed    Status = "lapsed"    // nobody decided in time
	Cancelled Status = "cancelled" // by the requester
)

// Request is one person's wish for one access level on one target.
type Request struct {
	ID       string        `json:"id"`
	Identity auth.Identity `json:"identity"` // as it was when asking
	Target   string        `json:"target"`
	Level    string        `json:"level"`
	Can      Level         `json:"can"` // what the level meant when asking: that is what people approve
	Duration time.Duration `json:"duration"`
	Start    time.Time     `json:"start,omitzero"` // asked start; zero = when approved
	Reason   string        `json:"reason"`
	Created  time.Time     `json:"created"`
	Lapses   time.Time     `json:"lapses"` // undecided by then, it lapses
	Rule     string        `json:"rule"`   // name of the rule that allows it
	Policy   string        `json:"policy"` // hash of the policy it was judged by
	Terms
	Ticket     string    `json:"ticket,omitempty"`
	SQL        string    `json:"sql,omitempty"` // what they intend to run, in their own words
	BreakGlass bool      `json:"break_glass,omitempty"`
	Extends    string    `json:"extends,omitempty"` // the grant that it would make longer
	Facts      Facts     `json:"facts,omitzero"`    // what was known of the requester's past when asking
	Comments   []Comment `json:"comments,omitempty"`

	Status    Status     `json:"status"`
	Decisions []Decision `json:"decisions,omitempty"`
	Grant     string     `json:"grant,omitempty"` // once approved
	Ended     time.Time  `json:"ended,omitzero"`
	EndReason string     `json:"end_reason,omitempty"` // set when Curfew itself ended it
}

// Comment is what somebody said on a request without deciding on it.
type Comment struct {
	Identity auth.Identity `json:"identity"`
	Text     string        `json:"text"`
	At       time.Time     `json:"at"`
}

// Decision is one person's word on a request.
type Decision struct {
	Identity auth.Identity `json:"identity"`
	Approve  bool          `json:"approve"`
	Comment  string        `json:"comment,omitempty"`
	Policy   string        `json:"policy,omitempty"` // hash of the one in force, which may be another than the request's
	At       time.Time     `json:"at"`
}

// Grant is what an approved request becomes: one identity, one target, one level, a start and an end
// that are fixed at the last approval needed. The end moves for an extension alone, which is decided as a
// request is.
type Grant struct {
	ID        string        `json:"id"`
	Request   string        `json:"request"`
	Identity  auth.Identity `json:"identity"`
	Target    string        `json:"target"`
	Level     string        `json:"level"`
	Can       Level         `json:"can"` // what the level meant when it was asked for: the account is ended by it, whatever the policy says later
	Policy    string        `json:"policy"`
	Approvers []string      `json:"approvers,omitempty"` // e-mails, for people
	Start     time.Time     `json:"start"`
	End       time.Time     `json:"end"`
	Ended     time.Time     `json:"ended,omitzero"`     // zero while it may still be used
	EndCode   string        `json:"end_code,omitempty"` // recorder.End*: expired, revoked, released, foreign
	EndReason string        `json:"end_reason,omitempty"`
	EndedBy   string        `json:"ended_by,omitempty"` // e-mail, or "curfew"

	Terms
	BreakGlass bool        `json:"break_glass,omitempty"`
	Extensions []Extension `json:"extensions,omitempty"` // in the order of their decisions; End is the last one's
}

// Extension is one time that a grant's end was moved.
type Extension struct {
	Request   string    `json:"request"`
	From      time.Time `json:"from"` // the end before
	To        time.Time `json:"to"`
	At        time.Time `json:"at"`
	Approvers []string  `json:"approvers,omitempty"` // e-mails, for people
}

// Active reports whether a session may run under the grant at now.
func (g Grant) Active(now time.Time) bool {
	return g.Ended.IsZero() && !now.Before(g.Start) && now.Before(g.End)
}
