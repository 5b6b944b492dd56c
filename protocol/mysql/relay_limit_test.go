package mysql

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// bounded is a sink that lets a session read so many rows and bytes.
type bounded struct {
	*memory
	rows, bytes uint64
	asked       int
}

func (b *bounded) Read(rows, bytes uint64) error {
	b.asked++
	if rows > b.rows || bytes > b.bytes {
		return errTooMuch
	}
	return nil
}

var errTooMuch = errors.New("you have read too much")

// TestLimits: rows and bytes are counted through the whole session, and once the session may read no more nobody is
// asked again: what the server still sends goes on record, and nowhere else.
func TestLimits(t *testing.T) {
	row := []byte("\x011")
	answer := packets(1, []byte{1}, column, eofWith(0), row, row, eofWith(0))
	for name, b := range map[string]*bounded{"rows": {rows: 5, bytes: 1 << 30}, "bytes": {rows: 1 << 30, bytes: uint64(3*len(answer) - 1)}} {
		p, m := observing(observerConfig{})
		b.memory = m
		p.o.limiter = b
		for n := range 4 {
			p.client(t, command(comQuery, "SELECT 1"))
			err := p.inbound(answer)
			var end *protocol.EndError
			switch {
			case n != 2 && err != nil, n == 2 && (!errors.As(err, &end) || end.Code != recorder.EndLimit || !errors.Is(err, errTooMuch)):
				t.Errorf("%s, answer %d: %v", name, n+1, err)
			case b.asked > 3 || n == 2 && b.asked != 3:
				t.Errorf("%s, answer %d: asked %d times", name, n+1, b.asked)
			}
		}
		if got := m.of(recorder.TypeResult); len(got) != 4 || got[3].Rows != 2 {
			t.Errorf("%s, recorded:\n%s", name, show(got))
		}
	}
}

// TestResultsAreOnRecordFirst: what can't be recorded does not reach the client either.
func TestResultsAreOnRecordFirst(t *testing.T) {
	p, m := observing(observerConfig{})
	p.client(t, command(comQuery, "DO 1"))
	m.fail = errors.New("the disk is full")
	err := p.inbound(packets(1, okWith(0)))
	var end *protocol.EndError
	if !errors.As(err, &end) || end.Code != recorder.EndRecord || len(p.sent) > 0 {
		t.Errorf("%v, and the client reads %q", err, p.sent)
	}
}

// TestPendingCommandsAreBounded: a client that sends and never reads is made to wait, and goes on when there is room.
func TestPendingCommandsAreBounded(t *testing.T) {
	p, m := observing(observerConfig{})
	ping := appendPacket(nil, 0, []byte{comPing})
	const more = 3
	p.write(t, bytes.Repeat(ping, limitPending+more))
	if p.o.queue.n != limitPending || len(p.to) != limitPending*len(ping) || len(p.held) != more*len(ping) {
		t.Fatalf("%d commands wait, %d bytes are forwarded, %d held", p.o.queue.n, len(p.to), len(p.held))
	}
	p.server(t, okWith(0))
	p.write(t, nil)
	if p.o.queue.n != limitPending || len(p.held) != (more-1)*len(ping) || len(m.of(recorder.TypeResult)) != 1 {
		t.Errorf("%d commands wait, %d bytes are held", p.o.queue.n, len(p.held))
	}
}

// TestFileOfAFullFrame: behind a frame that is full an empty one ends the packet, and the next one the file.
func TestFileOfAFullFrame(t *testing.T) {
	p, m := observing(observerConfig{level: protocol.Level{LocalInfile: true}})
	p.client(t, command(comQuery, "LOAD DATA LOCAL INFILE 'f' INTO TABLE t"))
	p.server(t, []byte("\xfbf"))
	p.keep = false
	head, part := []byte{0xff, 0xff, 0xff, 2}, make([]byte, 32<<10)
	p.write(t, head)
	for left := maxFrame; left > 0; left -= min(left, len(part)) {
		p.write(t, part[:min(left, len(part))])
	}
	if p.write(t, appendPacket(nil, 3, nil)); p.o.file.ended {
		t.Fatal("the empty frame behind a full one is taken for the file's end")
	}
	p.write(t, appendPacket(nil, 4, []byte("more")))
	p.write(t, appendPacket(nil, 5, nil))
	if err := p.inbound(packets(6, okWith(0))); err != nil {
		t.Fatal(err)
	}
	if got := m.of(recorder.TypeCopy); len(got) != 1 || got[0].Bytes != maxFrame+4 {
		t.Errorf("recorded:\n%s", show(got))
	}
}

// TestHalfACommandBehindAFile: what was forwarded of a command could be taken for the file.
func TestHalfACommandBehindAFile(t *testing.T) {
	p, _ := observing(observerConfig{whole: minWhole, level: protocol.Level{LocalInfile: true}})
	p.client(t, command(comQuery, "LOAD DATA LOCAL INFILE 'f' INTO TABLE t"))
	long := appendPacket(nil, 0, command(comQuery, "SELECT '"+strings.Repeat("x", 4*minWhole)+"'"))
	p.write(t, long[:2*minWhole])
	var end *protocol.EndError
	if err := p.inbound(packets(1, []byte("\xfbf"))); !errors.As(err, &end) || end.Code != recorder.EndViolation {
		t.Errorf("%v", err)
	}
}

// TestFullRow: of a packet that is full and begins with 0xfe a client that wants no EOF packets knows that it is a row.
func TestFullRow(t *testing.T) {
	p, m := observing(observerConfig{caps: capDeprecateEOF})
	p.client(t, command(comQuery, "SELECT REPEAT('x', 16777206)"))
	end := []byte{packetEOF, 0, 0, 0, 0, 0, 0}
	p.server(t, []byte{1}, column)
	row := append([]byte{0xfe, 0xf6, 0xff, 0xff, 0, 0, 0, 0, 0}, make([]byte, 0xfffff6)...) // its length, then so much
	p.keep = false
	if err := p.inbound(glue(packets(3, row), packets(5, end))); err != nil {
		t.Fatal(err)
	}
	if got := m.of(recorder.TypeResult); len(got) != 1 || got[0].Rows != 1 || got[0].Bytes != uint64(len(row)) {
		t.Errorf("recorded:\n%s", show(got))
	}
}

// TestTransactionIsOpen: a transaction that only reads is one, too.
func TestTransactionIsOpen(t *testing.T) {
	for status, open := range map[uint16]bool{0: false, statusAutocommit: false, statusInTrans: true, statusInTransReadOnly: true} {
		p, m := observing(observerConfig{})
		l := &link{obs: p.o}
		p.client(t, command(comQuery, "DO 1"))
		p.server(t, okWith(status))
		tx := map[bool]recorder.Tx{true: recorder.TxOpen, false: recorder.TxIdle}[open]
		if got := m.of(recorder.TypeResult); l.transaction() != open || len(got) != 1 || got[0].Tx != tx {
			t.Errorf("status %#x: %t, recorded:\n%s", status, l.transaction(), show(got))
		}
	}
	if (&link{}).transaction() {
		t.Error("before anything is known")
	}
}
