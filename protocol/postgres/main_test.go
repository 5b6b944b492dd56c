package postgres

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/enginetest"
	"github.com/curfewdb/curfew/protocol/postgres/pgtest"
)

const (
	testInstallation = "t3st01"
	brokerPassword   = "broker-password"
)

// server is the one PostgreSQL of this package's tests; nil where there is none.
var server *pgtest.Server

var testLevels = []protocol.Level{
	{Name: "writer", Roles: []string{"orders_writer"}, PreparedTransactions: true, Sessions: 5},
	{Name: "owner", Roles: []string{"orders_owner"}, SetRole: true, Sessions: 5},
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	flag.Parse()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		return m.Run(), nil // each of the fuzzer's processes comes here, and none needs a server
	}
	if enginetest.Child() {
		return m.Run(), nil
	}
	server, err = pgtest.Start("max_prepared_transactions=10", "max_connections=40", "log_statement=all")
	if errors.Is(err, pgtest.ErrMissing) && os.Getenv("CI") == "" {
		fmt.Fprintln(os.Stderr, "tests that need a server are skipped:", err)
		server, err = nil, nil
		return m.Run(), nil
	}
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, server.Stop(), stopTLSServer()) }()
	if err := prepareServer(context.Background()); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// prepareServer is the DBA's part: Curfew's own set-up SQL, run twice, in two databases, and an
// application with a secret.
func prepareServer(ctx context.Context) error {
	e, err := New(ctx, Config{Target: "orders", URL: server.URL("curfew_broker", "orders"), Installation: testInstallation})
	if err != nil {
		return err
	}
	defer e.Close()
	setup := e.Setup(testLevels)
	if err := server.SQL(ctx, "postgres", "CREATE DATABASE orders", "CREATE DATABASE billing", setup, setup,
		"ALTER ROLE curfew_broker PASSWORD '"+brokerPassword+"'",
		"CREATE ROLE app LOGIN PASSWORD 'app'", "CREATE ROLE stranger LOGIN PASSWORD 'stranger'"); err != nil {
		return err
	}
	for _, database := range []string{"orders", "billing"} {
		err := server.SQL(ctx, database, setup,
			"GRANT USAGE, CREATE ON SCHEMA public TO app, orders_writer, orders_owner",
			"GRANT CREATE ON DATABASE "+database+" TO orders_writer",
			"SET ROLE app",
			"CREATE TABLE orders (id serial PRIMARY KEY, what text)",
			"CREATE TABLE secret (word text)",
			"INSERT INTO secret VALUES ('sesame')",
			"GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON orders TO orders_writer",
			"GRANT USAGE ON SEQUENCE orders_id_seq TO orders_writer",
			"GRANT SELECT ON secret TO orders_writer",
			"RESET ROLE", "SET ROLE orders_owner",
			"CREATE TABLE owned (id int)",
			"CREATE VIEW owned_view AS SELECT * FROM owned",
			"CREATE FUNCTION owned_fn() RETURNS int LANGUAGE sql AS 'SELECT 1'")
		if err != nil {
			return err
		}
	}
	return nil
}

// need skips where there is no server.
func need(t *testing.T) *pgtest.Server {
	t.Helper()
	if server == nil {
		t.Skip(pgtest.ErrMissing)
	}
	return server
}

// newEngine is one Curfew on the server, with a step hook.
func newEngine(t *testing.T, step protocol.Step) *Engine {
	t.Helper()
	s := need(t)
	e, err := New(t.Context(), Config{
		Target: "orders", URL: s.URL("curfew_broker", "orders"), Password: brokerPassword,
		Installation: testInstallation, Step: step, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

var grants atomic.Uint32

// newSpec is an intent for a new grant.
func newSpec(level int) protocol.AccountSpec {
	grant := fmt.Sprintf("g%010d", grants.Add(1))
	return protocol.AccountSpec{
		Installation: testInstallation, Grant: grant, Name: "curfew_" + testInstallation + "_" + grant,
		Requester: `al'ice\@example.test`, End: time.Now().Add(time.Hour), Level: testLevels[level],
	}
}

// withSetRole is a spec whose holder can SET ROLE, as everybody can before PostgreSQL 16.
func withSetRole(t *testing.T, spec protocol.AccountSpec) protocol.AccountSpec {
	t.Helper()
	spec.Level.SetRole = version(t) >= versionSetFalse
	return spec
}

// version is the server's.
func version(t *testing.T) int {
	t.Helper()
	need(t)
	n, err := strconv.Atoi(super(t, "postgres", "SELECT current_setting('server_version_num')::int / 10000"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func provision(t *testing.T, e *Engine, spec protocol.AccountSpec) *account {
	t.Helper()
	got, err := e.Provision(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	a := got.(*account)
	t.Cleanup(func() { remove(t, spec.Name) }) // whatever a test leaves must not disturb the next
	return a
}

// remove takes a role off the server by force.
func remove(t *testing.T, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	there, err := server.Value(ctx, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = $1", name)
	if err != nil || there == "0" {
		return
	}
	quoted := pgx.Identifier{name}.Sanitize()
	for _, database := range []string{"orders", "billing"} {
		if err := server.SQL(ctx, database, "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = '"+name+"'", "DROP OWNED BY "+quoted+" CASCADE"); err != nil {
			t.Error(err)
		}
	}
	if err := server.SQL(ctx, "orders", "DROP ROLE "+quoted); err != nil {
		t.Error(err)
	}
}

// login is a direct login as the account, as its sessions make it.
func login(t *testing.T, a *account, database string) *pgx.Conn {
	t.Helper()
	c, err := dial(t.Context(), server.DSN(a.spec.Name, a.secret, database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(t.Context(), c) })
	return c
}

// dial logs in with one iteration of SCRAM, which pgx accepts.
func dial(ctx context.Context, dsn string) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) }

func exec(t *testing.T, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// super asks the superuser.
func super(t *testing.T, database, sql string, args ...any) string {
	t.Helper()
	v, err := server.Value(t.Context(), database, sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// admin runs statements as the superuser.
func admin(t *testing.T, database string, statements ...string) {
	t.Helper()
	if err := server.SQL(t.Context(), database, statements...); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for something that can be observed.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 10 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// finish cuts and cleans and wants both to succeed.
func finish(t *testing.T, a protocol.Account) (protocol.Cut, protocol.Clean) {
	t.Helper()
	cut, err := a.Cut(t.Context())
	if err != nil {
		t.Fatalf("cut: %v", err)
	}
	clean, err := a.Clean(t.Context())
	if err != nil {
		t.Fatalf("clean: %v", err)
	}
	if n := super(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = $1", a.Name()); n != "0" {
		t.Fatalf("the role is still there")
	}
	return cut, clean
}

// find gives the residue whose object's description contains text.
func find(t *testing.T, list []protocol.Residue, database, text string) protocol.Residue {
	t.Helper()
	for _, r := range list {
		if r.Database == database && strings.HasPrefix(r.Object, text) {
			return r
		}
	}
	t.Fatalf("no residue like %q in %s: %+v", text, database, list)
	return protocol.Residue{}
}

// fakeSession stands for a link.
type fakeSession struct {
	backend   atomic.Uint32
	statement uint64
	gids      []string
}

func (f *fakeSession) Backend() uint32    { return f.backend.Load() }
func (f *fakeSession) InFlight() uint64   { return f.statement }
func (f *fakeSession) Prepared() []string { return f.gids }

// join makes c one of the account's own sessions.
func join(t *testing.T, a *account, c *pgx.Conn) *fakeSession {
	t.Helper()
	f := &fakeSession{}
	if _, err := a.Join(f); err != nil {
		t.Fatal(err)
	}
	f.backend.Store(c.PgConn().PID())
	return f
}
