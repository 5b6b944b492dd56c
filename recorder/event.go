package recorder

import "time"

// Type says what an event tells. The strings are the on-disk values (docs/FORMAT.md).
type Type string

const (
	TypeHeader    Type = "header"    // leaf 0: who, what, under which grant
	TypeAttached  Type = "attached"  // logged in to the database: backend, server version
	TypeStatement Type = "statement" // recorded before its last byte is forwarded
	TypePart      Type = "part"      // more of a statement that did not fit one event
	TypeResult    Type = "result"    // what the database answered to a statement
	TypeCopy      Type = "copy"      // a finished bulk transfer
	TypeCancel    Type = "cancel"    // the client asked to cancel what is running
	TypeNotice    Type = "notice"    // something said to the client beside the results
	TypeBlocked   Type = "blocked"   // a statement that was recorded and refused
	TypeEnd       Type = "end"       // the last leaf of a recording that was closed in order
)

// Kind says how a statement reached the database.
type Kind string

const (
	KindSimple   Kind = "simple"   // text, run at once (PostgreSQL Query, MySQL COM_QUERY)
	KindPrepare  Kind = "prepare"  // text, parsed and named (Parse, COM_STMT_PREPARE)
	KindBind     Kind = "bind"     // parameters joined to a prepared statement (Bind)
	KindExecute  Kind = "execute"  // a prepared statement or bound portal is run (Execute, COM_STMT_EXECUTE)
	KindFunction Kind = "function" // fast-path function call (FunctionCall)
	KindCommand  Kind = "command"  // any other command the protocol has a message for (COM_INIT_DB, …)
)

// Event is one leaf of a recording and, field for field, one line of its file; docs/FORMAT.md
// gives the bytes. It is flat, and its slices may alias the caller's buffer: Record copies what it keeps.
//
// Seq, Micros and salt belong to the Writer; a producer leaves them zero. A producer numbers its
// statements itself, from 1, in ID; every other event points at a statement with Of. A part that
// carries its statement's number in ID instead is written with Of.
type Event struct {
	Seq    uint64 // position of the leaf in the recording, gap-free from 0 (the header)
	Micros int64  // microseconds since the recording began
	Type   Type

	// TypeStatement, TypePart
	ID       uint64  // number of the statement within the session
	Kind     Kind    // TypeStatement only
	Of       uint64  // the statement this one builds on (execute → bind → prepare) or that the event is about; 0 if none
	Text     []byte  // SQL text or the part of it; UTF-8, else written as base64
	Name     []byte  // prepared statement's name
	Portal   []byte  // portal's name
	Params   []Param // parameters in order
	MaxRows  uint64  // Execute's row limit, 0 = none
	Field    string  // TypePart: "text", or "param" for parameter Index
	Index    int     // TypePart: which parameter
	More     bool    // further parts of the same field follow
	Redacted int     // set by the Writer: how many secrets were cut out of Text
	Prepares []byte  // global id of the transaction that this statement prepares for two-phase commit

	// TypeResult, TypeCopy
	N            int    // index of the result within a statement that gives several
	Tag          []byte // command tag (PostgreSQL) or OK info (MySQL)
	Rows         uint64
	Bytes        uint64        // bytes of row or copy data, without framing
	Duration     time.Duration // from the statement's record to the end of the result
	FirstRow     time.Duration // to the first row; 0 if there was none
	Code         []byte        // SQLSTATE; empty on success
	Errno        uint16        // MySQL's error number beside Code
	InsertID     uint64        // MySQL: the last AUTO_INCREMENT value that was made
	Warnings     uint16        // MySQL: how many warnings the server keeps for the statement
	Message      []byte        // error or notice text; the Writer keeps the first 64 KiB
	MessageBytes uint64        // length of the whole message, where it was longer than that
	Tx           Tx            // transaction state after the result, if the protocol told
	Direction    string        // TypeCopy: "in" (client to server) or "out"
	SHA256       []byte        // TypeCopy: digest of the data, without framing

	// TypeNotice, TypeBlocked, TypeCancel, TypeEnd
	From     string // TypeNotice: "server" or "curfew"; TypeCancel: the canceller's address
	Severity []byte // TypeNotice
	Reason   string // TypeBlocked, TypeEnd: the sentence the client was shown

	Attached *Attached // TypeAttached
	Header   *Header   // TypeHeader
	End      *End      // TypeEnd
	Erased   string    // readers only: the leaf hash (hex) that stands in for an erased event
}

// What a TypePart continues.
const (
	FieldText  = "text"
	FieldParam = "param"
)

// Param is one parameter of a statement.
type Param struct {
	Name  []byte // MySQL: of a query attribute, which is sent beside the statement; empty for what a placeholder stands for
	Type  string // type name ("int4"), or "oid:N" where it has no name here
	Value []byte // text form; meaningless if Null
	Null  bool
	Hex   bool // Value is raw bytes to be written as hex, because the type's binary form is not decoded
	More  bool // the value continues in TypePart events

	Withheld bool // set by the Writer: the value was left out
}

// Tx is the transaction state after a result.
type Tx string

const (
	TxUnknown Tx = ""
	TxIdle    Tx = "idle"
	TxOpen    Tx = "open"
	TxFailed  Tx = "failed"
)

// Header opens every recording: leaf 0.
type Header struct {
	Format       int       `json:"format"` // version of docs/FORMAT.md: 1
	Session      string    `json:"session"`
	Grant        string    `json:"grant"`
	Request      string    `json:"request"`
	Installation string    `json:"installation"`
	Node         string    `json:"node"`
	Began        time.Time `json:"began"` // UTC; Micros count from here
	Identity     Person    `json:"identity"`
	Target       string    `json:"target"`
	Level        string    `json:"level"`
	Policy       string    `json:"policy"` // hash of the policy text the grant was judged by
	Engine       string    `json:"engine"` // "postgres", "mysql"
	Account      string    `json:"account"`
	Database     string    `json:"database,omitempty"`
	Client       string    `json:"client"` // address:port
	Application  string    `json:"application,omitempty"`
	TLS          string    `json:"tls,omitempty"`        // client's leg: "TLS 1.3 TLS_AES_128_GCM_SHA256"; empty = none
	Protocol     string    `json:"protocol,omitempty"`   // client's protocol version, "3.0"
	Parameters   string    `json:"parameters,omitempty"` // "types": the values of parameters are left out; else they are here
	Login        string    `json:"login,omitempty"`      // how the client proved itself: "scram-sha-256"

	Attributes map[string]string `json:"attributes,omitempty"` // what else the client said of itself at login
}

// Person is the identity behind a session; the fields of auth.Identity that a recording carries.
type Person struct {
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"`
	Email   string   `json:"email"`
	Name    string   `json:"name,omitempty"`
	Groups  []string `json:"groups,omitempty"`
	// Workload: this is a program, by a token of its CI system.
	Workload bool `json:"workload,omitempty"`
}

// Attached tells where the session landed.
type Attached struct {
	Backend string `json:"backend"`           // the server's id of the connection (pid)
	Server  string `json:"server"`            // server version
	TLS     string `json:"tls,omitempty"`     // server's leg
	Address string `json:"address,omitempty"` // server's address
}

// End closes a recording: how the session ended and what became of the statement in flight.
type End struct {
	Reason     string `json:"reason"`               // the sentence the client was shown, or what happened
	Code       string `json:"code"`                 // closed set: see EndCode constants
	InFlight   uint64 `json:"in_flight,omitempty"`  // statement id that had no result yet; 0 = none
	Fate       string `json:"fate,omitempty"`       // "none", "aborted", "committed", "unknown"
	TxID       string `json:"txid,omitempty"`       // the database's transaction id in flight
	Statements uint64 `json:"statements,omitempty"` // highest statement id
}

// How a session ends; the closed set of End.Code.
const (
	EndClient      = "client"      // the client said goodbye
	EndVanished    = "vanished"    // the client's connection broke
	EndExpired     = "expired"     // the grant's time was up
	EndRevoked     = "revoked"     // revoked by a person, the identity provider or the policy
	EndReleased    = "released"    // the holder said the task is done
	EndServer      = "server"      // the database closed the connection
	EndRecord      = "record"      // the recording could not be kept
	EndKilled      = "killed"      // ended by a person who may; the grant goes on
	EndLimit       = "limit"       // more was read than the grant allows a session
	EndIdle        = "idle"        // nothing happened for longer than the access level allows
	EndDrained     = "drained"     // this node is stopping
	EndViolation   = "violation"   // the client broke the protocol or a limit
	EndForeign     = "foreign"     // the account was used past the proxy
	EndInterrupted = "interrupted" // healed after a crash: the recording has no end of its own
	EndFailed      = "failed"      // something inside Curfew failed
)
