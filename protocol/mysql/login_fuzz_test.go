package mysql

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// mouth is a connection that says what it has to say, and keeps what is said to it.
type mouth struct {
	net.Conn
	says  io.Reader
	heard bytes.Buffer
}

func (m *mouth) Read(b []byte) (int, error)       { return m.says.Read(b) }
func (m *mouth) Write(b []byte) (int, error)      { return m.heard.Write(b) }
func (m *mouth) Close() error                     { return nil }
func (m *mouth) SetDeadline(time.Time) error      { return nil }
func (m *mouth) SetReadDeadline(time.Time) error  { return nil }
func (m *mouth) SetWriteDeadline(time.Time) error { return nil }
func (m *mouth) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3306} }

// responses are HandshakeResponses of clients of both families, with what they say behind.
func responses() (list [][]byte) {
	for _, mariadb := range []bool{false, true} {
		s := &stranger{caps: clientCaps(mariadb) | capConnectWithDB}
		for _, user := range []string{"gknown", "gunknown", ""} {
			list = append(list,
				packets(1, s.reply(user, pluginNative, make([]byte, 20))),
				packets(1, s.reply(user, pluginCachingSHA2, make([]byte, 32)), []byte{sha2AskKey}, make([]byte, 256)),
				packets(1, s.reply(user, pluginEd25519, nil), make([]byte, 64)),
				packets(1, s.reply(user, pluginClear, []byte("wrong\x00"))),
				packets(1, s.reply(user, "sha256_password", nil), make([]byte, 20)))
		}
		s.caps |= capSSL
		list = append(list, packets(1, s.reply("", "", nil)[:sslRequestSize], s.reply("gknown", pluginNative, nil)))
	}
	return list
}

// FuzzAccept: a stranger may send anything to a listener, with TLS or without. Nobody gets in without a proof,
// and whoever is refused reads why.
func FuzzAccept(f *testing.F) {
	for _, says := range responses() {
		f.Add(says, uint8(0))
		f.Add(says, uint8(3))
	}
	hello := &mouth{says: bytes.NewReader(nil)}
	_ = tls.Client(hello, &tls.Config{ServerName: "x"}).Handshake() // ends where an answer would be read
	for _, mariadb := range []bool{false, true} {
		s := &stranger{caps: clientCaps(mariadb) | capSSL}
		f.Add(glue(packets(1, s.reply("", "", nil)[:sslRequestSize]), hello.heard.Bytes()), uint8(2))
	}
	cert, _ := selfSigned(f)
	secured := &tls.Config{Certificates: []tls.Certificate{cert}}
	fronts := [4]*Front{
		fronting(mysqlGreeting(), FrontConfig{}), fronting(mariadbGreeting(), FrontConfig{}),
		fronting(mysqlGreeting(), FrontConfig{TLS: secured, RequireTLS: true}), fronting(mariadbGreeting(), FrontConfig{TLS: secured}),
	}
	known := newKeeper()
	f.Fuzz(func(t *testing.T, says []byte, which uint8) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		heard := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(theirs)
			heard <- b
		}()
		go func() {
			theirs.Write(says)
			theirs.Close()
		}()
		c, err := fronts[which%4].Accept(t.Context(), ours, known)
		if err == nil {
			t.Fatalf("accepted: %+v", c.Login())
		}
		var refusal *protocol.Refusal
		if errors.As(err, &refusal) && refusal.Public == "" {
			t.Error("a refusal that says nothing")
		}
		ours.Close()
		if b := <-heard; bytes.Contains(b, []byte(personPassword)) || len(b) > 8<<10 {
			t.Errorf("a stranger reads %d bytes: %q", len(b), b)
		}
	})
}

// FuzzProof: a stranger may send anything where their proof is expected, inside TLS as well, and gets in by the
// password alone.
func FuzzProof(f *testing.F) {
	clear := append([]byte(personPassword), 0)
	f.Add("gknown", pluginClear, clear, []byte{}, true)
	f.Add("gknown", pluginClear, clear, []byte{}, false)
	f.Add("gunknown", pluginClear, clear, []byte{}, true)
	f.Add("gknown", pluginCachingSHA2, make([]byte, 32), packets(0, clear), true)
	f.Add("gknown", pluginCachingSHA2, make([]byte, 32), packets(0, []byte{sha2AskKey}, make([]byte, 256)), false)
	f.Add("gunknown", pluginCachingSHA2, []byte{}, packets(0, make([]byte, 32), []byte{sha2AskKey}, make([]byte, 256)), false)
	f.Add("gknown", pluginNative, []byte{}, packets(0, make([]byte, 20)), false)
	f.Add("gknown", pluginEd25519, []byte{}, packets(0, make([]byte, 64)), true)
	f.Add("gknown", "sha256_password", []byte{1}, packets(0, make([]byte, 20)), false)
	front := fronting(mysqlGreeting(), FrontConfig{DecoyKey: []byte("key")})
	known := newKeeper()
	f.Fuzz(func(t *testing.T, user, plugin string, answer, says []byte, secured bool) {
		conn := &mouth{says: bytes.NewReader(says)}
		c := &client{front: front, raw: conn, conn: conn, server: mysqlGreeting(), scramble: newScramble(scrambleBytes), caps: clientCaps(false)}
		c.reader.conn = conn
		c.login.User, c.login.Address = user, "127.0.0.1:1"
		if secured {
			c.login.TLS = "TLS"
		}
		err := c.authenticate(t.Context(), known, response{plugin: plugin, answer: answer})
		offered := secured && (bytes.Contains(answer, []byte(personPassword)) || bytes.Contains(says, []byte(personPassword)))
		if err == nil && (user != "gknown" || !offered || c.login.Mechanism == "") {
			t.Fatalf("%q gets in by %q, %q", user, c.login.Mechanism, says)
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

// FuzzUpstream: a server may say anything while we log in. It is believed only where the session then has what
// its client was promised, and never sees the secret in clear.
func FuzzUpstream(f *testing.F) {
	for _, s := range []server{mysqlGreeting(), mariadbGreeting()} {
		hello := func(plugin string, behind ...[]byte) []byte {
			said := s
			said.plugin = plugin
			return glue(packets(0, encodeGreeting(said, 7, newScramble(20))), packets(2, behind...))
		}
		change := func(plugin string, n int) []byte {
			return glue([]byte{packetEOF}, []byte(plugin), []byte{0}, newScramble(n), []byte{0})
		}
		f.Add(hello(pluginNative, loginOK), s.mariadb, uint8(0))
		f.Add(hello(pluginCachingSHA2, []byte{packetMore, sha2FastOK}), s.mariadb, uint8(0))
		f.Add(glue(hello(pluginCachingSHA2, []byte{packetMore, sha2AskFull}), packets(4, loginOK)), s.mariadb, uint8(1))
		f.Add(hello("x", change(pluginEd25519, 32)), s.mariadb, uint8(2))
		f.Add(glue(hello("x", change(pluginNative, 20)), packets(4, loginOK)), s.mariadb, uint8(0))
		f.Add(hello(pluginNative, errWith(1045, "28000", "Access denied")), s.mariadb, uint8(0))
	}
	f.Add(packets(0, []byte("\xff\x10\x04Too many connections")), false, uint8(0))
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, says []byte, mariadb bool, way uint8) {
		if bytes.Contains(says, []byte(pluginParsec)) {
			return // many rounds of a hash: slow, and FuzzLogin has it
		}
		conn := &mouth{says: bytes.NewReader(says)}
		l := landing{target: &target{}, user: "u", secret: accountSecret, caps: clientCaps(mariadb), grant: "g1", maxPacket: 1 << 24}
		if way&1 != 0 {
			l.target.key = &key.PublicKey
		}
		if way&2 != 0 {
			l.database = "shop"
		}
		u := &upstream{conn: conn}
		u.reader.conn = conn
		err := u.login(t.Context(), l)
		if bytes.Contains(conn.heard.Bytes(), []byte(accountSecret)) {
			t.Fatalf("the secret went out in clear: %q", conn.heard.Bytes())
		}
		if cap(u.reader.buf) > 2*limitLogin+8192 {
			t.Errorf("%d bytes are held", cap(u.reader.buf))
		}
		if err != nil {
			return
		}
		if _, whole := parseOK(u.ok, u.caps); !whole || u.caps&mirrored != l.caps&mirrored || (u.caps&capConnectWithDB != 0) != (l.database != "") {
			t.Errorf("logged in: %+v", u)
		}
	})
}

var killSQL = regexp.MustCompile(`(?i)^[ \t\r\n\f\v]*kill[ \t\r\n\f\v]+((hard|soft)[ \t\r\n\f\v]+)?((query|connection)[ \t\r\n\f\v]+)?([0-9]+)[ \t\r\n\f\v;]*$`)

// FuzzKill: a text is taken for a KILL exactly where it is one, and its id stands where that is said.
func FuzzKill(f *testing.F) {
	for _, text := range []string{"KILL 1", "kill hard query 4294967295 ;", "KILL CONNECTION\t7", "KILL USER x", "KILL 1 + 1", "KILL QUERY ID 5", "kill soft\n2; DROP"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		k, ok := parseKill(text)
		m := killSQL.FindSubmatch(text)
		if len(text) > 256 || m != nil && len(m[5]) > 18 {
			return
		}
		if ok != (m != nil) {
			t.Fatalf("%q: taken for a KILL: %t", text, ok)
		}
		if ok && string(text[k.at:k.at+k.n]) != string(m[5]) {
			t.Fatalf("%q: its id stands at %q", text, text[k.at:k.at+k.n])
		}
	})
}

// FuzzVerifier: what is taken for a verifier is one, whole.
func FuzzVerifier(f *testing.F) {
	f.Add(enrol(personPassword))
	f.Add([]byte("MYSQL$::"))
	f.Add([]byte("SCRAM-SHA-256$1:YQ==$YQ==:YQ=="))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := parseVerifier(text)
		if err != nil {
			if v != (verifier{}) {
				t.Error("half a verifier")
			}
			return
		}
		enc := base64.StdEncoding.EncodeToString
		again, err := parseVerifier([]byte(verifierScheme + "$" + enc(v.sha1[:]) + ":" + enc(v.sha256[:]) + ":" + enc(v.ed25519[:])))
		if err != nil || again != v {
			t.Fatalf("%q, written and read again: %v", text, err)
		}
	})
}

// FuzzTarget: whatever URL an operator writes, a target has an address and a broker, and no error shows a password.
func FuzzTarget(f *testing.F) {
	for _, text := range []string{
		"mysql://broker@db.example.test:3307/shop?sslmode=disable", "mysql://broker:hunter2@db.example.test", "mysql://broker@/shop?host=/run/mysqld",
		"mysql://broker@[::1]:0/?connect_timeout=5&account_host=%25", "mysql://broker@h/a/b", "mysql://broker@h?socket=/x&password=hunter2", "mysql://%zz:hunter2@h",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "cert") || strings.Contains(text, "key") || strings.Contains(text, "%") && strings.Contains(text, "?") {
			return // names files of this machine
		}
		tg, err := parseTarget(text)
		if err == nil {
			if tg.address == "" || tg.user == "" || tg.network != "tcp" && tg.network != "unix" || tg.timeout <= 0 {
				t.Fatalf("%q: %+v", text, tg)
			}
			return
		}
		u, perr := url.Parse(text)
		if perr != nil || u.User == nil {
			return
		}
		if p, _ := u.User.Password(); len(p) > 5 && strings.Count(text, p) == 1 && strings.Contains(err.Error(), p) {
			t.Errorf("%q: the error shows the password: %v", text, err)
		}
	})
}
