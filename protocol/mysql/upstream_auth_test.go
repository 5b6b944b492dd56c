package mysql

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

const accountSecret = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

// loginOK is the OK packet of a login.
var loginOK = []byte{packetOK, 0, 0, 2, 0, 0, 0}

// hello is a HandshakeResponse as a scripted server reads it.
type hello struct {
	response
	caps     capability
	user, db string
	attrs    map[string]string
	charset  byte
}

func (p *peer) hello() (h hello) {
	p.t.Helper()
	payload := p.recv()
	if len(payload) < 4 {
		return h
	}
	h.caps = capability(binary.LittleEndian.Uint32(payload))
	c := &client{server: server{caps: h.caps}, front: &Front{}}
	c.login.TLS = "as the reader is told"
	c.front.cfg.TLS = &tls.Config{}
	r, err := c.parseResponse(payload)
	if err != nil {
		p.t.Errorf("HandshakeResponse: %v", err)
	}
	h.caps |= capability(binary.LittleEndian.Uint32(payload[28:])) << 32
	h.response, h.user, h.db, h.attrs, h.charset = r, c.login.User, c.database, c.login.Attributes, c.charset
	return h
}

// change is an AuthSwitchRequest.
func (p *peer) change(plugin string, data []byte) []byte {
	p.t.Helper()
	p.send(append(append([]byte{packetEOF}, plugin+"\x00"...), data...))
	return p.recv()
}

// TestHandshakeResponse: the server gets the client's own capabilities, attributes and limits.
func TestHandshakeResponse(t *testing.T) {
	for _, s := range []server{mysqlGreeting(), mariadbGreeting()} {
		caps := clientCaps(s.mariadb) | capFoundRows | capIgnoreSpace | capInteractive | capODBC | capExpiredPasswords | capMultiFactor
		tg := scripted(t, func(p *peer) {
			p.send(encodeGreeting(s, 1<<20, newScramble(20)))
			h := p.hello()
			want := caps&mirrored | capProtocol41 | capSecureConnection | capPluginAuth | capPluginAuthLenenc | capConnectAttrs | capConnectWithDB
			if h.caps != want {
				t.Errorf("%s: capabilities %#x, not %#x", s.version, uint64(h.caps), uint64(want))
			}
			if h.user != "curfew_i_g" || h.db != "shop" || h.charset != 33 || h.plugin != s.plugin || len(h.attrs) != 2 || h.attrs["program_name"] != "tally" || h.attrs[attrGrant] != "g1" {
				t.Errorf("%+v", h)
			}
			p.send([]byte{packetOK, 0, 0, 2, 0x40, 0, 0, 0, 3, 1, 1, 'x'})
		})
		u, err := dialUpstream(t.Context(), landing{target: tg, user: "curfew_i_g", secret: accountSecret, database: "shop", caps: caps, charset: 33,
			grant: "g1", attrs: map[string]string{"program_name": "tally"}})
		if err != nil {
			t.Fatal(err)
		}
		if u.id != 1<<20 || u.status != 0x4002 || len(u.ok) != 12 || u.address != tg.address || u.server != s || u.caps&mirrored != caps&mirrored {
			t.Errorf("%+v", u)
		}
		u.leave()
	}
}

// TestAttributesFit: what servers would refuse is left out, and the grant comes first and is Curfew's word.
func TestAttributesFit(t *testing.T) {
	b := encodeAttributes("g1", map[string]string{attrGrant: "forged", "_long": strings.Repeat("x", limitAttributes-30), "program_name": "tally and more"})
	c := &client{}
	if len(b) > limitAttributes || !c.parseAttributes(appendLenencBytes(nil, b), capConnectAttrs) {
		t.Fatalf("%d bytes", len(b))
	}
	if a := c.login.Attributes; len(a) != 2 || a[attrGrant] != "g1" || len(a["_long"]) != limitAttributes-30 {
		t.Errorf("%d attributes: %.100v", len(a), a)
	}
}

// TestGrantIsNotForged: the grant is named once, by Curfew.
func TestGrantIsNotForged(t *testing.T) {
	want := encodeAttributes("g1", map[string]string{"_pid": "17"})
	if got := encodeAttributes("g1", map[string]string{attrGrant: "forged", "_pid": "17"}); string(got) != string(want) {
		t.Errorf("%q", got)
	}
}

// TestParsecTakesNoHours: a server does not say how long Curfew is to hash.
func TestParsecTakesNoHours(t *testing.T) {
	for _, salt := range []string{"P\x0bsalt", "P\xffsalt", "Q\x00salt", "P", ""} {
		if err := (&prover{}).signParsec([]byte(salt)); err == nil {
			t.Errorf("%q is answered", salt)
		}
	}
}

// TestScriptedLogins: each exchange, as servers lead it.
func TestScriptedLogins(t *testing.T) {
	v := verifierOf(accountSecret)
	key, err := newPasswordKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := selfSigned(t)
	secured := &tls.Config{Certificates: []tls.Certificate{cert}}
	check := func(ok bool, what string) {
		t.Helper()
		if !ok {
			t.Error("a wrong proof by " + what)
		}
	}
	scramble := newScramble(20)
	for _, c := range []struct {
		name  string
		greet server
		tls   bool
		key   *rsa.PublicKey
		fails string
		play  func(p *peer)
	}{
		{"caching_sha2, fast", mysqlGreeting(), false, nil, "", func(p *peer) {
			check(v.cachingSHA2(scramble, p.hello().answer), pluginCachingSHA2)
			p.send([]byte{packetMore, sha2FastOK})
			p.send(loginOK)
		}},
		{"caching_sha2, in full over TLS", mysqlGreeting(), true, nil, "", func(p *peer) {
			p.hello()
			p.send([]byte{packetMore, sha2AskFull})
			check(string(p.recv()) == accountSecret+"\x00", "clear text over TLS")
			p.send(loginOK)
		}},
		{"caching_sha2, in full by a pinned key", mysqlGreeting(), false, &key.private.PublicKey, "", func(p *peer) {
			p.hello()
			p.send([]byte{packetMore, sha2AskFull})
			plain, err := rsa.DecryptOAEP(sha1.New(), nil, key.private, p.recv(), nil)
			for i := range plain {
				plain[i] ^= scramble[i%20]
			}
			check(err == nil && string(plain) == accountSecret+"\x00", "RSA")
			p.send(loginOK)
		}},
		{"caching_sha2, in full without TLS or key", mysqlGreeting(), false, nil, "server_public_key", func(p *peer) {
			p.hello()
			p.send([]byte{packetMore, sha2AskFull})
			if _, err := p.read(limitLogin); err == nil {
				t.Error("something was sent in clear")
			}
		}},
		{"caching_sha2, in full twice", mysqlGreeting(), true, nil, "unexpected data", func(p *peer) {
			p.hello()
			p.send([]byte{packetMore, sha2AskFull})
			p.recv()
			p.send([]byte{packetMore, sha2AskFull})
		}},
		{"native, after a switch", mysqlGreeting(), false, nil, "", func(p *peer) {
			p.hello()
			other := newScramble(20)
			check(v.native(other, p.change(pluginNative, append(other[:20:20], 0))), pluginNative)
			p.send(loginOK)
		}},
		{"ed25519", mariadbGreeting(), false, nil, "", func(p *peer) {
			check(v.native(scramble, p.hello().answer), pluginNative)
			other := newScramble(32)
			check(v.signed(other, p.change(pluginEd25519, other)), pluginEd25519)
			p.send(loginOK)
		}},
		{"parsec", mariadbGreeting(), false, nil, "", func(p *peer) {
			p.hello()
			other := newScramble(32)
			check(len(p.change(pluginParsec, other)) == 0, "parsec's request for the salt")
			salt := newScramble(18)
			p.send(append([]byte{packetMore, 'P', 1}, salt...))
			answer := p.recv()
			key, err := parsecKey(accountSecret, salt, 2048)
			check(err == nil && len(answer) == 96 && ed25519.Verify(key.Public().(ed25519.PublicKey), append(other, answer[:32]...), answer[32:]), pluginParsec)
			p.send(loginOK)
		}},
		{"parsec again and again", mariadbGreeting(), false, nil, "unexpected data", func(p *peer) {
			p.hello()
			p.change(pluginParsec, newScramble(32))
			salt := append([]byte{packetMore, 'P', 0}, newScramble(18)...)
			p.send(salt)
			check(len(p.recv()) == 96, "the first answer")
			p.send(salt)
		}},
		{"parsec that would take for ever", mariadbGreeting(), false, nil, "malformed parsec salt", func(p *peer) {
			p.hello()
			p.change(pluginParsec, newScramble(32))
			p.send(append([]byte{packetMore, 'P', 30}, newScramble(18)...))
		}},
		{"a default plugin that is not known here", func() server { s := mysqlGreeting(); s.plugin = "authentication_ldap_sasl_client"; return s }(), false, nil, "", func(p *peer) {
			h := p.hello()
			check(h.plugin == pluginCachingSHA2 && v.cachingSHA2(scramble, h.answer), pluginCachingSHA2)
			p.send(loginOK)
		}},
		{"clear text, even over TLS", mysqlGreeting(), true, nil, "mysql_clear_password", func(p *peer) {
			p.hello()
			p.send([]byte("\xfemysql_clear_password\x00"))
			if _, err := p.read(limitLogin); err == nil {
				t.Error("something was sent")
			}
		}},
		{"before 4.1", mariadbGreeting(), false, nil, "before 4.1", func(p *peer) { p.hello(); p.send([]byte{packetEOF}) }},
		{"a short scramble", mariadbGreeting(), false, nil, "malformed", func(p *peer) { p.hello(); p.send([]byte("\xfemysql_native_password\x00short\x00")) }},
		{"switch after switch", mariadbGreeting(), false, nil, "one authentication plugin after the other", func(p *peer) {
			p.hello()
			for range maxSwitches {
				p.change(pluginNative, append(newScramble(20), 0))
			}
			p.send(append([]byte("\xfemysql_native_password\x00"), append(newScramble(20), 0)...))
		}},
		{"data for ever", mysqlGreeting(), false, nil, "asks for ever", func(p *peer) {
			p.hello()
			for range loginRounds {
				p.send([]byte{packetMore, sha2FastOK})
			}
		}},
		{"an empty packet", mariadbGreeting(), false, nil, "empty packet", func(p *peer) { p.hello(); p.send(nil) }},
		{"half an OK", mariadbGreeting(), false, nil, "malformed OK", func(p *peer) { p.hello(); p.send([]byte{packetOK, 0}) }},
		{"half an ERR", mariadbGreeting(), false, nil, "malformed ERR", func(p *peer) { p.hello(); p.send([]byte{packetErr, 0}) }},
		{"a packet too long", mariadbGreeting(), false, nil, "too long", func(p *peer) { p.hello(); p.wire.Write([]byte{1, 0, 16, 2}) }},
		{"out of order", mariadbGreeting(), false, nil, "out of order", func(p *peer) { p.hello(); p.wire.Write([]byte{1, 0, 0, 3, 0}) }},
		{"denied", mysqlGreeting(), false, nil, "Access denied (28000)", func(p *peer) {
			p.hello()
			p.send([]byte("\xff\x15\x04#28000Access denied"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tg := scripted(t, func(p *peer) {
				p.send(encodeGreeting(c.greet, 1, scramble))
				if c.tls {
					p.exact = true
					if payload := p.recv(); !isSSLRequest(payload) {
						t.Errorf("no SSLRequest: %q", payload)
					}
					conn := tls.Server(p.wire, secured)
					p.wire, p.conn, p.exact = conn, conn, false
				}
				c.play(p)
			})
			if tg.key = c.key; c.tls {
				tg.tls = &tls.Config{InsecureSkipVerify: true}
			}
			u, err := dialUpstream(t.Context(), landing{target: tg, user: "u", secret: accountSecret, caps: clientCaps(c.greet.mariadb)})
			if c.fails == "" {
				if err != nil {
					t.Fatal(err)
				}
				u.leave()
			} else if err == nil || !strings.Contains(err.Error(), c.fails) || strings.Contains(err.Error(), accountSecret) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestParsecKey: MariaDB 11.8's own hash of a password.
func TestParsecKey(t *testing.T) {
	salt, err := base64.RawStdEncoding.DecodeString("rKLdlYR1LmOagxlqHCghqGo3")
	if err != nil {
		t.Fatal(err)
	}
	key, err := parsecKey("secret", salt, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.RawStdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)); got != "9QZL7Vp4gNvTLI44Eg1A2tmJsneCmtvhLiVqqCKui9I" {
		t.Error(got)
	}
}

// TestDialGivesUp: a server that says nothing holds nobody longer than they want, at any place.
func TestDialGivesUp(t *testing.T) {
	for name, play := range map[string]func(p *peer){
		"before the greeting": func(*peer) {},
		"after the greeting":  func(p *peer) { p.send(encodeGreeting(mariadbGreeting(), 1, newScramble(20))); p.hello() },
	} {
		t.Run(name, func(t *testing.T) {
			there, hold := make(chan struct{}), make(chan struct{})
			tg := scripted(t, func(p *peer) { play(p); close(there); <-hold })
			defer close(hold)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-there; cancel() }()
			if _, err := dialUpstream(ctx, landing{target: tg, user: "u"}); err == nil || ctx.Err() == nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestGreetingCutShort: a greeting that ends anywhere is none.
func TestGreetingCutShort(t *testing.T) {
	for _, s := range []server{mysqlGreeting(), mariadbGreeting()} {
		whole := encodeGreeting(s, 7, newScramble(20))
		g, err := parseGreeting(whole)
		if err != nil || g.server != s || g.id != 7 || len(g.scramble) != 20 {
			t.Fatalf("%+v %v", g, err)
		}
		for n := range len(whole) - len(s.plugin) - 1 {
			if g, err := parseGreeting(whole[:n]); err == nil {
				t.Errorf("%d of %d bytes: %+v", n, len(whole), g)
			}
		}
		for _, lacks := range []capability{capProtocol41, capSecureConnection, capPluginAuth} {
			old := s
			old.caps &^= lacks
			if _, err := parseGreeting(encodeGreeting(old, 7, newScramble(20))); err == nil || !strings.Contains(err.Error(), "too old") {
				t.Errorf("without %#x: %v", uint64(lacks), err)
			}
		}
	}
	if _, err := parseGreeting([]byte("\x09old")); err == nil {
		t.Error("protocol 9 passes")
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string][2]int{
		"5.5.5-10.11.19-MariaDB-0+deb12u1": {10, 11}, "11.8.6-MariaDB": {11, 8}, "9.7.4-2": {9, 7}, "8.0.43": {8, 0}, "8.4": {8, 4}, "": {0, 0}, "x.y": {0, 0},
	} {
		if major, minor := versionOf(text); major != want[0] || minor != want[1] {
			t.Errorf("%q: %d.%d", text, major, minor)
		}
	}
}

// TestMayShow: a person reads what is about the database and its limits, and nothing of a login that is not theirs.
func TestMayShow(t *testing.T) {
	for code, want := range map[uint16]bool{1040: true, 1044: true, 1049: true, 1203: true, 1226: true, 1045: false, 1130: false, 1129: false, 3118: false, 4151: false, 1862: false} {
		err := errors.Join(&serverError{code: code, state: "HY000", message: "its words"})
		no, text := public(true, err)
		if got := text == "its words" && no.code == code; got != want {
			t.Errorf("%d: %d %q", code, no.code, text)
		}
	}
}
