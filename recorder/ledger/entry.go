package ledger

import (
	"encoding/json"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

// Entry is one leaf of the ledger. Its bytes on disk and in a bundle are one line of JSON; the leaf
// hash is over exactly those bytes (RFC 6962: SHA-256 of 0x00 and the line without its newline).
type Entry struct {
	Index int64           `json:"n"`    // position, gap-free from 0
	Time  time.Time       `json:"time"` // UTC, never earlier than the entry before
	Type  string          `json:"type"` // Type* below; readers pass over those they don't know
	Salt  string          `json:"salt"` // 16 random bytes, hex
	Data  json.RawMessage `json:"data"` // the struct named beside the type
}

// Types of entries and what Data holds.
const (
	TypeGenesis          = "genesis"           // Genesis, entry 0 of every ledger
	TypePolicyLoaded     = "policy.loaded"     // PolicyLoaded
	TypeLogin            = "login"             // Login
	TypeLogout           = "logout"            // Login
	TypeLoginsFailed     = "logins.failed"     // LoginsFailed
	TypeRequestCreated   = "request.created"   // RequestCreated
	TypeRequestDecided   = "request.decided"   // RequestDecided
	TypeRequestEnded     = "request.ended"     // RequestEnded: approved, denied, lapsed, cancelled
	TypeRequestCommented = "request.commented" // RequestCommented
	TypeRequestRefused   = "request.refused"   // RequestRefused: never became a request
	TypeGrantCreated     = "grant.created"     // GrantCreated
	TypeGrantExtended    = "grant.extended"    // GrantExtended
	TypeGrantEnded       = "grant.ended"       // GrantEnded
	TypeGrantPassword    = "grant.password"    // GrantPassword
	TypeAccountIntended  = "account.intended"  // AccountIntended
	TypeAccountCut       = "account.cut"       // AccountCut, the first part of a receipt
	TypeAccountCleaned   = "account.cleaned"   // AccountCleaned, the second part
	TypeAccountOpen      = "account.open"      // AccountOpen: an alert, a part of an end is tried again
	TypeSessionOpened    = "session.opened"    // SessionOpened
	TypeSessionsMoved    = "sessions.moved"    // SessionsMoved, every 10 s
	TypeSessionSealed    = "session.sealed"    // SessionSealed
	TypeSessionKilled    = "session.killed"    // SessionKilled
	TypeRecordingRead    = "recording.read"    // RecordingRead
	TypeLinkUsed         = "link.used"         // LinkUsed
	TypeReviewDue        = "review.due"        // ReviewDue
	TypeReviewDone       = "review.done"       // ReviewDone
	TypeAccountForeign   = "account.foreign"   // AccountForeign: an alert
	TypeClockSetBack     = "clock.set_back"    // ClockSetBack
	TypeRecorderDegraded = "recorder.degraded" // RecorderDegraded
)

// Person is an identity as the ledger keeps it: what was known and proven at that moment.
type Person struct {
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"`
	Email    string    `json:"email"`
	Name     string    `json:"name,omitempty"`
	Groups   []string  `json:"groups,omitempty"`
	ACR      string    `json:"acr,omitempty"`
	AMR      []string  `json:"amr,omitempty"`
	AuthTime time.Time `json:"auth_time,omitzero"`
	Declared bool      `json:"mfa_declared,omitempty"` // that it was MFA is the configuration's word, not the provider's
	Workload bool      `json:"workload,omitempty"`     // a program, by a token of its CI system
}

type (
	Genesis struct {
		Format       int    `json:"format"` // of docs/FORMAT.md: 1
		Installation string `json:"installation"`
		Key          string `json:"key"` // the verifier key of the checkpoints, in note format
		Version      string `json:"version"`
	}
	PolicyLoaded struct {
		Hash string `json:"hash"`
		Text string `json:"text"`
	}
	Login struct {
		Person Person `json:"person"`
		Flow   string `json:"flow"`              // "code", "device", "web"
		From   string `json:"from"`              // address
		StepUp bool   `json:"step_up,omitempty"` // it took the place of a session of the same person
	}
	// LoginsFailed counts strangers: at most one entry for an address and a minute.
	LoginsFailed struct {
		From   string    `json:"from"` // address without port
		Minute time.Time `json:"minute"`
		Count  int       `json:"count"`
		Where  string    `json:"where"` // "wire", "api", "web", "link", "token", "logout"
	}
	RequestCreated struct {
		Request   string        `json:"request"`
		Person    Person        `json:"person"`
		Target    string        `json:"target"`
		Level     string        `json:"level"`
		Duration  time.Duration `json:"duration_ns"`
		Start     time.Time     `json:"start,omitzero"`
		Reason    string        `json:"reason"`
		Rule      string        `json:"rule"`
		Policy    string        `json:"policy"`
		Approvals int           `json:"approvals"` // how many are needed
		Lapses    time.Time     `json:"lapses"`

		Ticket     string `json:"ticket,omitempty"`
		SQL        string `json:"sql,omitempty"` // what they intend to run
		BreakGlass bool   `json:"break_glass,omitempty"`
		Extends    string `json:"extends,omitempty"` // the grant that it would make longer
	}
	RequestDecided struct {
		Request string `json:"request"`
		Person  Person `json:"person"`
		Approve bool   `json:"approve"`
		Comment string `json:"comment,omitempty"`
		Policy  string `json:"policy,omitempty"` // hash of the one in force
	}
	RequestEnded struct {
		Request string `json:"request"`
		Status  string `json:"status"`           // approved, denied, lapsed, cancelled
		By      string `json:"by,omitempty"`     // e-mail, or "curfew"
		Reason  string `json:"reason,omitempty"` // in words, when Curfew itself ended it
	}
	RequestCommented struct {
		Request string `json:"request"`
		Person  Person `json:"person"`
		Text    string `json:"text"`
	}
	// RequestRefused is an ask that a rule denies, or that could not be judged.
	RequestRefused struct {
		Person     Person        `json:"person"`
		Target     string        `json:"target"`
		Level      string        `json:"level"`
		Duration   time.Duration `json:"duration_ns"`
		Start      time.Time     `json:"start,omitzero"`
		Reason     string        `json:"reason"`
		Ticket     string        `json:"ticket,omitempty"`
		BreakGlass bool          `json:"break_glass,omitempty"`
		Extends    string        `json:"extends,omitempty"`
		Policy     string        `json:"policy"`
		Rule       string        `json:"rule,omitempty"`  // the rule that denies it
		Error      string        `json:"error,omitempty"` // why it could not be judged
	}
	GrantCreated struct {
		Grant   string    `json:"grant"`
		Request string    `json:"request"`
		Person  Person    `json:"person"`
		Target  string    `json:"target"`
		Level   string    `json:"level"`
		Start   time.Time `json:"start"`
		End     time.Time `json:"end"`

		BreakGlass bool   `json:"break_glass,omitempty"`
		Parameters string `json:"parameters,omitempty"` // how much its recordings have of them: recorder.Header
	}
	// GrantExtended moves a grant's end, as its request asked.
	GrantExtended struct {
		Grant   string    `json:"grant"`
		Request string    `json:"request"`
		From    time.Time `json:"from"` // the end before
		To      time.Time `json:"to"`
	}
	GrantEnded struct {
		Grant  string    `json:"grant"`
		Code   string    `json:"code"` // recorder.End*
		Reason string    `json:"reason"`
		By     string    `json:"by"`
		At     time.Time `json:"at"`
	}
	GrantPassword struct {
		Grant string `json:"grant"` // a grant password was made and shown, older ones are void
		By    string `json:"by"`
	}
	AccountIntended struct {
		Grant   string    `json:"grant"`
		Target  string    `json:"target"`
		Account string    `json:"account"`
		End     time.Time `json:"end"`
		Adopt   bool      `json:"adopt,omitempty"` // it is taken over after a crash
	}
	// AccountCut is the first part of a receipt. Cut is protocol.Cut as JSON.
	AccountCut struct {
		Grant    string          `json:"grant"`
		Target   string          `json:"target"`
		Account  string          `json:"account"`
		Code     string          `json:"code"`   // why the grant ended
		Reason   string          `json:"reason"` // in words
		Deadline time.Time       `json:"deadline"`
		LateMS   float64         `json:"late_ms"` // from the deadline to the moment no backend was left
		Cut      json.RawMessage `json:"cut"`
	}
	// AccountCleaned is the second part of a receipt. Clean is protocol.Clean as JSON.
	AccountCleaned struct {
		Grant   string          `json:"grant"`
		Target  string          `json:"target"`
		Account string          `json:"account"`
		Clean   json.RawMessage `json:"clean"`
	}
	AccountOpen struct {
		Grant    string `json:"grant"`
		Target   string `json:"target"`
		Account  string `json:"account"`
		Part     string `json:"part"` // "cut" or "clean"
		Attempts int    `json:"attempts"`
		Error    string `json:"error"`
	}
	AccountForeign struct {
		Grant   string `json:"grant"`
		Target  string `json:"target"`
		Account string `json:"account"`
		Backend string `json:"backend"`
		Address string `json:"address"`
		Killed  bool   `json:"killed"`
	}
	SessionOpened struct {
		Session string `json:"session"`
		Grant   string `json:"grant"`
		Target  string `json:"target"`
		Account string `json:"account"`
		Node    string `json:"node"`
		Client  string `json:"client"`
		Login   string `json:"login,omitempty"` // how the client proved who it is, as in the header
		Header  string `json:"header"`          // leaf hash of the recording's header, hex
	}
	SessionsMoved struct {
		Node     string               `json:"node"`
		Sessions []recorder.TreeState `json:"sessions"`
	}
	SessionSealed struct {
		Grant  string          `json:"grant"`
		Target string          `json:"target"`
		Sealed recorder.Sealed `json:"sealed"`
	}
	// SessionKilled says who ended a session whose grant goes on. It may come behind the session's seal.
	SessionKilled struct {
		Session string `json:"session"`
		Grant   string `json:"grant"`
		Target  string `json:"target"`
		Person  Person `json:"person"`
		Reason  string `json:"reason"`
	}
	RecordingRead struct {
		Session string `json:"session"`
		Person  Person `json:"person"`
		How     string `json:"how"` // "replay", "export"
		From    string `json:"from"`
	}
	// ReviewDue says that somebody else must look at what was done.
	ReviewDue struct {
		Review  string    `json:"review"` // id of the session, or of the break-glass grant
		Grant   string    `json:"grant"`
		Session string    `json:"session,omitempty"` // empty: all sessions of the grant
		Person  Person    `json:"person"`            // whose doing it is
		Target  string    `json:"target"`
		Due     time.Time `json:"due"`
	}
	ReviewDone struct {
		Review  string `json:"review"`
		Grant   string `json:"grant"`
		Session string `json:"session,omitempty"`
		Person  Person `json:"person"` // who looked
		OK      bool   `json:"ok"`
		Finding string `json:"finding,omitempty"`
	}
	// LinkUsed says that somebody came to a request's page by a link that was sent out, and logged in there.
	LinkUsed struct {
		Request string `json:"request"`
		Person  Person `json:"person"`
		From    string `json:"from"` // address
	}
	ClockSetBack struct {
		Node string    `json:"node"`
		Wall time.Time `json:"wall"` // what the clock says now
		High time.Time `json:"high"` // the latest time known; nothing is extended
	}
	RecorderDegraded struct {
		Node  string `json:"node"`
		Error string `json:"error"`
	}
)
