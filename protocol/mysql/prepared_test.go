package mysql

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// An execute names its prepare on record, also of a client that guesses what the server will call it, before
// and behind a reset of the connection.
func TestGuessedHandle(t *testing.T) {
	w := newWire(t, protocol.Level{})
	c := w.raw(eofCaps)
	execute := func(handle uint32) []byte { return executeOf(handle) }
	c.send(command(comStmtPrepare, "DO 'any'"))
	handle := binary.LittleEndian.Uint32(c.packet(1)[1:]) // a MariaDB counts on from a connection before
	c.send(command(comStmtPrepare, "DO 'first'"), execute(handle+1))
	c.packet(1)
	c.packet(1)
	c.send([]byte{comResetConnection}, command(comStmtPrepare, "DO 'second'"), execute(1), execute(handle+2))
	for range 4 {
		c.packet(1)
	}
	c.quit()
	w.bye()
	statements, results := w.sink(0).of(recorder.TypeStatement), w.sink(0).of(recorder.TypeResult)
	ran := map[uint64]bool{} // executes that the server has not refused
	for _, r := range results {
		ran[r.Of] = r.Errno == 0
	}
	texts := map[uint64]string{}
	executes := 0
	for _, s := range statements {
		switch s.Kind {
		case recorder.KindPrepare:
			texts[s.ID] = string(s.Text)
		case recorder.KindExecute:
			if !ran[s.ID] {
				continue
			}
			if executes++; texts[s.Of] != []string{"DO 'first'", "DO 'second'"}[executes-1] {
				t.Errorf("execute %d is one of %d, %q", s.ID, s.Of, texts[s.Of])
			}
		}
	}
	if executes != 2 {
		t.Errorf("%d executes ran:\n%s", executes, show(w.sink(0).all()))
	}
}

// However much there is to be remembered of other statements, which one is executed stays known.
func TestForgottenTypes(t *testing.T) {
	p, m := observing(observerConfig{})
	var values []typedValue
	for range 60000 {
		values = append(values, typedValue{typ: typeLong})
	}
	prepare := func(handle uint32, params uint16) {
		p.client(t, command(comStmtPrepare, "x"))
		p.server(t, prepareOK(handle, 0, params))
		p.o.in.phase, p.o.in.left = phaseFirst, 0 // their definitions would only take time
		if params > 0 {
			p.o.pop()
		}
	}
	prepare(1, 1)
	p.client(t, executeOf(1, integer(7)))
	p.server(t, okWith(0))
	for i := range uint32(60) {
		prepare(i+2, 60000)
		p.client(t, executeOf(i+2, values...))
		p.server(t, okWith(0))
	}
	if p.o.prepares.bytes > limitPrepared {
		t.Errorf("%d bytes are remembered", p.o.prepares.bytes)
	}
	m.events = nil
	for i := range uint32(61) {
		if i == 0 {
			p.client(t, executeOf(1, integer(7)))
		} else {
			p.client(t, executeOf(i+1, values...))
		}
		p.server(t, okWith(0))
	}
	for _, s := range m.of(recorder.TypeStatement) {
		if s.Of == 0 {
			t.Fatalf("execute %d is of no prepare on record", s.ID)
		}
	}
}

// A session that prepares more statements than can be told apart is ended.
func TestTooManyPrepared(t *testing.T) {
	p, _ := observing(observerConfig{})
	p.o.sink = sinkFunc(func(...recorder.Event) error { return nil })
	p.keep = false
	for i := range uint32(1 << 20) {
		p.client(t, command(comStmtPrepare, "x"))
		if err := p.inbound(packets(1, prepareOK(i, 0, 0))); err != nil {
			if p.o.prepares.bytes > limitPrepared+2*maxPrepared {
				t.Errorf("%d bytes are remembered", p.o.prepares.bytes)
			}
			return
		}
	}
	t.Error("it goes on for ever")
}

// Parameters that take next to no room in a packet are not gathered for a whole chunk.
func TestManyNulls(t *testing.T) {
	p, _ := observing(observerConfig{})
	p.client(t, command(comStmtPrepare, "x"))
	p.server(t, prepareOK(1, 0, limitParams))
	p.o.in.phase, p.o.in.left = phaseFirst, 0 // their definitions would only take time
	p.o.pop()
	most, all := 0, 0
	p.o.sink = sinkFunc(func(events ...recorder.Event) error {
		params := 0
		for _, e := range events {
			params += len(e.Params)
		}
		most, all = max(most, params), all+params
		return nil
	})
	p.client(t, executeOf(1, make([]typedValue, limitParams)...))
	p.server(t, okWith(0))
	again := glue([]byte{comStmtExecute}, le32(1), []byte{0}, le32(1), bytes.Repeat([]byte{0xff}, (limitParams+7)/8), []byte{0})
	p.client(t, again, again, again, again)
	if most != limitParams || all != 5*limitParams {
		t.Errorf("%d of %d are recorded at once", most, all)
	}
}
