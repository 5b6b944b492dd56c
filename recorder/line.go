package recorder

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"math"
	"time"
	"unicode/utf8"
)

// lineDecoder reads the lines that appendEvent writes, which are nearly all there are. It knows their keys in
// their order and the forms of their values, and gives up on anything else: [decodeEvent] reads that. What
// it takes, decodeEvent takes too, with the same outcome.
//
// Events own what they hold. It is cut from blocks, so that an event costs no allocation of its own.
type lineDecoder struct {
	bytes  []byte            // what is left of the block for texts
	params []Param           // what is left of the block for parameters
	types  map[string]string // names of parameters' types
}

const (
	textBlock  = 16 << 10
	paramBlock = 64
	knownTypes = 256
)

// own gives room for n bytes.
func (d *lineDecoder) own(n int) []byte {
	if n > textBlock/4 {
		return make([]byte, n)
	}
	if n > len(d.bytes) {
		d.bytes = make([]byte, textBlock)
	}
	b := d.bytes[:n:n]
	d.bytes = d.bytes[n:]
	return b
}

// list gives room for n parameters.
func (d *lineDecoder) list(n int) []Param {
	if n > paramBlock/4 {
		return make([]Param, n)
	}
	if n > len(d.params) {
		d.params = make([]Param, paramBlock)
	}
	p := d.params[:n:n]
	d.params = d.params[n:]
	return p
}

func (d *lineDecoder) typeName(b []byte) string {
	if name, ok := d.types[string(b)]; ok {
		return name
	}
	name := string(b)
	if d.types == nil {
		d.types = map[string]string{}
	}
	if len(d.types) < knownTypes {
		d.types[name] = name
	}
	return name
}

// event reads one line. false: it is not a line as appendEvent writes it, and e holds nothing of use.
func (d *lineDecoder) event(line []byte, e *Event) bool {
	if !utf8.Valid(line) {
		return false
	}
	c := cursor{rest: line, d: d}
	*e = Event{}
	stamp, ok := c.stamp()
	if !ok {
		return false
	}
	e.Seq, e.Micros, e.Type = stamp.seq, stamp.micros, eventType(stamp.name)
	if e.Type == "" || !c.salt() {
		return false
	}
	last := 0
	for {
		if len(c.rest) == 1 && c.rest[0] == '}' {
			return true
		}
		rank := c.field(e)
		if rank <= last {
			return false
		}
		last = rank
	}
}

// cursor is what is left to read of a line. Its methods say whether they found what they look for.
type cursor struct {
	rest []byte
	d    *lineDecoder
	buf  []byte // a string without its escapes
}

// lineStamp is what every line begins with.
type lineStamp struct {
	seq    uint64
	micros int64
	name   []byte // of the type
}

func (c *cursor) stamp() (s lineStamp, ok bool) {
	var us uint64
	if c.skip(`{"seq":`) {
		if s.seq, ok = c.number(math.MaxUint64); ok && c.skip(`,"us":`) {
			if us, ok = c.number(math.MaxInt64); ok && c.skip(`,"type":`) {
				s.micros = int64(us)
				s.name, ok = c.text()
				return s, ok
			}
		}
	}
	return s, false
}

func (c *cursor) skip(text string) bool {
	if len(c.rest) < len(text) || string(c.rest[:len(text)]) != text {
		return false
	}
	c.rest = c.rest[len(text):]
	return true
}

// number reads an integer from 0 to most.
func (c *cursor) number(most uint64) (uint64, bool) {
	var v uint64
	i := 0
	for ; i < len(c.rest); i++ {
		digit := uint64(c.rest[i] - '0')
		if digit > 9 {
			break
		}
		if v > math.MaxUint64/10 || v*10 > math.MaxUint64-digit {
			return 0, false
		}
		v = v*10 + digit
	}
	if i == 0 || i > 1 && c.rest[0] == '0' || v > most {
		return 0, false
	}
	c.rest = c.rest[i:]
	return v, true
}

// text reads a string. What it gives is valid until the next call.
func (c *cursor) text() ([]byte, bool) {
	if len(c.rest) == 0 || c.rest[0] != '"' {
		return nil, false
	}
	body := c.rest[1:]
	for i := 0; i < len(body); i++ {
		switch b := body[i]; {
		case b == '"':
			c.rest = body[i+1:]
			return body[:i], true
		case b == '\\':
			return c.escaped(body, i)
		case b < 0x20:
			return nil, false
		}
	}
	return nil, false
}

// escaped reads on where the first backslash of a string stands.
func (c *cursor) escaped(body []byte, i int) ([]byte, bool) {
	c.buf = append(c.buf[:0], body[:i]...)
	for i < len(body) {
		b := body[i]
		i++
		switch {
		case b == '"':
			c.rest = body[i:]
			return c.buf, true
		case b < 0x20:
			return nil, false
		case b != '\\':
			c.buf = append(c.buf, b)
			continue
		}
		if i == len(body) {
			return nil, false
		}
		b = body[i]
		i++
		switch b {
		case '"', '\\':
			c.buf = append(c.buf, b)
		case 'n':
			c.buf = append(c.buf, '\n')
		case 'r':
			c.buf = append(c.buf, '\r')
		case 't':
			c.buf = append(c.buf, '\t')
		case 'u':
			var r [1]byte
			if len(body)-i < 4 || body[i] != '0' || body[i+1] != '0' {
				return nil, false
			}
			if _, err := hex.Decode(r[:], body[i+2:i+4]); err != nil {
				return nil, false
			}
			c.buf = utf8.AppendRune(c.buf, rune(r[0]))
			i += 4
		default:
			return nil, false
		}
	}
	return nil, false
}

func (c *cursor) salt() bool {
	if !c.skip(`,"salt":"`) || len(c.rest) < 33 || c.rest[32] != '"' {
		return false
	}
	var salt [16]byte
	if _, err := hex.Decode(salt[:], c.rest[:32]); err != nil {
		return false
	}
	c.rest = c.rest[33:]
	return true
}

// key reads a comma and a name with its colon.
func (c *cursor) key() []byte {
	if len(c.rest) < 2 || c.rest[0] != ',' || c.rest[1] != '"' {
		return nil
	}
	i := bytes.IndexByte(c.rest[2:], '"')
	if i < 0 || len(c.rest) < i+4 || c.rest[i+3] != ':' {
		return nil
	}
	name := c.rest[2 : i+2]
	c.rest = c.rest[i+4:]
	return name
}

// field reads one field of an event, and gives its place in the order in which they are written: 0, if it
// is none or its value has another form.
func (c *cursor) field(e *Event) (rank int) {
	key := c.key()
	name, b64 := bytes.CutSuffix(key, []byte("_b64"))
	if bytes := e.bytesField(name); bytes.into != nil {
		if !c.bytesValue(bytes.into, b64) {
			return 0
		}
		return bytes.rank
	}
	ok := false
	switch string(key) {
	case "id":
		rank, ok = 1, c.uint(&e.ID)
	case "kind":
		rank, ok = 2, c.kind(&e.Kind)
	case "of":
		rank, ok = 3, c.uint(&e.Of)
	case "params":
		rank, ok = 7, c.params(e)
	case "max_rows":
		rank, ok = 8, c.uint(&e.MaxRows)
	case "field":
		rank, ok = 9, c.word(&e.Field, FieldText, FieldParam)
	case "index":
		rank, ok = 10, c.int(&e.Index)
	case "more":
		rank, ok = 11, c.truth(&e.More)
	case "redacted":
		rank, ok = 12, c.int(&e.Redacted)
	default:
		rank, ok = c.resultField(string(key), e)
	}
	if !ok {
		return 0
	}
	return rank
}

func (c *cursor) resultField(key string, e *Event) (rank int, ok bool) {
	switch key {
	case "n":
		return 14, c.int(&e.N)
	case "rows":
		return 16, c.uint(&e.Rows)
	case "bytes":
		return 17, c.uint(&e.Bytes)
	case "duration_us":
		return 18, c.micros(&e.Duration)
	case "first_row_us":
		return 19, c.micros(&e.FirstRow)
	case "errno":
		return 21, c.uint16(&e.Errno)
	case "insert_id":
		return 22, c.uint(&e.InsertID)
	case "warnings":
		return 23, c.uint16(&e.Warnings)
	case "message_bytes":
		return 25, c.uint(&e.MessageBytes)
	case "tx":
		var tx string
		ok = c.word(&tx, string(TxIdle), string(TxOpen), string(TxFailed))
		e.Tx = Tx(tx)
		return 26, ok
	case "direction":
		return 27, c.word(&e.Direction, "in", "out")
	case "sha256":
		return 28, c.hash(&e.SHA256)
	case "from":
		return 29, c.word(&e.From, "server", "curfew")
	case "reason":
		return 31, c.word(&e.Reason)
	}
	return 0, false
}

type bytesField struct {
	into *[]byte
	rank int
}

// bytesField finds the field for what stands as text or as base64.
func (e *Event) bytesField(name []byte) bytesField {
	switch string(name) {
	case "text":
		return bytesField{&e.Text, 4}
	case "name":
		return bytesField{&e.Name, 5}
	case "portal":
		return bytesField{&e.Portal, 6}
	case "prepares":
		return bytesField{&e.Prepares, 13}
	case "tag":
		return bytesField{&e.Tag, 15}
	case "code":
		return bytesField{&e.Code, 20}
	case "message":
		return bytesField{&e.Message, 24}
	case "severity":
		return bytesField{&e.Severity, 30}
	}
	return bytesField{}
}

// bytesValue reads the text, or the base64, of a field; nothing is nil.
func (c *cursor) bytesValue(into *[]byte, b64 bool) bool {
	text, ok := c.text()
	switch {
	case !ok:
		return false
	case b64:
		return c.base64(into, text)
	case len(text) > 0:
		*into = c.d.own(len(text))
		copy(*into, text)
	}
	return true
}

func (c *cursor) base64(into *[]byte, text []byte) bool {
	v := c.d.own(base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(v, text)
	*into = v[:n:n]
	return err == nil && n > 0
}

func (c *cursor) uint(into *uint64) (ok bool) {
	*into, ok = c.number(math.MaxUint64)
	return ok
}

func (c *cursor) int(into *int) bool {
	v, ok := c.number(math.MaxInt)
	*into = int(v)
	return ok
}

func (c *cursor) uint16(into *uint16) bool {
	v, ok := c.number(math.MaxUint16)
	*into = uint16(v)
	return ok
}

func (c *cursor) micros(into *time.Duration) bool {
	v, ok := c.number(math.MaxInt64 / uint64(time.Microsecond))
	*into = time.Duration(v) * time.Microsecond
	return ok
}

func (c *cursor) truth(into *bool) bool {
	*into = true
	return c.skip("true")
}

// word reads a string of which some are usual.
func (c *cursor) word(into *string, usual ...string) bool {
	text, ok := c.text()
	if !ok {
		return false
	}
	for _, u := range usual {
		if string(text) == u {
			*into = u
			return true
		}
	}
	*into = string(text)
	return true
}

func (c *cursor) hash(into *[]byte) bool {
	text, ok := c.text()
	if !ok || len(text) != 64 {
		return false
	}
	*into = c.d.own(32)
	_, err := hex.Decode(*into, text)
	return err == nil
}

// params reads the list of parameters.
func (c *cursor) params(e *Event) bool {
	if !c.skip("[") {
		return false
	}
	var few [16]Param
	all := few[:0]
	for {
		var p Param
		if !c.param(&p) {
			return false
		}
		all = append(all, p)
		if c.skip("]") {
			break
		}
		if !c.skip(",") {
			return false
		}
	}
	e.Params = c.d.list(len(all))
	copy(e.Params, all)
	return true
}

func (c *cursor) param(p *Param) bool {
	if !c.skip(`{"type":`) {
		return false
	}
	name, ok := c.text()
	if !ok {
		return false
	}
	p.Type = c.d.typeName(name)
	switch {
	case c.skip(`,"name":`):
		ok = c.bytesValue(&p.Name, false)
	case c.skip(`,"name_b64":`):
		ok = c.bytesValue(&p.Name, true)
	}
	if !ok {
		return false
	}
	switch {
	case c.skip(`,"value":null`):
		p.Null = true
	case c.skip(`,"value":`):
		p.Value = []byte{}
		ok = c.bytesValue(&p.Value, false)
	case c.skip(`,"value_b64":`):
		ok = c.bytesValue(&p.Value, true)
	case c.skip(`,"hex":`):
		p.Hex = true
		ok = c.hexValue(&p.Value)
	default:
		return false
	}
	if ok && c.skip(`,"more":true`) {
		p.More = true
	}
	return ok && c.skip("}")
}

func (c *cursor) hexValue(into *[]byte) bool {
	text, ok := c.text()
	if !ok {
		return false
	}
	*into = c.d.own(hex.DecodedLen(len(text)))
	_, err := hex.Decode(*into, text)
	return err == nil
}

// kind reads the kind of a statement.
func (c *cursor) kind(into *Kind) bool {
	text, ok := c.text()
	switch Kind(text) {
	case KindSimple:
		*into = KindSimple
	case KindPrepare:
		*into = KindPrepare
	case KindBind:
		*into = KindBind
	case KindExecute:
		*into = KindExecute
	default:
		*into = Kind(text)
	}
	return ok
}

func eventType(name []byte) Type {
	switch Type(name) {
	case TypeStatement:
		return TypeStatement
	case TypeResult:
		return TypeResult
	case TypePart:
		return TypePart
	case TypeNotice:
		return TypeNotice
	}
	return Type(name)
}
