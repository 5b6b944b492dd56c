package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// inbound is the state of what comes from the server.
type inbound struct {
	events []recorder.Event
	late   []recorder.Event // to come after the held result
	text   []byte           // what they point into, where they outlive the chunk
	chunk  []byte           // what Inbound was shown
	pass   uint32           // bytes left of a long message
	typ    byte             // its type
	now    int64            // 0: not asked yet in this chunk
	swap   []byte           // what is forwarded when it is not the chunk itself
	swapTo int              // how far swap replaces the chunk
	kept   bool             // swap holds something

	n        int // results of the Query so far
	rows     uint64
	bytes    uint64
	allRows  uint64 // of the session
	allBytes uint64
	firstRow int64
	copying  byte  // direction of the copy that is under way: msgCopyInResponse, msgCopyOutResponse; 0 = none
	meter    meter // copy data from the server
	executed uint64
	held     held
}

// held is a result that waits for the server's next message, which may tell the transaction state.
type held struct {
	on                 bool
	event              recorder.Event
	tag, code, message []byte
}

// Inbound pairs what the server sent with the statements it answers.
func (o *observer) Inbound(buf []byte) (n int, out []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.in.now, o.in.chunk, o.in.swap, o.in.swapTo, o.in.kept = 0, buf, o.in.swap[:0], 0, false
	n, err = o.scanIn(buf)
	if err == nil && o.limiter != nil {
		err = o.limit(n)
	}
	out = buf[:n]
	if o.in.kept {
		o.in.swap = append(o.in.swap, buf[o.in.swapTo:n]...)
		out = o.in.swap
	}
	if rerr := o.recordIn(); rerr != nil {
		return n, nil, rerr
	}
	return n, out, err
}

func (o *observer) recordIn() error {
	if len(o.in.events) == 0 {
		return nil
	}
	err := o.record(o.in.events)
	o.in.events, o.in.text = reset(o.in.events, room), reset(o.in.text, 4<<10)
	return err
}

// limit asks whether the client may see n bytes more, and all the rows that were counted. It asks no more once
// it may not: what comes then reaches nobody.
func (o *observer) limit(n int) error {
	o.in.allBytes += uint64(n)
	rows := o.in.allRows
	if o.in.copying == msgCopyOutResponse {
		rows += o.in.meter.chunks
	}
	err := o.limiter.Read(rows, o.in.allBytes)
	if err != nil {
		o.limiter = nil
		return &protocol.EndError{Code: recorder.EndLimit, Err: err}
	}
	return nil
}

// clock is the time of this chunk.
func (o *observer) clock() int64 {
	if o.in.now == 0 {
		o.in.now = int64(time.Since(o.base))
	}
	return o.in.now
}

// scanIn deals with all that can be dealt with. Rows are counted by their headers alone.
func (o *observer) scanIn(buf []byte) (pos int, err error) {
	for pos < len(buf) {
		rest := buf[pos:]
		if o.in.pass > 0 {
			n := o.passIn(rest)
			if n == 0 {
				return pos, nil
			}
			pos += n
			continue
		}
		if len(rest) < headerSize {
			return pos, nil
		}
		typ, size := rest[0], binary.BigEndian.Uint32(rest[1:])
		if size < 4 || size > 1<<31-2 {
			return pos, fromServer(fmt.Errorf("invalid length %d of message %q from the server", size, typ))
		}
		total := int(size) + 1
		if typ == msgDataRow && len(rest) >= headerSize+2 && total <= len(rest) {
			o.row(int(size), rest)
			pos += total
			continue
		}
		if typ == msgCopyData && o.in.copying == msgCopyOutResponse && o.in.meter.chunks > 0 {
			if n := o.in.meter.run(rest, o.whole); n > 0 {
				pos += n
				continue
			}
		}
		if len(o.in.events) >= batch {
			if err := o.recordIn(); err != nil {
				return pos, err
			}
		}
		n, err := o.messageIn(typ, int(size), rest, pos)
		if n == 0 || err != nil {
			return pos, err
		}
		pos += n
	}
	return pos, nil
}

func fromServer(err error) error { return &protocol.EndError{Code: recorder.EndServer, Err: err} }

// row counts a DataRow: size says all but how many columns it has.
func (o *observer) row(size int, rest []byte) {
	if o.in.held.on {
		o.emitHeld(recorder.TxUnknown)
	}
	if o.in.rows == 0 {
		o.in.firstRow = o.clock()
	}
	o.in.rows++
	o.in.allRows++
	o.in.bytes += uint64(max(0, size-6-4*int(binary.BigEndian.Uint16(rest[headerSize:]))))
}

// messageIn deals with one message, or with the beginning of a long one. It returns 0 when it must see more.
func (o *observer) messageIn(typ byte, size int, rest []byte, pos int) (int, error) {
	total := size + 1
	if total <= o.whole {
		if len(rest) < total {
			return 0, nil
		}
		return total, o.answer(typ, rest[headerSize:total], pos, total)
	}
	switch typ {
	case msgDataRow:
		if len(rest) < headerSize+2 {
			return 0, nil
		}
		o.row(size, rest)
	case msgCopyData:
		o.copyData(nil)
	case msgParameterDescription: // gathered as it comes
		if len(rest) < headerSize+2 {
			return 0, nil
		}
		o.describe(rest[headerSize+2 : headerSize+2])
		o.pass(typ, size-6)
		return headerSize + 2, nil
	default: // the beginning says what it is about
		if len(rest) < o.whole {
			return 0, nil
		}
		if err := o.answer(typ, rest[headerSize:o.whole], pos, o.whole); err != nil {
			return 0, err
		}
		o.pass(typ, total-o.whole)
		return o.whole, nil
	}
	o.pass(typ, size-4)
	return headerSize, nil
}

func (o *observer) pass(typ byte, n int) { o.in.typ, o.in.pass = typ, uint32(n) }

// passIn deals with more of a long message.
func (o *observer) passIn(b []byte) int {
	n := min(len(b), int(o.in.pass))
	switch o.in.typ {
	case msgCopyData:
		o.in.meter.add(b[:n])
	case msgParameterDescription:
		if n < int(o.in.pass) {
			n -= n % 4
		}
		o.describe(b[:n])
	}
	o.in.pass -= uint32(n)
	return n
}

// answer pairs a message with the request it answers.
func (o *observer) answer(typ byte, body []byte, pos, total int) error {
	switch typ { // what may come at any time
	case msgNoticeResponse:
		o.notice(body)
		return nil
	case msgNotification:
		o.notification(body)
		return nil
	case msgParameterStatus:
		o.setting(body)
		return nil
	case msgReadyForQuery:
		o.ready(body)
		return nil
	case msgErrorResponse:
		o.emitHeld(recorder.TxUnknown)
		return o.failure(body, pos, total)
	case msgCopyBothResponse:
		return fromServer(fmt.Errorf("the server began a replication stream, which can't be recorded"))
	}
	o.emitHeld(recorder.TxUnknown)
	head := o.queue.head()
	if head == nil {
		return nil
	}
	switch typ {
	case msgDataRow: // too long to be counted by its header
	case msgCopyData:
		o.copyData(body)
	case msgCommandComplete:
		tag, _, _ := cstring(body)
		o.complete(head, tag)
	case msgEmptyQueryResponse:
		o.complete(head, nil)
	case msgPortalSuspended:
		o.complete(head, []byte("portal suspended"))
	case msgCopyInResponse:
		o.beginCopyIn()
	case msgCopyOutResponse:
		o.in.copying = typ
		o.in.meter.reset()
	case msgFunctionCallResponse:
		if head.kind == msgFunctionCall {
			o.in.bytes = uint64(max(0, len(body)-4))
			o.hold(head.id, head.at, nil, nil, nil)
		}
	default:
		o.settle(typ, head, body)
	}
	return nil
}

// settle deals with the answers that carry no result.
func (o *observer) settle(typ byte, head *entry, body []byte) {
	kind := head.kind
	switch {
	case typ == msgParseComplete && kind == msgParse:
		head.def.confirmed = true
		o.names.recycle(head.prev)
	case typ == msgBindComplete && kind == msgBind:
		if p := o.names.portalOf(head.key); p.bind == head.id {
			p.confirmed = true
			o.names.setPortal(head.key, p)
		}
	case typ == msgCloseComplete && kind == msgClose:
		o.names.recycle(head.prev)
	case typ == msgParameterDescription && kind == msgDescribe:
		if len(body) >= 2 {
			o.describe(body[2:])
		}
		return // a RowDescription or NoData follows
	case (typ == msgRowDescription || typ == msgNoData) && kind == msgDescribe:
	default:
		return
	}
	o.queue.pop()
}

// setting notes what SQL is read by. The server tells before it is ready for the next request.
func (o *observer) setting(body []byte) {
	name, rest, _ := cstring(body)
	value, _, _ := cstring(rest)
	switch string(name) {
	case "standard_conforming_strings":
		o.settings.backslash = string(value) != "on"
	case "client_encoding":
		o.settings.width = widthOf(string(value))
	}
}

// describe takes more types of the described statement's parameters: the server's word goes over Parse's.
func (o *observer) describe(oids []byte) {
	head := o.queue.head()
	if head == nil || head.kind != msgDescribe || head.def == nil {
		return
	}
	def := head.def
	before := def.size()
	if !head.settled {
		head.settled = true
		def.oids = def.oids[:0]
	}
	for ; len(oids) >= 4; oids = oids[4:] {
		def.oids = append(def.oids, binary.BigEndian.Uint32(oids))
	}
	if head.key.n > 0 && o.names.statement(head.key) == def {
		o.names.bytes += def.size() - before
	}
}

// beginCopyIn: from here to the end of the copy data the server takes no notice of Sync, unless the copy
// fails before it has read it.
func (o *observer) beginCopyIn() {
	o.in.copying = msgCopyInResponse
	o.copyOpen = true
	for i := 1; i < o.queue.n; i++ {
		switch e := o.queue.at(i); {
		case e.kind == msgSync:
			e.kind = 0
		case e.kind == 0, (e.kind == msgCopyDone || e.kind == msgCopyFail) && e.settled:
		default: // the end of the data, or a request that the server hangs up on amid them
			o.copyOpen = false
			return
		}
	}
}

// copyData measures one message of copy data from the server; of a long one the data comes later.
func (o *observer) copyData(data []byte) {
	if o.in.meter.chunks == 0 {
		o.in.firstRow = o.clock()
	}
	o.in.meter.chunks++
	o.in.meter.add(data)
}

// complete ends one result of head, and head itself unless it is a Query, which may have more.
func (o *observer) complete(head *entry, tag []byte) {
	switch head.kind {
	case msgQuery, msgExecute:
	default:
		return
	}
	o.endTransfer(head, tag)
	o.hold(head.id, head.at, tag, nil, nil)
	if string(tag) == "DISCARD ALL" || bytes.HasPrefix(tag, []byte("DEALLOCATE")) {
		o.names.forgetStatements()
	}
	if head.kind == msgExecute {
		o.in.executed = head.id
		o.in.n = 0
		o.queue.pop()
	}
}

// ready is the server's word that a Query, a FunctionCall or what came up to a Sync is done.
func (o *observer) ready(body []byte) {
	tx := recorder.TxUnknown
	if len(body) == 1 {
		switch body[0] {
		case 'I':
			tx = recorder.TxIdle
		case 'T':
			tx = recorder.TxOpen
		case 'E':
			tx = recorder.TxFailed
		}
	}
	o.emitHeld(tx)
	answered := o.in.n > 0
	o.in.n, o.in.executed = 0, 0
	o.clearResult()
	if head := o.queue.head(); head != nil {
		switch head.kind {
		case msgSync:
			o.queue.pop()
		case msgQuery, msgFunctionCall:
			if answered { // else it answers a Sync that came amid the data of a copy which failed before it
				o.queue.pop()
			}
		}
	}
	o.settings.known = o.queue.head() == nil
	if tx == recorder.TxIdle && o.queue.n == 0 && (len(o.names.portals) > 0 || o.names.portal.bind > 0) {
		o.names.forgetPortals()
	}
}
