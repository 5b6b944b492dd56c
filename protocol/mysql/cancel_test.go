package mysql

import (
	"sync"
	"testing"
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
