package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/curfewdb/curfew/recorder"
)

// stage is where the decoding of a statement message stands.
type stage byte

const (
	stageNames   stage = iota // Parse: its name; Bind: portal and statement; FunctionCall: the function
	stageText                 // Query, Parse: SQL
	stageOIDs                 // Parse: how many types
	stageOID                  // Parse: a type
	stageFormats              // Bind, FunctionCall: how many formats
	stageFormat               // a format
	stageParams               // how many parameters
	stageParam                // a parameter's length, and the value if it is there whole
	stageValue                // more of a value that was not there whole
	stageResults              // Bind: how many result formats; FunctionCall: the one
	stageResult               // Bind: a result format
	stageDone
)

// begin starts to decode a message whose body has size bytes.
func (o *observer) begin(typ byte, size int) {
	o.out.meter.reset()
	m := &o.out.msg
	formats := m.formats[:0]
	*m = incoming{typ: typ, left: size, formats: formats}
	o.ids++
	m.id = o.ids
	switch typ {
	case msgQuery:
		m.stage = stageText
		o.names.dropUnnamed()
	case msgParse:
		m.def = o.names.newPrepared()
		m.def.id = m.id
	}
}

var errLongName = errors.New("a name is too long")

// feed decodes the next window of a statement message: what is left of it, or as much as is looked at in
// one piece. It returns how much it dealt with, 0 when it must see more of the message first.
func (o *observer) feed(rest []byte) (int, error) {
	m := &o.out.msg
	size := min(m.left, o.whole)
	if len(rest) < size {
		return 0, nil
	}
	window := rest[:size]
	last := size == m.left
	var n int
	var err error
	if m.typ == msgQuery || m.typ == msgParse {
		n, err = o.feedText(window, last)
	} else {
		n, err = o.feedParams(window, last)
	}
	if err == nil && (n == 0 || last && (n < size || m.stage != stageDone)) {
		err = errFormat
	}
	if err != nil {
		return 0, violation(err)
	}
	m.left -= n
	if m.blocked {
		o.out.zero = append(o.out.zero, window[:n])
	}
	if m.left == 0 {
		o.finish()
	}
	return n, nil
}

// feedText decodes Query and Parse.
func (o *observer) feedText(p []byte, last bool) (n int, err error) {
	m := &o.out.msg
	if m.stage == stageNames {
		name, rest, ok := cstring(p)
		if !ok {
			return 0, longName(last)
		}
		m.key, m.sname, m.stage = keyOf(name), name, stageText
		n = len(p) - len(rest)
	}
	if m.stage == stageText {
		text := p[n:]
		end := bytes.IndexByte(text, 0)
		switch {
		case end >= 0:
			text = text[:end]
			n++
			m.stage = stageOIDs
		case last:
			return 0, errFormat
		default:
			text = wholeRunes(text)
		}
		n += len(text)
		o.textEvent(text, end >= 0)
		if end < 0 {
			return n, nil
		}
	}
	if m.typ == msgQuery {
		m.stage = stageDone
		return n, nil
	}
	if m.stage == stageOIDs {
		if len(p)-n < 2 {
			return n, nil
		}
		m.count = int(binary.BigEndian.Uint16(p[n:]))
		n += 2
		m.stage = stageOID
		if m.left-n != 4*m.count {
			return 0, errFormat
		}
	}
	for ; m.count > 0 && len(p)-n >= 4; n += 4 {
		m.def.oids = append(m.def.oids, binary.BigEndian.Uint32(p[n:]))
		m.count--
	}
	if m.count == 0 {
		m.stage = stageDone
	}
	return n, nil
}

func longName(last bool) error {
	if last {
		return errFormat
	}
	return errLongName
}

// wholeRunes leaves out the beginning of a character whose end is not there yet.
func wholeRunes(b []byte) []byte {
	for i := 1; i <= min(utf8.UTFMax-1, len(b)); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// textEvent makes the event of a statement's text, or of a part of it, and looks for PREPARE TRANSACTION.
func (o *observer) textEvent(text []byte, end bool) {
	m := &o.out.msg
	first := len(o.out.events)
	event := recorder.Event{Type: recorder.TypePart, ID: m.id, Field: "text", Text: text, More: !end}
	if !m.begun {
		m.begun = true
		event.Type, event.Field, event.Kind, event.Name = recorder.TypeStatement, "", recorder.KindSimple, m.sname
		if m.typ == msgParse {
			event.Kind = recorder.KindPrepare
		}
	}
	o.out.events = append(o.out.events, event)
	if m.lex == nil {
		if end && !mayPrepare(text) {
			return
		}
		m.lex = newLexer(o.settings)
	}
	found := m.lex.scan(text, end)
	if found && !m.blocked && (!o.prepare || m.lex.lost()) {
		m.blocked = true
		o.out.events = append(o.out.events, recorder.Event{Type: recorder.TypeBlocked, Of: m.id, Reason: o.refusal()})
	}
	if m.blocked {
		return
	}
	for _, gid := range m.lex.take() {
		o.gids = append(o.gids, string(gid))
		if o.out.events[first].Prepares == nil {
			o.out.events[first].Prepares = gid
			continue
		}
		// One event names one transaction: a further one stands in an empty part.
		o.out.events[len(o.out.events)-1].More = true
		o.out.events = append(o.out.events, recorder.Event{Type: recorder.TypePart, ID: m.id, Field: "text", Prepares: gid, More: !end})
	}
}

// finish notes the request that was decoded.
func (o *observer) finish() {
	m := &o.out.msg
	e := o.ask(m.typ)
	e.id, e.key, e.ours = m.id, m.key, m.blocked
	switch m.typ {
	case msgParse:
		e.def = m.def
		e.prev = o.names.setStatement(m.key, m.def)
	case msgBind:
		e.was = o.names.setPortal(m.key, portal{bind: m.id, segment: o.names.segment})
	}
	m.def, m.sname, m.pname = nil, nil, nil
	m.formats = reset(m.formats, 1024)
}
