package mysql

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// clerk takes one token.
type clerk struct {
	keeper
	token, grant string
	refuse       error
	shown        []protocol.TokenLogin
}

func (c *clerk) Offer() (protocol.Offer, bool) { return protocol.Offer{}, true }

func (c *clerk) Token(_ context.Context, t protocol.TokenLogin) (string, error) {
	c.shown = append(c.shown, t)
	switch {
	case c.refuse != nil:
		return "", c.refuse
	case t.Bearer != c.token:
		return "", &protocol.Refusal{Code: protocol.RefuseToken, Public: "the token has expired"}
	}
	return c.grant, nil
}

// inTLS gets as far as TLS with a front that has it.
func inTLS(t *testing.T, sv server, d protocol.Doorman) *stranger {
	t.Helper()
	cert, pool := selfSigned(t)
	s := newStranger(t, fronting(sv, FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}), d)
	s.secure(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	return s
}

// switched reads an AuthSwitchRequest to a plugin.
func (s *stranger) switchedTo(plugin string) {
	s.t.Helper()
	want := append([]byte{packetEOF}, plugin+"\x00"...)
	if got := s.recv(); !bytes.HasPrefix(got, want) {
		s.t.Fatalf("got %q, want %q", got, want)
	}
}

// TestOpenIDTranscript is MySQL 9's client byte for byte: its own plugin first, then the switch, and the token
// as 0x01 and a length-encoded string.
func TestOpenIDTranscript(t *testing.T) {
	for name, first := range map[string]struct {
		plugin string
		answer []byte
	}{
		"as mysql begins":       {pluginCachingSHA2, nil},
		"with a wrong password": {pluginCachingSHA2, bytes.Repeat([]byte{7}, 32)},
		"by its default":        {pluginOpenID, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := &clerk{token: "eyJ.a.b", grant: "g123"}
			s := inTLS(t, mysqlGreeting(), d)
			s.send(s.reply("alice@example.test", first.plugin, first.answer))
			s.switchedTo(pluginOpenID)
			s.send([]byte("\x01\x07eyJ.a.b"))
			c := s.accepted()
			if c.login.User != "g123" || c.login.Mechanism != "openid_connect" || d.shown[0].Email != "alice@example.test" || d.shown[0].Token {
				t.Errorf("%+v, %+v", c.login, d.shown)
			}
		})
	}
	d := &clerk{token: strings.Repeat("t", 30000), grant: "g123"} // of somebody in many groups
	s := inTLS(t, mysqlGreeting(), d)
	s.send(s.reply("alice@example.test/shop", pluginOpenID, []byte("\x01\xfc\x30\x75"+d.token)))
	if c := s.accepted(); c.login.User != "g123" || d.shown[0].Choice != "shop" {
		t.Errorf("at once: %+v %+v", c.login, d.shown)
	}
}

func TestOpenIDRefused(t *testing.T) {
	for name, c := range map[string]struct {
		packet string
		refuse error
		code   uint16
		want   string
	}{
		"a bad token":   {"\x01\x03bad", nil, 1045, "Access denied for user 'alice@example.test'@'127.0.0.1' (using password: YES): the token has expired"},
		"no token":      {"", nil, 1045, "--authentication-openid-connect-client-id-token-file"},
		"no grant":      {"\x01\x04good", &protocol.Refusal{Code: protocol.RefuseNoGrant, Public: "ask: curfew request"}, 1045, "ask: curfew request"},
		"provider":      {"\x01\x04good", &protocol.Refusal{Code: protocol.RefuseUnavailable, Public: "can't be reached"}, 1429, "can't be reached"},
		"version 2":     {"\x02\x03bad", nil, 1835, "malformed"},
		"cut short":     {"\x01\x09bad", nil, 1835, "malformed"},
		"more behind":   {"\x01\x03badx", nil, 1835, "malformed"},
		"with a NUL":    {"\x01\x03b\x00d", nil, 1835, "malformed"},
		"empty":         {"\x01\x00", nil, 1835, "malformed"},
		"endless":       {"\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xffx", nil, 1835, "malformed"},
		"as a password": {"token\x00", nil, 1835, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := inTLS(t, mysqlGreeting(), &clerk{token: "good", refuse: c.refuse})
			s.send(s.reply("alice@example.test", pluginCachingSHA2, nil))
			s.switchedTo(pluginOpenID)
			s.send([]byte(c.packet))
			if e := s.refused(); e.code != c.code || !strings.Contains(string(e.message), c.want) {
				t.Errorf("%d %s", e.code, e.message)
			}
		})
	}
}

// TestTokenAsPassword: for clients that have no plugin for tokens, which MariaDB's are.
func TestTokenAsPassword(t *testing.T) {
	for _, sv := range []server{mysqlGreeting(), mariadbGreeting()} {
		d := &clerk{token: "good", grant: "g123"}
		s := inTLS(t, sv, d)
		s.send(s.reply("token:alice@example.test", sv.plugin, nil))
		s.switchedTo(pluginClear)
		s.send([]byte("good\x00"))
		if c := s.accepted(); c.login.User != "g123" || c.login.Mechanism != "token" || !d.shown[0].Token || c.vouch() != "" {
			t.Errorf("%+v %+v", c.login, d.shown)
		}
		for packet, want := range map[string]string{"bad\x00": "the token has expired", "\x00": "no token"} {
			s := inTLS(t, sv, d)
			s.send(s.reply("token:alice@example.test", pluginClear, []byte(packet)))
			if e := s.refused(); e.code != 1045 || !strings.Contains(string(e.message), want) {
				t.Errorf("%d %s", e.code, e.message)
			}
		}
	}
}

// TestStockClientsWithTokens: each client shows a token in the way that it has for it. MySQL's own reads it
// from a file, and wants that to hold a JWT.
func TestStockClientsWithTokens(t *testing.T) {
	const jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmVk"
	cert, _ := selfSigned(t)
	certFile, _ := pemFiles(t, cert)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(jwt+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, program := range stockPrograms(t) {
		version, err := exec.CommandContext(t.Context(), program, "--version").Output()
		if err != nil {
			t.Fatal(err)
		}
		ways := map[string][]string{"token": {"--user=token:alice@example.test", "-p" + jwt, "--ssl-verify-server-cert"}}
		if !strings.Contains(string(version), "MariaDB") {
			ways["token"] = []string{"--user=token:alice@example.test", "-p" + jwt, "--ssl-mode=VERIFY_IDENTITY", "--enable-cleartext-plugin"}
			ways["openid_connect"] = []string{"--user=alice@example.test", "--ssl-mode=VERIFY_IDENTITY",
				"--authentication-openid-connect-client-id-token-file=" + file}
		}
		for how, args := range ways {
			t.Run(filepath.Base(program)+" "+how, func(t *testing.T) {
				lb := newLobbyWith(t, FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}, "127.0.0.1", &clerk{token: jwt, grant: "g123"})
				args = append([]string{"--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", lb.port, "--ssl-ca=" + certFile}, args...)
				cmd := exec.CommandContext(t.Context(), program, append(args, "-N", "-e", "SELECT 6*7", "test")...)
				if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "42") {
					t.Fatalf("%v\n%s", err, out)
				}
				if l := lb.login(t); l.Mechanism != how || l.User != "g123" {
					t.Errorf("%+v", l)
				}
			})
		}
	}
}

// TestTokensNeedTLS: nobody is asked for a token in clear, on loopback neither: the client's own plugins refuse.
func TestTokensNeedTLS(t *testing.T) {
	for _, user := range []string{"alice@example.test", "token:alice@example.test"} {
		d := &clerk{token: "good"}
		s := newStranger(t, fronting(mysqlGreeting(), FrontConfig{}), d)
		s.send(s.reply(user, pluginClear, []byte("good\x00")))
		if e := s.refused(); e.code != 3159 || len(d.shown) != 0 {
			t.Errorf("%d %s", e.code, e.message)
		}
	}
	d := &clerk{}
	s := inTLS(t, mysqlGreeting(), d)
	s.caps &^= capPluginAuth
	s.send(s.reply("alice@example.test", "", bytes.Repeat([]byte{7}, 20)))
	if e := s.refused(); e.code != 1251 || len(d.shown) != 0 {
		t.Errorf("a client without plugins: %d %s", e.code, e.message)
	}
}

// TestMechanismByName: the name's form alone decides, whether anybody has it or not.
func TestMechanismByName(t *testing.T) {
	for user, want := range map[string]string{
		"alice@example.test": pluginOpenID, "nobody@nowhere.test": pluginOpenID, "token:nobody@nowhere.test": pluginClear,
		"gknown": pluginCachingSHA2, "gnobody": pluginCachingSHA2,
	} {
		s := inTLS(t, mysqlGreeting(), &clerk{keeper: newKeeper()})
		s.send(s.reply(user, "dialog", nil))
		s.switchedTo(want)
		s = inTLS(t, mysqlGreeting(), newKeeper())
		s.send(s.reply(user, "dialog", nil))
		s.switchedTo(pluginCachingSHA2)
	}
}

// FuzzOpenID: whatever a stranger sends is a token or a refusal.
func FuzzOpenID(f *testing.F) {
	for _, s := range []string{"\x01\x03abc", "\x01\xfc\x03\x00abc", "\x01\x00", "\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff", "", "\x02"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		token, err := parseOpenID(packet)
		var refusal *protocol.Refusal
		switch {
		case err != nil && (!errors.As(err, &refusal) || token != ""), len(token) > len(packet), strings.ContainsRune(token, 0):
			t.Errorf("%q: %q %v", packet, token, err)
		case err == nil:
			again, err := parseOpenID(appendLenencBytes([]byte{1}, token))
			if token != "" && (again != token || err != nil) {
				t.Errorf("%q: %q, again %q %v", packet, token, again, err)
			}
		}
	})
}
