package mysql

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/enginetest"
)

// personPassword is a grant password, as long as real ones.
const personPassword = "correct-horse-battery-staple-0123456"

// keeper knows one person.
type keeper struct {
	enginetest.NoTokens
	user     string
	verifier []byte
	err      error
}

func (k keeper) Verifier(_ context.Context, user string) ([]byte, error) {
	if user != k.user {
		return nil, k.err
	}
	return k.verifier, k.err
}

func newKeeper() keeper { return keeper{user: "gknown", verifier: enrol(personPassword)} }

// fronting makes a front whose target says this of itself.
func fronting(s server, cfg FrontConfig) *Front {
	tg := &target{network: "tcp", address: "127.0.0.1:1", timeout: time.Second}
	cfg.Engine = &Engine{target: tg, prober: newProber(tg)}
	cfg.Engine.prober.saw(s)
	return NewFront(cfg)
}

// stranger talks to a Front from the beginning.
type stranger struct {
	*peer
	front    *Front
	greeting greeting
	native   []byte // the scramble of an AuthSwitchRequest, if it has a native one's length
	caps     capability
	result   chan error
	client   protocol.Client
}

// knock connects to a Front.
func knock(t testing.TB, f *Front, d protocol.Doorman) *stranger {
	t.Helper()
	return knockBy(t, "tcp", "127.0.0.1:0", f, d)
}

// knockBy connects to a Front that listens there.
func knockBy(t testing.TB, network, address string, f *Front, d protocol.Doorman) *stranger {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := &stranger{peer: newPeer(t, conn), front: f, result: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := f.Accept(context.WithoutCancel(t.Context()), accepted, d)
		s.client = c
		if err != nil {
			accepted.Close()
		}
		s.result <- err
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		if s.client != nil {
			s.client.Close(nil)
		}
	})
	return s
}

// newStranger connects and reads the greeting.
func newStranger(t testing.TB, f *Front, d protocol.Doorman) *stranger {
	t.Helper()
	return knock(t, f, d).greeted()
}

// greeted reads the greeting.
func (s *stranger) greeted() *stranger {
	s.t.Helper()
	g, err := parseGreeting(s.recv())
	if err != nil {
		s.t.Fatal(err)
	}
	s.greeting, s.caps = g, g.caps&clientCaps(g.mariadb)
	return s
}

// reply is a HandshakeResponse41.
func (s *stranger) reply(user, plugin string, answer []byte, more ...byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(s.caps))
	b = binary.LittleEndian.AppendUint32(b, 1<<24)
	b = append(append(b, 45), make([]byte, 19)...)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.caps>>32))
	b = append(append(b, user...), 0)
	b = appendLenencBytes(b, answer)
	if s.caps&capConnectWithDB != 0 {
		b = append(b, "shop\x00"...)
	}
	b = append(append(b, plugin...), 0)
	return append(b, more...)
}

// secure asks for TLS, and gives the name it trusts.
func (s *stranger) secure(cfg *tls.Config) {
	s.t.Helper()
	s.caps |= capSSL
	s.send(s.reply("", "", nil)[:sslRequestSize])
	conn := tls.Client(s.wire, cfg)
	if err := conn.Handshake(); err != nil {
		s.t.Fatal(err)
	}
	s.wire, s.conn = conn, conn
}

// refused reads the last words and gives them.
func (s *stranger) refused() errPacket {
	s.t.Helper()
	e := s.words(capProtocol41)
	s.gone()
	return e
}

// gone waits until the Front has given up.
func (s *stranger) gone() error {
	s.t.Helper()
	if _, err := s.read(limitLogin); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		s.t.Errorf("after the last words: %v", err)
	}
	s.wire.Close()
	err := <-s.result
	if err == nil {
		s.t.Fatal("accepted")
	}
	return err
}

// accepted waits for the Front and gives the client.
func (s *stranger) accepted() *client {
	s.t.Helper()
	if err := <-s.result; err != nil {
		s.t.Fatal(err)
	}
	return s.client.(*client)
}

// TestGreeting: the target's own words, but for what is ours and what can't be kept.
func TestGreeting(t *testing.T) {
	cert, _ := selfSigned(t)
	for _, sv := range []server{mysqlGreeting(), mariadbGreeting()} {
		for _, withTLS := range []bool{false, true} {
			cfg := FrontConfig{}
			if withTLS {
				cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			}
			s := newStranger(t, fronting(sv, cfg), newKeeper())
			g := s.greeting
			if g.version != sv.version || g.charset != sv.charset || g.status != sv.status || g.plugin != sv.plugin || g.mariadb != sv.mariadb {
				t.Errorf("%+v", g.server)
			}
			if g.id < 1<<31 || len(g.scramble) != 20 || bytes.ContainsAny(g.scramble, "\x00$") {
				t.Errorf("id %d, scramble %q", g.id, g.scramble)
			}
			if g.caps&(capCompress|capZstd|capComMulti|capMultiFactor) != 0 || withTLS != (g.caps&capSSL != 0) {
				t.Errorf("capabilities %#x", uint64(g.caps))
			}
			if lost := sv.caps &^ g.caps &^ (capSSL | capCompress | capZstd | capComMulti | capMultiFactor); lost != 0 {
				t.Errorf("%s: the capabilities %#x are not offered", sv.version, uint64(lost))
			}
			if !sv.mariadb && g.caps>>32 != 0 || sv.mariadb && g.caps&capBulk == 0 {
				t.Errorf("%s: extended capabilities %#x", sv.version, uint64(g.caps>>32))
			}
			if other := newStranger(t, fronting(sv, cfg), newKeeper()); bytes.Equal(other.greeting.scramble, g.scramble) || other.greeting.id == g.id {
				t.Error("two clients have the same scramble or id")
			}
		}
	}
}

// TestDefaultPlugin: a client begins with the target's own plugin, if it is one to begin with.
func TestDefaultPlugin(t *testing.T) {
	for _, c := range []struct {
		mariadb   bool
		own, want string
	}{
		{true, pluginNative, pluginNative}, {true, pluginCachingSHA2, pluginCachingSHA2}, {true, pluginEd25519, pluginNative},
		{true, pluginParsec, pluginNative}, {true, "", pluginNative},
		{false, pluginCachingSHA2, pluginCachingSHA2}, {false, pluginNative, pluginNative}, {false, "sha256_password", pluginCachingSHA2},
	} {
		s := mysqlGreeting()
		s.mariadb, s.plugin = c.mariadb, c.own
		if got := (&client{server: s}).defaultPlugin(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestTargetDown: whoever connects while nobody knows the target's greeting reads why there is none.
func TestTargetDown(t *testing.T) {
	tg := &target{network: "unix", address: "/nonexistent/mysqld.sock", timeout: time.Second}
	s := knock(t, NewFront(FrontConfig{Engine: &Engine{target: tg, prober: newProber(tg)}}), newKeeper())
	e := s.words(0)
	if err := s.gone(); e.code != 1429 || !strings.HasPrefix(string(e.message), "the database can't be reached") || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("%d %q, %v", e.code, e.message, err)
	}
}

// TestStartupRefusals: what is no login is refused in words.
func TestStartupRefusals(t *testing.T) {
	cert, _ := selfSigned(t)
	withTLS := &tls.Config{Certificates: []tls.Certificate{cert}}
	old := []byte{0x85, 0x24, 0, 0, 0, 'o', 'l', 'd', 0, 'x'}
	for name, c := range map[string]struct {
		cfg      FrontConfig
		send     func(s *stranger) []byte
		code     uint16
		contains string
	}{
		"TLS required":      {FrontConfig{TLS: withTLS, RequireTLS: true}, func(s *stranger) []byte { return s.reply("gknown", pluginNative, make([]byte, 20)) }, 3159, "TLS is required"},
		"before 4.1":        {FrontConfig{}, func(*stranger) []byte { return old }, 1251, "before 4.1"},
		"no secure auth":    {FrontConfig{}, func(s *stranger) []byte { s.caps &^= capSecureConnection; return s.reply("gknown", "", nil) }, 1251, "before 4.1"},
		"no user":           {FrontConfig{}, func(s *stranger) []byte { return s.reply("", pluginNative, make([]byte, 20)) }, 1045, "no user name"},
		"TLS not offered":   {FrontConfig{}, func(s *stranger) []byte { s.caps |= capSSL; return s.reply("", "", nil)[:sslRequestSize] }, 1835, "not offered"},
		"TLS without":       {FrontConfig{TLS: withTLS}, func(s *stranger) []byte { s.caps |= capSSL; return s.reply("gknown", "", nil) }, 1835, "malformed"},
		"empty":             {FrontConfig{}, func(*stranger) []byte { return nil }, 1835, "malformed"},
		"attributes cut":    {FrontConfig{}, func(s *stranger) []byte { return s.reply("gknown", pluginNative, make([]byte, 20), 9, 3, 'a', 'b') }, 1835, "malformed"},
		"attribute cut":     {FrontConfig{}, func(s *stranger) []byte { return s.reply("gknown", pluginNative, make([]byte, 20), 3, 3, 'a', 'b') }, 1835, "malformed"},
		"attribute alone":   {FrontConfig{}, func(s *stranger) []byte { return s.reply("gknown", pluginNative, make([]byte, 20), 2, 1, 'a') }, 1835, "malformed"},
		"clear without TLS": {FrontConfig{}, func(s *stranger) []byte { return s.reply("gknown", pluginClear, []byte(personPassword+"\x00")) }, 3159, "sent its password in clear"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t, fronting(mariadbGreeting(), c.cfg), newKeeper())
			s.send(c.send(s))
			if e := s.refused(); e.code != c.code || !strings.Contains(string(e.message), c.contains) {
				t.Errorf("%d %s %q", e.code, e.state, e.message)
			}
		})
	}
}

// TestTooManyAttributes: nobody makes Curfew keep thousands of them.
func TestTooManyAttributes(t *testing.T) {
	for n, ok := range map[int]bool{maxAttributes: true, maxAttributes + 1: false} {
		var attrs []byte
		for i := range n {
			attrs = append(attrs, fmt.Sprintf("\x03%03d\x00", i)...)
		}
		s := newStranger(t, fronting(mariadbGreeting(), FrontConfig{}), newKeeper())
		s.send(s.reply("gknown", pluginNative, nativeAnswer(personPassword, s.greeting.scramble), appendLenencBytes(nil, attrs)...))
		if ok {
			s.accepted()
		} else if e := s.refused(); e.code != 1835 {
			t.Errorf("%d %q", e.code, e.message)
		}
	}
}

// TestFraming: a stranger's packets are bounded, whole and in order.
func TestFraming(t *testing.T) {
	for name, c := range map[string]struct {
		send     []byte
		contains string
	}{
		"too long":       {[]byte{1, 0, 1, 1}, "packet is too long"},
		"longest":        {[]byte{0xff, 0xff, 0xff, 1}, "packet is too long"},
		"sequence 0":     {appendPacket(nil, 0, make([]byte, 40)), "packets out of order"},
		"sequence 2":     {appendPacket(nil, 2, make([]byte, 40)), "packets out of order"},
		"HTTP":           {[]byte("GET / HTTP/1.1\r\n\r\n"), "packets out of order"},
		"TLS right away": {[]byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc}, "packets out of order"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t, fronting(mariadbGreeting(), FrontConfig{}), newKeeper())
			s.wire.Write(c.send)
			head := make([]byte, 4)
			if _, err := io.ReadFull(s.wire, head); err != nil {
				t.Fatal(err)
			}
			body := make([]byte, int(head[0]))
			if _, err := io.ReadFull(s.wire, body); err != nil {
				t.Fatal(err)
			}
			if e, _ := parseErr(body, 0); e.code != 1835 || !strings.Contains(string(e.message), c.contains) {
				t.Errorf("%d %q", e.code, e.message)
			}
			s.wire.Close()
			if err := <-s.result; err == nil {
				t.Error("accepted")
			}
		})
	}
}

// TestCutShort: a login that ends at any byte is no login, and nothing but the end of it is heard of.
func TestCutShort(t *testing.T) {
	f := fronting(mariadbGreeting(), FrontConfig{})
	whole := len((&stranger{caps: clientCaps(true)}).reply("gknown", pluginNative, make([]byte, 20), 4, 1, 'a', 1, 'b')) + headerSize
	for n := range whole {
		s := newStranger(t, f, newKeeper())
		msg := appendPacket(nil, 1, s.reply("gknown", pluginNative, nativeAnswer(personPassword, s.greeting.scramble), 4, 1, 'a', 1, 'b'))
		s.wire.Write(msg[:n])
		s.wire.(*net.TCPConn).CloseWrite()
		var refusal *protocol.Refusal
		if err := <-s.result; err == nil || errors.As(err, &refusal) {
			t.Fatalf("%d of %d bytes: %v", n, whole, err)
		}
	}
	for n := range whole - headerSize { // and a whole packet with a part of a response
		s := newStranger(t, f, newKeeper())
		payload := s.reply("gknown", pluginNative, nativeAnswer(personPassword, s.greeting.scramble), 4, 1, 'a', 1, 'b')
		s.send(payload[:n])
		if n == len(payload)-5 || n < len(payload)-5 && n >= len(payload)-5-len(pluginNative)-1 {
			// without attributes, or with a plugin that ends with the packet: clients exist that send that
			continue
		}
		if e := s.words(0); e.code != 1835 && e.code != 1251 && e.code != 1045 {
			t.Errorf("%d bytes: %d %q", n, e.code, e.message)
		}
	}
}

// TestSlowStranger: who takes too long is hung up on, wherever they stopped.
func TestSlowStranger(t *testing.T) {
	for _, part := range [][]byte{nil, {40, 0}, {40, 0, 0, 1, 1, 2, 3}} {
		synctest.Test(t, func(t *testing.T) {
			f := fronting(mariadbGreeting(), FrontConfig{})
			client, server := net.Pipe()
			result, began := make(chan error, 1), time.Now()
			go func() { _, err := f.Accept(t.Context(), server, newKeeper()); result <- err }()
			newPeer(t, client).recv()
			client.Write(part)
			if err := <-result; err == nil || !strings.Contains(err.Error(), "no login within") || time.Since(began) != strangerTime {
				t.Errorf("after %d bytes and %s: %v", len(part), time.Since(began), err)
			}
			client.Close()
			server.Close()
		})
	}
}

// TestClearTextBehindSSLRequest: bytes slipped in behind an SSLRequest are never taken for the client's.
func TestClearTextBehindSSLRequest(t *testing.T) {
	cert, _ := selfSigned(t)
	s := newStranger(t, fronting(mariadbGreeting(), FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}), newKeeper())
	s.caps |= capSSL
	answer := nativeAnswer(personPassword, s.greeting.scramble)
	msg := appendPacket(nil, 1, s.reply("", "", nil)[:sslRequestSize])
	s.wire.Write(appendPacket(msg, 2, s.reply("gknown", pluginNative, answer)))
	if err := <-s.result; err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("Accept returned %v", err)
	}
}

// TestClientHelloBehindSSLRequest: a client may send both at once.
func TestClientHelloBehindSSLRequest(t *testing.T) {
	cert, pool := selfSigned(t)
	s := newStranger(t, fronting(mariadbGreeting(), FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}), newKeeper())
	s.caps |= capSSL
	request := appendPacket(nil, 1, s.reply("", "", nil)[:sslRequestSize])
	conn := tls.Client(&prefixed{Conn: s.wire, first: request}, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	s.wire, s.conn, s.seq = conn, conn, 2
	s.send(s.reply("gknown", pluginNative, nativeAnswer(personPassword, s.greeting.scramble)))
	if c := s.accepted(); !strings.HasPrefix(c.Login().TLS, "TLS 1.3 TLS_") {
		t.Errorf("%+v", c.Login())
	}
}

// prefixed puts bytes before the first that is written.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	n := len(p.first)
	n2, err := p.Conn.Write(append(p.first, b...))
	p.first = nil
	return max(0, n2-n), err
}

// TestLogin: what a client says of itself.
func TestLogin(t *testing.T) {
	f := fronting(mariadbGreeting(), FrontConfig{})
	s := newStranger(t, f, newKeeper())
	s.caps |= capConnectWithDB | capFoundRows | capCompress | capZstd | capComMulti
	attrs := appendLenencBytes(nil, "\x0cprogram_name\x05tally\x04_pid\x0217\x03bad\x02\xff!")
	s.send(s.reply("gknown", pluginNative, nativeAnswer(personPassword, s.greeting.scramble), attrs...))
	c := s.accepted()
	l := c.Login()
	if l.User != "gknown" || l.Database != "shop" || l.Application != "tally" || l.Mechanism != pluginNative || l.Protocol != "10" || l.TLS != "" ||
		l.Address != s.wire.LocalAddr().String() || len(l.Attributes) != 3 || l.Attributes["_pid"] != "17" || l.Attributes["bad"] != "\ufffd!" {
		t.Errorf("%+v", l)
	}
	if c.caps != s.caps&s.greeting.caps || c.caps&(capCompress|capZstd|capComMulti) != 0 || c.caps&(capFoundRows|capBulk) != capFoundRows|capBulk {
		t.Errorf("capabilities %#x", uint64(c.caps))
	}
	if c.charset != 45 || c.maxPacket != 1<<24 || c.id != s.greeting.id || c.database != "shop" {
		t.Errorf("%+v", c)
	}
}

// TestMySQLClientAtMariaDB: a client that does not know MariaDB's capabilities has none of them, whatever
// stands where they would.
func TestMySQLClientAtMariaDB(t *testing.T) {
	s := newStranger(t, fronting(mariadbGreeting(), FrontConfig{}), newKeeper())
	s.caps = s.caps | capLongPassword | capBulk
	s.send(s.reply("gknown", pluginNative, nativeAnswer(personPassword, s.greeting.scramble)))
	if c := s.accepted(); c.caps>>32 != 0 || c.caps&capLongPassword != 0 {
		t.Errorf("capabilities %#x", uint64(c.caps))
	}
}

// TestRefusedAfterLogin: a client that proved who it is and may not in all the same reads why, in order.
func TestRefusedAfterLogin(t *testing.T) {
	f := fronting(mysqlGreeting(), FrontConfig{})
	s := newStranger(t, f, newKeeper())
	s.send(s.reply("gknown", pluginCachingSHA2, cachingSHA2Answer(personPassword, s.greeting.scramble)))
	c := s.accepted()
	go c.Close(&protocol.Refusal{Code: protocol.RefuseNoGrant, Public: "your grant is over"})
	if got := s.recv(); !bytes.Equal(got, []byte{packetMore, sha2FastOK}) {
		t.Errorf("%q", got)
	}
	if e := s.words(c.caps); e.code != 1045 || string(e.state) != "28000" || string(e.message) != "your grant is over" {
		t.Errorf("%d %s %q", e.code, e.state, e.message)
	}
	s.wire.Close()
	c.Close(nil)
	eventually(t, "the id is free again", func() bool { f.ids.mu.Lock(); defer f.ids.mu.Unlock(); return len(f.ids.used) == 0 })
}
