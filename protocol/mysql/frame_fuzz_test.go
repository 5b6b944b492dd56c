package mysql

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
)

// FuzzPackets: a stream gives the same packets however it is sliced, none above the limit, and what was
// read ahead is what follows.
func FuzzPackets(f *testing.F) {
	f.Add(appendPacket(appendPacket(nil, 0, []byte("hello")), 1, nil), uint16(100))
	f.Add([]byte{0xff, 0xff, 0xff, 0}, uint16(5))
	f.Add([]byte{3, 0, 0, 0, 1, 2, 3, 4}, uint16(3))
	f.Fuzz(func(t *testing.T, stream []byte, limit uint16) {
		all := func(conn io.Reader, exact bool) (packets [][]byte, r *packetReader, err error) {
			r = &packetReader{conn: conn, exact: exact}
			for {
				p, err := r.read(int(limit))
				if err != nil {
					return packets, r, err
				}
				packets = append(packets, bytes.Clone(p))
			}
		}
		a, _, errA := all(bytes.NewReader(stream), false)
		b, _, errB := all(iotest.OneByteReader(bytes.NewReader(stream)), false)
		c, exact, errC := all(bytes.NewReader(stream), true)
		if len(a) != len(b) || len(a) != len(c) || errA.Error() != errB.Error() || errA.Error() != errC.Error() {
			t.Fatalf("%d %v, %d %v, %d %v", len(a), errA, len(b), errB, len(c), errC)
		}
		var again []byte
		for i := range a {
			if !bytes.Equal(a[i], b[i]) || !bytes.Equal(a[i], c[i]) || len(a[i]) > int(limit) {
				t.Fatalf("packet %d: %q, %q, %q", i, a[i], b[i], c[i])
			}
			again = appendPacket(again, byte(i), a[i])
		}
		if !bytes.HasPrefix(stream, again) {
			t.Fatalf("%q is no beginning of %q", again, stream)
		}
		if errA == io.EOF && (len(again) != len(stream) || len(exact.rest()) > 0) {
			t.Fatalf("%q of %q were read, then %v", again, stream, errA)
		}
	})
}

// FuzzLenenc: what is read is what is written, and a length never reaches beyond its bytes.
func FuzzLenenc(f *testing.F) {
	f.Add([]byte("\x03abc"))
	f.Add([]byte("\xfe\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte("\xfd\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, n, ok := lenencInt(b)
		if ok != (n > 0) || n > len(b) {
			t.Fatalf("%d in %d bytes, %v", v, n, ok)
		}
		if ok {
			if again, _, ok := lenencInt(appendLenenc(nil, v)); !ok || again != v {
				t.Fatalf("%d, written and read again: %d %v", v, again, ok)
			}
		}
		s, rest, ok := lenencBytes(b)
		if ok && n+len(s)+len(rest) != len(b) || !ok && len(rest) != len(b) {
			t.Fatalf("%q %q %v", s, rest, ok)
		}
		if s, rest, ok := cstring(b); ok && len(s)+1+len(rest) != len(b) {
			t.Fatalf("%q %q", s, rest)
		}
	})
}

// FuzzOK: whatever a server sends as OK or ERR is read without a panic, and what is read is written alike.
func FuzzOK(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x40\x00\x00\x00\x03\x01\x01x"), uint64(capProtocol41|capSessionTrack))
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00hello"), uint64(capProtocol41))
	f.Add([]byte("\xff\x15\x04#28000Access denied"), uint64(capProtocol41))
	f.Fuzz(func(t *testing.T, payload []byte, flags uint64) {
		caps := capability(flags)
		if ok, whole := parseOK(payload, caps); whole && caps&capProtocol41 != 0 {
			again, whole := parseOK(appendOK(nil, ok, caps), caps)
			if !whole || again.affected != ok.affected || again.insertID != ok.insertID || again.status != ok.status || again.warnings != ok.warnings ||
				!bytes.Equal(again.info, ok.info) || !bytes.Equal(again.state, ok.state) {
				t.Fatalf("%+v, written and read again: %+v %v", ok, again, whole)
			}
		}
		if e, whole := parseErr(payload, caps); whole && len(e.state) != 0 && len(e.state) != 5 {
			t.Fatalf("%+v", e)
		}
		if err := parseServerError(payload, caps); err == nil {
			t.Fatal("no error")
		}
	})
}

// FuzzGreeting: whatever a server greets with is read without a panic, and understood as it will be passed on.
func FuzzGreeting(f *testing.F) {
	f.Add(encodeGreeting(mysqlGreeting(), 1, newScramble(20)))
	f.Add(encodeGreeting(mariadbGreeting(), 1, newScramble(20)))
	f.Add([]byte("\xff\x10\x04Too many connections"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		g, err := parseGreeting(payload)
		if err != nil {
			return
		}
		if len(g.scramble) != 20 {
			t.Fatalf("scramble %q", g.scramble)
		}
		c := &client{front: &Front{}, server: g.server, id: 1 << 31, scramble: newScramble(20)}
		passed, err := parseGreeting(c.greeting())
		if err != nil {
			t.Fatalf("passed on: %v", err)
		}
		if passed.version != g.version || passed.charset != g.charset || passed.status != g.status || passed.id != 1<<31 || passed.mariadb != g.mariadb {
			t.Fatalf("%+v, passed on: %+v", g, passed)
		}
		if more := passed.caps &^ g.caps &^ (capConnectAttrs | capPluginAuthLenenc); more != 0 {
			t.Fatalf("more capabilities than the server has: %#x", uint64(more))
		}
	})
}

// FuzzResponse: whatever a stranger sends as HandshakeResponse is read without a panic, in bounded memory, and
// agrees to nothing that was not offered.
func FuzzResponse(f *testing.F) {
	for _, mariadb := range []bool{false, true} {
		s := &stranger{caps: clientCaps(mariadb) | capConnectWithDB}
		f.Add(s.reply("gknown", pluginNative, make([]byte, 20), 4, 1, 'a', 1, 'b'), mariadb)
		f.Add(s.reply("", "", nil)[:sslRequestSize], mariadb)
	}
	f.Fuzz(func(t *testing.T, payload []byte, mariadb bool) {
		c := &client{front: &Front{}, server: mysqlGreeting()}
		if mariadb {
			c.server = mariadbGreeting()
		}
		_ = isSSLRequest(payload)
		r, err := c.parseResponse(payload)
		if err != nil {
			return
		}
		if c.caps&^c.offered() != 0 || c.caps&(capProtocol41|capSecureConnection) != capProtocol41|capSecureConnection {
			t.Fatalf("capabilities %#x", uint64(c.caps))
		}
		if len(c.login.Attributes) > maxAttributes || len(r.answer)+len(r.plugin)+len(c.login.User)+len(c.database) > len(payload) {
			t.Fatalf("%+v %+v", c.login, r)
		}
	})
}

// FuzzLogin: a server that says anything at all during login is either believed or refused, and never has more
// of the secret than its plugin's proof over a connection without TLS.
func FuzzLogin(f *testing.F) {
	f.Add([]byte{packetMore, sha2AskFull}, uint8(0))
	f.Add(append([]byte("\xfemysql_native_password\x00"), append(newScramble(20), 0)...), uint8(1))
	f.Add([]byte("\xfeparsec\x0001234567890123456789012345678901"), uint8(1))
	f.Add(loginOK, uint8(2))
	f.Fuzz(func(t *testing.T, payload []byte, twice uint8) {
		sent := &gathered{}
		p := prover{u: &upstream{conn: sent, caps: clientCaps(true)}, l: landing{target: &target{}, secret: accountSecret}, plugin: pluginCachingSHA2, scramble: newScramble(20)}
		for range int(twice%4) + 1 {
			if len(payload) > 2 && payload[0] == packetMore && payload[1] == 'P' && payload[2] > 2 {
				return // many rounds of a hash: slow, and nothing else
			}
			if done, err := p.answer(payload); done || err != nil {
				break
			}
		}
		if bytes.Contains(sent.Bytes(), []byte(accountSecret)) {
			t.Fatalf("the secret went out in clear: %q", sent.Bytes())
		}
	})
}
