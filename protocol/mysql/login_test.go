package mysql

import (
	"bytes"
	"net"
	"strconv"
	"testing"
	"time"
)

// slowLogin is a client that stops in the middle of its login, as anybody can.
type slowLogin struct {
	conn     net.Conn
	reader   packetReader
	plugin   string
	scramble []byte
}

// beginLogin names the user and asks for a plugin that the server does not have, so that it switches and
// waits for the answer.
func beginLogin(t *testing.T, name string) *slowLogin {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(testServer.Port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	l := &slowLogin{conn: conn, reader: packetReader{conn: conn}}
	if _, err := readGreeting(&l.reader); err != nil {
		t.Fatal(err)
	}
	u := upstream{caps: capProtocol41 | capSecureConnection | capPluginAuth | capTransactions}
	b := append(append(u.opening(landing{charset: ownCharset, maxPacket: maxFrame}), name...), 0, 0)
	if _, err := conn.Write(appendPacket(nil, l.reader.seq, append(append(b, "no_such_plugin"...), 0))); err != nil {
		t.Fatal(err)
	}
	l.reader.seq++
	return l
}

// proceed waits for the server's question.
func (l *slowLogin) proceed(t *testing.T) {
	t.Helper()
	payload, err := l.reader.read(limitLogin)
	if err != nil {
		t.Fatal(err)
	}
	plugin, scramble, ok := cstring(payload[1:])
	if payload[0] != 0xfe || !ok {
		t.Fatalf("the server asks %q", payload)
	}
	l.plugin, l.scramble = string(plugin), bytes.TrimSuffix(bytes.Clone(scramble), []byte{0})
}

// finish answers, and says whether it got in and can work.
func (l *slowLogin) finish(password string) bool {
	answer := ed25519Answer(password, l.scramble)
	switch l.plugin {
	case pluginNative:
		answer = nativeAnswer(password, l.scramble)
	case pluginCachingSHA2:
		answer = cachingSHA2Answer(password, l.scramble)
	}
	if _, err := l.conn.Write(appendPacket(nil, l.reader.seq, answer)); err != nil {
		return false
	}
	l.reader.seq++
	if payload, err := l.reader.read(limitLogin); err != nil || payload[0] != 0 {
		return false
	}
	l.reader.seq = 0
	if _, err := l.conn.Write(appendPacket(nil, 0, append([]byte{comQuery}, "DO 1"...))); err != nil {
		return false
	}
	l.reader.seq++
	payload, err := l.reader.read(limitLogin)
	return err == nil && payload[0] == 0
}
