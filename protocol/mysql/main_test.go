package mysql

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/enginetest"
	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

const (
	testInstallation = "t3st01"
	testBroker       = "curfew_broker"
	brokerPassword   = "broker-password"
)

// testServer is the one MariaDB or MySQL of this package's tests; nil where there is none.
var testServer *mysqltest.Server

var testLevels = []protocol.Level{
	{Name: "writer", Roles: []string{"orders_writer", "orders_more"}, PreparedTransactions: true, LocalInfile: true, Sessions: 5},
	{Name: "owner", Roles: []string{"orders_owner"}, SetRole: true, Sessions: 5},
	{Name: "reader", Roles: []string{"orders_reader"}, Sessions: 2},
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
	testServer, err = mysqltest.Start(settings()...)
	if errors.Is(err, mysqltest.ErrMissing) && os.Getenv("CI") == "" {
		fmt.Fprintln(os.Stderr, "tests that need a server are skipped:", err)
		testServer, err = nil, nil
		return m.Run(), nil
	}
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, testServer.Stop()) }()
	if err := prepareServer(context.Background()); err != nil {
		return 1, err
	}
	before := runtime.NumGoroutine()
	if code = m.Run(); code == 0 {
		err = leaks(before)
	}
	return code, err
}

// leaks waits for the tests' goroutines to end.
func leaks(before int) error {
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			return fmt.Errorf("%d goroutines more than before the tests:\n%s", runtime.NumGoroutine()-before, stacks[:runtime.Stack(stacks, true)])
		}
	}
	return nil
}

// settings are the server's.
func settings() []string {
	list := []string{"max_connections=60", "event_scheduler=ON"}
	if bin, err := mysqltest.Bin(); err == nil && strings.Contains(bin, "maria") {
		list = append(list, "plugin-load-add=auth_ed25519")
	}
	return list
}

// prepareServer is the DBA's part: Curfew's own set-up SQL, run twice, and an application with a secret.
func prepareServer(ctx context.Context) error {
	url := testServer.URL(testBroker, "orders")
	e, err := New(ctx, Config{Target: "orders", URL: url, Installation: testInstallation})
	if err != nil {
		return err
	}
	defer e.Close()
	setup := e.Setup(testLevels)
	if err := testServer.SQL(ctx, "", "CREATE DATABASE orders", "CREATE DATABASE billing"); err != nil {
		return err
	}
	adminURL := strings.Replace(url, testBroker+"@", mysqltest.Admin+":"+mysqltest.Password+"@", 1)
	for range 2 {
		if err := Apply(ctx, adminURL, setup, testBroker, brokerPassword); err != nil {
			return err
		}
	}
	statements := []string{
		"CREATE USER app@'%' IDENTIFIED BY 'app'", "CREATE USER stranger@'%' IDENTIFIED BY 'stranger'",
		"GRANT ALL ON orders.* TO app@'%'", "GRANT ALL ON billing.* TO app@'%'",
		"GRANT EXECUTE, SELECT ON orders.* TO stranger@'%'",
		"CREATE TABLE orders.seven (n INT PRIMARY KEY)", "INSERT INTO orders.seven VALUES (1), (2), (3), (4), (5), (6), (7)",
		"GRANT SELECT ON orders.* TO orders_reader",
	}
	for _, database := range []string{"orders", "billing"} {
		statements = append(statements,
			"CREATE TABLE "+database+".orders (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(200))",
			"CREATE TABLE "+database+".secret (word VARCHAR(20))",
			"INSERT INTO "+database+".secret VALUES ('sesame')")
		for _, role := range []string{"orders_writer", "orders_owner"} {
			statements = append(statements, "GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER, CREATE, DROP, INDEX, ALTER ON "+database+".* TO "+role)
		}
	}
	return testServer.SQL(ctx, "", statements...)
}

// need skips where there is no server.
func need(t *testing.T) *mysqltest.Server {
	t.Helper()
	if testServer == nil {
		t.Skip(mysqltest.ErrMissing)
	}
	return testServer
}

// onMariaDB skips on MySQL.
func onMariaDB(t *testing.T) {
	t.Helper()
	if !need(t).IsMariaDB() {
		t.Skip("MariaDB only")
	}
}

// newEngine is one Curfew on the server, with a step hook.
func newEngine(t *testing.T, step protocol.Step) *Engine {
	t.Helper()
	s := need(t)
	e, err := New(t.Context(), Config{
		Target: "orders", URL: s.URL(testBroker, "orders"), Password: brokerPassword,
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
		Requester: `al'ice\@"example".test`, End: time.Now().Add(time.Hour), Level: testLevels[level],
	}
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

// remove takes a user and its role off the server by force.
func remove(t *testing.T, name string) {
	t.Helper()
	s := []string{"DROP USER IF EXISTS " + user(name, "127.0.0.1")}
	if testServer.IsMariaDB() {
		s = append(s, "DROP ROLE IF EXISTS "+name+roleSuffix)
	}
	if err := testServer.SQL(context.WithoutCancel(t.Context()), "", s...); err != nil {
		t.Error(err)
	}
	kick(t, name)
}

// kick ends the sessions of a user by force.
func kick(t *testing.T, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for {
		id, err := testServer.Value(ctx, "", "SELECT COALESCE(MAX(id), 0) FROM information_schema.processlist WHERE user = ?", name)
		if err != nil {
			t.Error(err)
		}
		if id == "0" || err != nil {
			return
		}
		_ = testServer.SQL(ctx, "", "KILL "+id) // it may be gone by now
	}
}

// directSession is a connection of its own.
type directSession struct {
	*sql.Conn
	id uint32
}

// direct is a direct login as the account, as its sessions make it.
func direct(t *testing.T, a *account, database string) *directSession {
	t.Helper()
	c, err := open(t, a.spec.Name, a.secret, database)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// open logs in; the connection is never made anew behind the test's back.
func open(t *testing.T, name, password, database string) (*directSession, error) {
	t.Helper()
	cfg, err := driver.ParseDSN(testServer.DSN(name, password, database))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = &driver.NopLogger{}
	connector, err := driver.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(stubborn{connector})
	t.Cleanup(func() { db.Close() })
	c, err := db.Conn(t.Context())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	s := &directSession{Conn: c}
	return s, c.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&s.id)
}

// hangUp closes a connection for good.
func (s *directSession) hangUp() { (&conn{Conn: s.Conn}).discard() }

// alive says whether the server still answers.
func (s *directSession) alive(t *testing.T) bool {
	t.Helper()
	_, err := s.ExecContext(t.Context(), "DO 1")
	return err == nil
}

func do(t *testing.T, c *directSession, statements ...string) {
	t.Helper()
	for _, text := range statements {
		if _, err := c.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// admin runs statements as the administrator.
func admin(t *testing.T, database string, statements ...string) {
	t.Helper()
	if err := testServer.SQL(context.WithoutCancel(t.Context()), database, statements...); err != nil {
		t.Fatal(err)
	}
}

// super asks the administrator.
func super(t *testing.T, database, sql string, args ...any) string {
	t.Helper()
	v, err := testServer.Value(context.WithoutCancel(t.Context()), database, sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// eventually waits for something that can be observed.
func eventually(t *testing.T, what string, ok func() bool) {
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
	if n := super(t, "", "SELECT COUNT(*) FROM mysql.user WHERE User LIKE CONCAT(?, '%')", a.Name()); n != "0" {
		t.Fatalf("the user or its role is still there")
	}
	return cut, clean
}

// find gives the residue whose object's description begins with text.
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
	xids      []string
}

func (f *fakeSession) Backend() uint32    { return f.backend.Load() }
func (f *fakeSession) greeted() uint32    { return 1<<31 | f.backend.Load() }
func (f *fakeSession) InFlight() uint64   { return f.statement }
func (f *fakeSession) Prepared() []string { return f.xids }

// join makes c one of the account's own sessions.
func join(t *testing.T, a *account, c *directSession) *fakeSession {
	t.Helper()
	f := &fakeSession{}
	if _, err := a.add(f); err != nil {
		t.Fatal(err)
	}
	f.backend.Store(c.id)
	return f
}
