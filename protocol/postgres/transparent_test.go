package postgres

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/recorder"
)

// traced logs in with a tracer from the first byte on.
func traced(t *testing.T, dsn string) (*frontend, *bytes.Buffer) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		f := pgproto3.NewFrontend(r, w)
		f.Trace(&log, pgproto3.TracerOptions{SuppressTimestamps: true})
		return f
	}
	c, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Conn.Close() })
	return &frontend{t: t, conn: h.Conn, f: h.Frontend}, &log
}

// secrets are what differs between two logins to the same server: proofs, the cancel key.
var secrets = regexp.MustCompile(`(?m)^(F\tUnknown|F\tStartupMessage|B\tAuthenticationSASL|B\tBackendKeyData).*\n`)

// TestTransparent: what a client sees through Curfew is what it sees without, message for message.
func TestTransparent(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	talk := func(f *frontend) {
		f.send(&pgproto3.Query{String: "BEGIN; CREATE TEMP TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, NULL); SELECT * FROM t"})
		f.until('Z')
		f.send(&pgproto3.Parse{Name: "s", Query: "SELECT a, b FROM t WHERE a >= $1 ORDER BY a"}, &pgproto3.Describe{ObjectType: 'S', Name: "s"},
			&pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s", Parameters: [][]byte{[]byte("1")}, ResultFormatCodes: []int16{1}},
			&pgproto3.Describe{ObjectType: 'P', Name: "p"}, &pgproto3.Execute{Portal: "p", MaxRows: 1}, &pgproto3.Execute{Portal: "p"}, &pgproto3.Close{ObjectType: 'P', Name: "p"}, &pgproto3.Flush{})
		f.until('3')
		f.send(&pgproto3.Parse{Query: "SELECT nonsense"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}, &pgproto3.Query{String: "ROLLBACK"})
		f.until('E', 'Z', 'Z')
		f.send(&pgproto3.Query{String: "COPY (VALUES (1, 'a'), (2, NULL)) TO STDOUT; SET application_name = 'y'; LISTEN c; NOTIFY c, 'p'; DO $$BEGIN RAISE WARNING 'w'; END$$"})
		f.until('A')
		f.send(&pgproto3.Query{String: "CREATE TEMP TABLE u (a int)"}, &pgproto3.Query{String: "COPY u FROM STDIN"})
		f.until('G')
		f.send(&pgproto3.CopyData{Data: []byte("1\n2\nx\n")}, &pgproto3.CopyDone{}, &pgproto3.Query{String: ""})
		f.until('Z', 'I', 'Z')
		f.send(&pgproto3.FunctionCall{Function: 1598, ResultFormatCode: 0}) // random()
		f.until('Z')
		f.send(&pgproto3.Terminate{})
		f.lastWords()
	}
	// random, pid of the notifier, and OIDs of temporary tables
	vary := regexp.MustCompile(`(FunctionCallResponse\t.*|NotificationResponse\t.*|RowDescription\t.*)`)
	var logs []string
	for _, dsn := range []string{server.DSN(w.account.spec.Name, w.account.secret, "orders"), w.dsn("")} {
		f, log := traced(t, dsn+"&application_name=x")
		talk(f)
		logs = append(logs, vary.ReplaceAllString(secrets.ReplaceAllString(log.String(), ""), "…"))
	}
	if r := w.result(); r.err != nil {
		t.Error(r.err)
	}
	if logs[0] != logs[1] {
		t.Errorf("direct:\n%s\nthrough Curfew:\n%s", logs[0], logs[1])
	}
	if !strings.Contains(logs[0], "ParameterStatus") || strings.Count(logs[0], "\n") < 60 {
		t.Errorf("the trace has not much in it:\n%s", logs[0])
	}
}

// psql runs the real client.
func psql(t *testing.T, dsn, script string, args ...string) (string, *osexec.Cmd, func() error) {
	t.Helper()
	path, err := osexec.LookPath("psql")
	if err != nil {
		t.Fatal("no psql: apt-get install postgresql-client")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := osexec.CommandContext(ctx, path, append([]string{"-X", "-q", "-v", "VERBOSITY=verbose", dsn}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGCONNECT_TIMEOUT=10")
	cmd.Stdin = strings.NewReader(script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait := func() error { return cmd.Wait() }
	if script == "" {
		return "", cmd, func() error {
			err := wait()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out.String())
			}
			return err
		}
	}
	_ = wait() // psql's exit status is part of what it prints below
	return out.String() + cmd.ProcessState.String(), cmd, nil
}

// TestPsql: the stock client, directly and through Curfew, prints the same.
func TestPsql(t *testing.T) {
	cert, _ := certificate(t)
	w := newWire(t, 0, FrontConfig{TLS: serverTLS(cert)})
	script := strings.Join([]string{
		`\conninfo`, `SELECT version() <> '' AS ok;`, `\d orders`, `\copy (SELECT g, 'x' FROM generate_series(1, 3) g) TO STDOUT`,
		`BEGIN;`, `\copy orders (what) FROM STDIN`, `one`, `two`, `\.`, `SELECT count(*) FROM orders WHERE what IN ('one', 'two');`, `ROLLBACK;`,
		`SELECT 1/0;`, `SELECT 1 \gdesc`, `PREPARE s AS SELECT $1::int;`, `EXECUTE s(4);`, `SELECT current_user \gset`, `\echo :current_user`, `\bind 1`, `SET client_encoding = 'LATIN1';`, `\encoding`, ``,
	}, "\n")
	direct, _, _ := psql(t, server.DSN(w.account.spec.Name, w.account.secret, "orders"), script)
	through, _, _ := psql(t, strings.Replace(w.dsn(""), "sslmode=disable", "sslmode=require", 1), script)
	w.result()
	lines := func(s string) string {
		s = regexp.MustCompile(`(?m)^(You are connected|SSL connection).*\n`).ReplaceAllString(s, "")
		return s
	}
	if lines(direct) != lines(through) {
		t.Errorf("direct:\n%s\nthrough Curfew:\n%s", direct, through)
	}
	if !strings.Contains(through, "SSL connection (protocol: TLSv1.3") {
		t.Errorf("no TLS:\n%s", through)
	}
}

// TestPsqlInterrupt: Ctrl-C in psql.
func TestPsqlInterrupt(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	_, cmd, wait := psql(t, w.dsn(""), "", "-c", "SELECT pg_sleep(29)")
	w.running("pg_sleep(29)")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := wait(); err == nil || !strings.Contains(err.Error(), "57014: canceling statement due to user request") {
		t.Errorf("psql: %v", err)
	}
	w.result()
	w.result()
	if c := w.sink.of(recorder.TypeCancel); len(c) != 1 || c[0].Of != 1 {
		t.Error(show(c))
	}
}
