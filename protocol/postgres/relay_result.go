package postgres

import (
	"bytes"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

// hold makes a result of what was counted; it is recorded when the server's next message has told, or
// not, what became of the transaction.
func (o *observer) hold(id uint64, at int64, tag, code, message []byte) {
	now := o.clock()
	h := &o.in.held
	h.on = true
	h.tag = append(h.tag[:0], tag...)
	h.code = append(h.code[:0], code...)
	h.message = append(reset(h.message, 4<<10), message...)
	rows := o.in.rows
	if rows == 0 {
		rows = tagRows(tag)
	}
	h.event = recorder.Event{
		Type: recorder.TypeResult, Of: id, N: o.in.n, Tag: h.tag, Rows: rows, Bytes: o.in.bytes,
		Duration: time.Duration(max(0, now-at)), Code: h.code, Message: h.message,
	}
	if o.in.firstRow > 0 {
		h.event.FirstRow = time.Duration(max(1, o.in.firstRow-at))
	}
	o.in.n++
	o.clearResult()
}

func (o *observer) clearResult() {
	o.in.rows, o.in.bytes, o.in.firstRow = 0, 0, 0
}

// emitHeld lets go of a held result.
func (o *observer) emitHeld(tx recorder.Tx) {
	h := &o.in.held
	if !h.on {
		return
	}
	h.on = false
	h.event.Tx = tx
	// Another result may be held in the same buffers before this one is recorded.
	h.event.Tag, h.event.Code, h.event.Message = o.keep(h.tag), o.keep(h.code), o.keep(h.message)
	o.in.events = append(o.in.events, h.event)
	if len(o.in.late) > 0 {
		o.in.events = append(o.in.events, o.in.late...)
		o.in.late = nil
	}
}

// keep copies b to where it stays until the events are recorded.
func (o *observer) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	from := len(o.in.text)
	o.in.text = append(o.in.text, b...)
	return o.in.text[from:len(o.in.text):len(o.in.text)]
}

// tagRows is the number at the end of a command tag.
func tagRows(tag []byte) (n uint64) {
	i := bytes.LastIndexByte(tag, ' ')
	for _, c := range tag[i+1:] {
		if c < '0' || c > '9' || n > 1<<59 {
			return 0
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}

// endTransfer records a bulk transfer that head was doing, if it was.
func (o *observer) endTransfer(head *entry, tag []byte) {
	if o.in.copying == 0 {
		return
	}
	event := recorder.Event{Type: recorder.TypeCopy, Of: head.id, N: o.in.n, Duration: time.Duration(max(0, o.clock()-head.at))}
	var d *digest
	if o.in.copying == msgCopyOutResponse {
		event.Direction = "out"
		d = o.in.meter.digest()
		o.in.meter.reset()
		event.Rows = d.chunks // a row a message in text and CSV
		o.in.allRows += d.chunks
	} else {
		event.Direction = "in"
		d = o.copiedIn()
	}
	if rows := tagRows(tag); rows > 0 {
		event.Rows = rows
	}
	event.Bytes, event.SHA256 = d.bytes, d.sum[:]
	o.in.events = append(o.in.events, event)
	o.in.copying, o.copyOpen = 0, false
	o.in.bytes = d.bytes
}

// copiedIn is what the client sent for the copy that has just ended: up to its CopyDone or CopyFail, or
// what it has sent so far if the server did not wait for that.
func (o *observer) copiedIn() *digest {
	for i := 1; i < o.queue.n; i++ {
		if e := o.queue.at(i); e.copied != nil && !e.settled {
			e.settled = true
			return e.copied
		}
	}
	return o.out.meter.digest()
}

// failure pairs an error with the request that failed, as the server does: it then skips to the Sync
// unless the request was a Query or a FunctionCall.
func (o *observer) failure(body []byte, pos, total int) error {
	r := parseWords(body)
	o.dying = o.dying || r.fatal()
	head := o.queue.head()
	if head == nil {
		o.say(r, 0)
		return nil
	}
	code, message := r.code, r.message
	if head.ours && string(code) == stateProtocol && !r.fatal() {
		code, message = []byte(stateForbidden), []byte(o.refusal())
		o.replace(pos, total, appendError(nil, "ERROR", stateForbidden, o.refusal()))
	}
	o.endTransfer(head, nil)
	of := head.id
	if head.kind == msgSync {
		of = o.in.executed // what it did could not be committed
	}
	o.hold(of, head.at, nil, code, message)
	if r.fatal() {
		return nil
	}
	switch head.kind {
	case msgQuery, msgFunctionCall, msgSync:
	default:
		o.in.n = 0
		head.settled = true // it has its result
		return o.skip(&o.in.events)
	}
	return nil
}

// replace forwards msg in the place of the message at pos.
func (o *observer) replace(pos, total int, msg []byte) {
	o.in.kept = true
	o.in.swap = append(o.in.swap, o.in.chunk[o.in.swapTo:pos]...)
	o.in.swap = append(o.in.swap, msg...)
	o.in.swapTo = pos + total
}

// notice records what the server says beside the results.
func (o *observer) notice(body []byte) {
	var of uint64
	if head := o.queue.head(); head != nil {
		of = head.id
	}
	o.say(parseWords(body), of)
}

func (o *observer) say(r words, of uint64) {
	o.in.events = append(o.in.events, recorder.Event{
		Type: recorder.TypeNotice, Of: of, From: "server",
		Severity: r.severity, Code: r.code, Message: r.message,
	})
}

// notification records a NOTIFY of another session.
func (o *observer) notification(body []byte) {
	if len(body) < 4 {
		return
	}
	channel, rest, _ := cstring(body[4:])
	payload, _, ok := cstring(rest)
	if !ok {
		payload = rest
	}
	message := append(append(bytes.Clone(channel), ": "...), payload...)
	o.in.events = append(o.in.events, recorder.Event{
		Type: recorder.TypeNotice, From: "server", Severity: []byte("NOTIFY"), Message: message,
	})
}
