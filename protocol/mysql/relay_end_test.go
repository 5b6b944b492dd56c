package mysql

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

// TestOutcome: who ended a session is told by which side went first, and by what it had said before.
func TestOutcome(t *testing.T) {
	broken := errors.New("reset by peer")
	own := &protocol.EndError{Code: recorder.EndViolation, Err: broken}
	for name, c := range map[string]struct {
		end        relay.End
		bye, dying bool
		code       string // empty: it ended in order
	}{
		"the server, after a goodbye":          {end: relay.End{Side: relay.Server, Err: broken}, bye: true},
		"the server, of itself":                {end: relay.End{Side: relay.Server, Err: broken}, code: recorder.EndServer},
		"the server, as it has said":           {end: relay.End{Side: relay.Server, Err: broken}, dying: true, code: recorder.EndServer},
		"the client":                           {end: relay.End{Side: relay.Client, Err: broken}, code: recorder.EndVanished},
		"the client, that read of the end":     {end: relay.End{Side: relay.Client, Err: broken}, dying: true, code: recorder.EndServer},
		"the observer, which knows the reason": {end: relay.End{Side: relay.Watcher, Err: own}, bye: true, dying: true, code: recorder.EndViolation},
	} {
		l := &link{obs: newObserver(observerConfig{})}
		l.obs.bye, l.obs.dying = c.bye, c.dying
		err := l.outcome(c.end)
		var end *protocol.EndError
		switch {
		case c.code == "" && err != nil, c.code != "" && (!errors.As(err, &end) || end.Code != c.code):
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&link{}).outcome(relay.End{Side: relay.Context, Err: errOver}); !errors.Is(err, errOver) {
		t.Errorf("the grant's end: %v", err)
	}
}

// TestServerGoes: a connection that the database closes of itself is no goodbye.
func TestServerGoes(t *testing.T) {
	w := newWire(t, protocol.Level{})
	c := w.connect("")
	perform(t, c, "DO 1")
	backend := w.sink(0).all()[0].Attached.Backend
	admin(t, "", "KILL "+backend)
	var end *protocol.EndError
	if r := w.result(); !errors.As(r.err, &end) || end.Code != recorder.EndServer {
		t.Errorf("the session ended with %v", r.err)
	}
	if _, err := c.ExecContext(t.Context(), "DO 2"); err == nil {
		t.Error("the client goes on")
	}
}

// TestNothingUnrecordedBegins: a session whose beginning can't be put on record does not begin.
func TestNothingUnrecordedBegins(t *testing.T) {
	w := newWire(t, protocol.Level{})
	w.fail = errors.New("the disk is full")
	c := w.raw(eofCaps)
	var end *protocol.EndError
	if r := w.result(); !errors.As(r.err, &end) || end.Code != recorder.EndRecord || !errors.Is(r.err, w.fail) {
		t.Errorf("the session ended with %v", r.err)
	}
	if e, _ := parseErr(c.packet(1), c.caps); e.code != errnoNotRecorded.code || string(e.message) != sentenceRecord {
		t.Errorf("%d %s", e.code, e.message)
	}
}

// TestCutOffFile: what was sent of a file is on record, also where its end never comes.
func TestCutOffFile(t *testing.T) {
	w := newWire(t, protocol.Level{LocalInfile: true})
	admin(t, "test", "DROP TABLE IF EXISTS cut_off", "CREATE TABLE cut_off (a INT)", "SET GLOBAL local_infile = ON")
	c := w.raw(plainCaps | capLocalFiles)
	c.send(command(comQuery, "LOAD DATA LOCAL INFILE 'f' INTO TABLE cut_off"))
	if p := c.packet(1); p[0] != packetLocal {
		t.Fatalf("%q", p)
	}
	const data = "1\n2\n3\n"
	if _, err := c.conn.Write(appendPacket(nil, 2, []byte(data))); err != nil {
		t.Fatal(err)
	}
	o := w.account.Joined()[0].(*link).obs
	eventually(t, "it was sent", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.file.meter.bytes == uint64(len(data))
	})
	w.end(errOver)
	if r := w.result(); !errors.Is(r.err, errOver) || r.outcome.InFlight != 1 {
		t.Errorf("%v %+v", r.err, r.outcome)
	}
	copies := w.sink(0).of(recorder.TypeCopy)
	if want := fmt.Sprintf("copy of=1 n=0 in rows=0 bytes=%d sha256=%x tag=\"f\"\n", len(data), sha256.Sum256([]byte(data))); show(copies) != want {
		t.Errorf("recorded:\n%s\nwanted:\n%s", show(copies), want)
	}
}

// TestLanding: a session begins in the database that its client names, else in the target's, and is offered LOAD
// DATA LOCAL by the server only where the level has it.
func TestLanding(t *testing.T) {
	a := newAccount(&Engine{target: &target{database: "shop"}}, newSpec(0))
	for _, c := range []struct {
		asked, want string
		infile      bool
	}{{"", "shop", true}, {"other", "other", false}} {
		a.spec.Level.LocalInfile = c.infile
		l := &link{owner: a, client: &client{database: c.asked, caps: eofCaps | capLocalFiles, charset: 33, maxPacket: 77}}
		to := l.landing()
		if to.database != c.want || (to.caps&capLocalFiles != 0) != c.infile || to.caps|capLocalFiles != l.client.caps || to.charset != 33 || to.maxPacket != 77 {
			t.Errorf("%+v: %q, capabilities %#x, %d, %d", c, to.database, uint64(to.caps), to.charset, to.maxPacket)
		}
	}
}

// TestNothingBehindGoodbye: the server reads nothing behind a COM_QUIT, so nothing behind it is forwarded, or stands
// on record, in one piece with it or not.
func TestNothingBehindGoodbye(t *testing.T) {
	bye, more := appendPacket(nil, 0, []byte{comQuit}), appendPacket(nil, 0, command(comQuery, "DO 1"))
	for name, pieces := range map[string][][]byte{"one piece": {glue(bye, more)}, "two": {bye, more}} {
		p, m := observing(observerConfig{})
		for _, b := range pieces {
			p.write(t, b)
		}
		if string(p.to) != string(bye) || len(m.all()) > 0 || !p.o.Goodbye() {
			t.Errorf("%s: the server reads %q, recorded:\n%s", name, p.to, show(m.all()))
		}
	}
}

// TestNotify: a notice stands on record while the session runs, and the client reads nothing of it.
func TestNotify(t *testing.T) {
	m := &memory{}
	l := &link{obs: newObserver(observerConfig{}), client: &client{front: NewFront(FrontConfig{})}}
	l.obs.sink = m
	l.Notify("too early")
	l.live.Store(true)
	l.Notify("5 minutes left")
	m.fail = errors.New("the disk is full")
	l.Notify("nobody hears of it")
	m.fail = nil
	l.live.Store(false)
	l.Notify("too late")
	if got := show(m.all()); got != "notice of=0 from=curfew NOTE  0 \"5 minutes left\"\n" {
		t.Errorf("recorded:\n%s", got)
	}
}
