// Package proxy is where a stranger's connection becomes a session under a grant, and where a grant's
// life on this node ends in the database.
//
// What may be relied on: nothing of a client reaches a database without a held grant and an open
// recording (session.go); every grant that got an account here is closed by the same sequence, however
// it ends: forwarding stops and the client is told, the account is locked and its backends terminated,
// the receipt's first part is written, the account is cleaned and dropped, the second part is written
// (tenure.go); what a crash left behind is taken up again at start, and looked for every minute
// (sweep.go). Cleanup never runs on the context that just ended, and no recorder, disk or loop that
// hangs delays a cut.
//
// The package knows no database and no desk: engines come by package protocol, and what it consumes of
// the rest of Curfew is declared below.
package proxy

import (
	"context"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// Grants is the desk, as a session sees it. Errors that a client may read are *protocol.Refusal.
type Grants interface {
	// Find gives the active grant that a wire user name stands for.
	Find(ctx context.Context, user string) (policy.Grant, error)
	// Hold gives a context that ends the instant the grant does, or ctx does; its cause is a
	// *protocol.Refusal whose Code says why. The func gives the hold back.
	Hold(ctx context.Context, grant string) (context.Context, func(), error)
	// Recall gives a grant by id whether it is over or not.
	Recall(ctx context.Context, grant string) (policy.Grant, error)
	// End ends a grant for a reason that the proxy has found.
	End(ctx context.Context, grant, code, reason string) error
}

// Recordings opens recordings.
type Recordings interface {
	Create(h recorder.Header) (Recording, error)
	// Prepares lists the global transaction ids that the session's statements prepared.
	Prepares(session string) ([]string, error)
}

// Recording is one open recording.
type Recording interface {
	protocol.Sink
	HeaderHash() string
	Seal(e recorder.End) (recorder.Sealed, error)
	// Discard takes it back: of a session that was refused before it was on the ledger.
	Discard() error
	// Lost is closed once nothing more can be kept: the recording broke, or its disk hangs. nil: never.
	Lost() <-chan struct{}
}

// Sessions is the journal of sessions. Each call is durable, and on the ledger, when it returns nil.
type Sessions interface {
	Opened(ctx context.Context, e ledger.SessionOpened) error
	Sealed(ctx context.Context, e ledger.SessionSealed) error
	// OfGrant lists the ids of the grant's sessions, on every node.
	OfGrant(ctx context.Context, grant string) ([]string, error)
}

// Accounts is the journal of accounts: intents before anything exists, receipts after it is gone.
type Accounts interface {
	Intend(ctx context.Context, e ledger.AccountIntended) error
	Intended(ctx context.Context) ([]Intent, error)
	Receipts
}

// Intent is an account that may exist: one without the second part of its receipt.
type Intent struct {
	ledger.AccountIntended
	Cut bool // the first part is written
}

// Receipts keeps what happened to an account at and after its grant's end.
type Receipts interface {
	Cut(ctx context.Context, e ledger.AccountCut) error
	Cleaned(ctx context.Context, e ledger.AccountCleaned) error
	StillOpen(ctx context.Context, e ledger.AccountOpen) error  // an alert
	Foreign(ctx context.Context, e ledger.AccountForeign) error // an alert
}
