// Package protocol is the contract between Curfew and a database engine: what database/sql/driver is
// to database/sql. It holds no wire code. An engine (protocol/postgres, protocol/mysql) gives a
// Front for each listener and an Engine for each target; package proxy strings them together.
//
// What a caller may rely on: nothing from a client reaches a database before Client.Attach; no
// statement reaches it before Sink.Record returned nil; after Account.Cut returned nil no backend of
// the account exists and none can log in; Account.Clean is safe to repeat until it succeeds.
// Whatever a method does to a database it does on its own connections, never on a client's.
package protocol

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

// ErrHandled is returned by Front.Accept when the connection had a purpose of its own that is done
// (a CancelRequest); nothing is wrong and nothing is left to do but close it.
var ErrHandled = errors.New("connection handled")

// Front is one listener's side of an engine.
type Front interface {
	// Accept speaks TLS, startup and proof of identity with a stranger, until ctx ends. It has not
	// told the client that it is in: Client.Attach does, or Client.Close says why not.
	// On error it has already told the client, in its protocol, and the caller closes conn.
	Accept(ctx context.Context, conn net.Conn, d Doorman) (Client, error)
}

// Doorman is asked in mid-handshake who a user is. It never hands out a secret.
type Doorman interface {
	// Verifier gives what Engine.Enrol made for this user's password, or nil when nobody has that
	// name: the Front then goes on with a decoy, so that a stranger can't tell the two apart.
	Verifier(ctx context.Context, user string) ([]byte, error)
	// Token gives the grant that a token stands for which was shown at the wire instead of a password: the
	// name that Verifier's users have. Its errors are Refusals.
	Token(ctx context.Context, t TokenLogin) (grant string, err error)
	// Offer says where clients get such tokens; false: none are taken here, whoever shows them.
	Offer() (Offer, bool)
}

// Login is what a client said of itself, proven as far as Mechanism goes.
type Login struct {
	User        string // the grant's id: the user name at the wire, or what a token stood for
	Mechanism   string // "scram-sha-256", "scram-sha-256-plus", …, or by a token Mechanism constants
	Database    string
	Application string
	Address     string // client's address:port
	TLS         string // "TLS 1.3 TLS_AES_128_GCM_SHA256", empty without
	Protocol    string // "3.0"
	// Attributes is what else the client said of itself at login (MySQL's connection attributes).
	Attributes map[string]string
}

// How a token came.
const (
	MechanismOAuth  = "oauthbearer"    // PostgreSQL's OAUTHBEARER (RFC 7628)
	MechanismOpenID = "openid_connect" // MySQL's authentication_openid_connect_client
	MechanismToken  = "token"          // as a password in clear, inside TLS
)

// Client is one accepted connection.
type Client interface {
	Login() Login
	// Attach logs in upstream as a, tells the client that it is in, and joins the two.
	Attach(ctx context.Context, a Account) (Link, error)
	// Close says why in the client's own protocol (nil: nothing to say) and hangs up. Idempotent.
	Close(why error)
}

// Link is a client joined to a database session.
type Link interface {
	// Relay runs until either side ends, the sink fails or ctx ends; then forwarding has stopped and
	// the client has been told context.Cause(ctx) or the Refusal that ended it. A nil error means that
	// the client said goodbye; an *EndError says who else ended it.
	Relay(ctx context.Context, sink Sink) error
	// Notify shows the client a notice at the next message boundary, if its protocol has a place for one.
	Notify(text string)
	// Usage says what the session has moved so far. It costs next to nothing and never waits.
	Usage() Usage
	// Kill terminates this session's backend in the database and reads the server's side to its end.
	// It is called for every end but the client's own goodbye.
	Kill(ctx context.Context) (Outcome, error)
}

// Usage is what a session has moved so far.
type Usage struct {
	FromClient, FromServer uint64 // bytes, of the protocol as it is spoken inside TLS
	InFlight               bool   // a request waits for its answer, or for the rest of it
}

// Sink keeps events. An error means: not kept, so don't let it happen.
type Sink interface {
	Record(events ...recorder.Event) error
}

// Limiter is what a Sink is beside when its session may not read as much as it likes.
type Limiter interface {
	// Read is told what the server has sent so far, before the last of it reaches the client: rows, and bytes of
	// the protocol as it is spoken inside TLS. With an error none of it does, and the session ends.
	Read(rows, bytes uint64) error
}

// Waiter is what a Sink is beside when its Record waits for a disk each time, by design and not because
// something is wrong. What stands between such a Sink and a Link passes that on.
type Waiter interface {
	Waits() bool
}

// Engine guards one target.
type Engine interface {
	// Enrol makes the verifiers that this engine's logins need for a password.
	Enrol(password string) ([]byte, error)
	// Check says in plain words what the broker lacks on the target for these levels.
	Check(ctx context.Context, levels []Level) ([]Finding, error)
	// Setup prints the SQL that gives the broker what Check looks for.
	Setup(levels []Level) string
	// Provision creates the account, or adopts it after a crash: kills its backends, sets a new secret,
	// keeps what it owns. The caller has made the intent durable before.
	Provision(ctx context.Context, spec AccountSpec) (Account, error)
	// Recall gives the account of an earlier intent for ending only: nothing is created or changed.
	Recall(spec AccountSpec) Account
	// Sweep looks for accounts of this installation that live does not know and ends them; any other
	// curfew_* account is reported, never touched.
	Sweep(ctx context.Context, live func(account string) bool) ([]Finding, error)
	// Watch kills backends of live accounts that are not Curfew's own sessions, and reports them.
	Watch(ctx context.Context) ([]Foreign, error)
	Close()
}

// Level is what an account may do on a target: an access level of the policy, in an engine's words.
type Level struct {
	Name                 string
	Roles                []string // group roles in the database
	SetRole              bool     // may SET ROLE to them
	PreparedTransactions bool     // may PREPARE TRANSACTION (XA)
	LocalInfile          bool     // the server may ask the client for files (LOAD DATA LOCAL)
	Sessions             int      // connection limit of the account
}

// AccountSpec says which account to make.
type AccountSpec struct {
	Installation string
	Grant        string
	Name         string // curfew_<installation>_<grant>, at most 32 bytes
	Requester    string // e-mail, for the DBA who reads pg_roles
	End          time.Time
	// Longer is by how much End may be moved at one time (Extend): what the database itself does to sessions
	// that go on, should Curfew never come back, it does so much after End, for they can't be told.
	Longer time.Duration
	Level  Level
	// Prepared lists the global ids this grant's recordings show as prepared, for Clean after a crash.
	Prepared []string
}

// Account is the database account of one grant.
type Account interface {
	Name() string
	// Extend moves what the database itself does at the account's end to a later one. Sessions go on.
	Extend(ctx context.Context, end time.Time) error
	// Cut locks the account (in its own commit), terminates its backends until none is left, and learns
	// what became of what they were doing. Safe to repeat.
	Cut(ctx context.Context) (Cut, error)
	// Clean rolls back what the account prepared, notes and quarantines what it leaves, drops it and
	// proves that by a query. Safe to repeat; before a nil error the account may still exist, locked.
	Clean(ctx context.Context) (Clean, error)
}

// Outcome is what became of a session's backend.
type Outcome struct {
	Backend  string `json:"backend"`             // the server's id of the connection
	InFlight uint64 `json:"in_flight,omitempty"` // statement id without a result; 0 = none
	TxID     string `json:"txid,omitempty"`      // transaction id in flight; empty = it had written nothing
	Fate     string `json:"fate"`                // Fate constants
	Foreign  bool   `json:"foreign,omitempty"`   // not one of Curfew's own sessions
}

// What became of a transaction in flight.
const (
	FateNone      = "none"      // nothing was in flight, or it had written nothing
	FateAborted   = "aborted"   // the database says it was rolled back
	FateCommitted = "committed" // it was committed before the cut
	FateUnknown   = "unknown"   // the database could not be asked
)

// Cut is the first part of a receipt.
type Cut struct {
	LockedAt time.Time `json:"locked_at"`
	GoneAt   time.Time `json:"gone_at"` // when no backend was left
	Outcomes []Outcome `json:"outcomes,omitempty"`
	Left     int       `json:"left"` // backends left: 0
}

// Clean is the second part of a receipt.
type Clean struct {
	RolledBack []string  `json:"rolled_back,omitempty"` // prepared transactions
	Residue    []Residue `json:"residue,omitempty"`
	DroppedAt  time.Time `json:"dropped_at"`
	Proof      string    `json:"proof"` // the post-condition query and its answer
}

// Residue is one thing a person left behind in the database.
type Residue struct {
	Database string `json:"database"`
	Kind     string `json:"kind"`            // "table", "view", "function", "grant", "default privileges", …
	Object   string `json:"object"`          // the database's own description
	Owner    string `json:"owner"`           // the account, or the group that owns it after SET ROLE
	Action   string `json:"action"`          // "quarantined", "reported", "revoked"
	Alert    bool   `json:"alert,omitempty"` // definer function, view or trigger: may show what a stranger may not see
	// Shared names other accounts that held the owning group at that time: it may be theirs.
	Shared []string `json:"shared,omitempty"`
}

// Foreign is a backend of a live account that is not one of Curfew's sessions.
type Foreign struct {
	Account string
	Backend string
	Address string // where it came from
	Killed  bool
}

// Finding is one thing that is not as it should be on a target.
type Finding struct {
	Severity string `json:"severity"` // "error": Curfew can't keep its promises; "warning"; "note"
	What     string `json:"what"`     // in plain words
	Fix      string `json:"fix"`      // what to do, or the SQL that does it
}

// Refusal is the only kind of error that a client's eyes see; everything else reads "internal error"
// there and stands whole in the log.
type Refusal struct {
	Code   string // closed set: a recorder.End* constant, or RefuseLogin etc. below
	Public string // what happened and what to do next, one sentence or two
	Err    error  // wrapped cause, for the log
}

// Refusals before a session exists.
const (
	RefuseLogin       = "login"       // wrong password, unknown user: never says which
	RefuseToken       = "token"       // a token that proves nothing here, or not who was named
	RefuseNoGrant     = "no_grant"    // no active grant
	RefuseTLS         = "tls"         // TLS is required
	RefuseUnsupported = "unsupported" // replication, an old protocol
	RefuseLimit       = "limit"       // too many sessions
	RefuseUnavailable = "unavailable" // target, store or recorder can't be reached
)

func (r *Refusal) Error() string {
	if r.Err != nil {
		return r.Public + ": " + r.Err.Error()
	}
	return r.Public
}

func (r *Refusal) Unwrap() error { return r.Err }

// EndError is how Relay tells who ended a session other than by the client's goodbye or ctx.
type EndError struct {
	Code string // recorder.EndVanished, EndServer, EndRecord or EndViolation
	Err  error
}

func (e *EndError) Error() string { return e.Code + ": " + e.Err.Error() }
func (e *EndError) Unwrap() error { return e.Err }

// Step is a seam for tests: engines and the proxy call it, when it is set, right after each step that
// leaves something behind, with the step's name. An error makes that step fail; a test may also end
// the process there. Steps are listed in docs/ARCHITECTURE.md.
type Step func(name string) error

// Do runs the hook, if there is one.
func (s Step) Do(name string) error {
	if s == nil {
		return nil
	}
	return s(name)
}
