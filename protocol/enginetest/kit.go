package enginetest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"log/slog"
	"net"

	"github.com/curfewdb/curfew/protocol"
)

// Kit is what an engine brings to be tested.
type Kit struct {
	// Start starts a real server and does the DBA's part on it; see the package comment.
	Start func(ctx context.Context) (Server, error)
	// Engine makes an engine for that server.
	Engine func(ctx context.Context, c Config) (protocol.Engine, error)
	// Front makes a listener's side for that engine, without TLS.
	Front func(e protocol.Engine, log *slog.Logger) protocol.Front
	// Level is a writer's access level.
	Level protocol.Level
	// Connect is how a stock driver of the language logs in over a connection that dial makes.
	Connect func(dial Dial, user, password, database string) (driver.Connector, error)
	// Bulk has the driver load rows of one column into the table marks from data, one a line; mark stands
	// in a comment of the statement.
	Bulk func(ctx context.Context, c *sql.Conn, mark string, data io.Reader) error
	// Cancellable opens a connection together with a stock client's way to cancel what runs on it.
	Cancellable func(ctx context.Context, dial Dial, user, password, database string) (Cancellable, error)

	DBA      Login // may do everything
	App      Login // an application: works on marks
	Stranger Login // may log in, and no more

	Dialect Dialect
}

// Config is what an engine is made with.
type Config struct {
	URL          string // Server.Broker's, or the same with another host and port
	Installation string
	Step         protocol.Step
	Log          *slog.Logger
}

// Dial makes a connection; a driver calls it instead of dialling for itself.
type Dial func(ctx context.Context) (net.Conn, error)

// Server is a real one.
type Server interface {
	Broker() string // the target's URL for Config, with host and port in the usual place
	Kill() error    // as a crash would
	Restart() error // on the same data and port
	Stop() error
}

// Login is a name and a password in the database itself.
type Login struct{ User, Password string }

// Cancellable is a connection and its cancel.
type Cancellable struct {
	DB *sql.DB // holds that one connection
	// Cancel cancels what runs on it as a stock client does.
	Cancel func(ctx context.Context) error
	// Forge tries the same without the right to, from a connection of another grant where that matters; it
	// gives nil when the attempt was made, whatever was answered.
	Forge func(ctx context.Context, user, password string) error
}

// Dialect is the database's own SQL for what the suite does and asks.
type Dialect struct {
	Database string // where the suite's tables are

	Placeholder     func(n int) string                               // parameter n, from 1
	Sleep           func(mark string, seconds int) string            // a SELECT that takes that long; mark stands in its text
	InsertThenSleep func(mark string, seconds int) string            // inserts mark into marks and is that long about it
	SetPassword     func(account, password string) string            // the account changes its own
	Become          []string                                         // acts under another role, or in another database, from there on
	Prepare         func(gid string, work string) []string           // does work in a transaction and prepares it for two-phase commit
	RollBack        func(gid string) string                          // the DBA ends a prepared transaction
	Leave           func(account, name string) Leaving               // leaves something behind for every step of cleaning
	Leftovers       []Leftover                                       // each kind of thing that alerts
	Sessions        func(account string) string                      // question: how many backends it has
	Running         func(account, text string) string                // question: how many of them run a statement with that text in it
	Written         func(account string) string                      // question: how many of them are amid InsertThenSleep and have written
	Accounts        func(prefix string) string                       // question: how many accounts' names begin so
	Prepared        func(context.Context, *sql.DB) ([]string, error) // the global ids that are prepared, as Prepare was given them

	Dialogue []Line // run direct and through Curfew; what is seen and what is recorded must be as expected

	// Owns says that tables belong to who made them, so that they are residue.
	Owns bool
	// Deaf names states in which the stock driver does not read what the server says unasked, so that the
	// sentence at the end of a grant can't be asked for: "transaction", "become", "bulk".
	Deaf []string
	// LastWords says whether the server tells how a statement ended whose backend was terminated, so that it
	// can be on record.
	LastWords bool
	// Fates says whether the server can tell what became of a transaction after its backend is gone.
	Fates bool
}

// Leaving is how to leave something behind.
type Leaving struct {
	Own  []string // run by the account
	DBA  []string // run by the DBA beside it
	Undo []string // run by the DBA when all is over
}

// Leftover is one thing that an account leaves behind and that could do harm.
type Leftover struct {
	Name   string
	Make   []string // run by the account
	Object string   // what stands in Residue.Object
	Kind   string   // Residue.Kind
	Alert  bool
	Closed []string // what the stranger can't do afterwards
	Open   []string // what the application can still do afterwards
	Undo   []string // run by the DBA when all is over, or twice
	// Stays says that the engine leaves it where it is, and the account locked, and says so by Clean's error
	// until a DBA has run Undo.
	Stays bool
}

// Line is one exchange of the dialogue.
type Line struct {
	SQL     string
	Args    []any
	Exec    bool   // ask for affected rows instead of rows
	Records string // what is on record, as show (sink.go) writes it, with "; " between
}
