package soak

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// client is a stock driver's connection through Curfew.
type client interface {
	// run runs the kind-th sort of statement with a tag. fatal: the connection is of no more use.
	run(ctx context.Context, kind int, tag string) (fatal bool, err error)
	hangUp() error // in order
	socket() net.Conn
	backend() string // the server's id of the connection
}

// kinds is how many sorts of statements each client has.
const kinds = 6

// dial logs in with the engine's client.
func (w *world) dial(ctx context.Context, target string, c api.Credentials) (client, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ca := filepath.Join(w.cur.Dir, "tls.crt")
	if target == harness.Orders {
		return dialPostgres(ctx, c, ca)
	}
	return dialMariaDB(ctx, c)
}

type pgClient struct {
	*pgx.Conn
	tcp net.Conn
	pid int
}

// PostgreSQL's clients use TLS, MariaDB's don't: both ways through the relay are taken.
func dialPostgres(ctx context.Context, c api.Credentials, ca string) (client, error) {
	cfg, err := pgx.ParseConfig(harness.Credentials{Credentials: c, CAFile: ca}.URL())
	if err != nil {
		return nil, err
	}
	p := &pgClient{}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		p.tcp = conn
		return conn, err
	}
	if p.Conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
		return nil, err
	}
	if err := p.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&p.pid); err != nil {
		return nil, errors.Join(err, p.hangUp())
	}
	return p, nil
}

func (p *pgClient) run(ctx context.Context, kind int, tag string) (bool, error) {
	var err error
	switch kind {
	case 0:
		_, err = p.PgConn().Exec(ctx, "INSERT INTO soak VALUES ('"+tag+"')").ReadAll()
	case 1:
		_, err = p.Exec(ctx, "INSERT INTO soak VALUES ($1, 'prepared')", tag)
	case 2:
		_, err = p.PgConn().Exec(ctx, "BEGIN; INSERT INTO soak VALUES ('"+tag+"'); COMMIT").ReadAll()
	case 3:
		var n int
		err = p.QueryRow(ctx, "SELECT count(*) FROM generate_series(1, 1000) WHERE $1::text <> ''", tag).Scan(&n)
	case 4:
		_, err = p.PgConn().CopyTo(ctx, io.Discard, "COPY (SELECT '"+tag+"', repeat('x', 500) FROM generate_series(1, 100)) TO STDOUT")
	case 5: // a statement that fails
		_, err = p.PgConn().Exec(ctx, "SELECT 1/0 AS \""+tag+"\"").ReadAll()
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "22012" {
			return false, nil
		}
	}
	return err != nil, err
}

func (p *pgClient) hangUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // the goodbye, whatever has ended
	defer cancel()
	return p.Close(ctx)
}

func (p *pgClient) socket() net.Conn { return p.tcp }
func (p *pgClient) backend() string  { return itoa(p.pid) }

type myClient struct {
	driver.Conn
	tcp  net.Conn
	stmt driver.Stmt
	id   string
}

func dialMariaDB(ctx context.Context, c api.Credentials) (client, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName, cfg.Net, cfg.Logger = c.User, c.Password, c.Database, "tcp", &mysql.NopLogger{}
	cfg.Addr, cfg.MultiStatements, cfg.CheckConnLiveness = net.JoinHostPort(c.Host, itoa(c.Port)), true, false
	m := &myClient{}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		m.tcp = conn
		return conn, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	if m.Conn, err = connector.Connect(ctx); err != nil {
		return nil, err
	}
	if m.stmt, err = m.Prepare("INSERT INTO soak VALUES (?, 'prepared')"); err == nil {
		m.id, err = m.query(ctx, "SELECT CONNECTION_ID()")
	}
	if err != nil {
		return nil, errors.Join(err, m.Conn.Close())
	}
	return m, nil
}

func (m *myClient) run(ctx context.Context, kind int, tag string) (bool, error) {
	var err error
	exec := func(text string) {
		_, err = m.Conn.(driver.ExecerContext).ExecContext(ctx, text, nil)
	}
	switch kind {
	case 0:
		exec("INSERT INTO soak VALUES ('" + tag + "', NULL)")
	case 1:
		_, err = m.stmt.(driver.StmtExecContext).ExecContext(ctx, []driver.NamedValue{{Ordinal: 1, Value: tag}})
	case 2:
		exec("DO SLEEP(0.01) /* " + tag + " */")
	case 3, 4:
		_, err = m.query(ctx, "SELECT '"+tag+"', REPEAT('x', 500) FROM seq_1_to_100")
	case 5: // a statement that fails
		exec("SELECT nothing_of_this_name /* " + tag + " */")
		var my *mysql.MySQLError
		if errors.As(err, &my) && my.Number == 1054 {
			return false, nil
		}
	}
	return err != nil, err
}

// query reads all rows, and gives the first value of the last one.
func (m *myClient) query(ctx context.Context, text string) (last string, err error) {
	rows, err := m.Conn.(driver.QueryerContext).QueryContext(ctx, text, nil)
	if err != nil {
		return "", err
	}
	dest := make([]driver.Value, len(rows.Columns()))
	for {
		if err = rows.Next(dest); err != nil {
			break
		}
		last = fmt.Sprint(dest[0])
		if b, ok := dest[0].([]byte); ok {
			last = string(b)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return last, errors.Join(err, rows.Close())
}

func (m *myClient) hangUp() error    { return m.Conn.Close() }
func (m *myClient) socket() net.Conn { return m.tcp }
func (m *myClient) backend() string  { return m.id }

// gone says whether an error is only a connection's that was closed already.
func gone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, driver.ErrBadConn)
}
