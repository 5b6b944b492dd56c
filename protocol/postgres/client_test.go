package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// What psql inherits leads it nowhere else, and its password stands in its environment alone.
func TestRunPsql(t *testing.T) {
	c := protocol.Credentials{Host: "h", Port: 6432, User: "g1", Password: "secret", Database: "orders", TLS: protocol.TLSVerify, CAFile: "/ca.pem"}
	r, err := runPsql(t.Context(), "/usr/bin/psql", c, protocol.Person{})
	if err != nil || len(r.Args) != 0 {
		t.Fatalf("%q, %v", r.Args, err)
	}
	got := map[string]string{}
	for _, kv := range r.Environ([]string{
		"HOME=/home/a", "PGHOSTADDR=10.0.0.1", "PGSERVICE=prod", "PGPASSFILE=/x", "PGHOST=prod", "PGSSLMODE=disable",
		"PGOPTIONS=-c work_mem=1GB", "CURFEW_TOKEN=t", "PSQL_PAGER=less",
	}) {
		k, v, _ := strings.Cut(kv, "=")
		if _, twice := got[k]; twice {
			t.Errorf("%s stands twice", k)
		}
		got[k] = v
	}
	for k, want := range map[string]string{
		"PGHOST": "h", "PGPORT": "6432", "PGUSER": "g1", "PGPASSWORD": "secret", "PGDATABASE": "orders", "PGSSLMODE": "verify-full",
		"PGSSLROOTCERT": "/ca.pem", "HOME": "/home/a", "PGOPTIONS": "-c work_mem=1GB", "PSQL_PAGER": "less",
	} {
		if got[k] != want {
			t.Errorf("%s=%q, want %q", k, got[k], want)
		}
	}
	for _, k := range []string{"PGHOSTADDR", "PGSERVICE", "PGPASSFILE", "CURFEW_TOKEN"} {
		if _, ok := got[k]; ok {
			t.Errorf("%s is passed on", k)
		}
	}
}

func TestPrintCredentials(t *testing.T) {
	c := protocol.Credentials{Host: "::1", Port: 5432, User: "a:b", Password: `p\w:'d`, Database: "my db", CAFile: "/home/a b/ü.pem"}
	for format, want := range map[string]string{
		"pgpass": `\:\:1:5432:my db:a\:b:p\\w\:'d` + "\n",
		"dsn":    `postgresql://a%3Ab:p%5Cw%3A%27d@[::1]:5432/my%20db?sslrootcert=%2Fhome%2Fa%20b%2F%C3%BC.pem` + "\n",
		"env": `export PGHOST='::1'
export PGPORT='5432'
export PGUSER='a:b'
export PGPASSWORD='p\w:'\''d'
export PGDATABASE='my db'
export PGSSLROOTCERT='/home/a b/ü.pem'
`,
	} {
		if got := printCredentials(c, format); got != want {
			t.Errorf("%s:\n%s", format, got)
		}
		if !slices.Contains(Kind().Client.Formats, format) {
			t.Errorf("%s is not offered", format)
		}
	}
}
