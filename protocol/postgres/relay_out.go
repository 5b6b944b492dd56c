package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/curfewdb/curfew/recorder"
)

// messageOut deals with one message from the client, or with the beginning of a long one. It returns 0
// when it must see more of it.
func (o *observer) messageOut(typ byte, size int, rest []byte) (int, error) {
	total := size + 1
	switch typ {
	case msgQuery, msgParse, msgBind, msgFunctionCall:
		whole := total <= o.whole
		if whole && len(rest) < total {
			return 0, nil
		}
		if size == 4 {
			return 0, violation(errFormat)
		}
		o.begin(typ, size-4)
		if !whole {
			return headerSize, nil
		}
		n, err := o.feed(rest[headerSize:total])
		return headerSize + n, err
	case msgCopyData:
		if total > o.whole {
			o.out.pass = uint32(size - 4)
			o.out.meter.chunks++
			return headerSize, nil
		}
		if len(rest) < total {
			return 0, nil
		}
		o.out.meter.chunks++
		o.out.meter.add(rest[headerSize:total])
		return total, nil
	}
	if len(rest) < total {
		return 0, nil // short by checkClient
	}
	return total, o.shortOut(typ, rest[headerSize:total])
}

// passCopy measures more of a long CopyData message.
func (o *observer) passCopy(b []byte) int {
	n := min(len(b), int(o.out.pass))
	o.out.meter.add(b[:n])
	o.out.pass -= uint32(n)
	return n
}

// shortOut deals with the messages that hold neither statements nor data.
func (o *observer) shortOut(typ byte, body []byte) error {
	switch typ {
	case msgExecute:
		return o.execute(body)
	case msgDescribe, msgClose:
		return o.nameOut(typ, body)
	case msgCopyFail:
		if _, _, ok := cstring(body); !ok {
			return violation(errFormat)
		}
		o.endCopy(typ)
		return nil
	}
	if len(body) != 0 {
		return violation(errFormat)
	}
	switch typ {
	case msgSync:
		if !o.copyOpen {
			o.ask(msgSync)
		} else if n := o.queue.n; n == 0 || !o.queue.at(n-1).voidSync() {
			o.ask(0)
		}
		o.names.segment++
	case msgCopyDone:
		o.endCopy(typ)
	case msgTerminate:
		o.bye = true
	}
	return nil
}

// ask notes that the server has a request more to answer.
func (o *observer) ask(kind byte) *entry {
	o.settings.known = false
	e := o.queue.push()
	e.kind, e.at = kind, o.out.now
	if e.request() { // if there is a copy, it is over: the server has failed it, or hangs up on this
		o.copyOpen = false
	}
	return e
}

// endCopy notes that the copy data that came since the last statement is all there is.
func (o *observer) endCopy(typ byte) {
	o.copyOpen = false
	if o.queue.head() != nil { // else there is no copy
		e := o.ask(typ)
		e.copied = o.out.meter.digest()
	}
	o.out.meter.reset()
}

// execute records that a portal is run.
func (o *observer) execute(body []byte) error {
	name, rest, ok := cstring(body)
	if !ok || len(rest) != 4 {
		return violation(errFormat)
	}
	o.out.meter.reset()
	p := o.names.portalOf(keyOf(name))
	of := p.bind
	if !o.names.certain(p.confirmed, p.segment) {
		of = 0
	}
	o.ids++
	o.out.events = append(o.out.events, recorder.Event{
		Type: recorder.TypeStatement, ID: o.ids, Kind: recorder.KindExecute, Of: of, Portal: name,
		MaxRows: uint64(max(0, int32(binary.BigEndian.Uint32(rest)))),
	})
	o.ask(msgExecute).id = o.ids
	return nil
}

// nameOut deals with Describe and Close, which are not recorded: they show or change no data.
func (o *observer) nameOut(typ byte, body []byte) error {
	if len(body) < 2 || body[0] != 'S' && body[0] != 'P' {
		return violation(errFormat)
	}
	name, rest, ok := cstring(body[1:])
	if !ok || len(rest) != 0 {
		return violation(errFormat)
	}
	o.out.meter.reset()
	e := o.ask(typ)
	e.sub, e.key = body[0], keyOf(name)
	switch {
	case typ == msgDescribe && e.sub == 'S':
		e.def = o.names.statement(e.key)
		if e.def != nil && o.names.certain(e.def.confirmed, e.def.segment) {
			e.id = e.def.id
		} else {
			e.def = nil
		}
	case typ == msgDescribe:
		e.id = o.names.portalOf(e.key).bind
	case e.sub == 'S':
		e.prev = o.names.setStatement(e.key, nil)
	default:
		e.was = o.names.setPortal(e.key, portal{})
	}
	return nil
}

// limitLate is how many results wait for the server's word on the transaction. While it skips it has none.
const limitLate = 1024

// release lets go of a held result, and of what waits for it, without that word.
func (o *observer) release() {
	h := &o.in.held
	h.on = false
	h.event.Tx = recorder.TxUnknown
	h.event.Tag, h.event.Code, h.event.Message = bytes.Clone(h.tag), bytes.Clone(h.code), bytes.Clone(h.message)
	o.out.events = append(append(o.out.events, h.event), o.in.late...)
	o.in.late = nil
}

// errDoubt ends a session that no client has: it hides what the database ran.
var errDoubt = errors.New("requests behind a Sync amid the data of a COPY that failed: whether the database runs or skips them can't be known")

// skip drops what the server skips: all that was forwarded up to the next Sync.
func (o *observer) skip(events *[]recorder.Event) error {
	end := 0
	for ; end < o.queue.forwarded && o.queue.at(end).kind != msgSync; end++ {
		e := o.queue.at(end)
		if o.doubt && e.request() {
			return violation(errDoubt)
		}
		o.doubt = o.doubt || e.voidSync()
	}
	o.skipping = end == o.queue.forwarded
	o.doubt = o.doubt && o.skipping
	if o.in.held.on { // the error that they are skipped for comes first
		if events == &o.out.events && len(o.in.late) >= limitLate {
			o.release()
		} else {
			events = &o.in.late
		}
	}
	for i := end - 1; i >= 0; i-- {
		o.names.undo(o.queue.at(i))
	}
	for range end {
		if e := o.queue.at(0); e.id != 0 && e.kind != msgDescribe && !e.settled {
			*events = append(*events, recorder.Event{Type: recorder.TypeResult, Of: e.id, Code: []byte(codeSkipped)})
		}
		o.queue.pop()
	}
	return nil
}

// codeSkipped stands in a result's Code where the server said nothing: an earlier request of the same
// pipeline had failed, so it did not look at this one.
const codeSkipped = "skipped"
