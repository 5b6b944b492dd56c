package enginetest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// suite is one run against one server.
type suite struct {
	kit    Kit
	server Server        // nil in a child
	broker string        // the server's URL for an engine
	admin  *sql.DB       // the DBA's
	number *atomic.Int64 // of the installations and marks that were given out
}

// Run runs the suite as subtests of t, against a server of its own that it starts and stops.
func Run(t *testing.T, kit Kit) {
	if Child() {
		child(t, kit)
		return
	}
	complete(t, kit)
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { // after everything else, the server included
		if !t.Failed() {
			goleak.VerifyNone(t, before)
		}
	})
	s := start(t, kit)
	for _, theme := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"promises", promises}, {"record", record}, {"ends", ends}, {"restart", restart}, {"cancel", cancel},
		{"together", together}, {"residue", residue}, {"sweep", sweep}, {"adoption", adoption}, {"watch", watch},
		{"transcript", transcript}, {"strangers", strangers}, {"midway", midway}, {"steps", steps}, {"crash", crash},
	} {
		t.Run(theme.name, func(t *testing.T) { theme.run(t, s) })
	}
}

// start starts a server of the kit's, for as long as t runs.
func start(t *testing.T, kit Kit) *suite {
	t.Helper()
	server, err := kit.Start(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := newSuite(t, kit, server.Broker())
	s.server = server
	return s
}

// complete wants every function of the kit to be there.
func complete(t *testing.T, kit Kit) {
	t.Helper()
	for _, part := range []reflect.Value{reflect.ValueOf(kit), reflect.ValueOf(kit.Dialect)} {
		for i := range part.NumField() {
			field, name := part.Field(i), part.Type().Name()+"."+part.Type().Field(i).Name
			switch {
			case field.Kind() == reflect.Func && field.IsNil():
				t.Fatalf("%s is missing", name)
			case (field.Kind() == reflect.String || field.Kind() == reflect.Struct) && field.IsZero():
				t.Fatalf("%s is missing", name)
			}
		}
	}
	if len(kit.Dialect.Leftovers) == 0 || len(kit.Dialect.Dialogue) == 0 || len(kit.Dialect.Become) == 0 || len(kit.Level.Roles) == 0 {
		t.Fatal("Dialect.Leftovers, Dialogue, Become or Level.Roles is missing")
	}
}

// newSuite looks at a server that runs.
func newSuite(t *testing.T, kit Kit, broker string) *suite {
	t.Helper()
	s := &suite{kit: kit, broker: broker, number: &atomic.Int64{}}
	connector, err := kit.Connect(s.direct, kit.DBA.User, kit.DBA.Password, kit.Dialect.Database)
	if err != nil {
		t.Fatal(err)
	}
	s.admin = sql.OpenDB(connector)
	t.Cleanup(func() { s.admin.Close() })
	return s
}

// next is a number that this run has not given out yet.
func (s *suite) next() int64 { return s.number.Add(1) }

// installation is one of its own for each test, so that tests can sweep beside each other.
func (s *suite) installation() string { return fmt.Sprintf("t%05d", s.next()) }

// mark is a text that stands in no other statement.
func (s *suite) mark(what string) string { return fmt.Sprintf("%s-%d", what, s.next()) }

// direct dials the server itself.
func (s *suite) direct(ctx context.Context) (net.Conn, error) {
	u, err := url.Parse(s.broker)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
}

// ask asks the DBA's question whose answer is a number.
func (s *suite) ask(t *testing.T, question string) int {
	t.Helper()
	var n int
	if err := s.admin.QueryRowContext(context.WithoutCancel(t.Context()), question).Scan(&n); err != nil {
		t.Fatalf("%s: %v", question, err)
	}
	return n
}

// dba runs statements as the DBA, in one connection.
func (s *suite) dba(t *testing.T, statements ...string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	c, err := s.admin.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, statement := range statements {
		if _, err := c.ExecContext(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// rows counts a mark's rows.
func (s *suite) rows(t *testing.T, mark string) int {
	t.Helper()
	return s.ask(t, "SELECT count(*) FROM marks WHERE what = '"+mark+"'")
}

// backends counts an account's.
func (s *suite) backends(t *testing.T, account string) int {
	t.Helper()
	return s.ask(t, s.kit.Dialect.Sessions(account))
}

// running waits until the account's backend runs a statement with that text.
func (s *suite) running(t *testing.T, account, text string) {
	t.Helper()
	eventually(t, "the server runs "+text, func() bool { return s.ask(t, s.kit.Dialect.Running(account, text)) > 0 })
}

// written waits until a transaction of the account's has written and is still in flight.
func (s *suite) written(t *testing.T, account string) {
	t.Helper()
	eventually(t, "the server has written", func() bool { return s.ask(t, s.kit.Dialect.Written(account)) > 0 })
}

// prepared gives the global ids on the server.
func (s *suite) prepared(t *testing.T) []string {
	t.Helper()
	list, err := s.kit.Dialect.Prepared(context.WithoutCancel(t.Context()), s.admin)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// patience is how long something that must come is waited for.
const patience = 20 * time.Second

// eventually waits for something that can be observed.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not so after %s: %s", patience, what)
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// wait waits for a channel.
func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not so after %s: %s", patience, what)
		panic("unreachable")
	}
}
