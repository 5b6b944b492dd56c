package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// TestCancelIsOnRecordFirst: a cancel request goes to the server when it stands in the session's recording, and only
// while the session lives.
func TestCancelIsOnRecordFirst(t *testing.T) {
	errDialed, full := errors.New("dialled"), errors.New("the disk is full")
	m := &memory{}
	dialed := 0
	l := &link{obs: newObserver(0, false), up: &upstream{pid: 7, key: []byte("abcd")}}
	l.obs.sink = m
	l.dial = func(context.Context, string, string) (net.Conn, error) {
		if dialed++; len(m.of(recorder.TypeCancel)) != dialed {
			t.Error("it is not on record yet")
		}
		return nil, errDialed
	}
	for _, c := range []struct {
		name  string
		live  bool
		fail  error
		ends  bool // while it is recorded
		want  error
		count int // of requests at the server so far, and events
	}{
		{"before the session lives", false, nil, false, nil, 0},
		{"while it lives", true, nil, false, errDialed, 1},
		{"what can't be recorded", true, full, false, full, 1},
		{"when it ends meanwhile", true, nil, true, nil, 1},
		{"when it is over", false, nil, false, nil, 1},
	} {
		l.live.Store(c.live)
		m.fail, m.hang = c.fail, nil
		if c.ends {
			m.hang = func(recorder.Event) { l.live.Store(false) }
		}
		if err := l.cancel(t.Context(), "192.0.2.1:7"); !errors.Is(err, c.want) || dialed != c.count {
			t.Errorf("%s: %v, and the server was asked %d times", c.name, err, dialed)
		}
	}
	if got := m.of(recorder.TypeCancel); len(got) != 2 || got[0].From != "192.0.2.1:7" {
		t.Errorf("recorded:\n%s", show(got))
	}
}

// TestCancelGoesThroughTLS: whoever could read a cancel request on its way could cancel as well, so it goes to the
// server in the same way as the session did.
func TestCancelGoesThroughTLS(t *testing.T) {
	cert, pool := certificate(t)
	ours, theirs := net.Pipe()
	u := &upstream{pid: 7, key: []byte("the key"), route: route{config: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}}}
	heard := make(chan string, 1)
	go func() {
		defer theirs.Close()
		theirs.SetDeadline(time.Now().Add(20 * time.Second))
		code, _, err := readStartup(theirs)
		if err != nil || code != codeSSL {
			heard <- "in clear"
			return
		}
		_, _ = theirs.Write([]byte{'S'})
		secured := tls.Server(theirs, serverTLS(cert))
		msg := make([]byte, 12+len(u.key))
		_, err = io.ReadFull(secured, msg)
		if err != nil || binary.BigEndian.Uint32(msg[4:]) != codeCancel {
			heard <- "nothing"
			return
		}
		heard <- string(msg[12:])
	}()
	dial := func(context.Context, string, string) (net.Conn, error) { return ours, nil }
	if err := u.cancel(t.Context(), dial); err != nil {
		t.Error(err)
	}
	if got := <-heard; got != "the key" {
		t.Errorf("the server hears %s", got)
	}
}

// TestKeysDieWithTheirSessions: of sessions that are over nothing is left to be cancelled by.
func TestKeysDieWithTheirSessions(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("")
	held := func() int {
		w.front.cancels.mu.Lock()
		defer w.front.cancels.mu.Unlock()
		return len(w.front.cancels.keys)
	}
	if n := held(); n != 1 {
		t.Errorf("%d keys of one session", n)
	}
	w.bye(c)
	if n := held(); n != 0 {
		t.Errorf("%d keys of none", n)
	}
}

// TestNothingUnrecordedBegins: a session whose beginning can't be put on record does not begin, and a notice that
// can't be is not shown.
func TestNothingUnrecordedBegins(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	full := errors.New("the disk is full")
	w.sink.fail = full
	f := w.frontend("")
	var end *protocol.EndError
	if r := w.result(); !errors.As(r.err, &end) || end.Code != recorder.EndRecord || !errors.Is(r.err, full) {
		t.Errorf("the session ended with %v", r.err)
	}
	if last := f.lastWords(); last == nil || last.Code != stateNotRecorded {
		t.Errorf("the client read %+v", last)
	}
	l := &link{obs: newObserver(0, false)} // without a pipe to show anything by
	l.obs.sink = w.sink
	l.live.Store(true)
	l.Notify("5 minutes left")
}

// TestDatabaseOfTheTarget: clients name the user's name where nobody named a database; that means the target's.
func TestDatabaseOfTheTarget(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	for _, named := range []string{"orders", w.user} {
		c, err := pgconn.Connect(t.Context(), strings.Replace(w.dsn(""), "/orders?", "/"+named+"?", 1))
		if err != nil {
			t.Fatalf("%s: %v", named, err)
		}
		got, err := c.Exec(t.Context(), "SELECT current_database()").ReadAll()
		if err != nil || string(got[0].Rows[0][0]) != "orders" {
			t.Errorf("%s: %v %v", named, got, err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if r := w.result(); r.err != nil {
			t.Error(r.err)
		}
	}
}

// TestOldestInFlight: in flight is the oldest statement that was forwarded and not answered, whichever message it
// came in.
func TestOldestInFlight(t *testing.T) {
	for kind, counts := range map[byte]bool{msgQuery: true, msgParse: true, msgBind: true, msgExecute: true, msgFunctionCall: true, msgDescribe: false, msgSync: false} {
		var q queue
		for id := range uint64(2) {
			e := q.push()
			e.kind, e.id = kind, id+1
		}
		want := func(what string, id uint64) {
			t.Helper()
			if !counts {
				id = 0
			}
			if got := q.oldest(); got != id {
				t.Errorf("%q, %s: %d", kind, what, got)
			}
		}
		want("recorded, and not forwarded yet", 0)
		q.forwarded = 1
		want("one of two forwarded", 1)
		q.pop()
		want("the one that was forwarded is answered", 0)
		q.forwarded = 1
		want("the other is forwarded, too", 2)
	}
}
