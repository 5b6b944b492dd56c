package mysql

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

const (
	spareConns = 10
	clockMost  = 2 * time.Second
)

// Severities of findings.
const (
	severityError   = "error"
	severityWarning = "warning"
	severityNote    = "note"
)

// Setup prints the SQL that gives the broker what Check looks for. It may be run again at any time. If the
// server can't be reached it is printed for both kinds.
func (e *Engine) Setup(levels []protocol.Level) string {
	<-e.closing.tried
	known, _ := e.prober.cached()
	if known != nil {
		return e.setup(*known, levels)
	}
	return "-- ===== If the server is MariaDB =====\n\n" + e.setup(server{mariadb: true}, levels) +
		"\n-- ===== If the server is MySQL =====\n\n" + e.setup(server{major: newestMySQL}, levels)
}

func (e *Engine) setup(s server, levels []protocol.Level) string {
	e.mu.Lock()
	host := e.host
	e.mu.Unlock()
	if host == "" {
		host = "%"
	}
	broker := user(e.target.user, host)
	var roles strings.Builder
	for _, role := range groups(levels) {
		fmt.Fprintf(&roles, "CREATE ROLE IF NOT EXISTS %[1]s;\nGRANT %[1]s TO %[2]s WITH ADMIN OPTION;\n", identifier(role), broker)
	}
	text, err := fill(sqlFile(s.mariadb, "setup"), vars{"broker": broker, "roles": strings.TrimSpace(roles.String()),
		"definer": definerRight(s), "nobody": hex.EncodeToString(cachingSHA2Hash(newSecret()))})
	if err != nil {
		panic(err) // a variable in this package's own source
	}
	return text
}

// definerRight is what a server calls the right to name another as definer.
func definerRight(s server) string {
	switch {
	case s.mariadb:
		return "SET USER"
	case s.major > 8 || s.major == 8 && s.minor >= 2:
		return "SET_ANY_DEFINER"
	}
	return "SET_USER_ID"
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
	err := e.here(ctx, func(ctx context.Context, c *conn) error {
		broker, err := e.checkServer(ctx, c, &r)
		if err != nil {
			return err
		}
		if err := e.checkHost(ctx, c, &r); err != nil {
			return err
		}
		blind, err := e.checkRights(ctx, c, broker, &r)
		if err != nil || blind {
			return err // the rest would only say so again
		}
		if err := e.checkRoles(ctx, c, levels, broker, &r); err != nil {
			return err
		}
		return e.checkQuarantine(ctx, c, &r)
	})
	switch {
	case ctx.Err() != nil:
		return r, context.Cause(ctx)
	case err != nil:
		r.add(severityError, e.connectFix(err), "the target can't be used as %s: %v", e.target.user, err)
	}
	return r, nil
}

// connectFix says what to do about a login that failed.
func (e *Engine) connectFix(err error) string {
	user, text := e.target.user, err.Error()
	known, _ := e.prober.cached()
	switch {
	case is(err, 1045) && known != nil && !known.mariadb && e.target.unsealed():
		return "A password goes to a MySQL server over TLS or by the server's RSA key: leave sslmode=disable out of the target's url, or name the key's file with server_public_key=…; if that is not it, check the broker's password."
	case is(err, 1045, 1698, 4151, 3118, 1130):
		return fmt.Sprintf("Does user %s exist for the host that Curfew connects from, with this password, and is it unlocked? `curfew check --print-setup` prints the SQL that makes it.", user)
	case is(err, 1049, 1044):
		return "Name a database in the target's url that exists and that the broker may use, or none."
	case is(err, 1040, 1203, 1226):
		return "The server has no connection left: raise max_connections, or give the clients a pool."
	case strings.Contains(text, "tls") || strings.Contains(text, "TLS") || strings.Contains(text, "certificate"):
		return "TLS is required and verified (sslmode=verify-full) unless the target's url says otherwise; name the CA with sslrootcert=…"
	}
	return "Check host, port and database in the target's url, and that the server is up."
}

// The versions that are supported, and the newest that the tests or the manuals were read for.
const newestMySQL = 9

func supported(s server) (ok, known bool, which string) {
	at := s.major*100 + s.minor
	if s.mariadb {
		return at >= 1006, at <= 1108, "MariaDB 10.6 to 11.8"
	}
	return at >= 800, s.major <= newestMySQL, "MySQL 8.0 to 9"
}

// identity is who the server took the broker for.
type identity struct{ name, host string }

func (i identity) sql() string { return user(i.name, i.host) }

func (e *Engine) checkServer(ctx context.Context, c *conn, r *report) (broker identity, err error) {
	var readOnly, events, uncounted, strict bool
	var conns, used int
	var current, clock, ignore string
	asked := time.Now()
	err = c.QueryRowContext(ctx, query(c.server.mariadb, "check_server")).Scan(&readOnly, &conns, &current, &clock, &events, &uncounted, &strict)
	if err != nil {
		return broker, err
	}
	took := time.Since(asked)
	at := strings.LastIndexByte(current, '@')
	broker = identity{current[:at], current[at+1:]}
	if ok, known, which := supported(c.server); !ok {
		r.add(severityError, "Upgrade: "+which+" are supported.", "the server is %s, which is not supported", c.server.version)
	} else if !known {
		r.add(severityWarning, "", "the server is %s; Curfew has been tested with %s", c.server.version, which)
	}
	if readOnly {
		r.add(severityError, "Point the target's url at the primary.", "the server is read-only: accounts can't be made or ended there")
	}
	if err := c.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Threads_connected'").Scan(&ignore, &used); err != nil {
		return broker, err
	}
	if free := conns - used; free < spareConns {
		r.add(severityWarning, "Raise max_connections, or give the clients a pool.", "only %d of %d connections are free: people may not get in", max(0, free), conns)
	}
	var cipher string
	if err := c.QueryRowContext(ctx, "SHOW SESSION STATUS LIKE 'Ssl_cipher'").Scan(&ignore, &cipher); err != nil {
		return broker, err
	}
	if cipher == "" && !e.near() {
		r.add(severityWarning, "Set sslmode=verify-full in the target's url.", "the connection to the server is not encrypted")
	}
	if now, err := time.Parse("2006-01-02 15:04:05.999999", clock); err != nil || now.Sub(asked).Abs() > clockMost+took {
		r.add(severityWarning, "Keep both clocks by NTP.", "the server's clock is %s away from Curfew's: what it says of when something was made is off by as much", now.Sub(asked).Round(time.Second))
	}
	if strict {
		r.add(severityError, "SET GLOBAL strict_password_validation = OFF;", "the server takes no verifiers, only clear passwords, because a password validation plugin is active")
	}
	if uncounted && c.server.mariadb {
		r.add(severityNote, "SET GLOBAL userstat = 1; -- and in the server's configuration",
			"the server doesn't count commits by user: what became of a statement that was running when a grant ended is often unknown on a busy server")
	} else if uncounted {
		r.add(severityError, "Start the server with performance_schema = ON.", "the server's performance_schema is off: sessions can't be seen")
	}
	if events {
		r.add(severityNote, "", "the event scheduler is on: an event that somebody leaves behind runs until their account is cleaned")
	}
	return broker, nil
}

// near says whether the server is on this machine.
func (e *Engine) near() bool {
	if e.target.network != "tcp" {
		return true
	}
	host, _, _ := net.SplitHostPort(e.target.address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkHost looks at where accounts may come from, and who could stand in their way.
func (e *Engine) checkHost(ctx context.Context, c *conn, r *report) error {
	host, err := e.accountHost(ctx, c)
	if err != nil {
		r.add(severityError, "Set account_host in the target's url to the host that Curfew connects from.", "%v", err)
		return nil
	}
	if !strings.ContainsAny(host, "%_/") {
		return nil
	}
	r.add(severityWarning, "Leave account_host out of the target's url, or name the one host that Curfew connects from.",
		"accounts may log in from %q, not only from Curfew: whoever changes the password of their account gets further with it", host)
	anonymous, err := c.strings(ctx, query(c.server.mariadb, "anonymous"))
	if is(err, 1142, 1143) {
		return nil // checkRights says so
	}
	for _, at := range anonymous {
		r.add(severityError, "DROP USER ''@"+literal(at)+";", "there is a user without a name at %q, which the server prefers to an account at %q", at, host)
	}
	return err
}

// checkQuarantine looks at the user that takes over what people leave behind.
func (e *Engine) checkQuarantine(ctx context.Context, c *conn, r *report) error {
	var there, rights int
	if err := c.QueryRowContext(ctx, query(c.server.mariadb, "check_quarantine")).Scan(&there, &rights); err != nil {
		return err
	}
	name := quarantine + "@" + quarantineHost
	if there == 0 {
		r.add(severityError, "CREATE USER "+name+" ACCOUNT LOCK;", "%s, which takes over what people leave behind, does not exist", name)
	}
	if rights > 0 {
		r.add(severityError, "DROP USER "+name+"; CREATE USER "+name+" ACCOUNT LOCK;",
			"%s has rights, or is open: a planted view or routine would run with them", name)
	}
	return nil
}

// privileges are the broker's own, and whether it may give them to others.
func privileges(ctx context.Context, c *conn) (map[string]bool, error) {
	has := map[string]bool{}
	err := c.rows(ctx, "privileges", func(rows *sql.Rows) error {
		var name, grantable string
		err := rows.Scan(&name, &grantable)
		has[name] = grantable == "YES"
		return err
	})
	return has, err
}
