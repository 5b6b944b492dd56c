package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

func (st *stage) fronts() []front {
	return []front{
		{"PostgreSQL", harness.Orders, st.pgRunning, func(ctx context.Context) (dba, error) {
			c, err := st.pg.Connect(ctx, "postgres")
			if err != nil {
				return nil, err
			}
			return pgDBA{c}, nil
		}},
		{"MariaDB", harness.Shop, st.myRunning, func(ctx context.Context) (dba, error) {
			c, err := st.my.Connect(ctx, "")
			if err != nil {
				return nil, err
			}
			return myDBA{c}, nil
		}},
	}
}

type pgRunning struct {
	*pgx.Conn
	pid string
}

// What PostgreSQL's client is told as its own id is Curfew's making, so it asks.
func (st *stage) pgRunning(ctx context.Context, creds api.Credentials) (running, error) {
	c, err := st.through(creds).pgx(ctx, "")
	if err != nil {
		return nil, err
	}
	var pid int
	if err := c.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return pgRunning{c, strconv.Itoa(pid)}, nil
}

func (r pgRunning) backend() string { return r.pid }
func (r pgRunning) busy(ctx context.Context) error {
	_, err := r.PgConn().Exec(ctx, "SELECT pg_sleep(60)").ReadAll()
	return err
}
func (r pgRunning) close() error { return r.Close(context.Background()) }

type pgDBA struct{ *pgx.Conn }

func (d pgDBA) count(ctx context.Context, where string) (n int, err error) {
	return n, d.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE "+where).Scan(&n)
}
func (d pgDBA) is(backend string) string { return "pid = " + backend }
func (d pgDBA) of(account string) string { return "usename LIKE '" + account + "'" }
func (d pgDBA) isBusy(backend string) string {
	if backend == "" {
		return "state = 'active' AND query LIKE 'SELECT pg_sleep%'"
	}
	return d.is(backend) + " AND " + d.isBusy("")
}
func (d pgDBA) close() error { return d.Close(context.Background()) }

type myRunning struct {
	driver.Conn
	id string
}

func (st *stage) myRunning(ctx context.Context, creds api.Credentials) (running, error) {
	c, err := st.through(creds).mysqlConn(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := c.(driver.QueryerContext).QueryContext(ctx, "SELECT CONNECTION_ID()", nil)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	dest := make([]driver.Value, 1)
	err = errors.Join(rows.Next(dest), rows.Close())
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	id := fmt.Sprint(dest[0])
	if b, ok := dest[0].([]byte); ok {
		id = string(b)
	}
	return myRunning{c, id}, nil
}

func (r myRunning) backend() string { return r.id }
func (r myRunning) busy(ctx context.Context) error {
	_, err := r.Conn.(driver.ExecerContext).ExecContext(ctx, "DO SLEEP(60)", nil)
	return err
}
func (r myRunning) close() error { return r.Conn.Close() }

type myDBA struct{ *harness.MySQLConn }

func (d myDBA) count(ctx context.Context, where string) (n int, err error) {
	return n, d.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE "+where).Scan(&n)
}
func (d myDBA) is(backend string) string { return "ID = " + backend }
func (d myDBA) of(account string) string { return "USER LIKE '" + account + "'" }
func (d myDBA) isBusy(backend string) string {
	if backend == "" {
		return "INFO LIKE 'DO SLEEP%'"
	}
	return d.is(backend) + " AND " + d.isBusy("")
}
func (d myDBA) close() error { return d.Close() }
