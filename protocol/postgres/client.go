package postgres

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/curfewdb/curfew/protocol"
)

// stockClient is psql, and what other clients of PostgreSQL take.
func stockClient() protocol.StockClient {
	return protocol.StockClient{
		Programs: []string{"psql"},
		Install:  "Debian: apt install postgresql-client",
		Run:      runPsql,
		Formats:  []string{"dsn", "env", "pgpass"},
		Print:    printCredentials,
	}
}

// elsewhere lists variables by which libpq would go to another server, with another login, or log in with
// what isn't ours.
func elsewhere() []string {
	return []string{
		"PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGREQUIRESSL", "PGREQUIREPEER", "PGREQUIREAUTH",
		"PGSSLCERT", "PGSSLKEY", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLROOTCERT", "PGSSLMODE", "PGSSLSNI",
		"PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGKRBSRVNAME", "PGGSSENCMODE", "PGGSSLIB", "PGSSLNEGOTIATION",
		"PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE",
	}
}

// runPsql gives psql all it needs in its environment: the password stands nowhere else, least of all in its
// arguments.
func runPsql(_ context.Context, _ string, c protocol.Credentials, _ protocol.Person) (protocol.Run, error) {
	r := protocol.Run{Clear: elsewhere(), Set: []string{
		"PGHOST=" + c.Host, "PGPORT=" + strconv.Itoa(c.Port), "PGUSER=" + c.User,
		"PGPASSWORD=" + c.Password, "PGDATABASE=" + c.Database, "PGGSSENCMODE=disable",
	}}
	if c.TLS != "" {
		r.Set = append(r.Set, "PGSSLMODE="+c.TLS)
	}
	if c.CAFile != "" {
		r.Set = append(r.Set, "PGSSLROOTCERT="+c.CAFile)
	}
	return r, nil
}

func printCredentials(c protocol.Credentials, format string) string {
	switch format {
	case "env":
		return protocol.ShellExports("PGHOST", c.Host, "PGPORT", strconv.Itoa(c.Port), "PGUSER", c.User,
			"PGPASSWORD", c.Password, "PGDATABASE", c.Database, "PGSSLMODE", c.TLS, "PGSSLROOTCERT", c.CAFile)
	case "pgpass":
		return pgpass(c) + "\n"
	default:
		return dsn(c) + "\n"
	}
}

func dsn(c protocol.Credentials) string {
	q := url.Values{}
	if c.TLS != "" {
		q.Set("sslmode", c.TLS)
	}
	if c.CAFile != "" {
		q.Set("sslrootcert", c.CAFile)
	}
	u := url.URL{
		Scheme: "postgresql", User: url.UserPassword(c.User, c.Password),
		Host: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), Path: "/" + c.Database,
		// libpq takes a plus literally, where url.Values writes one for a space.
		RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20"),
	}
	return u.String()
}

// pgpass is a line of libpq's password file; a colon and a backslash are escaped there.
func pgpass(c protocol.Credentials) string {
	esc := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	return strings.Join([]string{
		esc.Replace(c.Host), strconv.Itoa(c.Port), esc.Replace(c.Database), esc.Replace(c.User), esc.Replace(c.Password),
	}, ":")
}
