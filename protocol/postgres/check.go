package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
)

const (
	oldestVersion = 14
	newestVersion = 18 // the newest that the tests have met
	spareConns    = 10
	clockMost     = 2 * time.Second
)

// Severities of findings.
const (
	severityError   = "error"
	severityWarning = "warning"
	severityNote    = "note"
)

// Setup prints the SQL that gives the broker what Check looks for. It may be run again at any time.
func (e *Engine) Setup(levels []protocol.Level) string {
	sql, err := fill(query("setup"), vars{"broker": e.broker.User, "roles": arrayLiteral(append(groups(levels), quarantine))})
	if err != nil {
		panic(err) // a variable in this package's own source
	}
	return sql
}

// arrayLiteral writes a text[] in PostgreSQL's own form.
func arrayLiteral(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// groups are the roles that the levels name, each once.
func groups(levels []protocol.Level) []string {
	var list []string
	for _, l := range levels {
		for _, r := range l.Roles {
			if !slices.Contains(list, r) {
				list = append(list, r)
			}
		}
	}
	return list
}

// report collects findings.
type report []protocol.Finding

func (r *report) add(severity, fix, what string, args ...any) {
	*r = append(*r, protocol.Finding{Severity: severity, What: fmt.Sprintf(what, args...), Fix: fix})
}

// Check says in plain words what the broker lacks on the target for these levels. A target that can't be
// reached is a finding, not an error.
func (e *Engine) Check(ctx context.Context, levels []protocol.Level) ([]protocol.Finding, error) {
	var r report
	err := e.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		version, err := e.checkServer(ctx, c, levels, &r)
		if err != nil {
			return err
		}
		if err := e.checkRoles(ctx, c, levels, version, &r); err != nil {
			return err
		}
		return e.checkQuarantine(ctx, c, &r)
	})
	switch {
	case ctx.Err() != nil:
		return r, context.Cause(ctx)
	case err != nil:
		r.add(severityError, connectFix(err, e.broker.User), "the target can't be used as %s: %v", e.broker.User, err)
		return r, nil
	}
	return r, e.checkDatabases(ctx, groups(levels), &r)
}

// connectFix says what to do about a login that failed.
func connectFix(err error, user string) string {
	switch {
	case is(err, "28P01", "28000"):
		return fmt.Sprintf("Does role %s exist, with this password, and does pg_hba.conf let it in from here? `curfew check --print-setup` prints the SQL that makes it.", user)
	case is(err, "3D000"):
		return "Name a database in the target's url that exists."
	case is(err, "53300"):
		return "The server has no connection left: raise max_connections, or give the clients a pool."
	case strings.Contains(err.Error(), "tls") || strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "SSL"):
		return "TLS is required and verified (sslmode=verify-full) unless the target's url says otherwise; name the CA with sslrootcert=…"
	}
	return "Check host, port and database in the target's url, and that the server is up."
}

func (e *Engine) checkServer(ctx context.Context, c *pgx.Conn, levels []protocol.Level, r *report) (version int, err error) {
	var standby, super, createRole, signal, secure bool
	var user string
	var extra []string
	var conns, used, prepared int
	var clock time.Time
	asked := time.Now()
	err = c.QueryRow(ctx, query("check_server")).Scan(&version, &standby, &user, &super, &createRole, &extra, &signal,
		&conns, &used, &prepared, &secure, &clock)
	if err != nil {
		return 0, err
	}
	version /= 10000
	ident := pgx.Identifier{user}.Sanitize()
	if version < oldestVersion {
		r.add(severityError, fmt.Sprintf("Upgrade to PostgreSQL %d or later.", oldestVersion), "the server is PostgreSQL %d, which is not supported", version)
	}
	if version > newestVersion {
		r.add(severityWarning, "", "the server is PostgreSQL %d; Curfew has been tested up to %d", version, newestVersion)
	}
	if standby {
		r.add(severityError, "Point the target's url at the primary, or list all servers in it with target_session_attrs=read-write.",
			"the server is a read-only standby: accounts can't be made or ended there")
	}
	if super {
		r.add(severityError, "Name a broker of its own in the target's url; `curfew check --print-setup` prints the SQL that makes one.",
			"the broker %s is a superuser: whoever gets hold of it has the whole server", user)
	}
	if !super && !createRole {
		r.add(severityError, "ALTER ROLE "+ident+" CREATEROLE;", "the broker %s can't make accounts: it lacks CREATEROLE", user)
	}
	if len(extra) > 0 && !super {
		r.add(severityWarning, "ALTER ROLE "+ident+" NO"+strings.Join(extra, " NO")+";", "the broker %s has more than it needs: %s", user, strings.Join(extra, ", "))
	}
	if !signal {
		r.add(severityError, "GRANT pg_signal_backend TO "+ident+";", "the broker %s can't end sessions: it is not a member of pg_signal_backend", user)
	}
	if free := conns - used; free < spareConns {
		r.add(severityWarning, "Raise max_connections, or give the clients a pool.", "only %d of %d connections are free: people may not get in", max(0, free), conns)
	}
	wants := slices.ContainsFunc(levels, func(l protocol.Level) bool { return l.PreparedTransactions })
	if wants && prepared == 0 {
		r.add(severityNote, "ALTER SYSTEM SET max_prepared_transactions = 10; -- and restart", "a level allows prepared transactions, but the server has them switched off")
	}
	if !secure {
		r.add(severityWarning, "Set sslmode=verify-full in the target's url.", "the connection to the server is not encrypted")
	}
	if off := clock.Sub(asked).Abs(); off > clockMost+time.Since(asked) {
		r.add(severityWarning, "Keep both clocks by NTP.", "the server's clock is %s away from Curfew's: VALID UNTIL, the back-stop of an account, is off by as much", off.Round(time.Second))
	}
	if version < versionSetFalse && slices.ContainsFunc(levels, func(l protocol.Level) bool { return !l.SetRole }) {
		r.add(severityNote, "", "before PostgreSQL 16 nobody can be kept from SET ROLE to the groups of their level; what that leaves behind is found at the end of each grant")
	}
	return version, nil
}

// checkRoles looks at the groups and at curfew_quarantine.
func (e *Engine) checkRoles(ctx context.Context, c *pgx.Conn, levels []protocol.Level, version int, r *report) error {
	become := "MEMBER"
	if version >= versionSetFalse {
		become = "SET"
	}
	rows, err := c.Query(ctx, query("check_roles"), append(groups(levels), quarantine), become)
	if err != nil {
		return err
	}
	var name string
	var exists, login, admin, use bool
	var attributes, dangerous []string
	broker := pgx.Identifier{e.broker.User}.Sanitize()
	_, err = pgx.ForEachRow(rows, []any{&name, &exists, &login, &admin, &use, &attributes, &dangerous}, func() error {
		ident := pgx.Identifier{name}.Sanitize()
		grant := fmt.Sprintf("GRANT %s TO %s WITH ADMIN OPTION;", ident, broker)
		if version >= versionSetFalse {
			grant = fmt.Sprintf("GRANT %s TO %s WITH ADMIN TRUE, INHERIT TRUE, SET TRUE;", ident, broker)
		}
		what := "the group " + name + usedBy(levels, name)
		if name == quarantine {
			what = name + ", which takes over what people leave behind,"
		}
		if !exists {
			r.add(severityError, "CREATE ROLE "+ident+" NOLOGIN; "+grant, "%s does not exist", what)
			return nil
		}
		if login {
			r.add(severityWarning, "ALTER ROLE "+ident+" NOLOGIN;", "%s can log in by itself, past Curfew", what)
		}
		if !admin {
			r.add(severityError, grant, "the broker can't give %s to anybody: it lacks the admin option", name)
		} else if !use {
			r.add(severityError, grant, "the broker holds %s but can't act as it, so it could not re-own what is left behind", name)
		}
		if len(attributes) > 0 {
			r.add(severityError, "ALTER ROLE "+ident+" NO"+strings.Join(attributes, " NO")+";",
				"%s has %s: whoever becomes it by SET ROLE can escape Curfew", what, strings.Join(attributes, ", "))
		}
		if len(dangerous) > 0 {
			r.add(severityError, "REVOKE "+strings.Join(dangerous, ", ")+" FROM "+ident+";",
				"%s has the rights of %s: whoever holds it can escape Curfew", what, strings.Join(dangerous, ", "))
		}
		return nil
	})
	return err
}

// usedBy names the levels that a group belongs to.
func usedBy(levels []protocol.Level, group string) string {
	var names []string
	for _, l := range levels {
		if slices.Contains(l.Roles, group) {
			names = append(names, l.Name)
		}
	}
	return " (level " + strings.Join(names, ", ") + ")"
}

func (e *Engine) checkQuarantine(ctx context.Context, c *pgx.Conn, r *report) error {
	var rights, members []string
	err := c.QueryRow(ctx, query("check_quarantine")).Scan(&rights, &members)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // checkRoles has said so
	}
	if err != nil {
		return err
	}
	if len(rights) > 0 {
		r.add(severityError, "REVOKE "+strings.Join(rights, ", ")+" FROM "+quarantine+";",
			"%s has the rights of %s: a planted view or function would run with them", quarantine, strings.Join(rights, ", "))
	}
	if len(members) > 0 {
		r.add(severityWarning, "REVOKE "+quarantine+" FROM "+strings.Join(members, ", ")+";",
			"%s may use what is in quarantine, as members of %s", strings.Join(members, ", "), quarantine)
	}
	return nil
}

// checkDatabases visits each database that people can reach.
func (e *Engine) checkDatabases(ctx context.Context, groups []string, r *report) error {
	var databases []string
	err := e.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query("check_databases"), groups)
		if err != nil {
			return err
		}
		databases, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range databases {
		var schemas []string
		err := e.in(ctx, d, func(ctx context.Context, c *pgx.Conn) error {
			rows, err := c.Query(ctx, query("check_schemas"), groups)
			if err != nil {
				return err
			}
			schemas, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			r.add(severityError, "Let "+e.broker.User+" connect to it (pg_hba.conf, GRANT CONNECT), or take CONNECT from the groups.",
				"people can reach database %s but the broker can't, so it could not clean up there: %v", d, err)
		}
		for _, s := range schemas {
			r.add(severityError, fmt.Sprintf("GRANT USAGE, CREATE ON SCHEMA %s TO %s; -- in database %s", pgx.Identifier{s}.Sanitize(), quarantine, d),
				"people may create things in schema %s of database %s, but %s can't take them over", s, d, quarantine)
		}
	}
	return nil
}
