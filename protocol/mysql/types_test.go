package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// TestTypes: what comes in binary is shown as the server would write it.
func TestTypes(t *testing.T) {
	w := newWire(t, protocol.Level{})
	c := w.raw(eofCaps)
	float := func(f float32) []byte { return le32(math.Float32bits(f)) }
	double := func(f float64) []byte { return le64(math.Float64bits(f)) }
	lenenc := func(s string) []byte { return appendLenencBytes(nil, s) }
	type value struct {
		typ   uint16
		raw   []byte
		shown string
	}
	values := []value{
		{typeTiny, []byte{0xff}, `tinyint="-1"`}, {typeTiny | flagUnsigned, []byte{0xff}, `tinyint unsigned="255"`},
		{typeShort, le16(0x8000), `smallint="-32768"`}, {typeShort | flagUnsigned, le16(0x8000), `smallint unsigned="32768"`},
		{typeLong, le32(1 << 31), `int="-2147483648"`}, {typeLong | flagUnsigned, le32(1 << 31), `int unsigned="2147483648"`},
		{typeLongLong, le64(1 << 63), `bigint="-9223372036854775808"`}, {typeLongLong | flagUnsigned, le64(math.MaxUint64), `bigint unsigned="18446744073709551615"`},
		{typeFloat, float(1.5), `float="1.5"`}, {typeFloat, float(0.1), `float="0.1"`}, {typeFloat, float(1e20), `float="1e20"`},
		{typeDouble, double(0.1), `double="0.1"`}, {typeDouble, double(1e14), `double="100000000000000"`}, {typeDouble, double(1e15), `double="1e15"`},
		{typeDouble, double(-1.5e-7), `double="-0.00000015"`}, {typeDouble, double(1e-20), `double="1e-20"`}, {typeDouble, double(1e300), `double="1e300"`}, {typeDouble, double(0), `double="0"`},
		{typeDate, []byte{4, 0xea, 7, 2, 28}, `date="2026-02-28"`},
		{typeDatetime, []byte{4, 0xea, 7, 2, 28}, `datetime="2026-02-28 00:00:00"`},
		{typeDatetime, []byte{7, 0xea, 7, 2, 28, 23, 59, 58}, `datetime="2026-02-28 23:59:58"`},
		{typeTimestamp, []byte{11, 0xea, 7, 2, 28, 23, 59, 58, 7, 0, 0, 0}, `timestamp="2026-02-28 23:59:58.000007"`},
		{typeTime, []byte{0}, `time="00:00:00"`},
		{typeTime, []byte{8, 1, 34, 0, 0, 0, 22, 59, 58}, `time="-838:59:58"`},
		{typeTime, []byte{12, 0, 0, 0, 0, 0, 1, 2, 3, 0x20, 0xa1, 7, 0}, `time="01:02:03.500000"`},
		{typeDecimal, lenenc("-1.50"), `decimal="-1.50"`}, {typeNewDecimal, lenenc("12345678901234567890.5"), `decimal="12345678901234567890.5"`},
		{typeVarString, lenenc("grüße"), `varchar="grüße"`}, {typeString, lenenc(""), `char=""`}, {typeVarchar, lenenc("x"), `varchar="x"`},
		{typeBlob, lenenc("text"), `blob="text"`}, {typeLongBlob, lenenc("\xff\x00"), `longblob=hex:ff00`}, {typeTinyBlob, lenenc("t"), `tinyblob="t"`}, {typeMediumBlob, lenenc("m"), `mediumblob="m"`},
		{typeNull, nil, `null=null`},
	}
	if testServer.IsMariaDB() { // MySQL takes no such parameters
		values = append(values, value{typeEnum, lenenc("e"), `enum="e"`}, value{typeSet, lenenc("a,b"), `set="a,b"`})
	}
	c.send(command(comStmtPrepare, "SELECT ?"))
	first := c.packet(1)
	handle := binary.LittleEndian.Uint32(first[1:])
	c.packet(2)
	c.packet(3)
	for _, v := range values {
		c.send(executeOf(handle, typedValue{v.typ, v.raw}))
		var row []byte
		for seq := byte(1); ; seq++ {
			p := c.packet(seq)
			if p[0] == packetErr {
				t.Fatalf("%s: %q", v.shown, p)
			}
			if p[0] == packetEOF {
				break
			}
			row = p
		}
		statements := w.sink(0).of(recorder.TypeStatement)
		if got := showParam(statements[len(statements)-1].Params[0]); got != v.shown {
			t.Errorf("%s is shown as %s", v.shown, got)
		}
		if row[1]&4 != 0 != (v.raw == nil) {
			t.Errorf("%s: the server has %q", v.shown, row)
		}
	}
	// The numbers are what the server itself prints.
	for _, v := range values {
		if typ, text, _ := strings.Cut(v.shown, "="); typ == "double" || typ == "float" {
			text = strings.Trim(text, `"`)
			number := text
			if !strings.Contains(text, "e") {
				number += "E0"
			}
			if got := super(t, "", "SELECT CONCAT(CAST("+number+" AS "+typ+"))"); got != text {
				t.Errorf("the server prints %s for %s", got, text)
			}
		}
	}
	c.quit()
	w.bye()
}

// TestRememberedTypes: types come with the first execute, and hold for those that bring none.
func TestRememberedTypes(t *testing.T) {
	p, m := observing(observerConfig{})
	p.client(t, command(comStmtPrepare, "SELECT ?, ?"))
	p.server(t, prepareOK(7, 0, 2), column, column, eofWith(0))
	again := glue([]byte{comStmtExecute}, le32(7), []byte{0}, le32(1), []byte{2, 0}, le32(5))
	if err := p.outbound(packets(0, again)); err == nil {
		t.Error("an execute without types passes before one with")
	}
	p, m = observing(observerConfig{})
	p.client(t, command(comStmtPrepare, "SELECT ?, ?"))
	p.server(t, prepareOK(7, 0, 2), column, column, eofWith(0))
	p.client(t, executeOf(7, integer(4), str("x")), again)
	if got := show(m.of(recorder.TypeStatement)[1:]); got != `statement 2 execute of=1 "" int="4" varchar="x"
statement 3 execute of=1 "" int="5" varchar=null
` {
		t.Error(got)
	}
	// Of a statement that isn't known, and behind a type that servers don't agree on, the bytes are on record as they came.
	p.client(t, executeOf(8, integer(4)))
	p.client(t, executeOf(7, typedValue{typeBit, []byte("\x01a")}, str("x")))
	if got := show(m.of(recorder.TypeStatement)[3:]); got != "statement 4 execute \"\" unknown=hex:0001030004000000\nstatement 5 execute of=1 \"\" unknown=hex:01610178\n" {
		t.Error(got)
	}
}

// TestAttributes: query attributes are parameters with names, of a query and of an execute.
func TestAttributes(t *testing.T) {
	p, m := observing(observerConfig{caps: capQueryAttributes})
	named := func(typ uint16, name string) []byte { return glue(le16(typ), appendLenencBytes(nil, name)) }
	p.client(t, glue([]byte{comQuery, 3, 1, 4, 1}, named(typeString, "trace"), named(typeLong, "n"), named(typeLong, "none"), []byte("\x03abc"), le32(7), []byte("SELECT 1")),
		command(comQuery, "\x00\x01SELECT 2"), command(comStmtPrepare, "SELECT ?"))
	p.server(t, okWith(0))
	p.server(t, okWith(0))
	p.server(t, prepareOK(7, 0, 1), column, eofWith(0))
	p.client(t, glue([]byte{comStmtExecute}, le32(7), []byte{flagCountAvailable}, le32(1), []byte{2, 0, 1}, named(typeLong, ""), named(typeString, "trace"), le32(9), []byte("\x01x")))
	if got := show(m.of(recorder.TypeStatement)); got != `statement 1 simple "SELECT 1" trace:char="abc" n:int="7" none:int=null
statement 2 simple "SELECT 2"
statement 3 prepare "SELECT ?"
statement 4 execute of=3 "" int="9" trace:char="x"
` {
		t.Error(got)
	}
}

// TestViolations: what no client sends is not forwarded, and ends the session.
func TestViolations(t *testing.T) {
	good := packets(0, []byte{comPing})
	prepareAnswer := packets(1, prepareOK(7, 0, 1), column, eofWith(0))
	executing := func(body ...byte) []byte {
		return packets(0, glue([]byte{comStmtExecute}, le32(7), []byte{0}, le32(1), body))
	}
	for name, b := range map[string][]byte{
		"sequence":            packets(1, []byte{comPing}),
		"no command":          packets(0, nil),
		"long ping":           packets(0, command(comPing, "x")),
		"short close":         packets(0, []byte{comStmtClose, 1}),
		"short execute":       packets(0, []byte{comStmtExecute, 7, 0, 0, 0}),
		"long init_db":        packets(0, command(comInitDB, strings.Repeat("x", 70<<10))),
		"no bits":             executing(),
		"no types":            executing(0),
		"short value":         executing(0, 1, typeLong, 0, 1, 2),
		"long string":         executing(0, 1, typeString, 0, 200, 'x'),
		"endless string":      executing(0, 1, typeString, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"NULL string":         executing(0, 1, typeString, 0, 0xfb),
		"odd date":            executing(0, 1, typeDate, 0, 5, 1, 2, 3, 4, 5),
		"odd flag":            executing(0, 2, typeLong, 0, 1, 2, 3, 4),
		"behind a long frame": append([]byte{0xff, 0xff, 0xff, 0, comQuery}, append(bytes.Repeat([]byte{' '}, maxFrame-1), 1, 0, 0, 7, 'x')...),
	} {
		p, m := observing(observerConfig{})
		p.client(t, command(comStmtPrepare, "SELECT ?"))
		if err := p.inbound(prepareAnswer); err != nil {
			t.Fatal(err)
		}
		p.write(t, good)
		before := len(p.to)
		err := p.outbound(b)
		var end *protocol.EndError
		if !errors.As(err, &end) || end.Code != recorder.EndViolation {
			t.Errorf("%s: %v", name, err)
		}
		if len(p.to) > before && name != "behind a long frame" {
			t.Errorf("%s: %q was forwarded", name, p.to[before:])
		}
		if len(m.of(recorder.TypeStatement)) != 2 && name != "behind a long frame" {
			t.Errorf("%s: on record as %s", name, show(m.all()))
		}
	}
}

// TestServerViolations: an answer that can't be followed ends the session before the client sees it.
func TestServerViolations(t *testing.T) {
	for name, answer := range map[string][]byte{
		"sequence":         packets(2, okWith(0)),
		"empty":            packets(1, nil),
		"no OK":            packets(1, []byte{packetOK}),
		"a file":           packets(1, []byte("\xfbx")),
		"no columns":       packets(1, []byte{packetEOF, 0, 0, 0, 0}),
		"twice":            append(packets(1, okWith(0)), packets(1, okWith(0))...),
		"EOF too early":    packets(1, []byte{2}, column, eofWith(0)),
		"rows out of step": append(packets(1, []byte{1}, column, eofWith(0)), packets(9, []byte{1, 'x'})...),
	} {
		p, _ := observing(observerConfig{})
		p.client(t, command(comQuery, "SELECT 1"))
		err := p.inbound(answer)
		var end *protocol.EndError
		if !errors.As(err, &end) || end.Code != recorder.EndServer {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A file that is asked for while something else has been sent behind would swallow that.
	p, _ := observing(observerConfig{level: protocol.Level{LocalInfile: true}})
	p.client(t, command(comQuery, "LOAD"), command(comQuery, "SELECT 1"))
	err := p.inbound(packets(1, []byte("\xfbx")))
	var end *protocol.EndError
	if !errors.As(err, &end) || end.Code != recorder.EndViolation || bytes.Contains(p.sent, []byte{packetLocal}) {
		t.Errorf("a file with a command behind: %v", err)
	}
}

// TestManyPrepared: a client that prepares without end makes the session remember no more than its limit.
func TestManyPrepared(t *testing.T) {
	p, _ := observing(observerConfig{})
	p.o.sink = sinkFunc(func(...recorder.Event) error { return nil })
	p.keep = false
	var values []typedValue
	for range 2000 {
		values = append(values, integer(1))
	}
	for i := range uint32(2000) {
		p.client(t, command(comStmtPrepare, "x"))
		p.server(t, prepareOK(i, 0, 2000))
		p.o.in.phase, p.o.in.left = phaseFirst, 0 // their definitions would only take time
		p.o.pop()
		p.client(t, executeOf(i, values...))
		p.server(t, okWith(0))
		if p.o.prepares.bytes > limitPrepared {
			t.Fatalf("%d bytes are remembered after %d", p.o.prepares.bytes, i)
		}
	}
	p.client(t, []byte{comResetConnection})
	p.server(t, okWith(0))
	if p.o.prepares.bytes != 0 || len(p.o.prepares.byHandle) != 0 {
		t.Error("statements outlive their connection")
	}
}

// TestValueSizes: for every type there is, the server takes as many bytes for a value as Curfew does, or
// refuses it; else what is on record would not be what ran.
func TestValueSizes(t *testing.T) {
	w := newWire(t, protocol.Level{})
	for typ := range uint16(256) {
		if unsure(typ) { // it is on record as raw bytes
			continue
		}
		c := w.raw(eofCaps)
		c.send(command(comStmtPrepare, "SELECT ?, ?"))
		handle := binary.LittleEndian.Uint32(c.packet(1)[1:])
		for seq := byte(2); seq < 6; seq++ {
			c.packet(seq)
		}
		raw := []byte("\x03abc")
		if n, fixed := fixedSize(typ); fixed {
			if raw = make([]byte, n); timeType(typ) {
				raw = []byte{0}
			}
		}
		c.send(executeOf(handle, typedValue{typ, raw}, str("END")))
		var row []byte
		for seq := byte(1); ; seq++ {
			p := c.packet(seq)
			if p[0] == packetErr {
				row = nil
				break
			}
			if p[0] == packetEOF {
				break
			}
			row = p
		}
		if row != nil && !bytes.HasSuffix(row, []byte("\x03END")) {
			t.Errorf("type %#x: the server read %q", typ, row)
		}
		c.quit()
		w.result()
	}
}
