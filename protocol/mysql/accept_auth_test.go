package mysql

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// seal encrypts a password by the key that a server sent.
func seal(t testing.TB, password string, scramble, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plain := append([]byte(password), 0)
	for i := range plain {
		plain[i] ^= scramble[i%len(scramble)]
	}
	sealed, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, key.(*rsa.PublicKey), plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// switched reads an AuthSwitchRequest.
func (s *stranger) switched() (plugin string, scramble []byte) {
	s.t.Helper()
	payload := s.recv()
	name, data, ok := cstring(payload[1:])
	if payload[0] != packetEOF || !ok {
		s.t.Fatalf("no AuthSwitchRequest: %q", payload)
	}
	if string(name) != pluginEd25519 {
		if len(data) != 21 || data[20] != 0 {
			s.t.Fatalf("scramble %q", data)
		}
		data = data[:20]
		s.native = data
	}
	if bytes.Equal(data, s.greeting.scramble) {
		s.t.Error("the greeting's scramble is used once more")
	}
	return string(name), data
}

// conversation is one way through a login, up to the client's last answer.
type conversation struct {
	name      string
	mariadb   bool
	tls       bool
	talk      func(s *stranger, user, password string)
	mechanism string
}

var conversations = []conversation{
	{"native", true, false, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginNative, nativeAnswer(pw, s.greeting.scramble)))
	}, pluginNative},
	{"native, asked to switch", false, false, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginNative, nil)) // the greeting was for another plugin
		plugin, scramble := s.switched()
		s.expect(plugin, pluginNative)
		s.send(nativeAnswer(pw, scramble))
	}, pluginNative},
	{"native without plugins", true, false, func(s *stranger, user, pw string) {
		s.caps &^= capPluginAuth
		b := s.reply(user, "", nativeAnswer(pw, s.greeting.scramble))
		s.send(b[:len(b)-1])
	}, pluginNative},
	{"caching_sha2, over TLS", false, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginCachingSHA2, cachingSHA2Answer(pw, s.greeting.scramble)))
		if s.more() == sha2AskFull {
			s.send([]byte(pw + "\x00"))
		}
	}, pluginCachingSHA2},
	{"caching_sha2, by key", false, false, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginCachingSHA2, cachingSHA2Answer(pw, s.greeting.scramble)))
		if s.more() == sha2AskFull {
			s.send([]byte{sha2AskKey})
			s.send(seal(s.t, pw, s.greeting.scramble, s.recv()[1:]))
		}
	}, pluginCachingSHA2},
	{"caching_sha2, in full over TLS", false, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginCachingSHA2, make([]byte, 32)))
		s.expect(s.more(), byte(sha2AskFull))
		s.send([]byte(pw + "\x00"))
	}, pluginCachingSHA2},
	{"caching_sha2, in full by key", false, false, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginCachingSHA2, make([]byte, 32)))
		s.expect(s.more(), byte(sha2AskFull))
		s.send([]byte{sha2AskKey})
		s.send(seal(s.t, pw, s.greeting.scramble, s.recv()[1:]))
	}, pluginCachingSHA2},
	{"caching_sha2, in full by a key known before", false, false, func(s *stranger, user, pw string) {
		key := s.publicKey()
		s.send(s.reply(user, pluginCachingSHA2, make([]byte, 32)))
		s.expect(s.more(), byte(sha2AskFull))
		s.send(seal(s.t, pw, s.greeting.scramble, key))
	}, pluginCachingSHA2},
	{"caching_sha2, asked to switch", true, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginCachingSHA2, nil))
		plugin, scramble := s.switched()
		s.expect(plugin, pluginCachingSHA2)
		s.send(cachingSHA2Answer(pw, scramble))
		if s.more() == sha2AskFull {
			s.send([]byte(pw + "\x00"))
		}
	}, pluginCachingSHA2},
	{"ed25519", true, false, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginEd25519, nil))
		plugin, scramble := s.switched()
		s.expect(plugin, pluginEd25519)
		s.send(ed25519Answer(pw, scramble))
	}, pluginEd25519},
	{"native, over TLS", true, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginNative, nativeAnswer(pw, s.greeting.scramble)))
	}, pluginNative},
	{"native, over TLS, asked to switch", true, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginNative, nil))
		_, scramble := s.switched()
		s.send(nativeAnswer(pw, scramble))
	}, pluginNative},
	{"native, over TLS, at MySQL", false, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginNative, nativeAnswer(pw, s.greeting.scramble)))
	}, pluginNative},
	{"ed25519, over TLS", true, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginEd25519, nil))
		_, scramble := s.switched()
		s.send(ed25519Answer(pw, scramble))
	}, pluginEd25519},
	{"clear, over TLS", true, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginClear, []byte(pw+"\x00")))
	}, pluginClear},
	{"clear, over TLS, asked to switch", true, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginClear, nil))
		plugin, _ := s.switched()
		s.expect(plugin, pluginClear)
		s.send([]byte(pw + "\x00"))
	}, pluginClear},
	{"clear, never asked for without TLS", true, false, func(s *stranger, user, pw string) {
		s.send(s.reply(user, pluginClear, nil))
		plugin, scramble := s.switched()
		s.expect(plugin, pluginNative)
		s.send(nativeAnswer(pw, scramble))
	}, pluginNative},
	{"an unknown plugin, MariaDB", true, false, func(s *stranger, user, pw string) {
		s.send(s.reply(user, "auth_gssapi_client", []byte("hello")))
		plugin, scramble := s.switched()
		s.expect(plugin, pluginNative)
		s.send(nativeAnswer(pw, scramble))
	}, pluginNative},
	{"an unknown plugin, MySQL", false, true, func(s *stranger, user, pw string) {
		s.send(s.reply(user, "sha256_password", []byte{1}))
		plugin, scramble := s.switched()
		s.expect(plugin, pluginCachingSHA2)
		s.send(cachingSHA2Answer(pw, scramble))
		if s.more() == sha2AskFull {
			s.send([]byte(pw + "\x00"))
		}
	}, pluginCachingSHA2},
}

// lastScramble is the last that a client of MariaDB's keeps.
func (s *stranger) lastScramble() []byte {
	if s.native != nil {
		return s.native
	}
	return s.greeting.scramble
}

func (s *stranger) expect(got, want any) {
	s.t.Helper()
	if got != want {
		s.t.Fatalf("got %v, not %v", got, want)
	}
}

// more reads AuthMoreData of one byte.
func (s *stranger) more() byte {
	s.t.Helper()
	payload := s.recv()
	if len(payload) != 2 || payload[0] != packetMore {
		s.t.Fatalf("no AuthMoreData: %q", payload)
	}
	return payload[1]
}

// publicKey asks for the front's key on a connection of its own.
func (s *stranger) publicKey() []byte {
	other := newStranger(s.t, s.front, newKeeper())
	other.send(other.reply("gknown", pluginCachingSHA2, make([]byte, 32)))
	other.more()
	other.send([]byte{sha2AskKey})
	key := other.recv()
	other.wire.Close()
	<-other.result
	return key[1:]
}

// meet brings a stranger to where the conversation begins.
func (c conversation) meet(t *testing.T, f *Front, pool *x509.CertPool) *stranger {
	s := newStranger(t, f, newKeeper())
	if c.tls {
		s.secure(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	}
	return s
}

func (c conversation) front(cert tls.Certificate) *Front {
	cfg := FrontConfig{DecoyKey: []byte("key")}
	if c.tls {
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	if c.mariadb {
		return fronting(mariadbGreeting(), cfg)
	}
	return fronting(mysqlGreeting(), cfg)
}

// TestPlugins: the right password lets in by every way in, a wrong one by none, and nothing tells it from an
// unknown user, neither a word nor how often the client is asked.
func TestPlugins(t *testing.T) {
	cert, pool := selfSigned(t)
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			f := c.front(cert)
			s := c.meet(t, f, pool)
			c.talk(s, "gknown", personPassword)
			if l := s.accepted().Login(); l.Mechanism != c.mechanism || l.User != "gknown" {
				t.Errorf("%+v", l)
			}
			var shapes []string
			for _, who := range [][2]string{{"gknown", "wrong"}, {"gknow2", personPassword}, {"gknow2", "wrong"}, {"gknow3", ""}} {
				s := c.meet(t, f, pool)
				c.talk(s, who[0], who[1])
				e := s.words(capProtocol41)
				shapes = append(shapes, fmt.Sprintf("%d %d %s %s", s.seq, e.code, e.state, strings.ReplaceAll(string(e.message), who[0], "gknown")))
				s.wire.Close()
				var refusal *protocol.Refusal
				if err := <-s.result; !errors.As(err, &refusal) || refusal.Code != protocol.RefuseLogin {
					t.Errorf("%v", err)
				}
			}
			want := "1045 28000 Access denied for user 'gknown'@'127.0.0.1' (using password: YES)"
			for _, got := range shapes {
				if got != shapes[0] || !strings.HasSuffix(got, want) {
					t.Errorf("%q, not %q", got, shapes[0])
				}
			}
		})
	}
}

// TestNoPassword: an empty answer is a wrong one.
func TestNoPassword(t *testing.T) {
	for _, plugin := range []string{pluginNative, pluginCachingSHA2, pluginEd25519} {
		s := newStranger(t, fronting(mariadbGreeting(), FrontConfig{}), newKeeper())
		s.send(s.reply("gknown", plugin, nil))
		s.switched()
		s.send(nil)
		if e := s.refused(); e.code != 1045 || !strings.HasSuffix(string(e.message), "(using password: NO)") {
			t.Errorf("%s: %d %q", plugin, e.code, e.message)
		}
	}
}

// TestFullGarbage: what is no sealed password is a wrong one.
func TestFullGarbage(t *testing.T) {
	for _, b := range [][]byte{nil, {3}, []byte(personPassword + "\x00"), make([]byte, 256), make([]byte, 60000)} {
		s := newStranger(t, fronting(mysqlGreeting(), FrontConfig{}), newKeeper())
		s.send(s.reply("gknown", pluginCachingSHA2, make([]byte, 32)))
		s.more()
		s.send(b)
		if e := s.refused(); e.code != 1045 {
			t.Errorf("%d bytes: %d %q", len(b), e.code, e.message)
		}
	}
}

// TestDecoyIsStable: an unknown user's verifier is the same after a restart, and another user's is another.
func TestDecoyIsStable(t *testing.T) {
	a, b := NewFront(FrontConfig{DecoyKey: []byte("key")}), NewFront(FrontConfig{DecoyKey: []byte("key")})
	if a.decoyFor("x") != b.decoyFor("x") || a.decoyFor("x") == a.decoyFor("y") || a.decoyFor("x").sha1 == [20]byte{} {
		t.Error("decoys")
	}
}

// TestDoormanFails: a store that can't be asked is no wrong password.
func TestDoormanFails(t *testing.T) {
	k := newKeeper()
	k.err = errors.New("the disk is gone")
	s := newStranger(t, fronting(mariadbGreeting(), FrontConfig{}), k)
	s.send(s.reply("gknown", pluginNative, make([]byte, 20)))
	if e := s.refused(); e.code != 1429 || strings.Contains(string(e.message), "disk") {
		t.Errorf("%d %q", e.code, e.message)
	}
}

// TestVouch: a MariaDB client learns that whoever shows this certificate knows its password, and a
// client that could not check it, or was shown none, is told nothing.
func TestVouch(t *testing.T) {
	cert, pool := selfSigned(t)
	fingerprint := sha256.Sum256(cert.Certificate[0])
	v := verifierOf(personPassword)
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			f := c.front(cert)
			s := c.meet(t, f, pool)
			c.talk(s, "gknown", personPassword)
			cl := s.accepted()
			u := &upstream{ok: []byte{0, 1, 2, 0x02, 0x40, 3, 0, 5, 'h', 'e', 'l', 'l', 'o', 4, 1, 2, 'd', 'b'}, caps: cl.caps}
			if err := cl.welcome(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			payload := s.recv()
			ok, whole := parseOK(payload, cl.caps)
			if !whole || ok.affected != 1 || ok.insertID != 2 || ok.status != 0x4002 || ok.warnings != 3 || string(ok.state) != "\x01\x02db" {
				t.Errorf("%+v", ok)
			}
			var kept []byte
			switch {
			case c.tls && c.mariadb && c.mechanism == pluginNative:
				kept = v.sha1[:]
			case c.tls && c.mariadb && c.mechanism == pluginEd25519:
				kept = v.ed25519[:]
			}
			if kept == nil {
				if !bytes.Equal(payload, u.ok) {
					t.Errorf("%q", payload)
				}
				return
			}
			// As Connector/C has it: the greeting's scramble, unless another of its length came later.
			sum := sha256.Sum256(append(append(append([]byte(nil), kept...), s.lastScramble()...), fingerprint[:]...))
			if want := "\x01" + strings.ToUpper(hex.EncodeToString(sum[:])); string(ok.info) != want {
				t.Errorf("%q, not %q", ok.info, want)
			}
		})
	}
}
