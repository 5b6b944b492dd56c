package postgres

import (
	"encoding/binary"
	"strconv"

	"github.com/curfewdb/curfew/recorder"
)

// feedParams decodes Bind and FunctionCall. An item that is not there whole is left for the next window,
// but for a value that may be longer than a window: that is recorded in pieces.
func (o *observer) feedParams(p []byte, last bool) (n int, err error) {
	m := &o.out.msg
	from, index := len(o.out.params), m.index
	if m.stage == stageNames {
		if n, err = o.feedHead(p, last); err != nil {
			return 0, err
		}
	}
	for m.stage != stageDone {
		used, err := o.feedItem(p[n:], last)
		if err != nil {
			return 0, err
		}
		if used < 0 {
			break
		}
		n += used
	}
	params := o.out.params[from:len(o.out.params):len(o.out.params)]
	if len(params) > 0 || !m.begun {
		o.paramsEvent(params, index)
	}
	return n, nil
}

// feedHead decodes what comes before the formats.
func (o *observer) feedHead(p []byte, last bool) (int, error) {
	m := &o.out.msg
	m.stage = stageFormats
	if m.typ == msgFunctionCall {
		if len(p) < 4 {
			return 0, errFormat
		}
		m.sname = strconv.AppendUint([]byte("function "), uint64(binary.BigEndian.Uint32(p)), 10)
		return 4, nil
	}
	portal, rest, ok := cstring(p)
	if !ok {
		return 0, longName(last)
	}
	name, rest, ok := cstring(rest)
	if !ok {
		return 0, longName(last)
	}
	m.key, m.pname, m.sname = keyOf(portal), portal, name
	if def := o.names.statement(keyOf(name)); def != nil && o.names.certain(def.confirmed, def.segment) {
		m.def, m.of = def, def.id
	}
	return len(p) - len(rest), nil
}

// feedItem decodes one item; -1 means that it is not there whole.
func (o *observer) feedItem(p []byte, last bool) (int, error) {
	m := &o.out.msg
	switch m.stage {
	case stageParam:
		if m.index == m.params {
			m.stage = stageResults
			return 0, nil
		}
		return o.feedParam(p, last)
	case stageValue:
		return o.feedValue(p)
	}
	if m.count == 0 && m.stage == stageFormat {
		m.stage = stageParams
	}
	if m.count == 0 && m.stage == stageResult {
		m.stage = stageDone
		return 0, nil
	}
	if len(p) < 2 {
		return -1, nil
	}
	v := binary.BigEndian.Uint16(p)
	switch m.stage {
	case stageFormats:
		m.count, m.stage = int(v), stageFormat
	case stageFormat:
		m.formats = append(m.formats, byte(min(v, 2)))
		m.count--
	case stageParams:
		m.params, m.stage = int(v), stageParam
		if n := len(m.formats); n > 1 && n != m.params {
			return 0, errFormat
		}
	case stageResults:
		m.count, m.stage = int(v), stageResult
		if m.typ == msgFunctionCall {
			m.stage = stageDone
		}
	case stageResult:
		m.count--
	}
	return 2, nil
}

// feedParam decodes a parameter, or begins with one that is too long to be there whole.
func (o *observer) feedParam(p []byte, last bool) (int, error) {
	m := &o.out.msg
	if len(p) < 4 {
		return -1, nil
	}
	size := int(int32(binary.BigEndian.Uint32(p)))
	oid, binaryForm := o.paramType(m.index)
	switch {
	case size == -1:
		o.out.params = append(o.out.params, recorder.Param{Type: o.typeName(oid), Null: true})
		m.index++
		return 4, nil
	case size < 0 || size > m.left:
		return 0, errFormat
	case size <= len(p)-4:
		o.out.params = append(o.out.params, o.param(oid, binaryForm, p[4:4+size]))
		m.index++
		return 4 + size, nil
	case last:
		return 0, errFormat
	case size <= o.whole/4:
		return -1, nil
	}
	m.stage, m.value = stageValue, size
	m.split = splitShape(oid, binaryForm)
	used := 4
	if oid == oidJSONB && m.split == shapeText && binaryForm {
		if len(p) < 5 {
			m.stage = stageParam
			return -1, nil
		}
		if p[4] == 1 { // the version of the binary form, which is text behind it
			used++
			m.value--
		} else {
			m.split = shapeHex
		}
	}
	n, err := o.feedValue(p[used:])
	return used + max(0, n), err
}

// feedValue takes a piece of a long value.
func (o *observer) feedValue(p []byte) (int, error) {
	m := &o.out.msg
	piece := p[:min(len(p), m.value)]
	if m.split == shapeText && len(piece) < m.value {
		piece = wholeRunes(piece)
	}
	if len(piece) == 0 && m.value > 0 {
		return -1, nil
	}
	m.value -= len(piece)
	oid, _ := o.paramType(m.index)
	o.out.params = append(o.out.params, recorder.Param{
		Type: o.typeName(oid), Value: piece, Hex: m.split == shapeHex, More: m.value > 0,
	})
	if m.value == 0 {
		m.stage = stageParam
		m.index++
	}
	return len(piece), nil
}

// paramType says what is known of a parameter: its type, 0 if unknown, and whether it comes in binary.
func (o *observer) paramType(i int) (oid uint32, binaryForm bool) {
	m := &o.out.msg
	if m.def != nil && i < len(m.def.oids) {
		oid = m.def.oids[i]
	}
	switch len(m.formats) {
	case 0:
	case 1:
		binaryForm = m.formats[0] != 0
	default:
		binaryForm = m.formats[i] != 0
	}
	return oid, binaryForm
}

// paramsEvent makes the event of a Bind or FunctionCall, or of more of its parameters.
func (o *observer) paramsEvent(params []recorder.Param, index int) {
	m := &o.out.msg
	more := m.stage <= stageValue && (m.stage != stageParam || m.index < m.params)
	event := recorder.Event{Type: recorder.TypePart, ID: m.id, Field: "param", Index: index, Params: params, More: more}
	if !m.begun {
		m.begun = true
		event.Type, event.Field = recorder.TypeStatement, ""
		event.Kind, event.Of, event.Name, event.Portal = recorder.KindBind, m.of, m.sname, m.pname
		if m.typ == msgFunctionCall {
			event.Kind, event.Name, event.Text = recorder.KindFunction, nil, m.sname
		}
	}
	o.out.events = append(o.out.events, event)
}
