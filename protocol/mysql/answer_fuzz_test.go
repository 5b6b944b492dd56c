package mysql

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/curfewdb/curfew/recorder"
)

// FuzzInterleaved: both sides at once, in pieces: nothing panics, results point at statements that are on
// record, and a statement is recorded before its result.
func FuzzInterleaved(f *testing.F) {
	client, server := dialogue()
	for _, flags := range []byte{fuzzMariaDB | fuzzFiles, fuzzEOF, fuzzAttributes | fuzzXA, 0xff} {
		f.Add(client, server, []byte{0}, flags)
		f.Add(client, server, []byte{60, 10, 255}, flags)
	}
	f.Fuzz(func(t *testing.T, client, server, sizes []byte, flags byte) {
		p, m := observing(fuzzConfig(minWhole, flags))
		c := cutter{sizes: sizes}
		for len(client) > 0 || len(server) > 0 {
			var piece []byte
			piece, client = c.cut(client)
			if p.outbound(piece) != nil {
				client = nil
			}
			piece, server = c.cut(server)
			if p.inbound(piece) != nil {
				server = nil
			}
		}
		seen := uint64(0)
		for _, e := range m.all() {
			if e.Type == recorder.TypeStatement {
				if e.ID != seen+1 || e.Of >= e.ID {
					t.Fatalf("statement %d of %d behind %d", e.ID, e.Of, seen)
				}
				seen = e.ID
			} else if e.Of > seen {
				t.Fatalf("%s of statement %d, which is not on record", e.Type, e.Of)
			}
		}
	})
}

// honest is a server that answers as servers do, told by the bytes of a program what, and a client beside it.
type honest struct {
	program  []byte
	caps     capability
	mariadb  bool
	handle   uint32 // of the last prepared statement
	open     bool   // it is
	commands [][]byte
	answers  [][]byte // nil: the command has none
	want     []string // results that must be on record
}

func (h *honest) next() (b byte) {
	if len(h.program) > 0 {
		b, h.program = h.program[0], h.program[1:]
	}
	return b
}

// status is a server's, with what may follow it.
func (h *honest) status(more bool) (s uint16) {
	s = statusAutocommit
	if h.next()&1 != 0 {
		s |= statusInTrans
	}
	if more {
		s |= statusMoreResults
	}
	return s
}

// result expects one.
func (h *honest) result(rows uint64, errno uint16, status uint16) {
	tx := txOf(status)
	if errno != 0 {
		tx = recorder.TxUnknown
	}
	h.want = append(h.want, fmt.Sprintf("rows=%d errno=%d tx=%s", rows, errno, tx))
}

// ok is an OK packet, with changes of the session's state now and then.
func (h *honest) ok(status uint16) []byte {
	ok := okPacket{affected: uint64(h.next()) << (h.next() % 57), warnings: uint16(h.next()), status: status}
	if h.caps&capSessionTrack != 0 && h.next()&1 != 0 {
		ok.status |= statusSessionStateChanged
		ok.info, ok.state = []byte("Rows matched: 1"), appendLenencBytes([]byte{1}, "shop")
	}
	h.result(ok.affected, 0, status)
	return appendOK(nil, ok, h.caps|capProtocol41)
}

// end is what stands behind rows and definitions.
func (h *honest) end(status uint16) []byte {
	if h.caps&capDeprecateEOF == 0 {
		return eofWith(status)
	}
	b := appendOK(nil, okPacket{status: status}, h.caps|capProtocol41)
	b[0] = packetEOF
	return b
}

// definitions are those of n columns.
func (h *honest) definitions(n int) (list [][]byte) {
	for range n {
		list = append(list, column)
	}
	if n > 0 && h.caps&capDeprecateEOF == 0 {
		list = append(list, eofWith(statusAutocommit))
	}
	return list
}

func (h *honest) fails() []byte {
	errno := 1000 + uint16(h.next())
	h.result(0, errno, 0)
	return errWith(errno, "42000", "no")
}

// rows are a result that has columns, whole or broken off by an error.
func (h *honest) rows(status uint16) (list [][]byte) {
	n := 1 + int(h.next()%5)
	head := []byte{byte(n)}
	if h.caps&(capOptionalMetadata|capCacheMetadata) != 0 {
		if head = append(head, h.next()&1); head[1] == 0 {
			n = 0
		}
	}
	list = append(list, head)
	if n == 0 && h.caps&capDeprecateEOF == 0 {
		list = append(list, eofWith(statusAutocommit))
	}
	list = append(list, h.definitions(n)...)
	kinds := [][]byte{{0xfb}, {1, 'x'}, {0, 0, 7}, appendLenencBytes(nil, bytes.Repeat([]byte{0xfe}, 300)), append([]byte{packetEOF}, bytes.Repeat([]byte{1}, 8)...)}
	rows := int(h.next())
	for range rows {
		kind := kinds[rows%len(kinds)]
		if kind[0] == packetEOF && h.caps&capDeprecateEOF != 0 {
			kind = kinds[1] // as long as a frame at least, or it would be no row
		}
		list = append(list, kind)
	}
	if h.next()%8 == 7 {
		e := h.fails()
		h.want[len(h.want)-1] = fmt.Sprintf("rows=%d errno=%d tx=%s", rows, uint16(e[1])|uint16(e[2])<<8, recorder.TxUnknown)
		return append(list, e)
	}
	h.result(uint64(rows), 0, status)
	return append(list, h.end(status))
}

// answer is a statement's: some results, perhaps an error behind them.
func (h *honest) answer() (list [][]byte) {
	for n := h.next() % 4; ; n-- {
		status := h.status(n > 0)
		switch h.next() % 4 {
		case 0:
			return append(list, h.fails())
		case 1:
			list = append(list, h.ok(status))
		default:
			if list = append(list, h.rows(status)...); list[len(list)-1][0] == packetErr {
				return list
			}
		}
		if n == 0 {
			return list
		}
	}
}

// say adds a command and its answer.
func (h *honest) say(command []byte, answer ...[]byte) {
	h.commands = append(h.commands, appendPacket(nil, 0, command))
	if answer == nil {
		h.answers = append(h.answers, nil)
		return
	}
	if h.caps&capProgress != 0 && command[0] == comQuery && h.next()&1 != 0 {
		answer = append([][]byte{append([]byte("\xff\xff\xff\x01\x01\x02\x00\x00\x00"), "\x05Stage"...)}, answer...)
	}
	h.answers = append(h.answers, packets(1, answer...))
}

// step is one command.
func (h *honest) step() {
	last := le32(h.handle)
	if h.mariadb && h.next()&1 != 0 {
		last = []byte{0xff, 0xff, 0xff, 0xff} // the one that was prepared last
	}
	switch op := h.next() % 10; {
	case op == 2:
		columns, params := int(h.next()%3), int(h.next()%3)
		if h.next()%8 == 0 {
			h.open = false
			h.say(command(comStmtPrepare, "SELECT"), h.fails())
			return
		}
		h.handle, h.open = h.handle+1, true
		answer := append([][]byte{prepareOK(h.handle, uint16(columns), uint16(params))}, h.definitions(params)...)
		if h.caps&capOptionalMetadata != 0 {
			answer[0] = append(answer[0], 1)
		}
		h.say(command(comStmtPrepare, "SELECT 1"), append(answer, h.definitions(columns)...)...)
		h.open = params == 0
	case op == 3 && h.open:
		h.say(glue([]byte{comStmtExecute}, last, []byte{0}, le32(1)), h.answer()...)
	case op == 4:
		h.result(0, 0, 0)
		h.want[len(h.want)-1] = "rows=0 errno=0 tx=" + string(recorder.TxUnknown)
		h.say([]byte{comStatistics}, []byte("Uptime: 1"))
	case op == 5:
		h.say([]byte{comPing}, h.ok(h.status(false)))
	case op == 6:
		status := h.status(false)
		answer := h.definitions(int(h.next() % 3))
		if n := len(answer); n > 0 && h.caps&capDeprecateEOF == 0 {
			answer = answer[:n-1]
		}
		h.result(0, 0, status)
		h.say(command(comFieldList, "t\x00%"), append(answer, h.end(status))...)
	case op == 7:
		h.open = false
		h.say([]byte{comResetConnection}, h.ok(h.status(false)))
	case op == 8:
		status := h.status(false)
		h.result(0, 0, status)
		h.say([]byte{comSetOption, 0, 0}, h.end(status))
	case op == 9 && h.open:
		h.open = false
		h.say(glue([]byte{comStmtClose}, last))
	default:
		h.say(command(comQuery, "SELECT 1"), h.answer()...)
	}
}

// FuzzAnswers: whatever an honest server answers to whatever is asked of it, however it is pipelined and sliced,
// each answer is paired with its command, its rows are counted, and both sides read what the other sent.
func FuzzAnswers(f *testing.F) {
	for _, flags := range []byte{0, fuzzEOF, fuzzMariaDB | fuzzAttributes, fuzzMariaDB | fuzzAttributes | fuzzEOF, 0x40 | fuzzEOF} {
		f.Add([]byte{2, 1, 1, 1, 3, 2, 1, 2, 200, 0, 3, 1, 1, 4, 5, 1, 6, 1, 2, 9, 0, 3, 1, 2, 3, 100, 7}, []byte{0}, flags)
		f.Add([]byte{0, 2, 0, 0, 1, 0, 3, 0, 1, 2, 0, 5, 0, 9, 0, 8, 1, 7, 0, 2, 0, 0, 1, 0, 3, 3, 1, 1, 1, 2, 2, 1, 3, 0, 0, 0, 6, 2, 4, 0, 4}, []byte{3, 60, 255}, flags)
	}
	f.Fuzz(func(t *testing.T, program, sizes []byte, flags byte) {
		if len(program) > 200 {
			return
		}
		c := fuzzConfig(minWhole, flags&^(fuzzExtra|fuzzXA))
		if flags&0x40 != 0 && !c.mariadb {
			c.caps |= capOptionalMetadata
		}
		c.caps &^= capQueryAttributes // another form of COM_QUERY, which is not this client's
		h := &honest{program: program, caps: c.caps, mariadb: c.mariadb}
		for len(h.program) > 0 {
			h.step()
		}
		p, m := observing(c)
		h.talk(t, p, cutter{sizes: sizes})
		var got []string
		for _, e := range m.of(recorder.TypeResult) {
			got = append(got, fmt.Sprintf("rows=%d errno=%d tx=%s", e.Rows, e.Errno, e.Tx))
		}
		if fmt.Sprint(got) != fmt.Sprint(h.want) {
			t.Errorf("results\n%q\n want\n%q", got, h.want)
		}
		if n := len(m.of(recorder.TypeStatement)); n != len(h.commands) {
			t.Errorf("%d statements of %d are on record", n, len(h.commands))
		}
	})
}

// talk plays both sides: the server answers what reached it, the client waits for nothing.
func (h *honest) talk(t *testing.T, p *pump, cut cutter) {
	client, server := bytes.Join(h.commands, nil), bytes.Join(h.answers, nil)
	sent, said, answered, due := client, []byte(nil), 0, 0
	for len(p.sent) < len(server) || len(p.to) < len(client) {
		before := len(p.sent) + len(p.to) + len(said) + len(sent)
		var piece []byte
		if len(p.held) < 8192 {
			piece, sent = cut.cut(sent)
		}
		if err := p.outbound(piece); err != nil {
			t.Fatalf("the client's side: %v", err)
		}
		for answered < len(h.commands) && len(p.to) >= due+len(h.commands[answered]) {
			due += len(h.commands[answered])
			said = append(said, h.answers[answered]...)
			answered++
		}
		piece, said = cut.cut(said)
		if err := p.inbound(piece); err != nil {
			t.Fatalf("the server's side: %v", err)
		}
		if len(piece) == 0 && before == len(p.sent)+len(p.to)+len(said)+len(sent) {
			t.Fatalf("nothing goes on: %d of %d bytes reached the server, %d of %d the client", len(p.to), len(client), len(p.sent), len(server))
		}
	}
	if err := p.o.flush(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.to, client) || !bytes.Equal(p.sent, server) {
		t.Error("what is forwarded is not what was sent")
	}
	if p.o.queue.n != 0 {
		t.Errorf("%d commands wait for an answer", p.o.queue.n)
	}
}
