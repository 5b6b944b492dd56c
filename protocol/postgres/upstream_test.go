package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/xdg-go/scram"

	"github.com/curfewdb/curfew/protocol"
)

// puppet is a server that says what a test wants, whatever it hears.
func puppet(t testing.TB, config pgconn.Config, bound scram.ChannelBinding, tls string, says ...[]byte) (*upstream, string, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	var heard bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		_, body, err := readStartup(theirs)
		heard.Write(body)
		r := frameReader{conn: theirs}
		for i, b := range says {
			if i > 0 && err == nil {
				_, body, err = r.next(limitBeforeLogin)
				heard.WriteString("|" + string(body))
			}
			if _, werr := theirs.Write(b); werr != nil {
				return
			}
		}
	}()
	ours.SetDeadline(time.Now().Add(10 * time.Second))
	u := &upstream{conn: ours, reader: frameReader{conn: ours}, tls: tls, bound: bound, params: map[string]string{}}
	err := u.login(landing{conn: &config, user: "u", password: "secret", database: "d"})
	ours.Close()
	<-done
	return u, heard.String(), err
}

// reply is a server's messages.
func reply(parts ...any) []byte {
	var b []byte
	for i := 0; i < len(parts); i += 2 {
		b = appendMessage(b, parts[i].(byte), []byte(parts[i+1].(string)))
	}
	return b
}

const letIn = "\x00\x00\x00\x00"

// TestUpstreamVersions: the server is asked for the newest protocol and may speak an older one; a cancel key
// has the length that goes with it.
func TestUpstreamVersions(t *testing.T) {
	R, v, K, Z := byte(msgAuthentication), byte(msgNegotiateProtocol), byte(msgBackendKeyData), byte(msgReadyForQuery)
	short, long := "\x00\x00\x00\x07abcd", "\x00\x00\x00\x07"+strings.Repeat("k", 32)
	for name, c := range map[string]struct {
		most, least string
		says        []byte
		minor       uint32
		key         int
		wrong       string
	}{
		"3.2":                       {"latest", "", reply(R, letIn, K, long, Z, "I"), 2, 32, ""},
		"3.2, a short key":          {"3.2", "", reply(R, letIn, K, short, Z, "I"), 2, 4, ""},
		"3.2, the longest":          {"3.2", "", reply(R, letIn, K, short+strings.Repeat("k", 252), Z, "I"), 2, 256, ""},
		"3.2, longer":               {"3.2", "", reply(R, letIn, K, short+strings.Repeat("k", 253), Z, "I"), 0, 0, "cancel key of 257 bytes"},
		"3.2, none":                 {"3.2", "", reply(R, letIn, K, "\x00\x00\x00\x07", Z, "I"), 0, 0, "cancel key of 0 bytes"},
		"3.0":                       {"3.0", "", reply(R, letIn, K, short, Z, "I"), 0, 4, ""},
		"3.0, a long key":           {"3.0", "", reply(R, letIn, K, long, Z, "I"), 0, 0, "cancel key of 32 bytes"},
		"negotiated":                {"latest", "", reply(v, "\x00\x03\x00\x00\x00\x00\x00\x00", R, letIn, K, short, Z, "I"), 0, 4, ""},
		"negotiated, a long key":    {"latest", "", reply(v, "\x00\x03\x00\x00\x00\x00\x00\x00", R, letIn, K, long, Z, "I"), 0, 0, "cancel key of 32 bytes"},
		"by the manual":             {"latest", "", reply(v, "\x00\x00\x00\x00\x00\x00\x00\x00", R, letIn, K, short, Z, "I"), 0, 4, ""},
		"upwards":                   {"3.0", "", reply(v, "\x00\x03\x00\x02\x00\x00\x00\x00", R, letIn, K, short, Z, "I"), 0, 0, "was asked for 3.0"},
		"another major":             {"latest", "", reply(v, "\x00\x02\x00\x00\x00\x00\x00\x00", R, letIn, K, short, Z, "I"), 0, 0, "wants protocol 2.0"},
		"options that nobody named": {"latest", "", reply(v, "\x00\x03\x00\x02\x00\x00\x00\x01_pq_.x\x00", R, letIn, K, long, Z, "I"), 0, 0, "was asked for none"},
		"too old":                   {"latest", "3.2", reply(v, "\x00\x03\x00\x00\x00\x00\x00\x00", R, letIn, K, short, Z, "I"), 0, 0, "min_protocol_version"},
		"cut short":                 {"latest", "", reply(v, "\x00\x03", R, letIn, K, short, Z, "I"), 0, 0, "malformed"},
		"no key":                    {"latest", "", reply(R, letIn, Z, "I"), 0, 0, "which backend"},
		"nobody is let in":          {"latest", "", reply(K, short, Z, "I"), 0, 0, "lets nobody in"},
		"asked twice":               {"latest", "", reply(R, letIn, R, letIn, K, short, Z, "I"), 0, 0, "after it had let it in"},
		"MD5":                       {"latest", "", reply(R, "\x00\x00\x00\x05salt", Z, "I"), 0, 0, "method 5"},
	} {
		t.Run(name, func(t *testing.T) {
			u, heard, err := puppet(t, pgconn.Config{MaxProtocolVersion: c.most, MinProtocolVersion: c.least}, scram.ChannelBinding{}, "", c.says)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || u.minor != c.minor || u.pid != 7 || len(u.key) != c.key {
				t.Errorf("3.%d, pid %d, key %q: %v", u.minor, u.pid, u.key, err)
			}
			if !strings.HasPrefix(heard, "user\x00u\x00database\x00d\x00") {
				t.Errorf("the server heard %q", heard)
			}
		})
	}
}

// TestUpstreamBinding: what is said of channel binding, and what a server may not get away with.
func TestUpstreamBinding(t *testing.T) {
	R := byte(msgAuthentication)
	const both, plain, plusOnly = "\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00", "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00", "\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00\x00"
	certificate := scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: []byte("hash")}
	for name, c := range map[string]struct {
		mode    string
		bound   bool
		asks    string
		require string
		says    string // how the client's first message begins
		wrong   string
	}{
		"bound":                       {"prefer", true, both, "", "SCRAM-SHA-256-PLUS\x00", ""},
		"bound, the default":          {"", true, both, "", "SCRAM-SHA-256-PLUS\x00", ""},
		"bound, nothing else offered": {"require", true, plusOnly, "", "SCRAM-SHA-256-PLUS\x00", ""},
		"not offered":                 {"prefer", true, plain, "", "SCRAM-SHA-256\x00\x00\x00\x00(y,,", ""},
		"not offered, required":       {"require", true, plain, "", "", "which the target's URL requires"},
		"disabled":                    {"disable", true, both, "", "SCRAM-SHA-256\x00\x00\x00\x00(n,,", ""},
		"disabled, nothing else":      {"disable", true, plusOnly, "", "", "no SASL mechanism"},
		"nothing to be bound to":      {"prefer", false, both, "", "SCRAM-SHA-256\x00\x00\x00\x00(n,,", ""},
		"nothing, required":           {"require", false, both, "", "", "which the target's URL requires"},
		"in clear, required":          {"require", true, "\x00\x00\x00\x03", "", "", "which the target's URL requires"},
		"let in, required":            {"require", true, letIn, "", "", "which the target's URL requires"},
		"not allowed":                 {"prefer", true, both, "password", "", "require_auth"},
		"forbidden":                   {"prefer", true, both, "!scram-sha-256,!md5", "", "require_auth"},
		"allowed":                     {"prefer", true, both, "password,scram-sha-256", "SCRAM-SHA-256-PLUS\x00", ""},
		"not forbidden":               {"prefer", true, both, "!password", "SCRAM-SHA-256-PLUS\x00", ""},
		"in clear, not allowed":       {"prefer", true, "\x00\x00\x00\x03", "scram-sha-256", "", "require_auth"},
		"in clear, allowed":           {"prefer", true, "\x00\x00\x00\x03", "password", "secret\x00", ""},
		"let in, not allowed":         {"prefer", true, letIn, "scram-sha-256", "", "require_auth"},
	} {
		t.Run(name, func(t *testing.T) {
			bound := scram.ChannelBinding{}
			if c.bound {
				bound = certificate
			}
			_, heard, err := puppet(t, pgconn.Config{ChannelBinding: c.mode, RequireAuth: c.require}, bound, "TLS", reply(R, c.asks), nil)
			_, said, _ := strings.Cut(heard, "|")
			if !strings.HasPrefix(said, c.says) || c.says == "" && said != "" {
				t.Errorf("the server heard %q", said)
			}
			if c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestUpstreamProof: a server that has not proved that it knows the secret is not believed, nor one that
// would have us reckon for hours, nor one that wants the secret itself without TLS.
func TestUpstreamProof(t *testing.T) {
	R, Z := byte(msgAuthentication), byte(msgReadyForQuery)
	const offer = "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"
	for name, c := range map[string]struct {
		says  [][]byte
		wrong string
	}{
		"in clear":        {[][]byte{reply(R, "\x00\x00\x00\x03")}, "without TLS"},
		"no proof":        {[][]byte{reply(R, offer), reply(R, letIn, Z, "I")}, "did not prove"},
		"another's nonce": {[][]byte{reply(R, offer), reply(R, "\x00\x00\x00\x0br=abc,s=QUJD,i=1")}, "scram"},
		"iterations":      {[][]byte{reply(R, offer), reply(R, "\x00\x00\x00\x0br=abc,s=QUJD,i=2000000000")}, "too many iterations"},
		"out of turn":     {[][]byte{reply(R, "\x00\x00\x00\x0br=abc,s=QUJD,i=1")}, "out of turn"},
		"offered twice":   {[][]byte{reply(R, offer), reply(R, offer)}, "out of turn"},
		"final first":     {[][]byte{reply(R, offer), reply(R, "\x00\x00\x00\x0cv=QUJD")}, "scram"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := puppet(t, pgconn.Config{}, scram.ChannelBinding{}, "", c.says...)
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%v", err)
			}
		})
	}
}

// targetTo makes the engine of a database on the server with TLS, and an account there.
func targetTo(t *testing.T, database string, extra url.Values) (*Engine, error) {
	t.Helper()
	s := tlsServer(t)
	e, err := New(t.Context(), Config{Target: "orders", URL: s.url(t, database, extra), Password: brokerPassword, Installation: testInstallation})
	if err == nil {
		t.Cleanup(e.Close)
	}
	return e, err
}

// landed logs in upstream as a session of an account does.
func landed(t *testing.T, e *Engine) error {
	t.Helper()
	a, err := e.Provision(t.Context(), newSpec(0))
	if err != nil {
		return err
	}
	acc := a.(*account)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	u, err := dialUpstream(ctx, landing{conn: e.conn, user: acc.spec.Name, password: acc.secret, database: e.conn.Database})
	if err == nil {
		u.leave()
	}
	return err
}

// TestUpstreamLeg: what a target's URL says of TLS and of logins goes for the broker and for sessions.
func TestUpstreamLeg(t *testing.T) {
	for name, extra := range map[string]url.Values{
		"verify-full":       {},
		"bound":             {"channel_binding": {"require"}},
		"not bound":         {"channel_binding": {"disable"}},
		"scram and nothing": {"require_auth": {"scram-sha-256"}, "channel_binding": {"require"}},
		"3.0":               {"max_protocol_version": {"3.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := targetTo(t, "orders", extra)
			if err == nil {
				err = landed(t, e)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("direct", func(t *testing.T) {
		e, err := targetTo(t, "orders", url.Values{"sslnegotiation": {"direct"}})
		if err == nil {
			err = landed(t, e)
		}
		if (err == nil) != (tlsMajor(t) >= 17) {
			t.Error(err)
		}
	})
	t.Run("a stranger's certificate", func(t *testing.T) {
		other, err := newAuthority()
		if err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(t.TempDir(), "other.pem")
		if err := os.WriteFile(root, other.pem, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := targetTo(t, "orders", url.Values{"sslrootcert": {root}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = dialUpstream(t.Context(), landing{conn: e.conn, user: "x", password: "x", database: "orders"})
		if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
			t.Errorf("%v", err)
		}
	})
}

// TestDirectUpstreamIsPostgreSQL: whoever answers TLS that was not asked for must say what it is.
func TestDirectUpstreamIsPostgreSQL(t *testing.T) {
	cert, pool := certificate(t)
	for _, protos := range [][]string{nil, {alpn}} {
		ours, theirs := net.Pipe()
		go func() {
			config := serverTLS(cert)
			config.NextProtos = protos
			conn := tls.Server(theirs, config)
			_ = conn.HandshakeContext(t.Context())
			io.Copy(io.Discard, conn)
		}()
		_, _, err := secure(t.Context(), ours, route{direct: true, config: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{alpn}}})
		if (err == nil) != (protos != nil) {
			t.Errorf("%q: %v", protos, err)
		}
		ours.Close()
	}
}

// TestClientCertificate: one that the target's URL names is shown by the broker and by sessions alike, and
// read again for each connection; cancel requests show it, too.
func TestClientCertificate(t *testing.T) {
	s := tlsServer(t)
	root, cert, key := s.files(t)
	named := url.Values{"sslrootcert": {root}, "sslcert": {cert}, "sslkey": {key}, "sslcertmode": {"require"}}
	e, err := targetTo(t, "certs", named)
	if err != nil {
		t.Fatal(err)
	}
	if err := landed(t, e); err != nil {
		t.Fatal(err)
	}

	without, err := targetTo(t, "certs", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := landed(t, without); err == nil || !strings.Contains(err.Error(), "client certificate") {
		t.Errorf("without one: %v", err)
	}

	renewed, err := s.authority.issue("renewed")
	if err != nil {
		t.Fatal(err)
	}
	for name, step := range map[string]func() error{
		cert: func() error { return os.WriteFile(cert, renewed.cert, 0o600) },
		key:  func() error { return os.WriteFile(key, renewed.key, 0o600) },
	} {
		if err := step(); err != nil {
			t.Fatal(name, err)
		}
	}
	if err := landed(t, e); err != nil {
		t.Errorf("with a renewed one: %v", err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := landed(t, e); err == nil {
		t.Error("a session without the key")
	}
	_, err = dialUpstream(t.Context(), landing{conn: e.conn, user: "x", password: "x", database: "certs"})
	if err == nil || !strings.Contains(err.Error(), "sslkey: ") || !strings.Contains(err.Error(), key) {
		t.Errorf("the error does not name the file: %v", err)
	}

	orders, err := targetTo(t, "orders", url.Values{"sslcertmode": {"require"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = dialUpstream(t.Context(), landing{conn: orders.conn, user: "x", password: "x", database: "orders"})
	if err == nil || !strings.Contains(err.Error(), "sslcertmode=require") {
		t.Errorf("no certificate, and one must be shown: %v", err)
	}
}

// TestTargetFiles: a file that a target's URL names and that can't be used is named in the error, at the start.
func TestTargetFiles(t *testing.T) {
	s := tlsServer(t)
	root, cert, key := s.files(t)
	other, err := s.authority.issue("other")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name string, text []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, text, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	open := put("open.key", private, 0o644)
	garbage := put("garbage.pem", []byte("nothing"), 0o600)
	for name, c := range map[string]struct {
		query url.Values
		wrong []string
	}{
		"open key":         {url.Values{"sslcert": {cert}, "sslkey": {open}}, []string{open, "chmod", "0644"}},
		"another's key":    {url.Values{"sslcert": {cert}, "sslkey": {put("other.key", other.key, 0o600)}}, []string{"other.key", cert}},
		"no key":           {url.Values{"sslcert": {cert}, "sslkey": {dir + "/nowhere"}}, []string{"sslkey", dir + "/nowhere"}},
		"no cert":          {url.Values{"sslcert": {dir + "/nowhere"}, "sslkey": {key}}, []string{"sslcert", dir + "/nowhere"}},
		"a directory":      {url.Values{"sslcert": {cert}, "sslkey": {dir}}, []string{dir, "regular file"}},
		"garbage for cert": {url.Values{"sslcert": {garbage}, "sslkey": {key}}, []string{"sslcert", garbage}},
		"garbage for root": {url.Values{"sslrootcert": {garbage}}, []string{"sslrootcert", garbage}},
		"no root":          {url.Values{"sslrootcert": {dir + "/nowhere"}}, []string{"sslrootcert", dir + "/nowhere"}},
		"cert alone":       {url.Values{"sslcert": {cert}}, []string{"name both"}},
		"a passphrase":     {url.Values{"sslcert": {cert}, "sslkey": {key}, "sslpassword": {"hunter2"}}, []string{"sslpassword"}},
		"all well":         {url.Values{"sslcert": {cert}, "sslkey": {key}, "sslrootcert": {root}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := targetTo(t, "orders", c.query)
			if (err == nil) != (c.wrong == nil) {
				t.Fatalf("%v", err)
			}
			for _, text := range c.wrong {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v does not say %s", err, text)
				}
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the passphrase: %v", err)
			}
		})
	}
}

// FuzzUpstream: a server may say anything while we log in.
func FuzzUpstream(f *testing.F) {
	R, v, K, S, Z := byte(msgAuthentication), byte(msgNegotiateProtocol), byte(msgBackendKeyData), byte(msgParameterStatus), byte(msgReadyForQuery)
	f.Add(reply(R, letIn, S, "a\x00b\x00", K, "\x00\x00\x00\x07abcd", Z, "I"), true)
	f.Add(reply(v, "\x00\x03\x00\x00\x00\x00\x00\x00", R, letIn, K, "\x00\x00\x00\x07"+strings.Repeat("k", 32), Z, "I"), false)
	f.Add(reply(v, "\x00\x03\x00\x02\xff\xff\xff\xff_pq_.x\x00"), true)
	f.Add(reply(R, "\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00", R, "\x00\x00\x00\x0br=a,s=QUJD,i=1", R, "\x00\x00\x00\x0cv=QUJD", R, letIn), true)
	f.Add(reply(R, "\x00\x00\x00\x03", byte(msgErrorResponse), "SFATAL\x00C28P01\x00Mno\x00\x00"), true)
	f.Add([]byte("R\xff\xff\xff\xff"), false)
	f.Fuzz(func(t *testing.T, says []byte, bound bool) {
		if len(says) > 1<<16 {
			return
		}
		var binding scram.ChannelBinding
		if bound {
			binding = scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: []byte("hash")}
		}
		u := &upstream{conn: &mouth{says: bytes.NewReader(says)}, bound: binding, tls: "TLS", params: map[string]string{}}
		u.reader.conn = u.conn
		err := u.login(landing{conn: &pgconn.Config{MaxProtocolVersion: "latest"}, user: "u", password: "secret", database: "d"})
		if err == nil && (u.pid == 0 || len(u.key) < keyShort || len(u.key) > keyLongest || u.minor > newestMinor) {
			t.Errorf("logged in: %+v", u)
		}
		if len(u.status) > len(says)+64 {
			t.Errorf("%d bytes of status", len(u.status))
		}
	})
}

// mouth is a connection that says what it has to say, and takes whatever is said.
type mouth struct {
	net.Conn
	says io.Reader
}

func (m *mouth) Read(b []byte) (int, error)         { return m.says.Read(b) }
func (m *mouth) Write(b []byte) (int, error)        { return len(b), nil }
func (m *mouth) Close() error                       { return nil }
func (m *mouth) SetDeadline(time.Time) error        { return nil }
func (m *mouth) SetReadDeadline(time.Time) error    { return nil }
func (m *mouth) SetWriteDeadline(t time.Time) error { return nil }
func (m *mouth) RemoteAddr() net.Addr               { return &net.TCPAddr{} }

// FuzzSASL: a stranger may send anything where their proof is expected.
func FuzzSASL(f *testing.F) {
	first := func(mechanism, text string) []byte {
		return appendMessage(nil, msgPassword, []byte(mechanism+"\x00"), be32(len(text)), []byte(text))
	}
	f.Add(append(first(mechanism, "n,,n=,r=abcdef"), appendMessage(nil, msgPassword, []byte("c=biws,r=abcdef,p=QUJD"))...), true, false)
	f.Add(first(mechanismPlus, "p=tls-server-end-point,,n=,r=abcdef"), true, false)
	f.Add(first(mechanism, "y,,n=,r=abcdef"), true, false)
	f.Add(first(mechanism, "n,a=x,n=,r=\x00,m=x"), false, false)
	f.Add(append(appendMessage(nil, msgPassword, []byte(mechanism+"\x00\xff\xff\xff\xff")), appendMessage(nil, msgPassword, []byte("n,,n=,r=a"))...), false, false)
	f.Add(appendMessage(nil, msgPassword, []byte("hunter2\x00")), false, true)
	f.Add(appendMessage(nil, msgPassword, []byte("a\x00b")), false, true)
	f.Add([]byte("p\x00\x01\x00\x01"), true, true)
	front := NewFront(FrontConfig{DecoyKey: []byte("key")})
	clear := NewFront(FrontConfig{DecoyKey: []byte("key"), Cleartext: true})
	f.Fuzz(func(t *testing.T, says []byte, bound, inClear bool) {
		conn := &mouth{says: bytes.NewReader(says)}
		c := &client{front: front, raw: conn, conn: conn, reader: frameReader{conn: conn}}
		c.login.User, c.login.TLS = "g1", "TLS"
		if bound {
			c.bound = scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: []byte("hash")}
		}
		if inClear {
			c.front = clear
		}
		err := c.authenticate(t.Context(), doorman{})
		if err == nil {
			t.Fatal("nobody has that name")
		}
		var refusal *protocol.Refusal
		if errors.As(err, &refusal) && refusal.Public == "" {
			t.Error("a refusal that says nothing")
		}
		if cap(c.reader.buf) > 4*limitBeforeLogin {
			t.Errorf("%d bytes are held", cap(c.reader.buf))
		}
	})
}
