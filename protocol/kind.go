package protocol

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"

	"github.com/curfewdb/curfew/recorder"
)

// Kind is what there is to know of an engine before any target: how its fronts and engines are made, how
// its own client is run, and how it is tried out. An engine's package has a function Kind; nothing above
// it knows which database it is.
type Kind struct {
	Aliases []string // other schemes of its targets' URLs, beside the engine's name
	// Pinned says that a listener serves one target, because the server speaks first: what it says of
	// itself is the target's, and goes out before the client has named anybody.
	Pinned bool
	// Cleartext says that a listener can be told to ask for the grant password itself, over TLS, where
	// its clients know nothing better.
	Cleartext bool
	NewFront  func(ListenerConfig) (Front, error)
	// New makes the engine of one target. The database need not be up.
	New     func(ctx context.Context, cfg TargetConfig) (Engine, error)
	Dialect recorder.Dialect // how its SQL is written, for the recorder to find passwords in it
	Client  StockClient
	Trial   Trial
}

// ListenerConfig is one listener, whatever its engine.
type ListenerConfig struct {
	Engine     Engine      // of the target that it is pinned to; nil: it serves every target of its engine
	TLS        *tls.Config // nil: no TLS is offered
	RequireTLS bool        // refuse clients that don't use it (every listener off loopback)
	Cleartext  bool        // ask for the grant password itself, over TLS only; Kind.Cleartext
	MaxMessage int         // bytes of one message after login that are held in memory at most; 0 = default
	DecoyKey   []byte      // keeps what strangers are shown the same across restarts and nodes; nil = random
	Log        *slog.Logger
}

// TargetConfig is one target, whatever its engine.
type TargetConfig struct {
	Name         string // for logs and errors
	URL          string // engine://broker@host:port/database, without a password
	Password     string // the broker's
	Installation string
	Log          *slog.Logger
	Step         Step
}

// Credentials is what a stock client needs to connect under a grant.
type Credentials struct {
	Host     string // of Curfew's listener, never of the target
	Port     int
	User     string
	Password string
	Database string
	TLS      string // TLSOff or TLSVerify; whatever else a newer server may say is as strict as TLSVerify
	CAFile   string // PEM of the CA that vouches for the listener; empty: the system's do
}

// How a client is to use TLS, in the words of the API's sslmode.
const (
	TLSOff    = "disable"
	TLSVerify = "verify-full" // the certificate, and that it is the host's
)

// StockClient is the engine's own command line client, and what any other client is given.
type StockClient struct {
	Programs []string // looked for in PATH, in this order
	Install  string   // how one gets it
	// Run says how the program is run under a grant.
	Run func(ctx context.Context, program string, c Credentials, p Person) (Run, error)
	// Formats are the forms of credentials that Print knows; the first is the default. "json" is not
	// among them: it is everybody's.
	Formats []string
	Print   func(c Credentials, format string) string
}

// Person is what a stock client may rely on where somebody runs it.
type Person struct {
	Home string // of the person: their own settings of the client stay in force
	// Private keeps a text in a file that nobody else can read, until the client has ended.
	Private func(text string) (path string, err error)
}

// Run is how a stock client is run. Nothing secret stands in Args.
type Run struct {
	Args  []string // before the person's own
	Clear []string // variables that would lead it elsewhere, or log it in as somebody else
	Set   []string // NAME=value
}

// Environ is the environment of the client alone.
func (r Run) Environ(environ []string) []string {
	gone := map[string]bool{}
	for _, name := range r.Clear {
		gone[name] = true
	}
	for _, kv := range r.Set {
		name, _, _ := strings.Cut(kv, "=")
		gone[name] = true
	}
	var out []string
	for _, kv := range environ {
		if name, _, _ := strings.Cut(kv, "="); !gone[name] && !strings.HasPrefix(name, "CURFEW_") {
			out = append(out, kv)
		}
	}
	return append(out, r.Set...)
}

// ShellExports prints variables for a shell to evaluate; what is empty is left out.
func ShellExports(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			b.WriteString("export " + pairs[i] + "='" + strings.ReplaceAll(pairs[i+1], "'", `'\''`) + "'\n")
		}
	}
	return b.String()
}

// Trial is what curfew dev needs to guard a database of somebody's own. Its URLs may hold a password.
type Trial struct {
	Example string // URL of a server on this machine, as an administrator
	Port    int    // where curfew dev listens for it; further listeners take the next ones that are free
	// Admin says whether the URL's login is an administrator: one that can run the setup, and must not be
	// the broker.
	Admin func(ctx context.Context, rawURL string) (bool, error)
	// Starter is the SQL for what two group roles may do in the URL's database, beside Engine.Setup.
	Starter func(rawURL, reader, writer string) (string, error)
	// Apply runs setup SQL as the URL's login and gives the broker its password.
	Apply func(ctx context.Context, rawURL, sql, broker, password string) error
	// BrokerURL is the URL of the same server and database for the broker, without a password.
	BrokerURL func(rawURL, broker string) (string, error)
}
