package mysql

import (
	"encoding/binary"

	"github.com/curfewdb/curfew/recorder"
)

// list is a list of parameters that is being decoded: of an execute's placeholders, of its query
// attributes behind them, or of a query's.
type list struct {
	count int  // parameters, in bulk of one row
	index int  // of the one that comes next
	named bool // types come with names
	told  bool // types came with this packet
	whole bool // and all of them were read
	bulk  bool
	types []uint16 // type, and flags above
	nulls []byte   // a bit for each that is NULL
	names []byte   // all of them, joined
	ends  []int32  // where in names each ends
	value int      // bytes left of the value that is being read
	hex   bool     // it is shown in hex
	piece bool     // raw: some of it was recorded
}

// emptied is an empty list in the same memory.
func (l *list) emptied() list {
	return list{types: reset(l.types, 1024), nulls: reset(l.nulls, 1024), names: reset(l.names, 4096), ends: reset(l.ends, 1024)}
}

const (
	flagCountAvailable = 0x08 // execute: the number of parameters is in the packet
	flagSendTypes      = 0x80 // bulk: types are in the packet

	// limitParams is how many parameters a server takes.
	limitParams = 1<<16 - 1
	// limitNames is how many bytes the names of a statement's attributes may have.
	limitNames = 64 << 10
)

// beginExecute is behind the head of an execute.
func (o *observer) beginExecute(flags byte) {
	m := &o.out.msg
	attributes := o.caps&capQueryAttributes != 0 && flags&flagCountAvailable != 0
	m.list.named = attributes
	switch {
	case !m.def.ready():
		m.stage = stageRaw
	case attributes:
		m.stage = stageCount
	default:
		o.beginList(m.def.params)
	}
}

// beginList is before the bits of the NULLs.
func (o *observer) beginList(count int) {
	m := &o.out.msg
	m.list.count = count
	m.stage = stageNulls
	if count == 0 {
		o.endList()
	}
}

// endList is behind the last parameter.
func (o *observer) endList() {
	m := &o.out.msg
	m.stage = stageRaw
	if m.command == comQuery {
		m.stage = stageText
	}
}

// beginBulk is behind the head of a bulk execute.
func (o *observer) beginBulk(flags uint16) {
	m := &o.out.msg
	l := &m.list
	l.bulk = true
	switch {
	case !m.def.ready() || m.def.params == 0:
		m.stage = stageRaw
		return
	case flags&flagSendTypes != 0:
		m.stage, l.told = stageType, true
	default:
		m.stage = stageRow
		l.types = append(l.types, m.def.types...)
	}
	l.count = m.def.params
}

// listItem decodes one item of a list; -1 means that it is not there whole.
func (o *observer) listItem(p []byte, last bool) (int, error) {
	m := &o.out.msg
	l := &m.list
	switch m.stage {
	case stageCount, stageSets:
		return o.listCount(p)
	case stageNulls:
		n := min(len(p), (l.count+7)/8-len(l.nulls))
		if l.nulls = append(l.nulls, p[:n]...); len(l.nulls) == (l.count+7)/8 {
			m.stage = stageBound
		} else if n == 0 {
			return -1, nil
		}
		return n, nil
	case stageBound:
		return o.listBound(p)
	case stageType:
		return o.listType(p)
	case stageRow:
		if len(p) == 0 && last {
			m.stage = stageDone
			return 0, nil
		}
		if len(p) == 0 {
			return -1, nil
		}
		if len(l.types) != l.count {
			return 0, errFormat
		}
		return o.bulkParam(p)
	case stageParam:
		return o.listParam(p)
	case stageValue:
		return o.valuePiece(p)
	}
	return o.raw(p, last)
}

// listCount decodes how many parameters there are.
func (o *observer) listCount(p []byte) (int, error) {
	m := &o.out.msg
	v, n, ok := lenencInt(p)
	switch {
	case !ok && len(p) < 9 && (len(p) == 0 || p[0] != 0xfb && p[0] != 0xff):
		return -1, nil
	case !ok || v > limitParams:
		return 0, errFormat
	case m.stage == stageSets:
		if v != 1 {
			return 0, errFormat
		}
		o.beginList(m.list.count)
	case m.command == comQuery:
		m.list.count, m.list.named, m.stage = int(v), true, stageSets
	case int(v) < m.def.params:
		return 0, errFormat
	default:
		o.beginList(int(v))
	}
	return n, nil
}

// listBound decodes whether types follow; if not, they are those of the execute before.
func (o *observer) listBound(p []byte) (int, error) {
	m := &o.out.msg
	l := &m.list
	if len(p) == 0 {
		return -1, nil
	}
	switch {
	case p[0] == 1:
		m.stage, l.told = stageType, true
	case p[0] != 0 || m.command == comQuery || len(m.def.types) != l.count:
		return 0, errFormat
	default:
		l.types = append(l.types, m.def.types...)
		m.stage = stageParam
	}
	return 1, nil
}

// listType decodes a parameter's type, and its name.
func (o *observer) listType(p []byte) (int, error) {
	m := &o.out.msg
	l := &m.list
	if len(l.types) == l.count {
		l.whole = true
		m.stage = stageParam
		if l.bulk {
			m.stage = stageRow
		}
		return 0, nil
	}
	if len(p) < 2 {
		return -1, nil
	}
	n := 2
	if l.named {
		size, head, ok := lenencInt(p[n:])
		switch {
		case !ok && len(p) >= n+9, ok && size > uint64(min(o.whole/4, limitNames-len(l.names))):
			return 0, errFormat
		case !ok, size > uint64(len(p)-n-head):
			return -1, nil
		}
		n += head
		l.names = append(l.names, p[n:n+int(size)]...)
		l.ends = append(l.ends, int32(len(l.names)))
		n += int(size)
	}
	l.types = append(l.types, binary.LittleEndian.Uint16(p))
	return n, nil
}

// listParam decodes a parameter, or begins with one that is too long to be there whole.
func (o *observer) listParam(p []byte) (int, error) {
	m := &o.out.msg
	l := &m.list
	if l.index == l.count {
		o.endList()
		return 0, nil
	}
	i := l.index
	if m.def != nil {
		if id := m.def.long[uint16(min(i, limitParams))]; id > 0 && i < m.def.params {
			o.param(recorder.Param{Type: commandName(comStmtLongData), Value: o.number(id)})
			return 0, nil
		}
	}
	if l.nulls[i/8]>>(i%8)&1 == 1 {
		o.param(recorder.Param{Type: typeName(l.types[i]), Null: true})
		return 0, nil
	}
	return o.value(p, l.types[i])
}

// bulkParam decodes a parameter of a bulk: whether it has a value, and that.
func (o *observer) bulkParam(p []byte) (int, error) {
	l := &o.out.msg.list
	t := l.types[l.index%l.count]
	switch p[0] {
	case 0:
		n, err := o.value(p[1:], t)
		if n >= 0 && o.out.msg.stage != stageRaw {
			n++
		}
		return n, err
	case 1:
		o.param(recorder.Param{Type: typeName(t), Null: true})
	case 2:
		o.param(recorder.Param{Type: "default", Null: true})
	case 3:
		o.param(recorder.Param{Type: "ignore", Null: true})
	default:
		return 0, errFormat
	}
	return 1, nil
}

// param adds a parameter that is whole, or the last piece of one.
func (o *observer) param(p recorder.Param) {
	p.Name = o.paramName()
	o.out.params = append(o.out.params, p)
	o.out.msg.list.index++
}

// paramName is the name of the parameter that comes next.
func (o *observer) paramName() []byte {
	l := &o.out.msg.list
	if !l.named || l.index >= len(l.ends) {
		return nil
	}
	from := int32(0)
	if l.index > 0 {
		from = l.ends[l.index-1]
	}
	at := len(o.out.text)
	if o.out.text = append(o.out.text, l.names[from:l.ends[l.index]]...); at == len(o.out.text) {
		return nil
	}
	return o.out.text[at:len(o.out.text):len(o.out.text)]
}

// value decodes the value at the beginning of p, or begins with one that is too long to be there whole.
func (o *observer) value(p []byte, t uint16) (int, error) {
	m := &o.out.msg
	switch {
	case unsure(t) && m.command == comQuery: // the text behind it has to begin where the server finds it
		return 0, errFormat
	case unsure(t):
		m.stage = stageRaw
		return 0, nil
	}
	if n, fixed := fixedSize(t); fixed {
		if len(p) > 0 && timeType(t) {
			n = 1 + int(p[0])
		}
		if len(p) < n {
			return -1, nil
		}
		value, ok := o.fixedValue(t, p[:n])
		if !ok {
			return 0, errFormat
		}
		o.param(recorder.Param{Type: typeName(t), Value: value})
		return n, nil
	}
	size, head, ok := lenencInt(p)
	rest := uint64(len(p) - head)
	switch {
	case !ok && (len(p) >= 9 || len(p) > 0 && (p[0] == 0xfb || p[0] == 0xff)):
		return 0, errFormat
	case !ok:
		return -1, nil
	case !m.more && size > rest+uint64(m.behind), size > 1<<40:
		return 0, errFormat
	case size <= rest:
		v := p[head : head+int(size)]
		o.param(recorder.Param{Type: typeName(t), Value: v, Hex: hexShape(t, v)})
		return head + int(size), nil
	case size <= uint64(o.whole/4):
		return -1, nil
	}
	m.list.value = int(size)
	m.list.hex = hexShape(t, wholeRunes(p[head:]))
	m.stage = stageValue
	n, err := o.valuePiece(p[head:])
	return head + max(0, n), err
}

// valuePiece takes a piece of a long value.
func (o *observer) valuePiece(p []byte) (int, error) {
	m := &o.out.msg
	l := &m.list
	piece := p[:min(len(p), l.value)]
	if !l.hex && len(piece) < l.value {
		piece = wholeRunes(piece)
	}
	if len(piece) == 0 && l.value > 0 {
		return -1, nil
	}
	l.value -= len(piece)
	param := recorder.Param{Type: typeName(l.types[l.index%l.count]), Value: piece, Hex: l.hex, More: l.value > 0, Name: o.paramName()}
	o.out.params = append(o.out.params, param)
	if l.value == 0 {
		l.index++
		m.stage = stageParam
		if l.bulk {
			m.stage = stageRow
		}
	}
	return len(piece), nil
}

// raw takes what can't be told apart, because Curfew does not know the statement, or nobody needs it.
func (o *observer) raw(p []byte, last bool) (int, error) {
	m := &o.out.msg
	if last {
		m.stage = stageDone
	}
	if len(p) == 0 && (!last || !m.list.piece) {
		return min(0, m.done()), nil
	}
	m.list.piece = true
	o.out.params = append(o.out.params, recorder.Param{Type: "unknown", Value: p, Hex: true, More: !last})
	return len(p), nil
}

// done is 0 if nothing is left to decode, else -1.
func (m *incoming) done() int {
	if m.stage == stageDone {
		return 0
	}
	return -1
}
