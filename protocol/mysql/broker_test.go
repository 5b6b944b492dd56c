package mysql

import (
	"context"
	"database/sql"
	"log/slog"
	"strings"
	"testing"

	driver "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

// TestRestart: a server that comes back as another version is asked again before a client is greeted, and
// whoever has the id by now that the broker's connection had is left alone.
func TestRestart(t *testing.T) {
	ctx := t.Context()
	s, err := mysqltest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	if !s.IsMariaDB() {
		t.Skip("MySQL says the version that it is")
	}
	for range 30 { // the line's id is to be one that is still free after the restart
		if err := s.SQL(ctx, "", "DO 1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SQL(ctx, "", "CREATE USER app@127.0.0.1 IDENTIFIED BY 'app'"); err != nil {
		t.Fatal(err)
	}
	e, err := New(ctx, Config{Target: "orders", URL: s.URL(mysqltest.Admin, "test"), Password: mysqltest.Password,
		Installation: testInstallation, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var before uint32
	ping := func(ctx context.Context, c *conn) error {
		before = c.id
		return c.PingContext(ctx)
	}
	if err := e.closing.do(ctx, ping); err != nil {
		t.Fatal(err)
	}
	id := before
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run("version=10.11.99-MariaDB-another"); err != nil {
		t.Fatal(err)
	}
	stranger := connectionOf(t, s.DSN("app", "app", ""), id)
	if err := e.closing.do(ctx, ping); err != nil {
		t.Fatal(err)
	}
	if err := stranger.PingContext(ctx); err != nil {
		t.Errorf("the stranger with the id %d: %v", id, err)
	}
	if known, _ := e.prober.cached(); known == nil || !strings.HasSuffix(known.version, "another") {
		t.Errorf("clients would be greeted as %+v", known)
	}
}

// connectionOf connects until the server gives the connection this id.
func connectionOf(t *testing.T, dsn string, id uint32) *sql.Conn {
	t.Helper()
	cfg, err := driver.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	connector, err := driver.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		db := sql.OpenDB(connector)
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		var got uint32
		if err := c.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got == id {
			return c
		}
		c.Close()
		if got > id {
			break
		}
	}
	t.Fatalf("the id %d is taken", id)
	return nil
}

// TestBrokerSealsForNobody: without TLS and without the server's key, the broker's password is not given to who
// says that the server's key is theirs; and the DBA reads what to do.
func TestBrokerSealsForNobody(t *testing.T) {
	plain := mysqlGreeting()
	plain.caps &^= capSSL
	answers := make(chan []byte, 1)
	tg := scripted(t, func(p *peer) {
		p.send(encodeGreeting(plain, 1, newScramble(scrambleBytes)))
		p.recv()
		p.send([]byte{packetMore, sha2AskFull})
		answers <- p.recv()
		p.send(append([]byte{packetErr, 0x15, 0x04}, "#28000Access denied"...))
	})
	tg.user = "broker"
	db, err := openBroker(tg, "the broker's password", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.PingContext(t.Context())
	if !is(err, 1045) {
		t.Errorf("%v", err)
	}
	if answer := <-answers; len(answer) != keyBits/8 {
		t.Errorf("the server is sent %q", answer)
	}
	e := &Engine{target: tg, prober: newProber(tg)}
	e.prober.saw(plain)
	if fix := e.connectFix(err); !strings.Contains(fix, "server_public_key") {
		t.Errorf("%s", fix)
	}
	tg.key = nobodysKey()
	if fix := e.connectFix(err); strings.Contains(fix, "server_public_key") {
		t.Errorf("with a key: %s", fix)
	}
}
