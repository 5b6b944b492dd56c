package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/enginetest"
	"github.com/curfewdb/curfew/protocol/postgres/pgtest"
)

// TestConformance: what every engine must do, on a server of its own.
func TestConformance(t *testing.T) {
	if !enginetest.Child() {
		need(t)
	}
	enginetest.Run(t, enginetest.Kit{
		Start:       startConformance,
		Engine:      conformanceEngine,
		Front:       func(_ protocol.Engine, log *slog.Logger) protocol.Front { return NewFront(FrontConfig{Log: log}) },
		Level:       conformanceLevel,
		Connect:     connectPgx,
		Bulk:        bulkPgx,
		Cancellable: cancellablePgx,
		DBA:         enginetest.Login{User: "postgres", Password: pgtest.Password},
		App:         enginetest.Login{User: "app", Password: "app"},
		Stranger:    enginetest.Login{User: "stranger", Password: "stranger"},
		Dialect:     conformanceDialect,
	})
}

var conformanceLevel = protocol.Level{Name: "writer", Roles: []string{"marks_writer"}, SetRole: true}

// conformanceServer is a real PostgreSQL that remembers its settings.
type conformanceServer struct{ *pgtest.Server }

var conformanceSettings = []string{"max_prepared_transactions=50", "max_connections=200"}

func (s conformanceServer) Broker() string { return s.URL("curfew_broker", "marks") }
func (s conformanceServer) Restart() error { return s.Run(conformanceSettings...) }

func startConformance(ctx context.Context) (enginetest.Server, error) {
	raw, err := pgtest.Start(conformanceSettings...)
	if err != nil {
		return nil, err
	}
	s := conformanceServer{raw}
	if err := prepareConformance(ctx, s); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func prepareConformance(ctx context.Context, s conformanceServer) error {
	e, err := New(ctx, Config{Target: "marks", URL: s.Broker(), Installation: testInstallation})
	if err != nil {
		return err
	}
	defer e.Close()
	setup := e.Setup([]protocol.Level{conformanceLevel})
	if err := s.SQL(ctx, "postgres", "CREATE DATABASE marks", setup,
		"ALTER ROLE curfew_broker PASSWORD '"+brokerPassword+"'",
		"CREATE ROLE app LOGIN PASSWORD 'app'", "CREATE ROLE stranger LOGIN PASSWORD 'stranger'"); err != nil {
		return err
	}
	return s.SQL(ctx, "marks", setup,
		"GRANT USAGE, CREATE ON SCHEMA public TO app, marks_writer", "SET ROLE app",
		"CREATE TABLE marks (what varchar(100) NOT NULL)", "CREATE TABLE secret (word text)", "INSERT INTO secret VALUES ('sesame')",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON marks TO marks_writer", "GRANT SELECT ON secret TO marks_writer")
}

func conformanceEngine(ctx context.Context, c enginetest.Config) (protocol.Engine, error) {
	return New(ctx, Config{Target: "marks", URL: c.URL, Password: brokerPassword, Installation: c.Installation, Step: c.Step, Log: c.Log})
}

// pgxConfig has pgx log in over a connection of the suite's.
func pgxConfig(dial enginetest.Dial, user, password, database string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s:%s@127.0.0.1:1/%s?sslmode=disable", user, password, database))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	return cfg, nil
}

func connectPgx(dial enginetest.Dial, user, password, database string) (driver.Connector, error) {
	cfg, err := pgxConfig(dial, user, password, database)
	if err != nil {
		return nil, err
	}
	return stdlib.GetConnector(*cfg), nil
}

func bulkPgx(ctx context.Context, c *sql.Conn, mark string, data io.Reader) error {
	return withPgx(c, func(c *pgx.Conn) error {
		_, err := c.PgConn().CopyFrom(ctx, data, "COPY marks (what) FROM STDIN /* "+mark+" */")
		return err
	})
}

func withPgx(c *sql.Conn, f func(*pgx.Conn) error) error {
	return c.Raw(func(raw any) error { return f(raw.(*stdlib.Conn).Conn()) })
}

func cancellablePgx(ctx context.Context, dial enginetest.Dial, user, password, database string) (k enginetest.Cancellable, err error) {
	connector, err := connectPgx(dial, user, password, database)
	if err != nil {
		return k, err
	}
	k.DB = sql.OpenDB(connector)
	k.DB.SetMaxOpenConns(1)
	c, err := k.DB.Conn(ctx)
	if err != nil {
		return k, errors.Join(err, k.DB.Close())
	}
	defer c.Close()
	var conn *pgconn.PgConn
	err = withPgx(c, func(c *pgx.Conn) error { conn = c.PgConn(); return nil })
	k.Cancel = conn.CancelRequest
	k.Forge = func(ctx context.Context, _, _ string) error { // the right pid, another key
		raw, err := dial(ctx)
		if err != nil {
			return err
		}
		defer raw.Close()
		key := append([]byte(nil), conn.SecretKey()...)
		key[0] ^= 1
		msg := append(be32(12+len(key)), be32(codeCancel)...)
		msg = binary.BigEndian.AppendUint32(msg, conn.PID())
		if _, err := raw.Write(append(msg, key...)); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, raw) // hung up on: it has been read
		return err
	}
	return k, err
}

var conformanceDialect = enginetest.Dialect{
	Database:    "marks",
	Owns:        true,
	Fates:       true,
	LastWords:   true,
	Placeholder: func(n int) string { return fmt.Sprintf("$%d", n) },
	Sleep: func(mark string, seconds int) string {
		return fmt.Sprintf("SELECT pg_sleep(%d), '%s'", seconds, mark)
	},
	InsertThenSleep: func(mark string, seconds int) string {
		return fmt.Sprintf("INSERT INTO marks (what) SELECT '%[1]s' UNION ALL SELECT '%[1]s' FROM pg_sleep(%[2]d)", mark, seconds)
	},
	SetPassword: func(account, password string) string {
		return "ALTER ROLE " + account + " PASSWORD " + literal(password)
	},
	Become: []string{"SET ROLE marks_writer"},
	Prepare: func(gid, work string) []string {
		return []string{"BEGIN", work, "PREPARE TRANSACTION " + literal(gid)}
	},
	RollBack: func(gid string) string { return "ROLLBACK PREPARED " + literal(gid) },
	Leave: func(account, name string) enginetest.Leaving {
		return enginetest.Leaving{
			Own:  []string{"CREATE TABLE IF NOT EXISTS " + name + " (a int)"},
			DBA:  []string{"GRANT " + account + " TO stranger"},
			Undo: []string{"DROP TABLE IF EXISTS " + name},
		}
	},
	Leftovers: []enginetest.Leftover{
		{Name: "a view", Kind: "view", Object: "left_view", Alert: true,
			Make:   []string{"CREATE VIEW left_view AS SELECT * FROM secret", "GRANT SELECT ON left_view TO PUBLIC"},
			Closed: []string{"SELECT * FROM left_view"}, Undo: []string{"DROP VIEW IF EXISTS left_view"}},
		{Name: "a view of the group's", Kind: "view", Object: "group_view", Alert: true,
			Make:   []string{"SET ROLE marks_writer", "CREATE VIEW group_view AS SELECT * FROM secret", "GRANT SELECT ON group_view TO PUBLIC"},
			Closed: []string{"SELECT * FROM group_view"}, Undo: []string{"DROP VIEW IF EXISTS group_view"}},
		{Name: "a definer function", Kind: "function", Object: "left_fn", Alert: true,
			Make:   []string{"CREATE FUNCTION left_fn() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT word FROM secret'"},
			Closed: []string{"SELECT left_fn()"}, Undo: []string{"DROP FUNCTION IF EXISTS left_fn()"}},
		{Name: "default privileges", Kind: "default privileges", Object: "default privileges",
			Make: []string{"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC"},
			Open: []string{"INSERT INTO marks (what) VALUES ('still open')"}},
		{Name: "a table", Kind: "table", Object: "left_table",
			Make:   []string{"CREATE TABLE left_table AS SELECT * FROM secret", "GRANT SELECT ON left_table TO PUBLIC"},
			Closed: []string{"SELECT * FROM left_table"}, Undo: []string{"DROP TABLE IF EXISTS left_table"}},
	},
	Sessions: func(account string) string {
		return "SELECT count(*) FROM pg_stat_activity WHERE usename = " + literal(account)
	},
	Running: func(account, text string) string {
		return "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = " + literal(account) + " AND query LIKE " + literal("%"+text+"%")
	},
	Written: func(account string) string {
		return "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND usename = " + literal(account)
	},
	Accounts: func(prefix string) string {
		return "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, " + literal(prefix) + ")"
	},
	Prepared: func(ctx context.Context, db *sql.DB) ([]string, error) {
		var list string
		err := db.QueryRowContext(ctx, "SELECT coalesce(string_agg(gid, ','), '') FROM pg_prepared_xacts").Scan(&list)
		return strings.Split(list, ","), err
	},
	Dialogue: conformanceDialogue,
}

var conformanceDialogue = []enginetest.Line{
	{SQL: "SELECT 1 AS one",
		Records: "prepare SQL; bind; execute; result rows=1 idle"},
	{SQL: "SELECT current_user, session_user",
		Records: "prepare SQL; bind; execute; result rows=1 idle"},
	{SQL: "SELECT $1::int4 + $2::int8, $3::text, $4::numeric, $5::timestamptz, $6::bytea, $7::bool, $8::text", Args: []any{41, 1, "it's", "1.50", "2026-11-22 10:00:00+00", []byte{0, 255}, true, nil},
		Records: `prepare SQL; bind int4="41" int8="1" text="it's" numeric="1.50" timestamptz="2026-11-22 10:00:00+00" bytea=hex:00ff bool="t" text=null; execute; result rows=1 idle`},
	{SQL: "SELECT 1::int2, 2::int4, 3::int8, 1.5::float4, 2.5::float8, 12.345::numeric(10,3), 'x'::char(3), 'y'::varchar(7), true, NULL::date, DATE '2026-11-22', TIME '10:00', INTERVAL '1 day', ARRAY[1,2], '{\"a\":1}'::jsonb, '10.0.0.1'::inet, 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'::uuid",
		Records: "prepare SQL; bind; execute; result rows=1 idle"},
	{SQL: "SELECT g, repeat('x', g) FROM generate_series(1, 5) g WHERE g > $1", Args: []any{2},
		Records: `prepare SQL; bind int4="2"; execute; result rows=3 idle`},
	{SQL: "SELECT repeat('large ', 500000)",
		Records: "prepare SQL; bind; execute; result rows=1 idle"},
	{SQL: "SELECT length($1::text)", Args: []any{strings.Repeat("large ", 50000)},
		Records: "prepare SQL; bind text=(300000 bytes); execute; result rows=1 idle"},
	{SQL: "CREATE TEMP TABLE talk (id serial PRIMARY KEY, what text)", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "INSERT INTO talk (what) VALUES ('a'), ('b'), (NULL)", Exec: true,
		Records: "simple SQL; result rows=3 idle"},
	{SQL: "UPDATE talk SET what = $1 WHERE id > $2", Args: []any{"c", 1}, Exec: true,
		Records: `prepare SQL; bind text="c" int4="1"; execute; result rows=2 idle`},
	{SQL: "DELETE FROM talk WHERE false", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "SELECT 1; SELECT 2 WHERE false; INSERT INTO talk (what) VALUES ('d')", Exec: true,
		Records: "simple SQL; result rows=1; result rows=0; result rows=1 idle"},
	{SQL: "SELECT * FROM talk ORDER BY id",
		Records: "prepare SQL; bind; execute; result rows=4 idle"},
	{SQL: "SELECT nonsense",
		Records: "prepare SQL; result rows=0 code=42703 idle"},
	{SQL: "SELECT 1/0",
		Records: "prepare SQL; bind; execute; result rows=0 code=22012 idle; result rows=0 code=skipped"},
	{SQL: "SELECT 1/(2 - g) FROM generate_series(1, 3) g",
		Records: "prepare SQL; bind; execute; result rows=1 code=22012 idle"},
	{SQL: "INSERT INTO talk (id) VALUES (1)", Exec: true,
		Records: "simple SQL; result rows=0 code=23505 idle"},
	{SQL: "INSERT INTO secret VALUES ('x')", Exec: true,
		Records: "simple SQL; result rows=0 code=42501 idle"},
	{SQL: "BEGIN", Exec: true,
		Records: "simple SQL; result rows=0 open"},
	{SQL: "INSERT INTO nowhere VALUES (1)", Exec: true,
		Records: "simple SQL; result rows=0 code=42P01 failed"},
	{SQL: "SELECT 1",
		Records: "prepare SQL; result rows=0 code=25P02 failed"},
	{SQL: "COMMIT", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "DO $$BEGIN RAISE NOTICE 'look'; END$$", Exec: true,
		Records: "simple SQL; notice; result rows=0 idle"},
	{SQL: "", Exec: true,
		Records: "simple; result rows=0 idle"},
	{SQL: "SET application_name = 'talk'", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "SHOW application_name",
		Records: "prepare SQL; bind; execute; result rows=1 idle"},
}
