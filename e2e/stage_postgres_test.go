package e2e

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/e2e/harness"
)

// onPostgres is the stage with the target orders.
func onPostgres(pg *harness.Postgres) *stage {
	return &stage{
		kind: "postgres", target: harness.Orders, url: pg.Target(),
		server: pg, pg: pg, deeds: postgresDeeds(),
		login: func(ctx context.Context, c harness.Credentials) (conn, error) { return pgDial(ctx, c.URL()) },
		direct: func(ctx context.Context, user, password string) (conn, error) {
			return pgDial(ctx, pg.URL(user, password, harness.Orders))
		},
		lastWords: pgLastWords,
		account:   "SELECT current_user",
		slowly: func(word string) string {
			return fmt.Sprintf("INSERT INTO orders (item) SELECT '%s' || coalesce(pg_sleep(0.1)::text, '') FROM generate_series(1, 40)", word)
		},
		commits: func(word string) string { return "SELECT count(*) FROM orders WHERE item LIKE '" + word + "%'" },
		running: func(word string) string {
			return "SELECT pid FROM pg_stat_activity WHERE query LIKE '%" + word + `%' AND usename LIKE 'curfew\_%'`
		},
		open: func(grant string) string {
			return `SELECT query FROM pg_stat_activity WHERE usename LIKE 'curfew\_%\_` + grant + "'"
		},
		password: func(account, password string) string { return "ALTER ROLE " + account + " PASSWORD '" + password + "'" },
		prepared: func(ctx context.Context) ([]string, error) {
			return pg.Ask(ctx, harness.Orders, "SELECT gid FROM pg_prepared_xacts")
		},
		share: func(ctx context.Context, account string) error {
			return pg.Exec(ctx, harness.Orders, "GRANT "+account+" TO stranger")
		},
		denied: "28P01",
		crash: func(word, grant string) (left, stays []string) {
			return []string{"SELECT '" + word + "-passing'"}, []string{
				"INSERT INTO orders (item) VALUES ('" + word + "-kept')",
				"CREATE TABLE crash_" + grant + " (a int)",
				"BEGIN",
				"INSERT INTO orders (item) VALUES ('" + word + "-prepared')",
				"PREPARE TRANSACTION 'story-" + word + "'",
			}
		},
	}
}

type pgConn struct{ *pgx.Conn }

func pgDial(ctx context.Context, url string) (conn, error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	return pgConn{c}, nil
}

func (c pgConn) run(ctx context.Context, sql string) error {
	_, err := c.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

func (c pgConn) column(ctx context.Context, sql string) ([]string, error) {
	rows, err := c.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func (c pgConn) close() error { return c.Close(context.Background()) }

func pgLastWords(err error) (string, bool) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "57P01" || pg.Severity != "FATAL" {
		return "", false
	}
	return pg.Message, true
}
