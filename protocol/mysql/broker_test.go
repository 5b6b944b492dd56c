package mysql

import (
	"context"
	"database/sql"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestPoolOfDroppedConnections: connections that a firewall has dropped without a word, as it does with those that
// idle, hold nobody up for longer than it takes to ask them whether they are alive.
func TestPoolOfDroppedConnections(t *testing.T) {
	s := need(t)
	u, err := url.Parse(s.URL(testBroker, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	wall := newFirewall(t, u.Host)
	u.Host = wall.Addr().String()
	e, err := New(t.Context(), Config{Target: "orders", URL: u.String(), Password: brokerPassword, Installation: testInstallation,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var all []*sql.Conn // as many as the pool has
	for range poolConns {
		c, err := e.pool.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		c.Close()
	}
	wall.drop()
	<-e.closing.turn
	e.closing.hangUp() // it finds out by itself, at its own time
	e.closing.turn <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), pingTimeout+10*time.Second)
	defer cancel()
	began := time.Now()
	a, err := e.Provision(ctx, newSpec(0))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < pingTimeout {
		t.Errorf("it took %s: nothing was dropped", took)
	}
	finish(t, a)
}

// firewall passes connections on, until it drops them.
type firewall struct {
	net.Listener
	mu      sync.Mutex // guards dropped; held while a chunk is passed on
	dropped map[net.Conn]bool
}

func newFirewall(t *testing.T, to string) *firewall {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &firewall{Listener: ln, dropped: map[net.Conn]bool{}}
	var all sync.WaitGroup
	var both []net.Conn
	all.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			w.mu.Lock()
			w.dropped[in], both = false, append(both, in, out)
			w.mu.Unlock()
			all.Go(func() { w.pass(out, in, in) })
			all.Go(func() { w.pass(in, out, in) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		w.mu.Lock()
		for _, c := range both {
			c.Close()
		}
		w.mu.Unlock()
		all.Wait()
	})
	return w
}

// drop drops what comes from now on over the connections of now.
func (w *firewall) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.dropped {
		w.dropped[c] = true
	}
}

func (w *firewall) pass(to, from, in net.Conn) {
	buf := make([]byte, 1<<14)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		if !w.dropped[in] {
			if err != nil {
				to.Close()
			} else if _, err = to.Write(buf[:n]); err != nil {
				from.Close()
			}
		}
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}
