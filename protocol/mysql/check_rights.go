package mysql

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/curfewdb/curfew/protocol"
)

// right is one of the broker's global privileges, and what is not possible without it.
type right struct{ name, severity, without string }

func rights(s server) []right {
	const blind = "can't see all that people leave behind, and dropping an account could break the application"
	const byHand = "can't re-own what people leave behind, so a DBA has to deal with it by hand"
	list := []right{
		{"CREATE USER", severityError, "can't make accounts"},
		{"PROCESS", severityError, "can't see sessions, so it can't end them"},
		{"SHOW VIEW", severityError, blind}, {"TRIGGER", severityError, blind}, {"EVENT", severityError, blind},
		{"CREATE VIEW", severityWarning, byHand}, {"DROP", severityWarning, byHand}, {definerRight(s), severityWarning, byHand},
	}
	if s.mariadb {
		return append(list, right{"CONNECTION ADMIN", severityError, "can't end sessions"})
	}
	return append(list, right{"CONNECTION_ADMIN", severityError, "can't end sessions"},
		right{"XA_RECOVER_ADMIN", severityError, "can't see prepared transactions"}, right{"SHOW_ROUTINE", severityError, blind})
}

// tableRight is something that the broker does with one of the server's own tables.
type tableRight struct {
	try, grant string
	severity   string
}

func tableRights(mariadb bool) []tableRight {
	if !mariadb {
		return []tableRight{
			{"SELECT * FROM mysql.role_edges LIMIT 0", "SELECT ON mysql.*", severityError},
			{"SELECT * FROM performance_schema.processlist LIMIT 0", "SELECT ON performance_schema.*", severityError},
		}
	}
	const columns = "Host, User, is_role, x509_subject, plugin, Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv, " +
		"Reload_priv, Shutdown_priv, Process_priv, File_priv, Grant_priv, Super_priv, Create_user_priv"
	list := []tableRight{{"SELECT " + columns + " FROM mysql.user LIMIT 0", "SELECT (" + columns + ") ON mysql.user", severityError}}
	for _, table := range []string{"db", "roles_mapping", "proc", "tables_priv", "procs_priv", "proxies_priv"} {
		list = append(list, tableRight{"SELECT * FROM mysql." + table + " LIMIT 0", "SELECT ON mysql." + table, severityError})
	}
	return append(list, tableRight{"UPDATE mysql.proc SET definer = '', created = created WHERE 1 = 0", "UPDATE (definer, created) ON mysql.proc", severityWarning})
}

// needless are the privileges that a broker has no use for, and with which more is lost when it is.
var needless = []string{"FILE", "SHUTDOWN", "RELOAD", "REPLICATION SLAVE", "SYSTEM_USER"}

// checkRights looks at what the broker may do, right by right. blind: it can't read the server's own tables.
func (e *Engine) checkRights(ctx context.Context, c *conn, broker identity, r *report) (blind bool, err error) {
	has, err := privileges(ctx, c)
	if err != nil {
		return false, err
	}
	_, super := has["SUPER"]
	if super {
		r.add(severityError, "Name a broker of its own in the target's url; `curfew check --print-setup` prints the SQL that makes one.",
			"the broker %s is an administrator (SUPER): whoever gets hold of it has the whole server", broker.name)
	}
	for _, need := range rights(c.server) {
		if _, ok := has[need.name]; !ok && !super {
			r.add(need.severity, fmt.Sprintf("GRANT %s ON *.* TO %s;", need.name, broker.sql()), "the broker %s %s: it lacks %s", broker.name, need.without, need.name)
		}
	}
	for _, name := range needless {
		if _, ok := has[name]; ok && !super {
			r.add(severityWarning, fmt.Sprintf("REVOKE %s ON *.* FROM %s;", name, broker.sql()), "the broker %s has more than it needs: %s", broker.name, name)
		}
	}
	for _, grantable := range has {
		if grantable && !super {
			r.add(severityWarning, fmt.Sprintf("REVOKE GRANT OPTION ON *.* FROM %s;", broker.sql()), "the broker %s may give its own rights to others", broker.name)
			break
		}
	}
	for _, need := range tableRights(c.server.mariadb) {
		_, err := c.ExecContext(ctx, need.try)
		switch {
		case err == nil, isReadOnly(err):
		case is(err, 1142, 1143, 1044):
			blind = blind || need.severity == severityError
			r.add(need.severity, fmt.Sprintf("GRANT %s TO %s;", need.grant, broker.sql()), "the broker %s lacks %s", broker.name, need.grant)
		default:
			return blind, err
		}
	}
	return blind, nil
}

// checkRoles looks at the roles of the levels.
func (e *Engine) checkRoles(ctx context.Context, c *conn, levels []protocol.Level, broker identity, r *report) error {
	for _, role := range groups(levels) {
		var exists, admin bool
		err := c.QueryRowContext(ctx, query(c.server.mariadb, "check_role"), role, role, broker.name, broker.host).Scan(&exists, &admin)
		if err != nil {
			return err
		}
		what, ident := "the role "+role+usedBy(levels, role), identifier(role)
		grant := fmt.Sprintf("GRANT %s TO %s WITH ADMIN OPTION;", ident, broker.sql())
		switch {
		case !exists:
			r.add(severityError, "CREATE ROLE "+ident+"; "+grant, "%s does not exist", what)
			continue
		case !admin:
			r.add(severityError, grant, "the broker can't give %s to anybody: it lacks the admin option", what)
			continue
		}
		grants, err := e.grantsOf(ctx, c.server.mariadb, ident)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		for _, line := range grants {
			if dangerous, on, holder := escapes(line); len(dangerous) > 0 {
				r.add(severityError, fmt.Sprintf("REVOKE %s ON %s FROM %s;", strings.Join(dangerous, ", "), on, holder),
					"%s has %s on %s: whoever holds it can escape Curfew", what, strings.Join(dangerous, ", "), on)
			}
		}
	}
	if c.server.mariadb {
		return nil
	}
	for _, l := range levels {
		if l.SetRole {
			r.add(severityNote, "", "level %s has set_role, which means nothing on MySQL: nothing belongs to a role there", l.Name)
		}
	}
	return nil
}

// grantsOf is what a role may do, by itself and by the roles that it holds. MariaDB shows that to whoever
// has taken it on, MySQL to whoever may read its tables.
func (e *Engine) grantsOf(ctx context.Context, mariadb bool, role string) (list []string, err error) {
	err = e.apart(ctx, func(ctx context.Context, c *conn) (err error) {
		if mariadb {
			if _, err = c.ExecContext(ctx, "SET ROLE "+role); err != nil {
				return err
			}
			role = "CURRENT_ROLE"
		}
		list, err = c.strings(ctx, "SHOW GRANTS FOR "+role)
		return err
	})
	return list, err
}

// grantLine is a line of SHOW GRANTS: what, on what, to whom.
var grantLine = regexp.MustCompile(`^GRANT (.+) ON (\S+) TO (.+?)( WITH GRANT OPTION)?$`)

// escaping are the global privileges by which a holder gets at other users, at other sessions, at files or at
// the server itself.
var escaping = []string{"ALL PRIVILEGES", "SUPER", "FILE", "CREATE USER", "SHUTDOWN", "RELOAD", "PROCESS", "CREATE ROLE", "DROP ROLE", "CREATE TABLESPACE",
	"SET USER", "CONNECTION ADMIN", "FEDERATED ADMIN", "BINLOG ADMIN", "READ_ONLY ADMIN", "REPLICATION SLAVE", "REPLICATION SLAVE ADMIN", "REPLICATION MASTER ADMIN",
	"SET_USER_ID", "SET_ANY_DEFINER", "ALLOW_NONEXISTENT_DEFINER", "ROLE_ADMIN", "CONNECTION_ADMIN", "SYSTEM_USER", "SYSTEM_VARIABLES_ADMIN",
	"BACKUP_ADMIN", "BINLOG_ADMIN", "CLONE_ADMIN", "APPLICATION_PASSWORD_ADMIN", "AUTHENTICATION_POLICY_ADMIN"}

// escapes says which of the rights in a line of SHOW GRANTS would let their holder past Curfew.
func escapes(line string) (list []string, on, holder string) {
	m := grantLine.FindStringSubmatch(line)
	if m == nil {
		return nil, "", ""
	}
	on, holder = m[2], m[3]
	if m[4] != "" {
		list = append(list, "GRANT OPTION")
	}
	for _, name := range rightsOf(m[1]) {
		bare, _, _ := strings.Cut(name, " (")
		if on == "*.*" && slices.Contains(escaping, bare) ||
			strings.HasPrefix(on, "`mysql`.") && bare != "USAGE" && bare != "SELECT" {
			list = append(list, name)
		}
	}
	return list, on, holder
}

// rightsOf takes a list of rights apart; each may have a list of columns.
func rightsOf(text string) (list []string) {
	depth, from := 0, 0
	for i, r := range text + "," {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			list = append(list, strings.TrimSpace(text[from:i]))
			from = i + 1
		}
	}
	return list
}

// usedBy names the levels that a role belongs to.
func usedBy(levels []protocol.Level, role string) string {
	var names []string
	for _, l := range levels {
		if slices.Contains(l.Roles, role) {
			names = append(names, l.Name)
		}
	}
	return " (level " + strings.Join(names, ", ") + ")"
}
