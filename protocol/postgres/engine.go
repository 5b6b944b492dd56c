package postgres

import (
	"crypto/tls"
	"log/slog"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// Config is one target, as the configuration names it.
type Config struct {
	Target       string // name, for logs and errors
	URL          string // postgres://broker@host:port/database?sslmode=…, without a password
	Password     string // the broker's
	Installation string
	Log          *slog.Logger
	Step         protocol.Step
}

// FrontConfig is one listener.
type FrontConfig struct {
	TLS        *tls.Config // nil: no TLS is offered
	RequireTLS bool        // refuse clients that don't use it (every listener off loopback)
	MaxMessage int         // bytes of one message after login that are held in memory at most; 0 = default
	Log        *slog.Logger
}

// Engine guards one PostgreSQL server.
type Engine struct {
	cfg Config

	mu       sync.Mutex // guards accounts
	accounts map[string]*account
}

// account is one grant's role on this server.
type account struct {
	engine *Engine
	spec   protocol.AccountSpec
	secret string // the role's password, 256 random bits as text; "" for one that was only recalled

	mu       sync.Mutex // guards what follows; held across the kill of backends, so that each has one outcome
	links    map[*link]struct{}
	outcomes map[uint32]protocol.Outcome // by backend pid
	cutAt    time.Time
}
