package mysql

import (
	"net"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// TestAnswerThatNobodyReadsIsOnRecord: what the server had answered before it was told to go is read to its end, though
// the client takes none of it: the statement has its result on record, and its fate is known.
func TestAnswerThatNobodyReadsIsOnRecord(t *testing.T) {
	w := newWire(t, protocol.Level{})
	c := w.raw(eofCaps)
	if err := c.conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	m := w.sink(0)
	c.send(command(comQuery, "SELECT REPEAT('x', 4000) FROM information_schema.character_sets a JOIN information_schema.character_sets b LIMIT 1500"))
	eventually(t, "the server has sent it all", func() bool {
		return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE user = ? AND command = 'Sleep'", w.account.spec.Name) == "1" &&
			len(m.of(recorder.TypeStatement)) == 1
	})
	if len(m.of(recorder.TypeResult)) != 0 {
		t.Skip("the client's side took all of it")
	}
	w.end(errOver)
	r := w.result()
	if got := m.of(recorder.TypeResult); len(got) != 1 || got[0].Rows != 1500 {
		t.Errorf("the result is not on record: %s", show(got))
	}
	if r.outcome.InFlight != 0 || r.outcome.Fate != protocol.FateNone {
		t.Errorf("outcome %+v", r.outcome)
	}
}
