package mysql

import (
	"strings"
	"sync"
	"testing"

	"github.com/curfewdb/curfew/recorder"
)

// TestIDs: no two clients of a front have one id, none is the server's, and an id is free again after its client.
func TestIDs(t *testing.T) {
	var i ids
	i.init()
	var mu sync.Mutex
	seen := map[uint32]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				id := i.take()
				mu.Lock()
				if seen[id] || id < firstID {
					t.Errorf("id %d", id)
				}
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for id := range seen {
		i.release(id)
	}
	if len(i.used) != 0 {
		t.Errorf("%d ids are never free again", len(i.used))
	}
}

func TestOurs(t *testing.T) {
	for id, want := range map[uint64]bool{0: false, 1: false, 1<<31 - 1: false, 1 << 31: true, 1<<32 - 1: true, 1 << 32: false, 1<<32 | 1<<31: false, 1<<64 - 1: false} {
		if got, ok := ours(id); ok != want || ok && uint64(got) != id {
			t.Errorf("%d: %d %v", id, got, ok)
		}
	}
}

// TestIDsAreReleased: an id is held from the greeting to the end, whichever end it is.
func TestIDsAreReleased(t *testing.T) {
	f := fronting(mariadbGreeting(), FrontConfig{})
	held := func() int { f.ids.mu.Lock(); defer f.ids.mu.Unlock(); return len(f.ids.used) }
	in := newStranger(t, f, newKeeper())
	in.send(in.reply("gknown", pluginNative, nativeAnswer(personPassword, in.greeting.scramble)))
	c := in.accepted()
	out := newStranger(t, f, newKeeper())
	if n := held(); n != 2 {
		t.Errorf("%d ids are held by two", n)
	}
	out.send(out.reply("gknown", pluginNative, make([]byte, 20)))
	out.refused()
	if n := held(); n != 1 {
		t.Errorf("%d ids are held after a refusal", n)
	}
	in.wire.Close()
	c.Close(nil)
	c.Close(nil)
	if n := held(); n != 0 {
		t.Errorf("%d ids are held by nobody", n)
	}
}

// TestKillText: what the servers take for a KILL by a number is seen as one, and nothing else is.
func TestKillText(t *testing.T) {
	for text, id := range map[string]uint64{
		"KILL 7": 7, "kill query 7": 7, "KILL CONNECTION 7": 7, "Kill Hard 7": 7, "KILL SOFT QUERY 7": 7, "KILL HARD CONNECTION 7": 7,
		" \t\r\n\f\vKILL\n7 ; ;\n": 7, "KILL 18446744073709551615": 1<<64 - 1, "KILL " + strings.Repeat(" ", 250) + "7": 7,
		"KILL": 0, "KILL QUERY": 0, "KILL 7 8": 0, "KILL 7; DO 1": 0, "KILL 7 -- c": 0, "KILL USER 'al'": 0, "KILL QUERY ID 7": 0, "KILL -7": 0, "KILL 0x7": 0,
		"KILL 18446744073709551616": 0, "KILL QUERY QUERY 7": 0, "KILL SOFT HARD 7": 0, "KILLS 7": 0, "DO KILL 7": 0, "KILL " + strings.Repeat(" ", 251) + "7": 0, "": 0,
	} {
		k, ok := parseKill([]byte(text))
		if ok != (id != 0) || ok && (k.id != id || text[k.at:k.at+k.n] != strings.TrimFunc(text, func(r rune) bool { return r < '0' || r > '9' })) {
			t.Errorf("%q: %+v, %t", text, k, ok)
		}
	}
}

// TestKillIsTranslated: the number that the client knows becomes the server's, and the text stays as long as it is.
func TestKillIsTranslated(t *testing.T) {
	for text, want := range map[string]string{
		"KILL QUERY 2147483655": "KILL QUERY 42        ", "kill 2147483655;": "kill 42        ;",
		"KILL QUERY 2147483656": "KILL QUERY 2147483656", "KILL QUERY 42": "KILL QUERY 42", // nobody's, and the server's own
	} {
		p, m := observing(observerConfig{kill: func(id uint64) (uint32, bool, error) { return 42, id == firstID|7, nil }})
		p.client(t, command(comQuery, text))
		if got := string(p.to[headerSize+1:]); got != want {
			t.Errorf("%q is forwarded as %q", text, got)
		}
		if got := show(m.all()); !strings.Contains(got, text) {
			t.Errorf("%q is recorded as\n%s", text, got)
		}
	}
}

// TestExtraConnection: in the one connection above the limit a KILL passes, plain to see, and nothing else.
func TestExtraConnection(t *testing.T) {
	for _, c := range []struct {
		caps    capability
		body    []byte
		blocked bool
	}{
		{0, command(comQuery, "KILL QUERY 7"), false}, {capQueryAttributes, command(comQuery, "\x00\x01KILL QUERY 7"), false},
		{0, glue([]byte{comProcessKill}, le32(firstID|7)), false},
		{0, command(comQuery, "SELECT 1"), true}, {0, []byte{comPing}, true}, {0, command(comStmtPrepare, "KILL 7"), true},
		{0, command(comQuery, "KILL 7"+strings.Repeat(" ", minWhole)), true},
		{capQueryAttributes, command(comQuery, "\x00\x02KILL 7"), true}, {capQueryAttributes, command(comQuery, "\x01\x01KILL 7"), true},
		{capQueryAttributes, command(comQuery, "\x00"), true}, {capQueryAttributes, []byte{comQuery}, true},
	} {
		p, m := observing(observerConfig{caps: c.caps, extra: true, whole: minWhole, kill: func(uint64) (uint32, bool, error) { return 42, true, nil }})
		p.client(t, c.body)
		if got := len(m.of(recorder.TypeBlocked)) == 1; got != c.blocked || c.blocked != (p.to[headerSize] == comPing) {
			t.Errorf("%q: blocked %t, forwarded as %q", c.body, got, p.to)
		}
	}
}
