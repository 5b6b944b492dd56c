package mysql

import "testing"

// TestOutParameters: MySQL's answer to a CALL with OUT parameters says only before their row that another result
// follows, and not behind it. What comes next is the next command's.
func TestOutParameters(t *testing.T) {
	p, m := observing(observerConfig{caps: plainCaps})
	column, eof := []byte("\x03def\x00\x00\x00\x01x\x00\x0c\x3f\x00\x0b\x00\x00\x00\x03\x00\x00\x00\x00\x00"), []byte{packetEOF, 0, 0, 2, 0}
	p.client(t, command(comStmtPrepare, "CALL outs(?)"))
	p.server(t, []byte{packetOK, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, column, eof)
	p.client(t, executeOf(1, integer(5)), []byte{comPing})
	p.server(t, []byte{1}, column, []byte{packetEOF, 0, 0, 0x0a, 0x10}, []byte{packetOK, 0, 4, 0, 0, 0}, eof, []byte{packetOK, 0, 0, 2, 0, 0, 0})
	p.server(t, []byte{packetOK, 0, 0, 2, 0, 0, 0})
	wanted := `statement 1 prepare "CALL outs(?)"
statement 2 execute of=1 "" int="5"
statement 3 command name="ping" ""
result of=2 n=0 rows=1 bytes=6 tx="idle"
result of=2 n=1 tx="idle"
result of=3 n=0 tx="idle"
`
	if got := show(m.all()); got != wanted {
		t.Errorf("recorded:\n%s\nwanted:\n%s", got, wanted)
	}
}
