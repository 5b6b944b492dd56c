package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// clerk takes one token.
type clerk struct {
	doorman
	token, grant string
	refuse       error
	shown        []protocol.TokenLogin
}

func (c *clerk) Offer() (protocol.Offer, bool) {
	return protocol.Offer{Configuration: "https://issuer.example/.well-known/openid-configuration", Scope: "openid email"}, true
}

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

// startup is a StartupMessage of protocol 3.0, as libpq 18 sends it.
func startup(user string) []byte {
	body := binary.BigEndian.AppendUint32(nil, version3)
	for _, s := range []string{"user", user, "database", "orders"} {
		body = append(append(body, s...), 0)
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// initialResponse is a SASLInitialResponse.
func initialResponse(mechanism, data string) []byte {
	body := append([]byte(mechanism), 0)
	body = binary.BigEndian.AppendUint32(body, uint32(len(data)))
	return appendMessage(nil, 'p', append(body, data...))
}

// expect reads bytes as they stand on the wire.
func (s *stranger) expect(what, want string) {
	s.t.Helper()
	typ, body := s.next()
	got := string(appendMessage(nil, typ, body))
	if got != want {
		s.t.Fatalf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

const (
	offersOAuth = "R\x00\x00\x00\x15\x00\x00\x00\x0aOAUTHBEARER\x00\x00"
	discovery   = `{"status":"invalid_token","openid-configuration":"https://issuer.example/.well-known/openid-configuration","scope":"openid email"}`
)

func wireMessage(typ byte, body string) string { return string(appendMessage(nil, typ, []byte(body))) }

// TestOAuthTranscript is libpq 18's conversation byte for byte: an empty token to discover the issuer, its
// answer of one byte, the end; and on another connection the token.
func TestOAuthTranscript(t *testing.T) {
	d := &clerk{token: "eyJ.tok.en-._~+/=", grant: "g123"}
	front := NewFront(FrontConfig{})
	first := newStranger(t, front, d)
	first.write(startup("alice@example.test")...)
	first.expect("the offer", offersOAuth)
	first.write(initialResponse("OAUTHBEARER", "n,,\x01auth=\x01\x01")...)
	first.expect("where tokens are", wireMessage('R', "\x00\x00\x00\x0b"+discovery))
	first.write([]byte("p\x00\x00\x00\x05\x01")...)
	first.expect("the end", wireMessage('E', "SFATAL\x00VFATAL\x00C28000\x00M"+
		"OAuth bearer authentication failed for user \"alice@example.test\": no token was shown\x00\x00"))
	first.conn.Close()
	if err := <-first.result; !errors.Is(err, protocol.ErrHandled) || len(d.shown) != 0 {
		t.Errorf("to discover is no failed login: %v, %v", err, d.shown)
	}

	second := newStranger(t, front, d)
	second.write(startup("alice@example.test")...)
	second.expect("the offer", offersOAuth)
	second.write(initialResponse("OAUTHBEARER", "n,,\x01auth=Bearer eyJ.tok.en-._~+/=\x01\x01")...)
	if err := <-second.result; err != nil {
		t.Fatal(err)
	}
	login := second.client.Login()
	if login.User != "g123" || login.Mechanism != "oauthbearer" || login.Database != "orders" {
		t.Errorf("%+v", login)
	}
	if got := d.shown[0]; got.Email != "alice@example.test" || got.Token || got.Choice != "" {
		t.Errorf("%+v", got)
	}
}

// TestOAuthRefused: a bad token is answered as RFC 7628 has it; what has nothing to do with the token is the
// last word at once, so that the client shows it and does not go for another token.
func TestOAuthRefused(t *testing.T) {
	d := &clerk{token: "good"}
	s := newStranger(t, NewFront(FrontConfig{}), d)
	s.write(startup("alice@example.test/orders")...)
	s.expect("the offer", offersOAuth)
	s.write(initialResponse("OAUTHBEARER", "n,,\x01host=curfew\x01port=5432\x01auth=bearer   bad\x01\x01")...)
	s.expect("the error", wireMessage('R', "\x00\x00\x00\x0b"+discovery))
	s.write([]byte("p\x00\x00\x00\x05\x01")...)
	if w := s.refused(); string(w.code) != "28000" || !strings.HasSuffix(string(w.message), "\"alice@example.test/orders\": the token has expired") {
		t.Errorf("%s %s", w.code, w.message)
	}
	if got := d.shown[0]; got.Email != "alice@example.test" || got.Choice != "orders" || got.Bearer != "bad" {
		t.Errorf("%+v", got)
	}
	for code, state := range map[string]string{protocol.RefuseNoGrant: "28000", protocol.RefuseUnavailable: "57P03", protocol.RefuseLimit: "53300"} {
		d.refuse = &protocol.Refusal{Code: code, Public: "so it is"}
		s := newStranger(t, NewFront(FrontConfig{}), d)
		s.write(startup("alice@example.test")...)
		s.expect("the offer", offersOAuth)
		s.write(initialResponse("OAUTHBEARER", "n,,\x01auth=Bearer good\x01\x01")...)
		if w := s.refused(); string(w.code) != state || string(w.message) != "so it is" {
			t.Errorf("%s: %s %s", code, w.code, w.message)
		}
	}
}

func TestOAuthMalformed(t *testing.T) {
	for name, c := range map[string]struct{ mechanism, data, want string }{
		"another mechanism":     {"SCRAM-SHA-256", "n,,n=,r=x", "invalid SASL"},
		"channel binding":       {"OAUTHBEARER", "p=tls-server-end-point,,\x01auth=Bearer x\x01\x01", "channel binding"},
		"another identity":      {"OAUTHBEARER", "n,a=bob,\x01auth=Bearer x\x01\x01", "authorization identity"},
		"nothing":               {"OAUTHBEARER", "", "channel binding"},
		"no pairs":              {"OAUTHBEARER", "n,,", "no key/value pairs"},
		"no end":                {"OAUTHBEARER", "n,,\x01auth=Bearer x\x01", "middle"},
		"more behind the end":   {"OAUTHBEARER", "n,,\x01auth=Bearer x\x01\x01y", "follows"},
		"no auth":               {"OAUTHBEARER", "n,,\x01host=x\x01\x01", "no auth"},
		"two auths":             {"OAUTHBEARER", "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "two auth"},
		"a key of signs":        {"OAUTHBEARER", "n,,\x01a!=b\x01auth=Bearer x\x01\x01", "pair"},
		"a value that can't be": {"OAUTHBEARER", "n,,\x01auth=Bearer \x00\x01\x01", "pair"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &clerk{token: "x", grant: "g1"}
			s := newStranger(t, NewFront(FrontConfig{}), d)
			s.write(startup("alice@example.test")...)
			s.expect("the offer", offersOAuth)
			s.write(initialResponse(c.mechanism, c.data)...)
			if w := s.refused(); !strings.Contains(string(w.message), c.want) || len(d.shown) != 0 {
				t.Errorf("%s %s, %v", w.code, w.message, d.shown)
			}
		})
	}
	s := newStranger(t, NewFront(FrontConfig{}), &clerk{})
	s.write(startup("alice@example.test")...)
	s.expect("the offer", offersOAuth)
	s.write(initialResponse("OAUTHBEARER", "n,,\x01auth=\x01\x01")...)
	s.expect("where tokens are", wireMessage('R', "\x00\x00\x00\x0b"+discovery))
	s.write(appendMessage(nil, 'p', []byte("\x01\x01"))...)
	if w := s.refused(); !strings.Contains(string(w.message), "kvsep") {
		t.Errorf("an answer that says something: %s", w.message)
	}
}

// TestTokenAsPassword: for clients that know no OAUTHBEARER.
func TestTokenAsPassword(t *testing.T) {
	d := &clerk{token: "good", grant: "g123"}
	long := strings.Repeat("t", 40<<10) // a token of somebody in many groups
	for token, want := range map[string]string{"good": "", "bad": "the token has expired", long: "the token has expired"} {
		s := newStranger(t, NewFront(FrontConfig{}), d)
		s.write(startup("token:alice@example.test")...)
		s.expect("the question", "R\x00\x00\x00\x08\x00\x00\x00\x03")
		s.write(appendMessage(nil, 'p', []byte(token+"\x00"))...)
		if want != "" {
			if w := s.refused(); string(w.code) != "28000" || string(w.message) != want {
				t.Errorf("%s %s", w.code, w.message)
			}
			continue
		}
		if err := <-s.result; err != nil || s.client.Login().Mechanism != "token" || s.client.Login().User != "g123" {
			t.Errorf("%v %+v", err, s.client)
		}
	}
}

// offLoopback is a connection off loopback.
type offLoopback struct{ net.Conn }

func (offLoopback) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5432} }

// TestTokensNeedTLS: off loopback, whether or not the listener asks for TLS.
func TestTokensNeedTLS(t *testing.T) {
	for _, user := range []string{"alice@example.test", "token:alice@example.test"} {
		c := &client{front: NewFront(FrontConfig{}), raw: offLoopback{}}
		c.login.User = user
		var refusal *protocol.Refusal
		if err := c.authenticate(t.Context(), &clerk{}); !errors.As(err, &refusal) || refusal.Code != protocol.RefuseTLS {
			t.Errorf("%s: %v", user, err)
		}
	}
	cert, pool := certificate(t)
	s := newStranger(t, NewFront(FrontConfig{TLS: serverTLS(cert)}), &clerk{token: "good", grant: "g1"})
	secured := clientTLS(pool)(s.conn)
	s.reader.conn = secured
	_, err := secured.Write(startup("alice@example.test"))
	if err != nil {
		t.Fatal(err)
	}
	s.expect("the offer", offersOAuth)
	if _, err := secured.Write(initialResponse("OAUTHBEARER", "y,,\x01auth=Bearer good\x01\x01")); err != nil {
		t.Fatal(err)
	}
	if err := <-s.result; err != nil || !strings.HasPrefix(s.client.Login().TLS, "TLS") {
		t.Error(err)
	}
}

// TestMechanismByName: the name's form alone decides, whether anybody has it or not, and where no tokens are
// taken every name is asked for its password.
func TestMechanismByName(t *testing.T) {
	const scram = "R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"
	for user, want := range map[string]string{
		"alice@example.test": offersOAuth, "nobody@nowhere.test": offersOAuth, "g123": scram, "gnobody": scram,
		"token:nobody@nowhere.test": "R\x00\x00\x00\x08\x00\x00\x00\x03",
	} {
		s := newStranger(t, NewFront(FrontConfig{}), &clerk{})
		s.write(startup(user)...)
		s.expect(user, want)
		s = newStranger(t, NewFront(FrontConfig{}), doorman{})
		s.write(startup(user)...)
		s.expect(user+" without tokens", scram)
	}
}

// FuzzBearer: whatever a stranger sends is a token of one line or a refusal.
func FuzzBearer(f *testing.F) {
	for _, s := range []string{"n,,\x01auth=Bearer x\x01\x01", "n,,\x01auth=\x01\x01", "y,,\x01host=h\x01auth=bearer  x=\x01\x01", "n,a=b,\x01\x01", "p=x,,", "n,,\x01\x01\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		token, err := parseBearer(message)
		var refusal *protocol.Refusal
		switch {
		case err != nil:
			if !errors.As(err, &refusal) || token != "" {
				t.Errorf("%q: %q %v", message, token, err)
			}
		case strings.ContainsAny(token, "\x00\x01") || len(token) > len(message):
			t.Errorf("%q: %q", message, token)
		case token != "":
			again, err := parseBearer([]byte(fmt.Sprintf("n,,\x01auth=Bearer %s\x01\x01", token)))
			if again != token || err != nil {
				t.Errorf("%q: %q, again %q %v", message, token, again, err)
			}
		}
	})
}
