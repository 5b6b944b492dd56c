package main

import (
	"context"
	"os/exec"
	"strings"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// database is a target and what people see of it and type.
type database struct {
	target  string
	product string
	client  string
	window  time.Duration // a demo's half hour
	server  interface {
		Ask(ctx context.Context, database, sql string, args ...any) ([]string, error)
		Leftovers(ctx context.Context, account string) ([]string, error)
	}
	work   func(ctx context.Context, creds harness.Credentials, statements ...string) *exec.Cmd
	shown  func(grant string) string // work, as it is typed
	whoami string
	long   string // an INSERT that takes a minute
	// accounts of a grant, as the DBA sees them.
	accounts func(ctx context.Context, grant string) ([]string, error)
}

func orders(pg *harness.Postgres) database {
	return database{
		target: harness.Orders, product: "PostgreSQL", client: "psql", window: 20 * time.Second, server: pg,
		work: func(ctx context.Context, creds harness.Credentials, statements ...string) *exec.Cmd {
			args := []string{"-e"}
			for _, sql := range statements {
				args = append(args, "-c", sql)
			}
			return creds.PSQL(ctx, args...)
		},
		shown:  func(grant string) string { return `psql "$(curfew credentials ` + grant + ` -o dsn)"` },
		whoami: "SELECT current_user",
		long:   `INSERT INTO orders (item) SELECT 'too late' || coalesce(pg_sleep(0.1)::text, '') FROM generate_series(1, 600)`,
		accounts: func(ctx context.Context, grant string) ([]string, error) {
			return pg.Ask(ctx, harness.Orders, `SELECT rolname FROM pg_roles WHERE rolname LIKE 'curfew\_%' || $1`, grant)
		},
	}
}

func shop(my *harness.MariaDB) database {
	return database{
		target: harness.Shop, product: "MariaDB", client: "mariadb", window: 10 * time.Second, server: my,
		work: func(ctx context.Context, creds harness.Credentials, statements ...string) *exec.Cmd {
			return creds.MariaDB(ctx, "mariadb", "--table", "--verbose", "-e", strings.Join(statements, "; "), creds.Database)
		},
		shown:  func(grant string) string { return "mariadb --defaults-file=<(curfew credentials " + grant + " -o cnf)" },
		whoami: "SELECT CURRENT_USER()",
		long:   `INSERT INTO orders (item) SELECT CONCAT('too late', SLEEP(0.1)) FROM seq_1_to_600`,
		accounts: func(ctx context.Context, grant string) ([]string, error) {
			return my.Ask(ctx, "mysql", `SELECT User FROM user WHERE is_role = 'N' AND User LIKE CONCAT('curfew\_%', ?)`, grant)
		},
	}
}
