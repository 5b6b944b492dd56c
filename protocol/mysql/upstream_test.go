package mysql

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

// clientCaps is what a recent client of its kind asks for.
func clientCaps(mariadb bool) capability {
	const common = capLongFlag | capProtocol41 | capTransactions | capSecureConnection | capMultiStatements | capMultiResults |
		capPSMultiResults | capPluginAuth | capConnectAttrs | capPluginAuthLenenc | capSessionTrack
	if mariadb {
		return common | capProgress | capBulk | capExtendedMetadata | capCacheMetadata
	}
	return common | capLongPassword | capDeprecateEOF | capQueryAttributes | capOptionalMetadata
}

// targetOf is where a test's server is.
func targetOf(t testing.TB, s *mysqltest.Server, params string) *target {
	t.Helper()
	tg, err := parseTarget(fmt.Sprintf("mysql://broker@127.0.0.1:%d/test?%s", s.Port, params))
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

// query runs one statement and gives the first row as text.
func (u *upstream) query(t testing.TB, text string) []string {
	t.Helper()
	command := []byte{comQuery}
	if u.caps&capQueryAttributes != 0 {
		command = append(command, 0, 1) // no attributes, in one set
	}
	if _, err := u.conn.Write(appendPacket(nil, 0, append(command, text...))); err != nil {
		t.Fatal(err)
	}
	u.reader.seq = 1
	next := func() []byte {
		payload, err := u.reader.read(limitLogin)
		if err != nil {
			t.Fatal(err)
		}
		if payload[0] == packetErr {
			t.Fatal(parseServerError(payload, u.caps))
		}
		return payload
	}
	columns := int(next()[0])
	if u.caps&capDeprecateEOF == 0 && columns > 0 {
		columns++
	}
	for range columns {
		next()
	}
	var row []string
	for columns > 0 {
		rest := next()
		if rest[0] == packetEOF {
			break
		}
		for ok := true; len(rest) > 0 && ok; {
			var v []byte
			v, rest, ok = lenencBytes(rest)
			row = append(row, string(v))
		}
	}
	return row
}

// oneOf are an account's definition and its secret.
type oneOf struct{ name, plugin, how, secret string }

// accountsFor are accounts for each plugin that the server has.
func accountsFor(t *testing.T, s server) []oneOf {
	t.Helper()
	secret := newSecret()
	if !s.mariadb {
		return []oneOf{{"wire_sha2", pluginCachingSHA2, "WITH caching_sha2_password AS 0x" + hex.EncodeToString(cachingSHA2Hash(secret)), secret}}
	}
	list := []oneOf{
		{"wire_native", pluginNative, "VIA mysql_native_password USING '" + nativeHash(secret) + "'", secret},
		{"wire_ed25519", pluginEd25519, "VIA ed25519 USING '" + ed25519Hash(secret) + "'", secret},
	}
	if s.major > 11 || s.major == 11 && s.minor >= 6 {
		admin(t, "", "INSTALL SONAME 'auth_parsec'")
		t.Cleanup(func() { testServer.SQL(context.WithoutCancel(t.Context()), "", "UNINSTALL SONAME 'auth_parsec'") })
		list = append(list, oneOf{"wire_parsec", pluginParsec, "VIA parsec USING '" + parsecHash(secret) + "'", secret})
	}
	return list
}

// TestUpstreamLogins: each plugin lets the account in by its hash, and nobody by another secret.
func TestUpstreamLogins(t *testing.T) {
	tg := targetOf(t, need(t), "sslmode=prefer")
	p := newProber(tg)
	s, err := p.server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accountsFor(t, s) {
		t.Run(a.plugin, func(t *testing.T) {
			admin(t, "", "CREATE USER '"+a.name+"'@'127.0.0.1' IDENTIFIED "+a.how, "GRANT SELECT ON test.* TO '"+a.name+"'@'127.0.0.1'")
			defer admin(t, "", "DROP USER '"+a.name+"'@'127.0.0.1'")
			l := landing{target: tg, prober: p, user: a.name, secret: a.secret, database: "test", caps: clientCaps(s.mariadb), charset: 45,
				maxPacket: 1 << 24, grant: "g1", attrs: map[string]string{"program_name": "wire"}}
			for range 2 { // caching_sha2_password: in full, then from the cache
				u, err := dialUpstream(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				got := u.query(t, "SELECT CURRENT_USER(), DATABASE(), CONNECTION_ID()")
				if want := fmt.Sprintf("[%s@127.0.0.1 test %d]", a.name, u.id); fmt.Sprint(got) != want {
					t.Errorf("%v, not %s", got, want)
				}
				if u.caps&mirrored != l.caps&mirrored || u.status&statusAutocommit == 0 || len(u.ok) < 7 || u.server != s {
					t.Errorf("%+v", u)
				}
				u.leave()
			}
			l.secret = "wrong"
			_, err := dialUpstream(t.Context(), l)
			var said *serverError
			if !errors.As(err, &said) || said.code != 1045 || said.state != "28000" || said.mayShow() {
				t.Errorf("%v", err)
			}
			l.secret, l.database = a.secret, "nowhere"
			if _, err = dialUpstream(t.Context(), l); !errors.As(err, &said) || said.code != 1044 && said.code != 1049 || !said.mayShow() {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestUpstreamPinnedKey: without TLS a MySQL server has the secret in full by the key that its operator vouches for, and by no other.
func TestUpstreamPinnedKey(t *testing.T) {
	if need(t).IsMariaDB() {
		t.Skip("MariaDB has no caching_sha2_password accounts")
	}
	secret := newSecret()
	admin(t, "", "CREATE USER 'wire_key'@'127.0.0.1' IDENTIFIED WITH caching_sha2_password AS 0x"+hex.EncodeToString(cachingSHA2Hash(secret)))
	defer admin(t, "", "DROP USER 'wire_key'@'127.0.0.1'")
	other, err := newPasswordKey()
	if err != nil {
		t.Fatal(err)
	}
	key := super(t, "", "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Caching_sha2_password_rsa_public_key'")
	for _, c := range []struct{ key, fails string }{{"", "server_public_key"}, {string(other.public), "Access denied"}, {key, ""}} {
		params := "sslmode=disable"
		if c.key != "" {
			file := filepath.Join(t.TempDir(), "public_key.pem")
			if err := os.WriteFile(file, []byte(c.key), 0o600); err != nil {
				t.Fatal(err)
			}
			params += "&server_public_key=" + file
		}
		u, err := dialUpstream(t.Context(), landing{target: targetOf(t, testServer, params), user: "wire_key", secret: secret, caps: clientCaps(false), charset: 45})
		if err == nil {
			u.leave()
		}
		if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%q: %v", params, err)
		}
	}
}

// TestUpstreamTLS: what each level of sslmode asks of the server.
func TestUpstreamTLS(t *testing.T) {
	need(t)
	cert, _ := selfSigned(t)
	certFile, keyFile := pemFiles(t, cert)
	stranger, _ := selfSigned(t)
	strangerFile, strangerKey := pemFiles(t, stranger)
	elsewhere, _ := selfSigned(t, "elsewhere.example")
	elsewhereFile, elsewhereKey := pemFiles(t, elsewhere)
	start := func(cert, key string) *mysqltest.Server {
		s, err := mysqltest.Start("ssl-cert="+cert, "ssl-key="+key, "ssl-ca="+cert)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Stop() })
		return s
	}
	here, there := start(certFile, keyFile), start(elsewhereFile, elsewhereKey)
	wantsCertificate(t, here, certFile, keyFile, strangerFile, strangerKey)
	for _, c := range []struct {
		name, params string
		server       *mysqltest.Server
		tls          bool
		fails        string
	}{
		{"disable", "sslmode=disable", here, false, ""},
		{"prefer", "sslmode=prefer", here, true, ""},
		{"require", "sslmode=require", here, true, ""},
		{"require, another root", "sslmode=require&sslrootcert=" + strangerFile, here, false, "certificate"},
		{"verify-ca", "sslmode=verify-ca&sslrootcert=" + elsewhereFile, there, true, ""},
		{"verify-ca, another root", "sslmode=verify-ca&sslrootcert=" + strangerFile, here, false, "certificate"},
		{"verify-full", "sslmode=verify-full&sslrootcert=" + certFile, here, true, ""},
		{"verify-full, another name", "sslmode=verify-full&sslrootcert=" + elsewhereFile, there, false, "certificate"},
		{"verify-full, another root", "sslmode=verify-full&sslrootcert=" + strangerFile, here, false, "certificate"},
		{"verify-full by default, the system's roots", "", here, false, "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := landing{target: targetOf(t, c.server, c.params), user: mysqltest.Admin, secret: mysqltest.Password, caps: clientCaps(c.server.IsMariaDB()), charset: 45}
			u, err := dialUpstream(t.Context(), l)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil {
				if !c.tls && !c.server.IsMariaDB() && strings.Contains(err.Error(), "server_public_key") {
					return // as it should: MySQL wants a password in full at first
				}
				t.Fatal(err)
			}
			cipher := u.query(t, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
			if c.tls != strings.HasPrefix(u.tls, "TLS 1.3 TLS_") || c.tls != (cipher[1] != "") {
				t.Errorf("%q, the server says %q", u.tls, cipher)
			}
			u.leave()
		})
	}
}

// wantsCertificate has a user log in who must show a certificate, as a session does and as the broker does.
func wantsCertificate(t *testing.T, s *mysqltest.Server, cert, key, strangerCert, strangerKey string) {
	t.Helper()
	if err := s.SQL(t.Context(), "", "CREATE USER shows@127.0.0.1 IDENTIFIED BY 'shows' REQUIRE X509"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		params string
		in     bool
	}{{"", false}, {"&sslcert=" + cert + "&sslkey=" + key, true}, {"&sslcert=" + strangerCert + "&sslkey=" + strangerKey, false}} {
		tg := targetOf(t, s, "sslmode=verify-full&sslrootcert="+cert+c.params)
		u, err := dialUpstream(t.Context(), landing{target: tg, user: "shows", secret: "shows", caps: clientCaps(s.IsMariaDB()), charset: 45})
		if err == nil {
			u.leave()
		}
		if (err == nil) != c.in {
			t.Errorf("a session, %q: %v", c.params, err)
		}
		tg.user = "shows"
		db, err := openBroker(tg, "shows", "")
		if err != nil {
			t.Fatal(err)
		}
		if err = db.PingContext(t.Context()); (err == nil) != c.in {
			t.Errorf("the broker, %q: %v", c.params, err)
		}
		db.Close()
	}
}

// TestUpstreamWithoutTLS: a server that has none is no place for those who ask for it.
func TestUpstreamWithoutTLS(t *testing.T) {
	s := mariadbGreeting()
	s.caps &^= capSSL
	greet := func(p *peer) { p.send(encodeGreeting(s, 1, newScramble(20))); p.read(limitLogin) }
	cert, _ := selfSigned(t)
	file, _ := pemFiles(t, cert)
	tg := scripted(t, greet)
	with, err := parseTarget("mysql://b@" + tg.address + "/?sslmode=require&sslrootcert=" + file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialUpstream(t.Context(), landing{target: with, user: "u"}); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Error(err)
	}
}

// TestUpstreamInjection: nothing that came in clear is taken for the server's once TLS is there.
func TestUpstreamInjection(t *testing.T) {
	tg := scripted(t, func(p *peer) {
		msg := appendPacket(nil, 0, encodeGreeting(mariadbGreeting(), 1, newScramble(20)))
		p.wire.Write(appendPacket(msg, 1, []byte{packetOK, 0, 0, 2, 0, 0, 0}))
		p.read(limitLogin)
	})
	with, err := parseTarget("mysql://b@" + tg.address + "/?sslmode=require")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialUpstream(t.Context(), landing{target: with, user: "u"}); err == nil || !strings.Contains(err.Error(), "in clear") {
		t.Error(err)
	}
}

// TestServerChanged: a session does not begin with less than its client was promised, and the next client is
// greeted with what there is now.
func TestServerChanged(t *testing.T) {
	now := mariadbGreeting()
	now.version, now.minor = "11.4.2-MariaDB", 4
	now.caps &^= capBulkUnitResults
	tg := scripted(t,
		func(p *peer) { p.send(encodeGreeting(mariadbGreeting(), 1, newScramble(20))) },
		func(p *peer) { p.send(encodeGreeting(now, 2, newScramble(20))); p.read(limitLogin) })
	p := newProber(tg)
	before, err := p.server(t.Context())
	if err != nil || before != mariadbGreeting() {
		t.Fatalf("%+v %v", before, err)
	}
	_, err = dialUpstream(t.Context(), landing{target: tg, prober: p, user: "u", caps: before.caps & mirrored})
	var refusal *protocol.Refusal
	if !errors.As(err, &refusal) || refusal.Code != protocol.RefuseUnavailable || refusal.Public != sentenceChanged {
		t.Errorf("%v", err)
	}
	if after, err := p.server(t.Context()); err != nil || after != now {
		t.Errorf("%+v %v", after, err)
	}
}

// TestProberError: a server that refuses is not asked again by everybody, and not held to be down for long.
func TestProberError(t *testing.T) {
	tg := scripted(t,
		func(p *peer) { p.send(append([]byte{packetErr, 0x10, 0x04}, "Too many connections"...)) },
		func(p *peer) { p.send(encodeGreeting(mysqlGreeting(), 1, newScramble(20))) })
	p := newProber(tg)
	for range 3 {
		_, err := p.server(t.Context())
		var said *serverError
		if !errors.As(err, &said) || said.code != 1040 || said.state != "HY000" || !said.mayShow() {
			t.Fatalf("%v", err)
		}
	}
	p.mu.Lock()
	p.until = p.until.Add(-2 * probeAgain)
	p.mu.Unlock()
	if s, err := p.server(t.Context()); err != nil || s != mysqlGreeting() {
		t.Errorf("%+v %v", s, err)
	}
}

// TestProberGivesUp: whoever waits for a server that says nothing waits no longer than they want.
func TestProberGivesUp(t *testing.T) {
	hold := make(chan struct{})
	tg := scripted(t, func(*peer) { <-hold })
	defer close(hold)
	p := newProber(tg)
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := make(chan error, 2)
	for range 2 {
		go func() { _, err := p.server(ctx); errs <- err }()
	}
	cancel(errors.New("enough"))
	for range 2 {
		if err := <-errs; err == nil {
			t.Error("got an answer")
		}
	}
}
