package mysql

import (
	"errors"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// TestKillIsOnRecordFirst: a session of the same grant can be cancelled while it lives, once that stands in its own
// recording, with who did it and what it was at.
func TestKillIsOnRecordFirst(t *testing.T) {
	a := newAccount(&Engine{}, newSpec(0))
	p, m := observing(observerConfig{})
	p.client(t, command(comQuery, "DO 1"), command(comQuery, "DO SLEEP(30)"))
	p.server(t, okWith(0))
	victim := &link{owner: a, client: &client{id: firstID | 7, login: protocol.Login{Address: "its own"}}, obs: p.o}
	victim.backend.Store(42)
	by := &link{owner: a, client: &client{id: firstID | 8, login: protocol.Login{Address: "who does it"}}, obs: newObserver(observerConfig{})}
	for _, l := range []*link{victim, by} {
		if _, err := a.add(l); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(what string, id uint64, backend uint32, fails error) {
		t.Helper()
		got, ok, err := by.killed(id)
		if ok != (backend != 0) || ok && got != backend || !errors.Is(err, fails) {
			t.Errorf("%s: backend %d, %t, %v", what, got, ok, err)
		}
	}
	ask("before it lives", firstID|7, 0, nil)
	victim.live.Store(true)
	ask("another's id", firstID|9, 0, nil)
	ask("the backend's own id", 42, 0, nil)
	if got := m.of(recorder.TypeCancel); len(got) != 0 {
		t.Errorf("recorded: %s", show(got))
	}
	ask("while it lives", firstID|7, 42, nil)
	if got := m.of(recorder.TypeCancel); len(got) != 1 || got[0].Of != 2 || got[0].From != "who does it" {
		t.Errorf("recorded: %s from %+v", show(got), got)
	}
	m.fail = errors.New("the disk is full")
	ask("what can't be recorded", firstID|7, 0, m.fail)
	m.fail = nil
	victim.live.Store(false)
	ask("after it lived", firstID|7, 0, nil)
}

// TestKillIsNotForwardedUnrecorded: where it can't be put on record that another session is cancelled, the session
// that asks for it ends, and the server hears nothing of it.
func TestKillIsNotForwardedUnrecorded(t *testing.T) {
	full := errors.New("the disk is full")
	for _, kill := range [][]byte{command(comQuery, "KILL QUERY 2147483655"), glue([]byte{comProcessKill}, le32(firstID|7))} {
		p, _ := observing(observerConfig{kill: func(uint64) (uint32, bool, error) { return 42, false, full }})
		err := p.outbound(appendPacket(nil, 0, kill))
		var end *protocol.EndError
		if !errors.As(err, &end) || end.Code != recorder.EndRecord || !errors.Is(err, full) || len(p.to) > 0 {
			t.Errorf("%q: %v, and the server reads %q", kill, err, p.to)
		}
	}
}
