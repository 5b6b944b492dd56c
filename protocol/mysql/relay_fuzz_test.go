package mysql

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

const (
	fuzzMariaDB = 1 << iota
	fuzzEOF
	fuzzAttributes
	fuzzExtra
	fuzzXA
	fuzzFiles
)

// fuzzConfig makes an observer's configuration of a byte.
func fuzzConfig(whole int, flags byte) observerConfig {
	c := observerConfig{whole: whole, caps: capMultiStatements, status: statusAutocommit, mariadb: flags&fuzzMariaDB != 0, extra: flags&fuzzExtra != 0}
	if flags&fuzzEOF != 0 {
		c.caps |= capDeprecateEOF | capSessionTrack
	}
	if flags&fuzzAttributes != 0 {
		c.caps |= capQueryAttributes
		if c.mariadb {
			c.caps |= capCacheMetadata | capProgress
		}
	}
	c.level.PreparedTransactions, c.level.LocalInfile = flags&fuzzXA != 0, flags&fuzzFiles != 0
	c.kill = func(id uint64) (uint32, bool, error) { return 4711, id%2 == 0, nil }
	return c
}

// dialogue is one that has a bit of everything.
func dialogue() (client, server []byte) {
	words := strings.Repeat("tr\xc3\xbcb ", 100)
	client = packets(0, command(comQuery, "SELECT 1; SELECT 2"))
	for _, c := range [][]byte{
		command(comStmtPrepare, "SELECT ?, ?, ?, ? -- "+words), command(comInitDB, "test"), command(comQuery, "KILL QUERY 4294967294"), glue([]byte{comProcessKill}, le32(1<<31)),
		command(comQuery, "INSERT INTO t VALUES ('"+words+"'); XA START 'a'; "+words), command(comChangeUser, "root\x00"), {comPing}, command(comFieldList, "t\x00%"), {comStatistics},
	} {
		client = appendPacket(client, 0, c)
	}
	when := typedValue{typeDatetime, []byte{11, 0xea, 7, 2, 28, 23, 59, 58, 7, 0, 0, 0}}
	execute := executeOf(7, integer(7), str(words), when, typedValue{typeNull, nil})
	sent := executeOf(7, integer(7), typedValue{typeLongBlob, []byte{}}, when, typedValue{typeNull, nil}) // its value was sent before
	for _, c := range [][]byte{
		execute, glue([]byte{comStmtLongData}, le32(7), le16(1), []byte(words)), sent, fetch(7, 3), glue([]byte{comStmtClose}, le32(7)),
		command(comQuery, "LOAD DATA LOCAL INFILE 'x' INTO TABLE t"),
	} {
		client = appendPacket(client, 0, c)
	}
	client = glue(client, packets(2, []byte(words), []byte{}), packets(0, []byte{comQuit}))
	row := glue([]byte{0xfb, 1}, []byte("x"))
	server = glue(
		packets(1, []byte{1}, column, eofWith(0), row, row, eofWith(statusMoreResults), []byte{1}, column, eofWith(0), eofWith(statusInTrans)),
		packets(1, prepareOK(7, 1, 4), column, column, column, column, eofWith(0), column, eofWith(0)),
		packets(1, okWith(0)), packets(1, okWith(0)), packets(1, okWith(0)),
		packets(1, okWith(statusMoreResults), errWith(errnoParse, "42000", "near"+words)), packets(1, okWith(0)), packets(1, okWith(0)),
		packets(1, column, column, eofWith(0)), packets(1, []byte("Uptime: 1")),
		packets(1, []byte{1}, column, eofWith(0), []byte("\x00\x00"+words), eofWith(0)),
		packets(1, []byte{1}, column, eofWith(statusCursorExists)), packets(1, []byte("\x00\x00x"), eofWith(statusLastRowSent)),
		packets(1, []byte("\xfbx")), packets(4, okWith(0)), packets(0, errWith(1927, "70100", "killed")))
	return client, server
}

// cutter says how long the next piece is.
type cutter struct {
	sizes []byte
	i     int
}

func (c *cutter) cut(b []byte) (piece, rest []byte) {
	n := len(b)
	if len(c.sizes) > 0 {
		n = min(n, 1+int(c.sizes[c.i%len(c.sizes)]))
		c.i++
	}
	return b[:n], b[n:]
}

// frame cuts off the first frame.
func frame(b []byte) (first, rest []byte) {
	if len(b) < headerSize {
		return b, nil
	}
	size, _ := frameHeader(b)
	n := min(len(b), headerSize+size)
	return b[:n], b[n:]
}

// converse feeds a dialogue as it would go over the wire, each frame in pieces: the server speaks while
// something is unanswered. It gives all that came of it.
func converse(c observerConfig, client, server, sizes []byte) (told string, events []recorder.Event, toServer, toClient []byte) {
	p, m := observing(c)
	cut := cutter{sizes: sizes}
	var err error
	for len(client)+len(server) > 0 && err == nil {
		var next []byte
		side := p.inbound
		if len(client) > 0 && (len(server) == 0 || p.o.queue.n == 0 || waiting(p)) {
			side = p.outbound
			next, client = frame(client)
		} else {
			next, server = frame(server)
		}
		for len(next) > 0 && err == nil {
			var piece []byte
			piece, next = cut.cut(next)
			err = side(piece)
		}
	}
	flushed := p.o.flush()
	events = m.all()
	told = fmt.Sprintf("%s%v %v", show(events), err, flushed)
	return told, events, p.to, p.sent
}

// waiting says whether the server waits for a file.
func waiting(p *pump) bool { return p.o.file.on && !p.o.file.ended }

// feedBoth feeds one side after the other, in pieces.
func feedBoth(c observerConfig, client, server, sizes []byte) (told string, toServer, toClient []byte) {
	p, m := observing(c)
	cut := cutter{sizes: sizes}
	var outErr, inErr error
	for len(client) > 0 && outErr == nil {
		var piece []byte
		piece, client = cut.cut(client)
		outErr = p.outbound(piece)
	}
	for len(server) > 0 && inErr == nil {
		var piece []byte
		piece, server = cut.cut(server)
		inErr = p.inbound(piece)
	}
	flushed := p.o.flush()
	return fmt.Sprintf("%s%v %v %v %d %d", show(m.all()), outErr, inErr, flushed, p.o.inFlight(), p.o.prepares.bytes), p.to, p.sent
}

// TestDialogue: the dialogue that fuzzing begins with says what it should, in any pieces.
func TestDialogue(t *testing.T) {
	client, server := dialogue()
	c := fuzzConfig(minWhole, fuzzMariaDB|fuzzFiles)
	whole, events, to, from := converse(c, client, server, nil)
	if !strings.Contains(whole, "copy of=16") || !strings.HasSuffix(whole, "<nil> <nil>") {
		t.Fatal(whole)
	}
	if len(to) != len(client) || bytes.Contains(to, []byte("XA START 'a'")) || len(events) < 40 {
		t.Error("what the server was sent is not what the client sent")
	}
	for _, sizes := range [][]byte{{0}, {1}, {2, 0, 30}, {100}, {255, 3}} {
		pieces, _, to2, from2 := converse(c, client, server, sizes)
		if whole != pieces || !bytes.Equal(to, to2) || !bytes.Equal(from, from2) {
			t.Errorf("in one piece:\n%s\nin pieces of %v:\n%s", whole, sizes, pieces)
		}
	}
}

// FuzzObserver: whatever both sides send, nothing panics, memory stays bounded, and the events are the
// same however the network slices the bytes. Nothing is forwarded that was not sent.
func FuzzObserver(f *testing.F) {
	client, server := dialogue()
	for _, flags := range []byte{fuzzMariaDB | fuzzFiles, fuzzEOF, fuzzAttributes | fuzzXA, fuzzExtra, 0xff} {
		f.Add(client, server, []byte{0}, flags)
		f.Add(client, server, []byte{6, 1, 200, 3}, flags)
	}
	attributes := glue([]byte{comQuery, 2, 1, 2, 1}, le16(typeString), []byte("\x01k"), le16(typeLong), []byte("\x01n"), []byte("\x03abc"), []byte("SELECT 1"))
	f.Add(packets(0, attributes), packets(1, okWith(0)), []byte{3}, byte(fuzzAttributes))
	f.Add(packets(0, attributed(0x100|typeTiny, 0, "\x08SELECT 1DROP")), packets(1, okWith(0)), []byte{3}, byte(fuzzAttributes))
	f.Add(packets(0, command(comQuery, "XA PREPARE 'A','B',"+strings.Repeat(" ", minWhole)+"4294967295")), packets(1, okWith(0)), []byte{3}, byte(fuzzXA))
	f.Add([]byte("\xff\xff\xff\x00\x03"), []byte("\x01\x00\x00\x01\x00"), []byte{2}, byte(0))
	f.Fuzz(func(t *testing.T, client, server, sizes []byte, flags byte) {
		if len(client) > 1<<16 || len(server) > 1<<16 {
			return
		}
		c := fuzzConfig(minWhole, flags)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		whole, to, from := feedBoth(c, client, server, nil)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%d bytes were allocated for %d", n, len(client)+len(server))
		}
		pieces, to2, from2 := feedBoth(c, client, server, sizes)
		if whole != pieces {
			t.Errorf("in one piece:\n%s\nin pieces:\n%s", whole, pieces)
		}
		if !bytes.Equal(to, to2) || !bytes.Equal(from, from2) {
			t.Error("what is forwarded depends on the slices")
		}
		if len(to) > len(client) {
			t.Error("more was forwarded than was sent")
		}
		converse(c, client, server, sizes)
	})
}

// FuzzParts: a packet that is recorded in parts says the same as one that is recorded whole.
func FuzzParts(f *testing.F) {
	client, server := dialogue()
	f.Add(client, server, byte(fuzzFiles))
	long := executeOf(7, typedValue{typeBlob, appendLenencBytes(nil, bytes.Repeat([]byte{0xff}, 500))}, str(strings.Repeat("\xe2\x9c\x93", 300)), integer(1), integer(2))
	f.Add(packets(0, command(comStmtPrepare, "SELECT ?, ?, ?, ?")), packets(1, prepareOK(7, 0, 4), column, column, column, column, eofWith(0)), byte(0))
	f.Add(glue(packets(0, command(comStmtPrepare, "SELECT ?, ?, ?, ?")), packets(0, long)), packets(1, prepareOK(7, 0, 4), column, column, column, column, eofWith(0)), byte(0))
	f.Fuzz(func(t *testing.T, client, server []byte, flags byte) {
		if len(client) > defaultWhole || bytes.Contains(bytes.ToLower(client), []byte("xa")) || flags&fuzzExtra != 0 {
			return
		}
		told, parts, to, _ := converse(fuzzConfig(minWhole, flags), client, server, nil)
		told2, wholes, to2, _ := converse(fuzzConfig(defaultWhole, flags), client, server, nil)
		if strings.Contains(told+told2, recorder.EndViolation) || strings.Contains(told+told2, recorder.EndServer) || len(to) != len(client) || len(to2) != len(client) {
			return // some of a malformed packet may be on record in parts; or a name was too long for a part
		}
		if unfinished(parts) || unfinished(wholes) {
			return
		}
		got, want := joined(t, parts), joined(t, wholes)
		if len(got) != len(want) {
			t.Fatalf("%d statements in parts, %d whole", len(got), len(want))
		}
		for id, w := range want {
			g := got[id]
			if g == nil || !bytes.Equal(g.Text, w.Text) || g.Kind != w.Kind || g.Of != w.Of || !bytes.Equal(g.Name, w.Name) || len(g.Params) != len(w.Params) {
				t.Fatalf("statement %d: in parts %s, whole %s", id, show([]recorder.Event{*g}), show([]recorder.Event{*w}))
			}
			for i := range w.Params {
				if g.Params[i].Type != w.Params[i].Type || !bytes.Equal(g.Params[i].Value, w.Params[i].Value) {
					t.Fatalf("statement %d, parameter %d: in parts %q, whole %q", id, i, g.Params[i].Value, w.Params[i].Value)
				}
			}
		}
	})
}

// unfinished says whether a statement has no end.
func unfinished(events []recorder.Event) bool {
	more := map[uint64]bool{}
	for _, e := range events {
		if e.Type == recorder.TypeStatement || e.Type == recorder.TypePart {
			more[e.ID] = e.More
		}
	}
	for _, m := range more {
		if m {
			return true
		}
	}
	return false
}

// joined puts the parts of statements together again.
func joined(t *testing.T, events []recorder.Event) map[uint64]*recorder.Event {
	t.Helper()
	all := map[uint64]*recorder.Event{}
	for _, e := range events {
		switch e.Type {
		case recorder.TypeStatement:
			whole := copyEvent(e)
			all[e.ID] = &whole
		case recorder.TypePart:
			whole := all[e.ID]
			if whole == nil || !whole.More {
				t.Fatalf("a part of statement %d that has none to come", e.ID)
			}
			if e.Field == recorder.FieldText || whole.Kind == recorder.KindExecute {
				whole.More = e.More
			}
			whole.Text = append(whole.Text, e.Text...)
			for i, p := range e.Params {
				if n := len(whole.Params); i == 0 && n > 0 && whole.Params[n-1].More {
					if e.Index != n-1 {
						t.Fatalf("statement %d: a part goes on with parameter %d, not %d", e.ID, e.Index, n-1)
					}
					last := &whole.Params[n-1]
					last.Value, last.More = append(last.Value, p.Value...), p.More
					continue
				}
				if i == 0 && e.Index != len(whole.Params) {
					t.Fatalf("statement %d: a part begins with parameter %d, not %d", e.ID, e.Index, len(whole.Params))
				}
				whole.Params = append(whole.Params, p)
			}
		}
	}
	return all
}

// FuzzLexer: the same is found however the text is sliced.
func FuzzLexer(f *testing.F) {
	f.Add([]byte("XA START 'a'; SELECT '\\'' `x` /*! /* */ \"y\" -- x\n # z\n */"), uint8(3), uint8(0))
	f.Add([]byte("PREPARE s FROM 'SELECT 1' USING @a; EXECUTE IMMEDIATE 'xa' \x83\\"), uint8(0), uint8(0xff))
	f.Add([]byte("XA PREPARE 'a', X'6263', 7; XA PREPARE 0x61"), uint8(1), uint8(0x80))
	f.Add([]byte("SELECT 1--- '\n5*/*'*/3; PREPARE a\x81@ FROM @v; l: LOOP EXECUTE IMMEDIATE \xe9"), uint8(2), uint8(32))
	for i, text := range ordinary {
		f.Add([]byte(text), uint8(i), uint8(32))
	}
	f.Fuzz(func(t *testing.T, text []byte, size, flags uint8) {
		with := lexer{dynamic: flags&32 != 0, dollars: flags&64 != 0, allowed: flags&128 != 0}
		whole, pieces := with, with
		whole.begin()
		pieces.begin()
		at := whole.scan(text, true)
		xids := fmt.Sprintf("%q", whole.xid.take())
		rest, from, found := text, 0, -1
		for n := int(size) + 1; len(rest) > n && found < 0; rest = rest[n:] {
			if found = pieces.scan(rest[:n], false); found >= 0 {
				found += from
			}
			from += n
		}
		if found < 0 {
			if found = pieces.scan(rest, true); found >= 0 {
				found += from
			}
		}
		if pieces.found != whole.found || pieces.from != whole.from || at != whole.from && at >= 0 || found < at {
			t.Errorf("found %d at %d whole, %d at %d in pieces", whole.found, at, pieces.found, found)
		}
		if got := fmt.Sprintf("%q", pieces.xid.take()); got != xids {
			t.Errorf("xids %s whole, %s in pieces", xids, got)
		}
		if at >= 0 && !with.mayMatter(text) {
			t.Errorf("%d is found in a text that is not even looked at", whole.found)
		}
	})
}

// FuzzValues: a binary value from a client decodes to text of a size in proportion, or not at all.
func FuzzValues(f *testing.F) {
	for typ := range 256 {
		f.Add(uint16(typ), []byte{11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
		f.Add(uint16(typ)|flagUnsigned, bytes.Repeat([]byte{0xff}, 16))
	}
	f.Fuzz(func(t *testing.T, typ uint16, v []byte) {
		p, m := observing(observerConfig{})
		p.client(t, command(comStmtPrepare, "SELECT ?"))
		p.server(t, prepareOK(7, 0, 1), column, eofWith(0))
		err := p.outbound(packets(0, executeOf(7, typedValue{typ, v})))
		var end *protocol.EndError
		if err != nil && !(errors.As(err, &end) && end.Code == recorder.EndViolation) {
			t.Fatal(err)
		}
		for _, e := range m.of(recorder.TypeStatement) {
			for _, param := range e.Params {
				if len(param.Value) > 64*len(v)+1024 {
					t.Errorf("%d bytes of text for %d", len(param.Value), len(v))
				}
			}
		}
	})
}
