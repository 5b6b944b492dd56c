package mysql

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

// testServer is the one MariaDB or MySQL of this package's tests; nil where there is none.
var testServer *mysqltest.Server

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
	return m.Run(), nil
}

// settings are the server's.
func settings() []string {
	list := []string{"max_connections=60"}
	if bin, err := mysqltest.Bin(); err == nil && strings.Contains(bin, "maria") {
		list = append(list, "plugin-load-add=auth_ed25519")
	}
	return list
}

// need skips where there is no server.
func need(t *testing.T) *mysqltest.Server {
	t.Helper()
	if testServer == nil {
		t.Skip(mysqltest.ErrMissing)
	}
	return testServer
}

// admin runs statements as the administrator.
func admin(t *testing.T, database string, statements ...string) {
	t.Helper()
	if err := testServer.SQL(t.Context(), database, statements...); err != nil {
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
