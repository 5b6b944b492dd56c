package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/protocol"
)

const (
	nameMost        = 32 // bytes, so that an account's name fits every engine
	defaultSessions = 10
	deadManWaits    = 30 * time.Second
	versionSetFalse = 16 // the first that can give a group's rights without SET ROLE
)

// Provision creates the account in one transaction, or adopts it after a crash: kills its backends,
// sets a new secret, keeps what it owns. The caller has made the intent durable before.
func (e *Engine) Provision(ctx context.Context, spec protocol.AccountSpec) (protocol.Account, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	a := newAccount(e, spec)
	a.secret = newSecret()
	verifier, err := scramVerifier(a.secret, accountIterations)
	if err != nil {
		return nil, err
	}
	if before := e.register(a); before != nil {
		before.Shut()
		a.Learn(before.Prepared())
	}
	v := vars{
		"account":  spec.Name,
		"verifier": verifier,
		"end":      validUntil(spec.End),
		"sessions": strconv.Itoa(sessions(spec.Level)),
	}
	err = e.here(ctx, func(ctx context.Context, c *pgx.Conn) error { return a.provision(ctx, c, v) })
	if err != nil {
		a.Shut()
		return nil, e.refusal(fmt.Errorf("provision %s: %w", spec.Name, err))
	}
	return a, nil
}

// refusal says to a person why their account could not be made, where there is more to say than that.
func (e *Engine) refusal(err error) error {
	const next = "; try again later or tell your Curfew administrator"
	why := ""
	switch {
	case errors.Is(err, errStandby) || is(err, "25006"):
		why = fmt.Sprintf("the database %s is read-only at the moment, as a standby is, so your account can't be made there", e.cfg.Target) + next
	case is(err, "53300"):
		why = fmt.Sprintf("the database %s has no connection left for making your account", e.cfg.Target) + next
	case is(err, "42501", "28000", "28P01"):
		why = fmt.Sprintf("Curfew lacks a right that it needs to make your account on %s; tell your Curfew administrator: `curfew check` says which", e.cfg.Target)
	case unreachable(err):
		why = fmt.Sprintf("the database %s can't be reached at the moment", e.cfg.Target) + next
	default:
		return err
	}
	return &protocol.Refusal{Code: protocol.RefuseUnavailable, Public: why, Err: err}
}

// unreachable says whether err is about the way to the server, or the server comes up or goes down.
func unreachable(err error) bool {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return strings.HasPrefix(said.Code, "57P")
	}
	var dial *pgconn.ConnectError
	var network net.Error // an exceeded deadline is one, too
	return errors.As(err, &dial) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// checkSpec refuses what would make a wrong account rather than none.
func checkSpec(spec protocol.AccountSpec) error {
	switch {
	case !strings.HasPrefix(spec.Name, namePrefix) || spec.Name == quarantine || len(spec.Name) > nameMost:
		return fmt.Errorf("account name %q: must begin with %s and have at most %d bytes", spec.Name, namePrefix, nameMost)
	case len(spec.Level.Roles) == 0:
		return fmt.Errorf("account %s: its level %q names no group role", spec.Name, spec.Level.Name)
	case slices.Contains(spec.Level.Roles, quarantine):
		return fmt.Errorf("account %s: %s is no group for people", spec.Name, quarantine)
	case spec.End.IsZero():
		return fmt.Errorf("account %s: has no end", spec.Name)
	}
	return nil
}

func sessions(l protocol.Level) int {
	if l.Sessions > 0 {
		return l.Sessions
	}
	return defaultSessions
}

// register makes a the account of its name, before it is there, so that Watch and Sweep know it.
func (e *Engine) register(a *account) (before *account) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before = e.accounts[a.spec.Name]
	e.accounts[a.spec.Name] = a
	return before
}

// provision creates or adopts on one connection. The transaction that creates has begun when it is known that
// there is something to create: so its id is known, too, and the rest is one message.
func (a *account) provision(ctx context.Context, c *pgx.Conn, v vars) error {
	if err := writable(c); err != nil {
		return err
	}
	settings, err := a.engine.deadMan(ctx, c)
	if err != nil {
		return err
	}
	var r row
	var since int64
	var none bool // an error of the batch would have its statements prepared anew each time
	var begin pgx.Batch
	begin.Queue("BEGIN")
	begin.Queue("SELECT pg_current_xact_id()::text::bigint").QueryRow(func(from pgx.Row) error { return from.Scan(&since) })
	begin.Queue(query("account"), a.spec.Name).QueryRow(func(from pgx.Row) (err error) {
		if r, err = scanRow(from); errors.Is(err, errNoRole) {
			none, err = true, nil
		}
		return err
	})
	err = c.SendBatch(ctx, &begin).Close()
	switch {
	case err == nil && none:
		return a.create(ctx, c, v, settings, since)
	case err == nil:
		_, err = c.Exec(ctx, "ROLLBACK")
	}
	switch {
	case err != nil:
		return err
	case r.note.Installation != "" && r.note.Installation != a.spec.Installation, r.note.Grant != "" && r.note.Grant != a.spec.Grant:
		return fmt.Errorf("a role of this name is there and belongs to grant %q of installation %q", r.note.Grant, r.note.Installation)
	}
	return a.adopt(ctx, c, r, v, settings)
}

// create makes the role, all or nothing. c is in the transaction since; if it is not committed, the pool throws
// the connection away, and the role with it.
func (a *account) create(ctx context.Context, c *pgx.Conn, v vars, settings map[string]string, since int64) error {
	v["broker_options"] = ""
	if major(c) >= versionSetFalse {
		v["broker_options"] = "WITH INHERIT TRUE, SET TRUE"
	}
	n := a.newNote()
	n.Since = since
	var s script
	s.add("create", v)
	for _, group := range a.spec.Level.Roles {
		s.add("member", vars{"group": group, "account": a.spec.Name, "options": memberOptions(c, a.spec.Level)})
	}
	a.addSettings(&s, settings, a.spec.End)
	s.addNote(a.spec.Name, n)
	s.add("created", vars{"account": pgx.Identifier{a.spec.Name}.Sanitize()})
	if s.err != nil {
		return s.err
	}
	results, err := c.PgConn().Exec(ctx, s.text.String()).ReadAll()
	if err != nil {
		return err
	}
	oid, err := createdOid(results)
	if err != nil {
		return err
	}
	a.is(oid)
	return a.engine.cfg.Step.Do("provision.created")
}

// createdOid is the one oid among the results of a script.
func createdOid(results []*pgconn.Result) (uint32, error) {
	for _, r := range results {
		if len(r.Rows) == 1 && len(r.Rows[0]) == 1 {
			n, err := strconv.ParseUint(string(r.Rows[0][0]), 10, 32)
			return uint32(n), err
		}
	}
	return 0, errNoRole
}

// adopt takes over the role of an earlier process. Nobody is left in it when it opens again.
func (a *account) adopt(ctx context.Context, c *pgx.Conn, r row, v vars, settings map[string]string) error {
	if err := a.Killing.Take(ctx); err != nil {
		return err
	}
	err := a.empty(ctx)
	a.Killing.Give()
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := a.engine.cfg.Step.Do("provision.emptied"); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		var s script
		s.add("adopt", v)
		if err := a.resetDatabases(ctx, tx, &s, r.oid); err != nil {
			return err
		}
		if err := a.regroup(ctx, tx, &s, r.oid, memberOptions(c, a.spec.Level)); err != nil {
			return err
		}
		a.addSettings(&s, settings, a.spec.End)
		s.addNote(a.spec.Name, a.renewed(r, a.spec.End))
		return s.run(ctx, tx)
	})
	if err != nil {
		return err
	}
	a.is(r.oid)
	a.Opened()
	return a.engine.cfg.Step.Do("provision.adopted")
}

// resetDatabases sets back what the holder set for single databases.
func (a *account) resetDatabases(ctx context.Context, tx pgx.Tx, s *script, oid uint32) error {
	rows, err := tx.Query(ctx, `SELECT d.datname FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
		WHERE s.setrole = $1::bigint::oid`, int64(oid))
	if err != nil {
		return err
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, d := range databases {
		s.add("adopt_reset", vars{"account": a.spec.Name, "database": d})
	}
	return err
}

// regroup gives the account the groups of its level and no others.
func (a *account) regroup(ctx context.Context, tx pgx.Tx, s *script, oid uint32, options string) error {
	rows, err := tx.Query(ctx, `SELECT DISTINCT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
		WHERE m.member = $1::bigint::oid`, int64(oid))
	if err != nil {
		return err
	}
	has, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, group := range has {
		if !slices.Contains(a.spec.Level.Roles, group) {
			s.add("unmember", vars{"group": group, "account": a.spec.Name})
		}
	}
	for _, group := range a.spec.Level.Roles {
		s.add("member", vars{"group": group, "account": a.spec.Name, "options": options})
	}
	return err
}

// memberOptions says what a membership may do: inherit, and SET ROLE only if the level says so. Before
// PostgreSQL 16 every member can SET ROLE; what that leaves behind is found at the end.
func memberOptions(c *pgx.Conn, l protocol.Level) string {
	switch {
	case major(c) < versionSetFalse:
		return ""
	case l.SetRole:
		return "WITH INHERIT TRUE, SET TRUE"
	}
	return "WITH INHERIT TRUE, SET FALSE"
}

// newNote is what the role's comment will say; Since is still to be filled in.
func (a *account) newNote() note {
	return note{Installation: a.spec.Installation, Grant: a.spec.Grant, Requester: a.spec.Requester,
		End: a.spec.End.UTC(), Level: a.spec.Level.Name, Roles: a.spec.Level.Roles, SetRole: a.spec.Level.SetRole}
}

// The dead man's switch. Timeouts that depend on the grant are filled in by addSettings.
var deadManSettings = []struct{ name, value string }{
	{"client_connection_check_interval", "1s"},
	{"tcp_keepalives_idle", "30"},
	{"tcp_keepalives_interval", "10"},
	{"tcp_keepalives_count", "3"},
	{"idle_in_transaction_session_timeout", ""}, // "": what is left of the grant
	{"idle_session_timeout", ""},
	{"transaction_timeout", ""},
}

// deadMan asks once which of the settings this server has: versions and platforms differ.
func (e *Engine) deadMan(ctx context.Context, c *pgx.Conn) (map[string]string, error) {
	e.probing.Lock()
	defer e.probing.Unlock()
	if e.settings != nil {
		return e.settings, nil
	}
	has := map[string]string{}
	for _, s := range deadManSettings {
		try := s.value
		if try == "" {
			try = "1s"
		}
		_, err := c.Exec(ctx, "SELECT set_config($1, $2, true)", s.name, try)
		switch {
		case err == nil:
			has[s.name] = s.value
		case !is(err, "42704", "22023"): // unknown parameter, not supported here
			return nil, err
		}
	}
	e.settings = has
	return has, nil
}

// addSettings adds the dead man's switch: what is left of the grant, and deadManWaits more, so that as long
// as Curfew lives it is Curfew that ends a session, and says why. A session keeps the timeouts that it began
// with, so they leave room for an extension.
func (a *account) addSettings(s *script, has map[string]string, end time.Time) {
	left := max(time.Second, min(time.Until(end)+a.spec.Longer+deadManWaits, math.MaxInt32*time.Millisecond))
	for _, d := range deadManSettings {
		value, ok := has[d.name]
		if !ok {
			continue
		}
		if value == "" {
			value = strconv.FormatInt(left.Milliseconds(), 10) + "ms"
		}
		s.add("setting", vars{"account": a.spec.Name, "setting": d.name, "value": value})
	}
	s.add("setting", vars{"account": a.spec.Name, "setting": "application_name",
		"value": "curfew " + a.spec.Grant + " " + a.spec.Requester})
}

// script collects statements that run together.
type script struct {
	text strings.Builder
	err  error
}

func (s *script) add(name string, v vars) {
	text, err := statement(name, v)
	s.err = errors.Join(s.err, err)
	s.text.WriteString(text)
}

func (s *script) addNote(account string, n note) {
	raw, err := json.Marshal(n)
	s.err = errors.Join(s.err, err)
	s.add("note", vars{"account": account, "note": string(raw)})
}

// executor is a connection or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// run sends the script as one message.
func (s *script) run(ctx context.Context, to executor) error {
	if s.err != nil {
		return s.err
	}
	_, err := to.Exec(ctx, s.text.String(), pgx.QueryExecModeSimpleProtocol)
	return err
}
