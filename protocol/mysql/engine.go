package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	driver "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol"
)

// Config is one target, as the configuration names it.
type Config struct {
	Target       string // name, for logs and errors
	URL          string // mysql://broker@host:port/database?sslmode=…, without a password; parseTarget says what may stand in it
	Password     string // the broker's
	Installation string
	Log          *slog.Logger
	Step         protocol.Step
}

// Engine guards one MariaDB or MySQL server.
type Engine struct {
	cfg    Config
	target *target
	prober *prober // knows which of the two it is

	pool    *sql.DB // for what may wait: provisioning, cleaning
	closing *line   // for what may not: cutting, killing, watching

	mu       sync.Mutex // guards what follows
	accounts map[string]*account
	host     string // the host part of accounts; empty: not asked yet
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
	t, err := parseTarget(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", cfg.Target, err)
	}
	e := &Engine{cfg: cfg, target: t, prober: newProber(t), accounts: map[string]*account{}, host: t.accountHost}
	e.pool, err = openBroker(t, cfg.Password, "")
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", cfg.Target, err)
	}
	e.pool.SetMaxOpenConns(poolConns)
	e.pool.SetMaxIdleConns(poolConns)
	e.pool.SetConnMaxIdleTime(poolIdle)
	// A lock that somebody holds on the server's own tables must not hold up a cut (cut.go).
	closing, err := openBroker(t, cfg.Password, "1")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("target %s: %w", cfg.Target, err), e.pool.Close())
	}
	closing.SetMaxOpenConns(1)
	e.closing = newLine(ctx, closing, e.prober, cfg.Log)
	return e, nil
}

// Close ends the broker's connections. Accounts are left as they are.
func (e *Engine) Close() {
	e.closing.close()
	_ = e.pool.Close() // nothing is lost with it
}

// Enrol makes the verifiers by which a stock client proves the grant password, whichever plugin it uses.
func (e *Engine) Enrol(password string) ([]byte, error) { return enrol(password), nil }

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

// here runs f on a pooled broker connection.
func (e *Engine) here(ctx context.Context, f func(context.Context, *conn) error) error {
	s, err := e.prober.server(ctx)
	if err != nil {
		return err
	}
	c, err := e.pooled(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, &conn{Conn: c, server: s})
}

// pooled gives a connection that answers: a firewall may have dropped one that nobody used for a while, without a
// word to either side.
func (e *Engine) pooled(ctx context.Context) (*sql.Conn, error) {
	for tried := false; ; tried = true {
		c, err := e.pool.Conn(ctx)
		if err != nil {
			return nil, err
		}
		ping, cancel := context.WithTimeout(ctx, pingTimeout)
		err = c.PingContext(ping)
		cancel()
		if err == nil {
			return c, nil
		}
		(&conn{Conn: c}).discard()
		if ctx.Err() != nil || tried { // not even a new one answers
			return nil, err
		}
		e.pool.SetMaxIdleConns(0) // the others will be no better
		e.pool.SetMaxIdleConns(poolConns)
	}
}

// apart runs f on a broker connection of its own, whose settings f may change.
func (e *Engine) apart(ctx context.Context, f func(context.Context, *conn) error) error {
	return e.here(ctx, func(ctx context.Context, c *conn) error {
		defer c.discard()
		return f(ctx, c)
	})
}

// accountHost is the host part of the accounts that are made: whatever the server sees the broker come
// from, unless the target's URL says otherwise. Never '%' by itself: an account is of no use elsewhere.
func (e *Engine) accountHost(ctx context.Context, c *conn) (string, error) {
	e.mu.Lock()
	host := e.host
	e.mu.Unlock()
	if host != "" {
		return host, nil
	}
	var whole string
	if err := c.QueryRowContext(ctx, "SELECT USER()").Scan(&whole); err != nil {
		return "", err
	}
	host = whole[strings.LastIndexByte(whole, '@')+1:]
	if host == "" || strings.ContainsAny(host, "%_") {
		return "", fmt.Errorf("the server sees the broker as %q, which makes no host for an account; set account_host in the target's url", whole)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.host = host
	return host, nil
}

// errReadOnly says that the connection landed on a server that can't make or end accounts.
var errReadOnly = errors.New("the server is read-only; accounts are made and ended on the primary")

// writable is nil when accounts can be made and ended here. MySQL lets the broker write on a replica, because
// CONNECTION_ADMIN does; what it wrote there would be missing on the primary.
func writable(ctx context.Context, c *conn) error {
	if c.server.mariadb {
		return nil // it refuses by itself
	}
	var readOnly bool
	if err := c.QueryRowContext(ctx, "SELECT @@global.read_only").Scan(&readOnly); err != nil {
		return err
	}
	if readOnly {
		return errReadOnly
	}
	return nil
}

// is reports whether err came from the server with one of these numbers.
func is(err error, codes ...uint16) bool {
	var said *driver.MySQLError
	if errors.As(err, &said) {
		return slices.Contains(codes, said.Number)
	}
	var own *serverError
	return errors.As(err, &own) && slices.Contains(codes, own.code)
}
