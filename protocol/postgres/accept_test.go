package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/protocol"
)

func serverTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

// clientTLS asks for TLS on a connection.
func clientTLS(pool *x509.CertPool) func(net.Conn) net.Conn {
	return func(conn net.Conn) net.Conn {
		secured, _, err := secure(context.TODO(), conn, route{config: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}})
		if err != nil {
			panic(err)
		}
		return secured
	}
}

// stranger talks to a Front from the beginning.
type stranger struct {
	t      *testing.T
	conn   net.Conn
	reader *frameReader
	result chan error
	client protocol.Client
}

func newStranger(t *testing.T, f *Front, d protocol.Doorman) *stranger {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := &stranger{t: t, conn: conn, reader: &frameReader{conn: conn}, result: make(chan error, 1)}
	go func() {
		c, err := f.Accept(context.WithoutCancel(t.Context()), accepted, d)
		s.client = c
		if err != nil {
			accepted.Close()
		}
		s.result <- err
	}()
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	return s
}

func (s *stranger) write(b ...byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stranger) next() (byte, []byte) {
	s.t.Helper()
	typ, body, err := s.reader.next(limitBeforeLogin)
	if err != nil {
		s.t.Fatal(err)
	}
	return typ, body
}

// refused reads the last words and gives them.
func (s *stranger) refused() words {
	s.t.Helper()
	typ, body := s.next()
	if typ != msgErrorResponse {
		s.t.Fatalf("got %q %q", typ, body)
	}
	s.conn.Close()
	if err := <-s.result; err == nil {
		s.t.Fatal("accepted")
	}
	return parseWords(body)
}

func startupMessage(version uint32, params ...string) []byte {
	body := be32(int(version))
	for _, p := range params {
		body = append(append(body, p...), 0)
	}
	body = append(body, 0)
	return append(be32(len(body)+4), body...)
}

func TestStartupRefusals(t *testing.T) {
	cert, _ := certificate(t)
	for name, c := range map[string]struct {
		cfg      FrontConfig
		send     []byte
		state    string
		contains string
	}{
		"replication":        {send: startupMessage(version3, "user", "g1", "replication", "database"), state: "0A000", contains: "replication"},
		"replication true":   {send: startupMessage(version3, "user", "g1", "replication", "tr"), state: "0A000", contains: "replication"},
		"TLS required":       {cfg: FrontConfig{TLS: serverTLS(cert), RequireTLS: true}, send: startupMessage(version3, "user", "g1"), state: "28000", contains: "TLS is required"},
		"protocol 2":         {send: startupMessage(2<<16, "user", "g1"), state: "0A000", contains: "unsupported frontend protocol 2.0"},
		"no user":            {send: startupMessage(version3, "database", "x"), state: "28000", contains: "no user name"},
		"no terminator":      {send: append(be32(11), append(be32(version3), "use"...)...), state: "08P01", contains: "expected terminator"},
		"bytes behind":       {send: append(be32(18), append(be32(version3), "user\x00g\x00\x00x\x00\x00"[:10]...)...), state: "08P01", contains: "expected terminator"},
		"second GSSENCReq":   {send: append(gssRequest(), gssRequest()...), state: "0A000", contains: "unsupported"},
		"SSLRequest too big": {send: append(be32(9), append(be32(codeSSL), 0)...), state: "0A000", contains: "unsupported"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t, NewFront(c.cfg), doorman{})
			s.write(c.send...)
			if name == "second GSSENCReq" {
				if b := s.byte(); b != 'N' {
					t.Fatalf("GSSENCRequest answered %q", b)
				}
			}
			w := s.refused()
			if string(w.code) != c.state || !strings.Contains(string(w.message), c.contains) || string(w.severity) != "FATAL" {
				t.Errorf("%s %s %q", w.severity, w.code, w.message)
			}
		})
	}
}

func gssRequest() []byte { return append(be32(8), be32(codeGSSENC)...) }
func sslRequest() []byte { return append(be32(8), be32(codeSSL)...) }

func (s *stranger) byte() byte {
	s.t.Helper()
	var b [1]byte
	if _, err := io.ReadFull(s.conn, b[:]); err != nil {
		s.t.Fatal(err)
	}
	return b[0]
}

// TestStartupGarbage: what is no startup at all is hung up on without an allocation of its length.
func TestStartupGarbage(t *testing.T) {
	for name, b := range map[string][]byte{
		"huge":     {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"negative": {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"tiny":     {0, 0, 0, 4, 0, 3, 0, 0},
		"HTTP":     []byte("GET / HTTP/1.1\r\n\r\n"),
		"too long": append(be32(limitBeforeLogin+1), be32(version3)...),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t, NewFront(FrontConfig{}), doorman{})
			s.write(b...)
			if err := <-s.result; err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

// TestPasswordMessageLimit: before login nobody can make Curfew hold more than 64 KiB.
func TestPasswordMessageLimit(t *testing.T) {
	s := newStranger(t, NewFront(FrontConfig{}), doorman{})
	s.write(startupMessage(version3, "user", "g1")...)
	s.next()
	s.write(append([]byte{'p'}, be32(limitBeforeLogin+1)...)...)
	if w := s.refused(); string(w.code) != stateProtocol {
		t.Errorf("%s %q", w.code, w.message)
	}
}

// TestClearTextBehindSSLRequest: bytes slipped in behind an SSLRequest are never taken for the client's, even
// if the client itself goes on as if nothing were.
func TestClearTextBehindSSLRequest(t *testing.T) {
	cert, pool := certificate(t)
	s := newStranger(t, NewFront(FrontConfig{TLS: serverTLS(cert)}), doorman{})
	s.write(append(sslRequest(), startupMessage(version3, "user", "g1")...)...)
	if b := s.byte(); b != 'S' {
		t.Fatalf("answered %q", b)
	}
	if err := s.secure(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}); err == nil {
		typ, body, err := s.reader.next(limitBeforeLogin)
		t.Errorf("TLS begins, and behind it comes %q %q %v", typ, body, err)
	}
	if err := <-s.result; err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("Accept returned %v", err)
	}
}

// TestNegotiation: a client of a newer protocol is told 3.2, and which options it can't have.
func TestNegotiation(t *testing.T) {
	s := newStranger(t, NewFront(FrontConfig{}), doorman{})
	s.write(startupMessage(version3|9999, "user", "g1", "_pq_.sparkle", "1", "_pq_.shine", "2")...)
	typ, body := s.next()
	var m pgproto3.NegotiateProtocolVersion
	if typ != 'v' || m.Decode(body) != nil || m.NewestMinorProtocol != version3|2 || fmt.Sprint(m.UnrecognizedOptions) != "[_pq_.sparkle _pq_.shine]" {
		t.Errorf("%q %+v", typ, m)
	}
	if typ, _ := s.next(); typ != msgAuthentication {
		t.Errorf("then %q", typ)
	}
}

// TestUnknownUser: nothing tells an unknown user from a wrong password.
func TestUnknownUser(t *testing.T) {
	f := NewFront(FrontConfig{DecoyKey: []byte("key")})
	engine := &Engine{}
	verifier, err := engine.Enrol(grantPassword)
	if err != nil {
		t.Fatal(err)
	}
	d := doorman{user: "gknown", verifier: verifier}
	first := map[string]string{}
	for _, user := range []string{"gknown", "gnobody", "gknown", "gnobody"} {
		s := newStranger(t, f, d)
		s.write(startupMessage(version3, "user", user)...)
		_, body := s.next()
		if string(body) != "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" {
			t.Fatalf("mechanisms: %q", body)
		}
		hello := "n,,n=,r=abcdefghijklmnop"
		s.write(appendMessage(nil, msgPassword, []byte("SCRAM-SHA-256\x00"), be32(len(hello)), []byte(hello))...)
		_, body = s.next()
		challenge := string(body[4:])
		nonce, rest, _ := strings.Cut(challenge, ",")
		if len(nonce) != len("r=abcdefghijklmnop")+32 || !strings.HasSuffix(rest, ",i=4096") || len(rest) != len("s=,i=4096")+24 {
			t.Errorf("%s: challenge %q", user, challenge)
		}
		if was := first[user]; was != "" && was != rest {
			t.Errorf("%s: the salt changed: %q, %q", user, was, rest)
		}
		first[user] = rest
		s.write(appendMessage(nil, msgPassword, []byte("c=biws,"+nonce+",p="+strings.Repeat("A", 43)+"="))...)
		if w := s.refused(); string(w.code) != "28P01" || string(w.message) != `password authentication failed for user "`+user+`"` {
			t.Errorf("%s %q", w.code, w.message)
		}
	}
	other := NewFront(FrontConfig{DecoyKey: []byte("key")})
	if other.decoyFor("gnobody").Salt != f.decoyFor("gnobody").Salt {
		t.Error("the decoy is another one after a restart")
	}
}

// TestLoginOverTLS: libpq's way in, with TLS, and what the server is told of it.
func TestLoginOverTLS(t *testing.T) {
	cert, pool := certificate(t)
	w := newWire(t, 0, FrontConfig{TLS: serverTLS(cert), RequireTLS: true})
	cfg, err := pgx.ParseConfig(strings.Replace(w.dsn("&application_name=tester&timezone=Asia/Tokyo&datestyle=German&options=-c%20statement_timeout%3D12345"), "sslmode=disable", "sslmode=require", 1))
	if err != nil {
		t.Fatal(err)
	}
	cfg.TLSConfig = &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	cfg.Fallbacks = nil
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.PgConn().ParameterStatus("TimeZone") + " " + c.PgConn().ParameterStatus("DateStyle"); got != "Asia/Tokyo German, DMY" {
		t.Errorf("parameter status %q", got)
	}
	var user, app, timeout, database string
	if err := c.QueryRow(t.Context(), "SELECT current_user, current_setting('application_name'), current_setting('statement_timeout'), current_database()").Scan(&user, &app, &timeout, &database); err != nil {
		t.Fatal(err)
	}
	if user != w.account.spec.Name || app != "tester" || timeout != "12345ms" || database != "orders" {
		t.Errorf("%s %s %s %s", user, app, timeout, database)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := w.result()
	if r.err != nil || !strings.HasPrefix(r.login.TLS, "TLS 1.3 TLS_") || r.login.Mechanism != "scram-sha-256-plus" || r.login.Application != "tester" ||
		r.login.Protocol != "3.0" || r.login.User != w.user || r.login.Database != "orders" {
		t.Errorf("%+v %v", r.login, r.err)
	}
}

// TestDefaultDatabase: a client that names no database gets the target's.
func TestDefaultDatabase(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c, err := pgx.Connect(t.Context(), strings.Replace(w.dsn(""), "/orders?", "/?", 1))
	if err != nil {
		t.Fatal(err)
	}
	var database string
	if err := c.QueryRow(t.Context(), "SELECT current_database()").Scan(&database); err != nil || database != "orders" {
		t.Error(database, err)
	}
	w.bye(c)
}

func TestWrongPassword(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	_, err := pgx.Connect(t.Context(), strings.Replace(w.dsn(""), grantPassword, "wrong", 1))
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "28P01" {
		t.Error(err)
	}
	var refusal *protocol.Refusal
	if r := w.result(); !errors.As(r.err, &refusal) || refusal.Code != protocol.RefuseLogin {
		t.Errorf("%v", r.err)
	}
}
