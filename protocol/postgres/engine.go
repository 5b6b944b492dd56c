package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/curfewdb/curfew/protocol"
)

// Config is one target, as the configuration names it.
type Config struct {
	Target       string // name, for logs and errors
	URL          string // postgres://broker@host:port/database?sslmode=…, without a password; sslmode defaults to verify-full
	Password     string // the broker's
	Installation string
	Log          *slog.Logger
	Step         protocol.Step
}

// FrontConfig is one listener.
type FrontConfig struct {
	TLS        *tls.Config // nil: no TLS is offered
	RequireTLS bool        // refuse clients that don't use it (every listener off loopback)
	Cleartext  bool        // over TLS ask for the grant password itself, for drivers without SCRAM
	MaxMessage int         // bytes of one message after login that are held in memory at most; 0 = default
	DecoyKey   []byte      // keeps the verifiers made up for unknown users the same across restarts and nodes; nil = random
	Log        *slog.Logger
}

// Engine guards one PostgreSQL server.
type Engine struct {
	cfg  Config
	conn *pgconn.Config // where the server is and how TLS is spoken to it: sessions are dialled by this, too

	broker  *pgx.ConnConfig // the broker's own login
	pool    *pgxpool.Pool   // for what may wait: provisioning, cleaning
	spares  spares          // the same in other databases than the broker's own
	closing *line           // for what may not: cutting, killing, watching

	probing  sync.Mutex        // held while the dead man's settings are probed; guards settings
	settings map[string]string // which of them this server has; nil: not asked yet

	mu       sync.Mutex // guards accounts
	accounts map[string]*account
}

var _ protocol.Engine = (*Engine)(nil)

// New makes the engine of one target. The database need not be up: connections are made when they are
// needed, and the one that is kept open for closing is made, and made again, in the background until
// Close or the end of ctx.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("target", cfg.Target)
	dsn, query, err := targetURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", cfg.Target, err)
	}
	pc, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", cfg.Target, err)
	}
	readAgain(query, &pc.ConnConfig.Config)
	if cfg.Password != "" {
		pc.ConnConfig.Password = cfg.Password
	}
	if pc.ConnConfig.ConnectTimeout == 0 {
		pc.ConnConfig.ConnectTimeout = dialTimeout
	}
	e := &Engine{cfg: cfg, conn: pc.ConnConfig.Config.Copy(), accounts: map[string]*account{}}
	// Whatever people plant in a schema, the broker's own queries must not find it.
	pc.ConnConfig.RuntimeParams["search_path"] = "pg_catalog, pg_temp"
	// Its questions are few and always the same, and to plan one takes longer than to answer it.
	pc.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	pc.ConnConfig.RuntimeParams["application_name"] = "curfew " + cfg.Installation
	pc.MaxConns, pc.MinConns, pc.MinIdleConns = poolConns, 0, 0
	pc.MaxConnIdleTime = poolIdle
	// One that was broken meanwhile, by a restart or without a word, is found before it is used.
	pc.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	pc.PingTimeout = pingTimeout
	e.broker = pc.ConnConfig.Copy()
	e.pool, err = pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", cfg.Target, err)
	}
	e.closing = newLine(ctx, e.broker, cfg.Log)
	return e, nil
}

// targetURL checks what a target's URL must be and sets verify-full where it is silent about TLS, and the
// newest protocol where it is silent about that.
func targetURL(raw string) (string, url.Values, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", nil, errors.New("url: not a URL") // the parser's own words would show it, and a password in it
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", nil, errors.New("url: must begin with postgres://")
	}
	q, err := url.ParseQuery(strings.ReplaceAll(u.RawQuery, "+", "%2B")) // a plus is a plus, as for libpq
	if err != nil {
		return "", nil, errors.New("url: its parameters can't be read")
	}
	if _, has := u.User.Password(); has || q.Has("password") {
		return "", nil, errors.New("url: holds a password; name it by reference in password: instead")
	}
	if u.User.Username() == "" && !q.Has("user") {
		return "", nil, errors.New("url: names no user; it is the broker, e.g. postgres://curfew_broker@…")
	}
	if !q.Has("sslmode") {
		q.Set("sslmode", "verify-full")
	}
	if !q.Has("max_protocol_version") {
		q.Set("max_protocol_version", "latest")
	}
	if err := checkFiles(q); err != nil {
		return "", nil, err
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String(), q, nil
}

// Close ends the broker's connections. Accounts are left as they are.
func (e *Engine) Close() {
	e.closing.close()
	e.spares.close()
	e.pool.Close()
}

// Enrol makes the verifier by which a stock client proves the grant password: SCRAM-SHA-256 as
// PostgreSQL itself stores it, "SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>". 4096 iterations,
// because clients (pgjdbc) refuse fewer.
func (e *Engine) Enrol(password string) ([]byte, error) {
	v, err := scramVerifier(password, clientIterations)
	return []byte(v), err
}

// Recall gives the account of an earlier intent for ending only: nothing is created or changed. If this
// engine has provisioned it, it is that very account, which knows its sessions.
func (e *Engine) Recall(spec protocol.AccountSpec) protocol.Account {
	e.mu.Lock()
	defer e.mu.Unlock()
	if a := e.accounts[spec.Name]; a != nil {
		a.Learn(spec.Prepared)
		return a
	}
	a := newAccount(e, spec)
	e.accounts[spec.Name] = a
	return a
}

// forget lets go of an account that is gone from the server.
func (e *Engine) forget(a *account) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.accounts[a.spec.Name] == a {
		delete(e.accounts, a.spec.Name)
	}
}

// in runs f on a broker connection to a database: a pooled one in the broker's own, a spare one elsewhere.
func (e *Engine) in(ctx context.Context, database string, f func(context.Context, *pgx.Conn) error) error {
	if database == e.broker.Database {
		c, err := e.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release()
		err = f(ctx, c.Conn())
		if errors.Is(err, errStandby) || is(err, "25006") {
			e.pool.Reset() // after a failover: dial again, the writer may be found
		}
		return err
	}
	s, err := e.spares.take(ctx, e.broker, database)
	if err != nil {
		return fmt.Errorf("database %s: %w", database, err)
	}
	defer e.spares.give(ctx, s)
	return f(ctx, s.conn)
}

// here runs f in the broker's own database.
func (e *Engine) here(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	return e.in(ctx, e.broker.Database, f)
}

// major is the server's version as the connection heard it at login: 15, 17, …
func major(c *pgx.Conn) int {
	n := 0
	for _, r := range c.PgConn().ParameterStatus("server_version") {
		if r < '0' || r > '9' {
			break
		}
		n = n*10 + int(r-'0')
	}
	return n
}

// errStandby says that the connection landed on a server that can't make or end accounts.
var errStandby = errors.New("the server is a read-only standby; accounts are made and ended on the primary")

// writable is nil when c may write.
func writable(c *pgx.Conn) error {
	if c.PgConn().ParameterStatus("in_hot_standby") == "on" {
		return errStandby
	}
	return nil
}

// is reports whether err came from the server with one of these SQLSTATEs.
func is(err error, codes ...string) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	return strings.Contains(" "+strings.Join(codes, " ")+" ", " "+pe.Code+" ")
}
