package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// TestStrangersPacketsAreShort: whichever packet of a login it is, nobody waits for one that is too long.
func TestStrangersPacketsAreShort(t *testing.T) {
	cert, pool := selfSigned(t)
	for name, until := range map[string]func(s *stranger){
		"behind TLS": func(s *stranger) { s.secure(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}) },
		"an answer": func(s *stranger) {
			s.send(s.reply("gknown", pluginNative, nil))
			s.switched()
		},
		"the password": func(s *stranger) {
			s.send(s.reply("gknown", pluginCachingSHA2, make([]byte, 32)))
			s.more()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t, fronting(mariadbGreeting(), FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}), newKeeper())
			until(s)
			if _, err := s.wire.Write([]byte{1, 0, 1, s.seq}); err != nil { // limitBeforeLogin and one byte
				t.Fatal(err)
			}
			s.seq++ // what is refused counts
			if e := s.refused(); e.code != 1835 || !strings.Contains(string(e.message), "packet is too long") {
				t.Errorf("%d %q", e.code, e.message)
			}
		})
	}
}

// TestNobodyIsADecoy: a name that nobody has is refused whatever is shown for it, be it what its made-up verifier
// is made of.
func TestNobodyIsADecoy(t *testing.T) {
	f := fronting(mariadbGreeting(), FrontConfig{DecoyKey: []byte("known to somebody")})
	sum := keyed(f.decoy[:], "ed25519\x00gnobody")
	s := newStranger(t, f, newKeeper())
	s.send(s.reply("gnobody", pluginEd25519, nil))
	_, scramble := s.switched()
	answer := ed25519Answer(string(sum[:]), scramble)
	if v := f.decoyFor("gnobody"); !v.signed(scramble, answer) {
		t.Fatal("the decoy is made otherwise")
	}
	s.send(answer)
	if e := s.refused(); e.code != 1045 {
		t.Errorf("%d %q", e.code, e.message)
	}
}

// TestUnixSocketIsSecure: nobody reads along there, so a password may be sent in clear.
func TestUnixSocketIsSecure(t *testing.T) {
	for name, talk := range map[string]func(s *stranger){
		"asked to switch": func(s *stranger) {
			s.send(s.reply("gknown", pluginClear, nil))
			plugin, _ := s.switched()
			s.expect(plugin, pluginClear)
			s.send([]byte(personPassword + "\x00"))
		},
		"at once": func(s *stranger) { s.send(s.reply("gknown", pluginClear, []byte(personPassword+"\x00"))) },
		"in full": func(s *stranger) {
			s.send(s.reply("gknown", pluginCachingSHA2, make([]byte, 32)))
			s.expect(s.more(), byte(sha2AskFull))
			s.send([]byte(personPassword + "\x00"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := knockBy(t, "unix", t.TempDir()+"/s", fronting(mysqlGreeting(), FrontConfig{}), newKeeper()).greeted()
			talk(s)
			s.accepted()
		})
	}
}

// TestNoTLSIsResumed: in a session that is, the client is shown no certificate, and nothing could be vouched for.
func TestNoTLSIsResumed(t *testing.T) {
	cert, pool := selfSigned(t)
	served := &tls.Config{Certificates: []tls.Certificate{cert}}
	served.SetSessionTicketKeys([][32]byte{{1}}) // else each connection would have one of its own
	f := fronting(mariadbGreeting(), FrontConfig{TLS: served})
	client := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	for range 2 {
		s := newStranger(t, f, newKeeper())
		s.secure(client)
		if s.wire.(*tls.Conn).ConnectionState().DidResume {
			t.Error("resumed")
		}
		s.send(s.reply("gknown", pluginNative, make([]byte, 20)))
		if e := s.refused(); e.code != 1045 { // behind the handshake: a ticket would have come before
			t.Errorf("%d %q", e.code, e.message)
		}
	}
}

// TestWelcomeEndsWithTheGrant: a client that does not read that it is in holds up nobody whose grant ends.
func TestWelcomeEndsWithTheGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs, ours := net.Pipe()
		late := time.AfterFunc(time.Minute, func() { theirs.Close() })
		defer late.Stop()
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errOver) })
		c := &client{raw: ours, conn: ours}
		began := time.Now()
		err := c.welcome(ctx, &upstream{ok: okWith(statusAutocommit)})
		if !errors.Is(err, errOver) || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		theirs.Close()
		ours.Close()
	})
}

// TestAccountsLoginFails: what the database says of Curfew's own login is nobody's business: the client reads that
// the database can't be reached.
func TestAccountsLoginFails(t *testing.T) {
	w := newWire(t, protocol.Level{})
	w.account.secret = newSecret()
	s := &stranger{peer: newPeer(t, w.dial())}
	s.greeted()
	s.send(s.reply(w.user, pluginNative, nativeAnswer(personPassword, s.greeting.scramble)))
	e := s.words(capProtocol41)
	s.wire.Close()
	if e.code != errnoUnreachable.code || !strings.HasPrefix(string(e.message), "the database can't be reached") {
		t.Errorf("%d %q", e.code, e.message)
	}
	var refusal *protocol.Refusal
	if r := w.result(); !errors.As(r.err, &refusal) || refusal.Code != protocol.RefuseUnavailable || !strings.Contains(refusal.Err.Error(), "Access denied") {
		t.Errorf("%v", r.err)
	}
}

// dial connects to the wire.
func (w *wire) dial() net.Conn {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.listen.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return conn
}
