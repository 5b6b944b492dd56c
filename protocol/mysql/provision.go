package mysql

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol"
)

const (
	nameMost        = 32 // bytes, so that an account's name fits every engine
	defaultSessions = 10
	undoTime        = 5 * time.Second
	ownCharset      = 45 // utf8mb4_general_ci, which both know
)

// Provision creates the account, or adopts it after a crash: kills its backends, sets a new secret, keeps
// what it owns. The caller has made the intent durable before.
//
// There is no transaction around it, since every statement about users commits by itself. So the user is
// made locked, is given its roles, and is unlocked at last; if a step fails, what was made is removed, and
// if the process dies, the intent stands for what is there. MariaDB lets nobody but the user say which role
// is active from a session's beginning, so there the account signs in once and does: between the unlocking
// and that it has no rights yet, and nobody knows its secret.
func (e *Engine) Provision(ctx context.Context, spec protocol.AccountSpec) (protocol.Account, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	a := newAccount(e, spec)
	a.secret = newSecret()
	if before := e.register(a); before != nil {
		before.Shut()
		a.Learn(before.Prepared())
	}
	if err := e.here(ctx, a.provision); err != nil {
		a.Shut()
		return nil, e.refusal(fmt.Errorf("provision %s: %w", spec.Name, err))
	}
	return a, nil
}

// refusal says to a person why their account could not be made, where there is more to say than that.
func (e *Engine) refusal(err error) error {
	const next = "; try again later or tell your Curfew administrator"
	var network net.Error // an exceeded deadline is one, too
	why := ""
	switch {
	case isReadOnly(err):
		why = fmt.Sprintf("the database %s is read-only at the moment, as a replica is, so your account can't be made there", e.cfg.Target) + next
	case is(err, 1040, 1203, 1226):
		why = fmt.Sprintf("the database %s has no connection left for making your account", e.cfg.Target) + next
	case is(err, 1044, 1045, 1142, 1227, 1410, 1698, 1961):
		why = fmt.Sprintf("Curfew lacks a right that it needs to make your account on %s; tell your Curfew administrator: `curfew check` says which", e.cfg.Target)
	case errors.As(err, &network) || errors.Is(err, sqldriver.ErrBadConn) || errors.Is(err, driver.ErrInvalidConn) || is(err, 1053):
		why = fmt.Sprintf("the database %s can't be reached at the moment", e.cfg.Target) + next
	default:
		return err
	}
	return &protocol.Refusal{Code: protocol.RefuseUnavailable, Public: why, Err: err}
}

// checkSpec refuses what would make a wrong account rather than none.
func checkSpec(spec protocol.AccountSpec) error {
	switch {
	case !strings.HasPrefix(spec.Name, namePrefix) || spec.Name == quarantine || len(spec.Name) > nameMost || strings.Contains(spec.Name, "@"):
		return fmt.Errorf("account name %q: must begin with %s and have at most %d bytes", spec.Name, namePrefix, nameMost)
	case len(spec.Level.Roles) == 0:
		return fmt.Errorf("account %s: its level %q names no role", spec.Name, spec.Level.Name)
	case slices.Contains(spec.Level.Roles, quarantine):
		return fmt.Errorf("account %s: %s is no role for people", spec.Name, quarantine)
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

// provision creates or adopts on one connection.
func (a *account) provision(ctx context.Context, c *conn) error {
	if err := writable(ctx, c); err != nil {
		return err
	}
	host, err := a.engine.accountHost(ctx, c)
	if err != nil {
		return err
	}
	r, err := readRow(ctx, c, a.spec.Name)
	switch {
	case errors.Is(err, errNoUser):
		return a.create(ctx, c, host)
	case err != nil:
		return err
	case r.note.Installation != "" && r.note.Installation != a.spec.Installation, r.note.Grant != "" && r.note.Grant != a.spec.Grant:
		return fmt.Errorf("a user of this name is there and belongs to grant %q of installation %q", r.note.Grant, r.note.Installation)
	}
	return a.adopt(ctx, c, r, host)
}

// create makes the user, all or nothing.
func (a *account) create(ctx context.Context, c *conn, host string) error {
	if err := a.remember(ctx, c); err != nil {
		return err
	}
	v, err := a.vars(ctx, c, host)
	if err != nil {
		return err
	}
	err = a.build(ctx, c, host, v)
	if err != nil && !is(err, 1396) { // of CREATE USER: somebody else has made it
		a.undo(ctx, v)
	}
	if isReadOnly(err) {
		return errReadOnly
	}
	return err
}

// remember notes what was there before the account.
func (a *account) remember(ctx context.Context, c *conn) error {
	before, err := recovered(ctx, c)
	if err != nil {
		return err
	}
	var now time.Time
	var text string
	if err := c.QueryRowContext(ctx, "SELECT DATE_FORMAT(NOW(), '%Y-%m-%d %H:%i:%s')").Scan(&text); err != nil {
		return err
	}
	if now, err = time.Parse(time.DateTime, text); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.before, a.since = map[string]struct{}{}, now
	for _, xid := range before {
		a.before[xid] = struct{}{}
	}
	return nil
}

func (a *account) build(ctx context.Context, c *conn, host string, v vars) error {
	step := a.engine.cfg.Step
	if err := c.run(ctx, "create", v); err != nil {
		return err
	}
	if err := step.Do("provision.made"); err != nil {
		return err
	}
	role, err := a.regroup(ctx, c, host)
	if err != nil {
		return err
	}
	if err := step.Do("provision.granted"); err != nil {
		return err
	}
	if err := a.open(ctx, c, role, v); err != nil {
		return err
	}
	return step.Do("provision.created")
}

// open unlocks the user, last of all, and has its roles active from a session's beginning.
func (a *account) open(ctx context.Context, c *conn, role string, v vars) error {
	v["role"] = role
	if err := c.run(ctx, "unlock", v); err != nil {
		return err
	}
	if err := a.engine.cfg.Step.Do("provision.unlocked"); err != nil {
		return err
	}
	if !c.server.mariadb {
		return nil
	}
	list, err := filled(true, "default_role", v)
	if err != nil {
		return err
	}
	return a.signIn(ctx, list[0])
}

// undo removes what create made, so that a failure leaves nothing, or at least nothing open.
func (a *account) undo(ctx context.Context, v vars) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	err := a.engine.here(ctx, func(ctx context.Context, c *conn) error { return c.run(ctx, "undo", v) })
	if err != nil {
		a.engine.cfg.Log.Error("what was made of an account could not be removed; it is ended like one of a crash", "account", a.spec.Name, "error", err)
	}
}

// vars are the values of the statements that make or open the user.
func (a *account) vars(ctx context.Context, c *conn, host string) (vars, error) {
	plugin, verifier, err := proofOf(ctx, c, a.secret)
	if err != nil {
		return nil, err
	}
	require := "NONE"
	if t := a.engine.target; t.tls != nil && (!t.prefer || c.server.caps&capSSL != 0) {
		require = "SSL"
	}
	return vars{
		"name": a.role(), "account": user(a.spec.Name, host), "plugin": plugin, "verifier": verifier, "require": require,
		"connections": strconv.Itoa(sessions(a.spec.Level) + 1), // one for KILL, see add
		"left":        a.left(a.spec.End), "note": a.newNote(a.spec.End).text(),
	}, nil
}

// proofOf picks the best plugin that the server has, and what it keeps of a secret: sent instead of a
// password, so that nothing secret can reach the server's log.
func proofOf(ctx context.Context, c *conn, secret string) (plugin, verifier string, err error) {
	if !c.server.mariadb {
		return "caching_sha2_password", "0x" + hex.EncodeToString(cachingSHA2Hash(secret)), nil
	}
	if c.plugins == nil {
		if c.plugins, err = c.strings(ctx, query(true, "plugins")); err != nil {
			return "", "", err
		}
	}
	switch {
	case slices.Contains(c.plugins, "parsec"):
		return "parsec", literal(parsecHash(secret)), nil
	case slices.Contains(c.plugins, "ed25519"):
		return "ed25519", literal(ed25519Hash(secret)), nil
	}
	return "mysql_native_password", literal(nativeHash(secret)), nil
}

// regroup gives the account the roles of its level and no others, and says which one it is to begin a
// session with. On MariaDB that is a role of the account's own, which holds the level's: only one is
// active at a time, and whatever is made with DEFINER = CURRENT_ROLE is then the grant's and nobody else's.
// A level with set_role gives its roles to the account itself, too.
func (a *account) regroup(ctx context.Context, c *conn, host string) (role string, err error) {
	direct := a.spec.Level.Roles
	if c.server.mariadb {
		if err := c.run(ctx, "create_role", vars{"name": a.role()}); err != nil {
			return "", err
		}
		if err := regrant(ctx, c, a.role(), "", identifier(a.role()), direct); err != nil {
			return "", err
		}
		if !a.spec.Level.SetRole {
			direct = nil
		}
		direct = append([]string{a.role()}, direct...)
	}
	return direct[0], regrant(ctx, c, a.spec.Name, host, user(a.spec.Name, host), direct)
}

// regrant sees to it that a user or role holds these roles and no others.
func regrant(ctx context.Context, c *conn, name, host, grantee string, roles []string) error {
	has := map[string]string{} // the role as SQL wants it, by name
	err := c.rows(ctx, "roles", func(rows *sql.Rows) error {
		var role, from string
		err := rows.Scan(&role, &from)
		has[role] = roleOf(c, role, from)
		return err
	}, name, host)
	if err != nil {
		return err
	}
	for _, role := range slices.Sorted(maps.Keys(has)) {
		if !slices.Contains(roles, role) {
			if err := c.run(ctx, "unmember", vars{"role": has[role], "grantee": grantee}); err != nil {
				return err
			}
		}
	}
	for _, role := range roles {
		if err := c.run(ctx, "member", vars{"role": identifier(role), "grantee": grantee}); err != nil {
			return fmt.Errorf("role %s: %w", role, err)
		}
	}
	return nil
}

// roleOf writes a role as SQL wants it: MySQL's have a host.
func roleOf(c *conn, role, host string) string {
	if c.server.mariadb {
		return identifier(role)
	}
	return user(role, host)
}

// adopt takes over the user of an earlier process. Nobody is left in it when it opens again.
func (a *account) adopt(ctx context.Context, c *conn, r row, host string) error {
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
	v, err := a.vars(ctx, c, host)
	if err != nil {
		return err
	}
	if !slices.Contains(r.hosts, host) { // Curfew has moved
		if err := c.run(ctx, "rename", vars{"old": user(a.spec.Name, r.hosts[0]), "account": v["account"]}); err != nil {
			return err
		}
	}
	if err := c.run(ctx, "adopt", v); err != nil {
		return err
	}
	role, err := a.regroup(ctx, c, host)
	if err != nil {
		return err
	}
	a.Opened()
	err = a.open(ctx, c, role, v)
	if err == nil {
		err = a.engine.cfg.Step.Do("provision.adopted")
	}
	if err != nil {
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		err = errors.Join(err, a.lock(again, []string{host}))
	}
	return err
}

// ownLogin is the account's own connection while Curfew makes it ready, so that Watch knows it.
type ownLogin struct{ id atomic.Uint32 }

func (o *ownLogin) Backend() uint32    { return o.id.Load() }
func (o *ownLogin) InFlight() uint64   { return 0 }
func (o *ownLogin) Prepared() []string { return nil }

// signIn logs in as the account, just as its sessions will, and runs one statement.
func (a *account) signIn(ctx context.Context, text string) error {
	var o ownLogin
	if _, err := a.Join(&o); err != nil {
		return err
	}
	defer a.Leave(&o)
	u, err := dialUpstream(ctx, landing{target: a.engine.target, prober: a.engine.prober, user: a.spec.Name, secret: a.secret,
		caps: capTransactions, charset: ownCharset, maxPacket: maxFrame})
	if err != nil {
		return fmt.Errorf("sign in as the account: %w", err)
	}
	o.id.Store(u.id)
	defer u.leave()
	defer watch(ctx, u.conn)()
	u.reader.seq = 0
	if _, err := u.conn.Write(appendPacket(nil, u.reader.seq, append([]byte{comQuery}, text...))); err != nil {
		return err
	}
	u.reader.seq++
	payload, err := u.reader.read(limitLogin)
	switch {
	case err != nil:
		return err
	case len(payload) > 0 && payload[0] == packetErr:
		return fmt.Errorf("as the account: %w", parseServerError(payload, u.caps))
	}
	return nil
}
