package api

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Duration is a length of time that reads "30m" or "1h30m" in JSON.
type Duration time.Duration

// String gives the shortest form: no "0s" after minutes, no "0m" after hours.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Std is the same as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return errors.New(`expected a duration like "30m" or "1h30m"`)
	}
	*d = Duration(v)
	return nil
}

// Schema tells the OpenAPI document, and the check of request bodies, what a duration looks like.
func (Duration) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{
		Type: huma.TypeString, Examples: []any{"30m"},
		Pattern:            `^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`,
		PatternDescription: `a duration like "30m" or "1h30m"`,
	}
	s.PrecomputeMessages()
	return s
}

// Person is a verified identity as the API shows it.
type Person struct {
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"`
	Email    string    `json:"email"`
	Name     string    `json:"name,omitempty"`
	Groups   []string  `json:"groups,omitempty"`
	ACR      string    `json:"acr,omitempty" doc:"Authentication context class, as the provider asserted it"`
	AMR      []string  `json:"amr,omitempty" doc:"Authentication methods, as the provider asserted them"`
	AuthTime time.Time `json:"auth_time,omitzero" doc:"When the provider last saw the person prove themselves"`
	Declared bool      `json:"mfa_declared,omitempty" doc:"That this was MFA is the configuration's word: the provider asserts nothing"`
	Workload bool      `json:"workload,omitempty" doc:"A program, by a token of its CI system"`
}

// LoginStart begins a login.
type LoginStart struct {
	Issuer      string `json:"issuer,omitempty" maxLength:"512" doc:"Issuer URL; may be left out when the server knows one only"`
	Flow        string `json:"flow" enum:"code,device" doc:"code: in a browser on this machine; device: with a code to type elsewhere"`
	RedirectURI string `json:"redirect_uri,omitempty" maxLength:"512" doc:"Flow code: http://127.0.0.1:<port>/callback"`

	// A step-up; with a session token in the Authorization header the new login takes that session's place.
	ACRValues []string `json:"acr_values,omitempty" maxItems:"8" doc:"The login must show one of these context classes,"`
	AMR       []string `json:"amr,omitempty" maxItems:"8" doc:"or one of these methods"`
	MaxAge    *int     `json:"max_age,omitempty" minimum:"0" maximum:"86400000" doc:"Proven at most so many seconds before the login"`
}

// LoginStarted says where the person goes on.
type LoginStarted struct {
	Login                   string    `json:"login" doc:"Handle of this login, for login/finish"`
	AuthURL                 string    `json:"auth_url,omitempty" doc:"Flow code: the page to open"`
	State                   string    `json:"state,omitempty" doc:"Flow code: what the callback must carry"`
	UserCode                string    `json:"user_code,omitempty" doc:"Flow device: the code to type"`
	VerificationURI         string    `json:"verification_uri,omitempty" doc:"Flow device: the page to open"`
	VerificationURIComplete string    `json:"verification_uri_complete,omitempty" doc:"Flow device: the same with the code in it"`
	Interval                Duration  `json:"interval,omitempty" doc:"Flow device: how long to wait between calls of login/finish"`
	Expires                 time.Time `json:"expires"`
}

// LoginFinish ends a login; for the device flow it is called until it no longer answers pending.
type LoginFinish struct {
	Login string `json:"login" minLength:"1" maxLength:"256"`
	Code  string `json:"code,omitempty" maxLength:"4096" doc:"Flow code: from the callback"`
	State string `json:"state,omitempty" maxLength:"512" doc:"Flow code: from the callback"`

	Issuer string `json:"iss,omitempty" maxLength:"512" doc:"Flow code: from the callback, if it names an issuer (RFC 9207)"`
}

// LoggedIn is the answer to login/finish. The token is shown here and never again.
type LoggedIn struct {
	Pending bool      `json:"pending,omitempty" doc:"With status 202: the person has not finished; ask again after the interval"`
	Token   string    `json:"token,omitempty" doc:"Curfew session token"`
	Expires time.Time `json:"expires,omitzero"`
	Person  *Person   `json:"person,omitempty"`
}

// Target is a database server that the person may ask for, and what for.
type Target struct {
	Name   string        `json:"name"`
	Engine string        `json:"engine,omitempty"`
	Levels []TargetLevel `json:"levels"`
}

// TargetLevel is one access level on a target and its terms.
type TargetLevel struct {
	Name      string   `json:"name"`
	Longest   Duration `json:"longest" doc:"The longest grant there is"`
	Approvals int      `json:"approvals" doc:"How many people must agree"`
	Approvers string   `json:"approvers,omitempty" doc:"Who they may be, in words"`
	Reason    bool     `json:"reason" doc:"A reason is required"`
	Rule      string   `json:"rule,omitempty"`
}

// Ask is a new request.
type Ask struct {
	Target   string    `json:"target" minLength:"1" maxLength:"128"`
	Level    string    `json:"level" minLength:"1" maxLength:"128"`
	Duration Duration  `json:"duration" doc:"How long the grant is to last"`
	Start    time.Time `json:"start,omitzero" doc:"When it is to begin; left out: when it is approved"`
	Reason   string    `json:"reason,omitempty" maxLength:"2000" doc:"What for; approvers and auditors read it"`

	Ticket     string `json:"ticket,omitempty" maxLength:"200" doc:"The ticket that it is for; some rules require one"`
	SQL        string `json:"sql,omitempty" maxLength:"32768" doc:"What is to be run, for approvers to read"`
	BreakGlass bool   `json:"break_glass,omitempty" doc:"An emergency: granted at once where a rule allows that, told to everybody, and somebody else must review it before the next"`
}

// Extend asks for more time under a grant.
type Extend struct {
	Duration Duration `json:"duration" doc:"How much longer, beyond the present end"`
	Reason   string   `json:"reason,omitempty" maxLength:"2000" doc:"Why; approvers and auditors read it"`
	Ticket   string   `json:"ticket,omitempty" maxLength:"200" doc:"Left out: that of the grant's own request"`
}

// Request is somebody's wish for access, and what was said to it.
type Request struct {
	ID        string     `json:"id"`
	Person    Person     `json:"person"`
	Target    string     `json:"target"`
	Level     string     `json:"level"`
	Duration  Duration   `json:"duration"`
	Start     time.Time  `json:"start,omitzero"`
	Reason    string     `json:"reason"`
	Created   time.Time  `json:"created"`
	Lapses    time.Time  `json:"lapses" doc:"Undecided by then, it lapses"`
	Rule      string     `json:"rule"`
	Policy    string     `json:"policy" doc:"Hash of the policy it was judged by"`
	Needed    int        `json:"needed" doc:"How many people must agree"`
	Approvers string     `json:"approvers,omitempty" doc:"Who they may be, in words"`
	Status    string     `json:"status" enum:"open,approved,denied,lapsed,cancelled"`
	Decisions []Decision `json:"decisions,omitempty"`
	Grant     string     `json:"grant,omitempty" doc:"Once approved"`
	Ended     time.Time  `json:"ended,omitzero"`
	EndReason string     `json:"end_reason,omitempty" doc:"Set when Curfew itself ended it"`

	Missing    int      `json:"missing,omitempty" doc:"While it is open: how many people must still agree"`
	Ticket     string   `json:"ticket,omitempty"`
	SQL        string   `json:"sql,omitempty" doc:"What is to be run, in the requester's words"`
	BreakGlass bool     `json:"break_glass,omitempty"`
	Parameters string   `json:"parameters,omitempty" enum:"types" doc:"types: recordings will leave out the values of parameters"`
	Extends    string   `json:"extends,omitempty" doc:"The grant that it would make longer"`
	Comments   []Remark `json:"comments,omitempty"`
}

// Remark is a word on a request that decides nothing.
type Remark struct {
	Person Person    `json:"person"`
	Text   string    `json:"text"`
	At     time.Time `json:"at"`
}

// NewRemark is one that is to be made.
type NewRemark struct {
	Text string `json:"text" minLength:"1" maxLength:"2000"`
}

// Decision is one person's word on a request.
type Decision struct {
	Person  Person    `json:"person"`
	Approve bool      `json:"approve"`
	Comment string    `json:"comment,omitempty"`
	Policy  string    `json:"policy,omitempty" doc:"Hash of the policy that was in force"`
	At      time.Time `json:"at"`
}

// Comment goes with an approval, a denial or a revocation.
type Comment struct {
	Comment string `json:"comment,omitempty" maxLength:"2000"`
}

// Status of a grant.
const (
	GrantScheduled = "scheduled" // its start is still to come
	GrantActive    = "active"
	GrantEnded     = "ended"
)

// Grant is what an approved request became.
type Grant struct {
	ID        string    `json:"id"`
	Request   string    `json:"request"`
	Person    Person    `json:"person"`
	Target    string    `json:"target"`
	Engine    string    `json:"engine,omitempty" doc:"The target's, while it is served"`
	Level     string    `json:"level"`
	Policy    string    `json:"policy"`
	Approvers []string  `json:"approvers,omitempty"`
	Start     time.Time `json:"start"`
	End       time.Time `json:"end"`
	Status    string    `json:"status" enum:"scheduled,active,ended"`
	Ended     time.Time `json:"ended,omitzero"`
	EndCode   string    `json:"end_code,omitempty" doc:"expired, revoked, released, foreign"`
	EndReason string    `json:"end_reason,omitempty"`
	EndedBy   string    `json:"ended_by,omitempty"`
	Receipt   *Receipt  `json:"receipt,omitempty" doc:"How it was cut off, once it was; only when one grant is asked for"`

	BreakGlass      bool        `json:"break_glass,omitempty"`
	WithLastSession bool        `json:"with_last_session,omitempty" doc:"It ends when its last session is closed"`
	Extensions      []Extension `json:"extensions,omitempty" doc:"Each time that its end was moved; end is the last one's"`
	Limits          *Limits     `json:"limits,omitempty" doc:"What its rule allows beyond what the access level does"`
	Parameters      string      `json:"parameters,omitempty" enum:"types" doc:"types: recordings leave out the values of parameters"`
}

// Extension is one time that a grant's end was moved.
type Extension struct {
	Request   string    `json:"request"`
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	At        time.Time `json:"at"`
	Approvers []string  `json:"approvers,omitempty"`
}

// Limits bound a grant; what is left out is not bounded here.
type Limits struct {
	Sessions int      `json:"sessions,omitempty" doc:"At once"`
	Idle     Duration `json:"idle,omitempty" doc:"How long a session may do nothing"`
	Rows     uint64   `json:"rows,omitempty" doc:"That a session may read"`
	Bytes    uint64   `json:"bytes,omitempty" doc:"That a session may receive"`
}

// Review is what somebody else must look at: a session, or everything that was done under a grant for which
// the glass was broken.
type Review struct {
	ID       string    `json:"id" doc:"The session's, or the grant's"`
	Grant    string    `json:"grant"`
	Session  string    `json:"session,omitempty" doc:"Left out: all sessions of the grant"`
	Person   Person    `json:"person" doc:"Whose doing it is"`
	Target   string    `json:"target"`
	Level    string    `json:"level"`
	By       string    `json:"by" doc:"Who may, in words"`
	Made     time.Time `json:"made"`
	Due      time.Time `json:"due"`
	Status   string    `json:"status" enum:"due,overdue,ok,finding"`
	Done     time.Time `json:"done,omitzero"`
	Reviewer *Person   `json:"reviewer,omitempty"`
	Finding  string    `json:"finding,omitempty"`
}

// Reviewed is somebody's word on what was done.
type Reviewed struct {
	OK      bool   `json:"ok,omitempty" doc:"Nothing was found"`
	Finding string `json:"finding,omitempty" maxLength:"2000" doc:"What was found; needed unless ok"`
}

// Receipt is the proof that a grant ended at the database, in two parts, as the ledger has them.
type Receipt struct {
	Account  string          `json:"account"`
	Code     string          `json:"code"`
	Reason   string          `json:"reason"`
	Deadline time.Time       `json:"deadline"`
	LateMS   float64         `json:"late_ms" doc:"From the deadline until no backend was left"`
	Cut      json.RawMessage `json:"cut" doc:"What was in flight and what became of it; sessions left"`
	Clean    json.RawMessage `json:"clean,omitempty" doc:"What the person left behind, and the proof that the account is gone; absent while cleaning goes on"`
}

// Credentials is what a stock client needs to connect under a grant. The password is shown once;
// asking again makes a new one and voids the old one for new logins.
type Credentials struct {
	Grant    string    `json:"grant"`
	Target   string    `json:"target"`
	Engine   string    `json:"engine"`
	Host     string    `json:"host"`
	Port     int       `json:"port"`
	Database string    `json:"database"`
	User     string    `json:"user"`
	Password string    `json:"password"`
	SSLMode  string    `json:"sslmode" doc:"disable, or verify-full: TLS, with the certificate and its host verified"`
	CA       string    `json:"ca,omitempty" doc:"PEM of the CA that vouches for the listener, when the system's would not"`
	End      time.Time `json:"end"`
}

// Session is one client connection under a grant.
type Session struct {
	ID          string    `json:"id"`
	Grant       string    `json:"grant"`
	Target      string    `json:"target"`
	Level       string    `json:"level"`
	Person      Person    `json:"person"`
	Account     string    `json:"account"`
	Node        string    `json:"node"`
	Client      string    `json:"client"`
	Began       time.Time `json:"began"`
	Ended       time.Time `json:"ended,omitzero"`
	Statements  uint64    `json:"statements,omitempty"`
	EndCode     string    `json:"end_code,omitempty"`
	EndReason   string    `json:"end_reason,omitempty"`
	Fate        string    `json:"fate,omitempty" doc:"What became of the transaction in flight"`
	Interrupted bool      `json:"interrupted,omitempty" doc:"Healed after a crash"`
	Events      uint64    `json:"events,omitempty" doc:"Leaves of the sealed recording"`
	Root        string    `json:"root,omitempty" doc:"Merkle root of the sealed recording, hex"`
	Live        *Live     `json:"live,omitempty" doc:"While it goes on, on the node that was asked"`
}

// Live is what a session that goes on has moved so far.
type Live struct {
	FromClient uint64   `json:"from_client" doc:"Bytes that the client has sent"`
	FromServer uint64   `json:"from_server" doc:"Bytes that the database has sent"`
	Idle       Duration `json:"idle" doc:"For how long nothing has happened"`
}

// Kill ends a session.
type Kill struct {
	Reason string `json:"reason,omitempty" maxLength:"2000" doc:"Why; its client and auditors read it"`
	Revoke bool   `json:"revoke,omitempty" doc:"End the grant, too, and every session of it"`
}

// Scope selects what an export holds. Empty fields select everything that the person may read.
type Scope struct {
	Session string    `json:"session,omitempty"`
	Grant   string    `json:"grant,omitempty"`
	Target  string    `json:"target,omitempty"`
	From    time.Time `json:"from,omitzero"`
	To      time.Time `json:"to,omitzero"`
}

// RequestFilter selects requests.
type RequestFilter struct {
	Status string `json:"status,omitempty"`
	Target string `json:"target,omitempty"`
	Mine   bool   `json:"mine,omitempty"`
	Decide bool   `json:"decide,omitempty"` // only open ones that the person may decide now
	After  string `json:"after,omitempty"`  // what comes behind this one in the list
	Limit  int    `json:"limit,omitempty"`
}

// GrantFilter selects grants.
type GrantFilter struct {
	Active bool   `json:"active,omitempty"` // only those that may be used now
	Target string `json:"target,omitempty"`
	Mine   bool   `json:"mine,omitempty"`
	After  string `json:"after,omitempty"` // what comes behind this one in the list
	Limit  int    `json:"limit,omitempty"`
}

// SessionFilter selects sessions.
type SessionFilter struct {
	Grant  string `json:"grant,omitempty"`
	Target string `json:"target,omitempty"`
	Open   bool   `json:"open,omitempty"`
	Mine   bool   `json:"mine,omitempty"`
	After  string `json:"after,omitempty"` // what comes behind this one in the list
	Limit  int    `json:"limit,omitempty"`
}

// Formats of an export.
const (
	FormatBundle = "bundle" // .tar.zst, for curfew verify
	FormatJSONL  = "jsonl"  // one JSON object a line, for people and SIEMs
)

// ReviewFilter selects reviews.
type ReviewFilter struct {
	Mine   bool   `json:"mine,omitempty"` // about what the person did
	Due    bool   `json:"due,omitempty"`  // still to be done, and the person may
	Target string `json:"target,omitempty"`
	After  string `json:"after,omitempty"`
	Limit  int    `json:"limit,omitempty"`
}
