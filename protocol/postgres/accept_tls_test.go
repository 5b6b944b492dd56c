package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/protocol"
)

// secure is TLS over the stranger's connection, and the error that came of it.
func (s *stranger) secure(config *tls.Config) error {
	conn := tls.Client(s.conn, config)
	if err := conn.HandshakeContext(s.t.Context()); err != nil {
		return err
	}
	s.conn, s.reader = conn, &frameReader{conn: conn}
	return nil
}

// TestALPN: who begins with TLS must say that it is PostgreSQL's; who asks for TLS first may say so, and
// nothing else.
func TestALPN(t *testing.T) {
	cert, pool := certificate(t)
	front := NewFront(FrontConfig{TLS: serverTLS(cert), RequireTLS: true})
	for name, c := range map[string]struct {
		direct bool
		protos []string
		ok     bool
	}{
		"direct":                          {true, []string{alpn}, true},
		"direct, one of many":             {true, []string{"h2", alpn}, true},
		"direct, none":                    {true, nil, false},
		"direct, another":                 {true, []string{"h2"}, false},
		"behind an SSLRequest":            {false, []string{alpn}, true},
		"behind an SSLRequest, none":      {false, nil, true},
		"behind an SSLRequest, another's": {false, []string{"h2"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t, front, doorman{})
			if !c.direct {
				s.write(sslRequest()...)
				if b := s.byte(); b != 'S' {
					t.Fatalf("answered %q", b)
				}
			}
			err := s.secure(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: c.protos})
			if c.ok {
				if err != nil {
					t.Fatal(err)
				}
				if got := s.conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != strings.Join(c.protos[max(0, len(c.protos)-1):], "") {
					t.Errorf("agreed on %q", got)
				}
				s.write(startupMessage(version3, "user", "g1")...)
				if typ, _ := s.next(); typ != msgAuthentication {
					t.Errorf("answered %q", typ)
				}
				return
			}
			var alert tls.AlertError
			if !errors.As(err, &alert) && (err == nil || !strings.Contains(err.Error(), "no application protocol")) {
				t.Errorf("the client reads %v", err)
			}
			if err := <-s.result; err == nil || !strings.Contains(err.Error(), "TLS handshake") {
				t.Errorf("Accept returned %v", err)
			}
		})
	}
}

// TestNoALPNIsAnAlert: the one fatal alert, and nothing else.
func TestNoALPNIsAnAlert(t *testing.T) {
	cert, _ := certificate(t)
	s := newStranger(t, NewFront(FrontConfig{TLS: serverTLS(cert)}), doorman{})
	hello := &recorded{Conn: s.conn}
	_ = tls.Client(hello, &tls.Config{ServerName: "x"}).HandshakeContext(t.Context())
	if !bytes.Equal(hello.read, noALPN) {
		t.Errorf("the server sent %x", hello.read)
	}
	<-s.result
}

// recorded keeps what was read.
type recorded struct {
	net.Conn
	read []byte
}

func (r *recorded) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.read = append(r.read, b[:n]...)
	return n, err
}

// TestDirectTLSIsTheFirstThing: where there is no TLS, behind a request that was turned down, or inside TLS,
// it is no startup message.
func TestDirectTLSIsTheFirstThing(t *testing.T) {
	cert, pool := certificate(t)
	config := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{alpn}}
	t.Run("no TLS here", func(t *testing.T) {
		s := newStranger(t, NewFront(FrontConfig{}), doorman{})
		if s.secure(config) == nil || <-s.result == nil {
			t.Error("TLS without a certificate")
		}
	})
	t.Run("behind GSSENCRequest", func(t *testing.T) {
		s := newStranger(t, NewFront(FrontConfig{TLS: serverTLS(cert)}), doorman{})
		s.write(gssRequest()...)
		if b := s.byte(); b != 'N' {
			t.Fatalf("answered %q", b)
		}
		if s.secure(config) == nil || <-s.result == nil {
			t.Error("direct TLS behind a request")
		}
	})
	t.Run("in TLS", func(t *testing.T) {
		s := newStranger(t, NewFront(FrontConfig{TLS: serverTLS(cert)}), doorman{})
		if err := s.secure(config); err != nil {
			t.Fatal(err)
		}
		if s.secure(config) == nil || <-s.result == nil {
			t.Error("TLS in TLS")
		}
	})
	t.Run("SSLRequest twice", func(t *testing.T) {
		s := newStranger(t, NewFront(FrontConfig{}), doorman{})
		s.write(sslRequest()...)
		if b := s.byte(); b != 'N' {
			t.Fatalf("answered %q", b)
		}
		s.write(sslRequest()...)
		if w := s.refused(); string(w.code) != stateUnsupported {
			t.Errorf("%s %s", w.code, w.message)
		}
	})
}

// TestClearTextBehindClientHello: what is slipped in behind a ClientHello is not the client's either.
func TestClearTextBehindClientHello(t *testing.T) {
	cert, pool := certificate(t)
	s := newStranger(t, NewFront(FrontConfig{TLS: serverTLS(cert)}), doorman{})
	s.conn = &slippery{Conn: s.conn, more: startupMessage(version3, "user", "g1")}
	if err := s.secure(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{alpn}}); err == nil {
		_, _ = s.conn.Write(startupMessage(version3, "user", "g1")) // the server may have hung up
		if _, _, err := s.reader.next(limitBeforeLogin); err == nil {
			t.Error("it is answered")
		}
	}
	if err := <-s.result; err == nil {
		t.Error("accepted")
	}
}

// slippery sends more behind the first write.
type slippery struct {
	net.Conn
	more []byte
}

func (s *slippery) Write(b []byte) (int, error) {
	n := len(b)
	_, err := s.Conn.Write(append(bytes.Clone(b), s.more...))
	s.more = nil
	return n, err
}

// over is the wire's address for pgx, with TLS by this configuration.
func (w *wire) over(config *tls.Config, extra string) *pgx.ConnConfig {
	w.t.Helper()
	cfg, err := pgx.ParseConfig(strings.Replace(w.dsn(extra), "sslmode=disable", "sslmode=require", 1))
	if err != nil {
		w.t.Fatal(err)
	}
	if cfg.SSLNegotiation == "direct" {
		config = config.Clone()
		config.NextProtos = []string{alpn}
	}
	cfg.TLSConfig, cfg.Fallbacks = config, nil
	return cfg
}

// TestLoginIsBound: a login over TLS is bound to the listener's certificate, whatever it is signed with, and
// that is on record. pgx has its own reckoning of what it is bound to.
func TestLoginIsBound(t *testing.T) {
	s := tlsServer(t)
	account := newSecureWire(t, "", FrontConfig{}).account
	for algorithm, bound := range map[x509.SignatureAlgorithm]bool{
		x509.ECDSAWithSHA256: true, x509.ECDSAWithSHA384: true, x509.ECDSAWithSHA512: true, x509.SHA256WithRSA: true,
		x509.SHA384WithRSAPSS: true, x509.PureEd25519: false,
	} {
		t.Run(algorithm.String(), func(t *testing.T) {
			cert := selfSigned(t, algorithm)
			leaf, err := x509.ParseCertificate(cert.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			pool := s.pool()
			pool.AddCert(leaf)
			config := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
			w := wireTo(t, account, FrontConfig{TLS: serverTLS(cert), RequireTLS: true})
			for _, how := range []string{"", "&sslnegotiation=direct", "&channel_binding=require", "&channel_binding=disable"} {
				c, err := pgx.ConnectConfig(t.Context(), w.over(config, how))
				mechanism, fails := "scram-sha-256-plus", false
				switch {
				case strings.Contains(how, "disable"):
					mechanism = "scram-sha-256"
				case !bound && strings.Contains(how, "require"):
					fails = true
				case !bound:
					mechanism = "scram-sha-256"
				}
				if fails {
					if err == nil || !strings.Contains(err.Error(), "channel binding required but server does not support") {
						t.Errorf("%s: %v", how, err)
					}
					<-w.results
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", how, err)
					continue
				}
				if err := c.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if r := w.result(); r.err != nil || r.login.Mechanism != mechanism || !strings.HasPrefix(r.login.TLS, "TLS 1.3 ") {
					t.Errorf("%s: %+v %v", how, r.login, r.err)
				}
			}
		})
	}
}

// TestNoSessionIsResumed: in one that is, the client is shown no certificate, and a login could not be bound.
func TestNoSessionIsResumed(t *testing.T) {
	w := newSecureWire(t, "", FrontConfig{})
	config := w.client.Clone()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 2 {
		c, err := pgx.ConnectConfig(t.Context(), w.over(config, "&channel_binding=require"))
		if err != nil {
			t.Fatal(err)
		}
		if c.PgConn().Conn().(*tls.Conn).ConnectionState().DidResume {
			t.Error("resumed")
		}
		w.bye(c)
	}
}

// TestNoTicketIsGiven: nor is one whose keys would be the same for all connections.
func TestNoTicketIsGiven(t *testing.T) {
	cert, pool := certificate(t)
	served := serverTLS(cert)
	served.SetSessionTicketKeys([][32]byte{{1}}) // else each connection would have one of its own
	front := NewFront(FrontConfig{TLS: served})
	config := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{alpn}, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	for range 2 {
		s := newStranger(t, front, doorman{})
		if err := s.secure(config); err != nil {
			t.Fatal(err)
		}
		if s.conn.(*tls.Conn).ConnectionState().DidResume {
			t.Error("resumed")
		}
		s.write(startupMessage(version3, "database", "orders")...)
		if w := s.refused(); string(w.code) != stateAuth { // behind the handshake: a ticket would have come before
			t.Errorf("%s %s", w.code, w.message)
		}
	}
}

// TestSomebodyBetween: who ends a client's TLS and goes on with their own can't hand the login on.
func TestSomebodyBetween(t *testing.T) {
	cert, pool := certificate(t)
	s := newSecureWire(t, "", FrontConfig{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go between(t, l, cert, s)
	cfg := s.over(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}, "")
	cfg.Port = uint16(l.Addr().(*net.TCPAddr).Port)
	_, err = pgx.ConnectConfig(t.Context(), cfg)
	var said *pgconn.PgError
	if !errors.As(err, &said) || said.Code != "28P01" || !strings.Contains(said.Message, "SCRAM channel binding check failed") {
		t.Errorf("the client reads %v", err)
	}
	var refusal *protocol.Refusal
	if r := s.result(); !errors.As(r.err, &refusal) || refusal.Code != protocol.RefuseLogin {
		t.Errorf("%v", r.err)
	}
}

// between takes one connection and joins it to the wire's.
func between(t *testing.T, l net.Listener, cert tls.Certificate, w *secureWire) {
	theirs, err := l.Accept()
	if err != nil {
		return
	}
	defer theirs.Close()
	if _, _, err := readStartup(theirs); err != nil {
		return
	}
	theirs.Write([]byte{'S'})
	inner := tls.Server(theirs, serverTLS(cert))
	raw, err := net.Dial("tcp", w.addr())
	if err != nil {
		return
	}
	defer raw.Close()
	outer, _, err := secure(context.WithoutCancel(t.Context()), raw, route{config: w.client})
	if err != nil {
		return
	}
	go io.Copy(outer, inner)
	io.Copy(inner, outer)
}

// TestCleartext: how it was proved is on record, and what is answered says nothing of who exists.
func TestCleartext(t *testing.T) {
	w := newSecureWire(t, "", FrontConfig{Cleartext: true})
	c, err := pgx.ConnectConfig(t.Context(), w.over(w.client, ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if r := w.result(); r.err != nil || r.login.Mechanism != "cleartext" {
		t.Errorf("%+v %v", r.login, r.err)
	}
	for _, user := range []string{w.user, "gnobody"} {
		cfg := w.over(w.client, "")
		cfg.User, cfg.Password = user, "wrong"
		_, err := pgx.ConnectConfig(t.Context(), cfg)
		var said *pgconn.PgError
		if !errors.As(err, &said) || said.Code != "28P01" || said.Message != `password authentication failed for user "`+user+`"` {
			t.Errorf("%v", err)
		}
		var refusal *protocol.Refusal
		if r := w.result(); !errors.As(r.err, &refusal) || refusal.Code != protocol.RefuseLogin {
			t.Errorf("%v", r.err)
		}
	}
	if _, err := pgx.ConnectConfig(t.Context(), w.over(w.client, "&channel_binding=require")); err == nil {
		t.Error("a client that wants to be bound shows its password")
	}
}

// TestCertificateIsChosen: the one that there is at the moment, where it is asked for; of several, one that the client
// can check.
func TestCertificateIsChosen(t *testing.T) {
	ecdsa, edwards := selfSigned(t, x509.ECDSAWithSHA256), selfSigned(t, x509.PureEd25519)
	hello := &tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.Ed25519}}
	asked := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &ecdsa, nil }}
	if got, err := certificateFor(asked, hello); err != nil || got != &ecdsa {
		t.Errorf("the one that there is: %v", err)
	}
	several := &tls.Config{Certificates: []tls.Certificate{ecdsa, edwards}}
	if got, err := certificateFor(several, hello); err != nil || got != &several.Certificates[1] {
		t.Errorf("of two: %v", err)
	}
	hello.SignatureSchemes = nil
	if got, err := certificateFor(several, hello); err != nil || got != &several.Certificates[0] {
		t.Errorf("where none is good: %v", err)
	}
	if _, err := certificateFor(&tls.Config{}, hello); err == nil {
		t.Error("of none")
	}
}
