package recorder

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// stamp is what the Writer adds to an event.
type stamp struct {
	seq    uint64
	micros int64
	salt   [16]byte
}

// body is the part of an event's fields that the Writer may replace while it splits and redacts.
type body struct {
	text     []byte
	more     bool
	redacted int
	inline   int // bytes of parameter values that this line may still carry
}

// appendEvent appends the line of an event, without its newline. Fields that are zero are left out,
// but for those that a reader of the line expects.
func appendEvent(dst []byte, st *stamp, e *Event, b body) ([]byte, error) {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, st.seq, 10)
	dst = append(dst, `,"us":`...)
	dst = strconv.AppendInt(dst, st.micros, 10)
	switch e.Type { // what there is most of
	case TypeStatement:
		dst = append(dst, `,"type":"statement","salt":"`...)
	case TypeResult:
		dst = append(dst, `,"type":"result","salt":"`...)
	default:
		dst = append(appendText(dst, "type", string(e.Type)), `,"salt":"`...)
	}
	dst = hex.AppendEncode(dst, st.salt[:])
	dst = append(dst, '"')

	dst = appendUint(dst, "id", e.ID)
	dst = appendText(dst, "kind", string(e.Kind))
	dst = appendUint(dst, "of", e.Of)
	dst = appendStatement(dst, e, b)
	dst = appendResult(dst, e)
	dst = appendText(dst, "from", e.From)
	dst = appendBytes(dst, "severity", e.Severity)
	dst = appendText(dst, "reason", e.Reason)
	dst, err := appendObjects(dst, e)
	return append(dst, '}'), err
}

func appendStatement(dst []byte, e *Event, b body) []byte {
	switch {
	case len(b.text) > 0:
		dst = appendBytes(dst, "text", b.text)
	case e.Type == TypePart, e.Kind == KindSimple, e.Kind == KindPrepare:
		dst = append(dst, `,"text":""`...)
	}
	dst = appendBytes(dst, "name", e.Name)
	dst = appendBytes(dst, "portal", e.Portal)
	if len(e.Params) > 0 {
		dst = appendParams(dst, e.Params, b.inline)
	}
	dst = appendUint(dst, "max_rows", e.MaxRows)
	if e.Field != "" {
		dst = appendText(dst, "field", e.Field)
		if e.Field == FieldParam {
			dst = append(dst, `,"index":`...)
			dst = strconv.AppendInt(dst, int64(e.Index), 10)
		}
	}
	if b.more {
		dst = append(dst, `,"more":true`...)
	}
	dst = appendUint(dst, "redacted", uint64(b.redacted))
	return appendBytes(dst, "prepares", e.Prepares)
}

func appendResult(dst []byte, e *Event) []byte {
	told := e.Type == TypeResult || e.Type == TypeCopy
	dst = appendUint(dst, "n", uint64(e.N))
	dst = appendBytes(dst, "tag", e.Tag)
	if told || e.Rows > 0 {
		dst = append(dst, `,"rows":`...)
		dst = strconv.AppendUint(dst, e.Rows, 10)
	}
	dst = appendUint(dst, "bytes", e.Bytes)
	if told || e.Duration > 0 {
		dst = append(dst, `,"duration_us":`...)
		dst = strconv.AppendInt(dst, max(e.Duration.Microseconds(), 0), 10)
	}
	if e.FirstRow > 0 {
		// Less than a microsecond is not "no row".
		dst = appendUint(dst, "first_row_us", uint64(max(e.FirstRow.Microseconds(), 1)))
	}
	dst = appendBytes(dst, "code", e.Code)
	dst = appendUint(dst, "errno", uint64(e.Errno))
	dst = appendUint(dst, "insert_id", e.InsertID)
	dst = appendUint(dst, "warnings", uint64(e.Warnings))
	message, whole := e.Message, e.MessageBytes
	if len(message) > maxPart {
		message, whole = message[:runeCut(message, maxPart)], uint64(len(message))
	}
	dst = appendBytes(dst, "message", message)
	dst = appendUint(dst, "message_bytes", whole)
	dst = appendText(dst, "tx", string(e.Tx))
	dst = appendText(dst, "direction", e.Direction)
	if len(e.SHA256) > 0 {
		dst = append(dst, `,"sha256":"`...)
		dst = hex.AppendEncode(dst, e.SHA256)
		dst = append(dst, '"')
	}
	return dst
}

// appendObjects appends what is nested; there is one such event at either end of a session, so these
// take the way through encoding/json.
func appendObjects(dst []byte, e *Event) ([]byte, error) {
	var name string
	var v any
	switch {
	case e.Header != nil:
		name, v = "header", e.Header
	case e.Attached != nil:
		name, v = "attached", e.Attached
	case e.End != nil:
		name, v = "end", e.End
	default:
		return dst, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", name, err)
	}
	dst = appendKey(dst, name)
	return append(dst, text...), nil
}

func appendParams(dst []byte, params []Param, inline int) []byte {
	dst = append(dst, `,"params":[`...)
	for i := range params {
		p := &params[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"type":`...)
		dst = appendOwn(dst, p.Type)
		dst = appendBytes(dst, "name", p.Name)
		value, more := p.Value, p.More
		if !p.Null && len(value) > inline {
			value, more = nil, true // it follows in parts
		}
		switch {
		case p.Null:
			dst = append(dst, `,"value":null`...)
		case p.Withheld: // readers that don't know the word must not take it for NULL
			dst = append(dst, `,"value":"","withheld":true`...)
		case p.Hex:
			dst = append(dst, `,"hex":"`...)
			dst = hex.AppendEncode(dst, value)
			dst = append(dst, '"')
		case len(value) == 0:
			dst = append(dst, `,"value":""`...)
		default:
			dst = appendBytes(dst, "value", value)
		}
		if !p.Null {
			inline -= len(value)
			if more {
				dst = append(dst, `,"more":true`...)
			}
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendKey(dst []byte, key string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, key...)
	return append(dst, '"', ':')
}

func appendUint(dst []byte, key string, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return strconv.AppendUint(appendKey(dst, key), v, 10)
}

func appendText(dst []byte, key, v string) []byte {
	if v == "" {
		return dst
	}
	return appendOwn(appendKey(dst, key), v)
}

// appendOwn appends a text of Curfew's own making, which should be UTF-8 and is made so.
func appendOwn(dst []byte, v string) []byte {
	if needsNothing(v) {
		return append(append(append(dst, '"'), v...), '"')
	}
	if !utf8.ValidString(v) {
		v = strings.ToValidUTF8(v, "\ufffd")
	}
	return appendString(dst, v)
}

// appendBytes appends "key":"…", or "key_b64":"…" when the bytes are not UTF-8 and JSON could not
// hold them without loss. Nothing is appended when there are none.
func appendBytes(dst []byte, key string, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	if needsNothing(v) {
		dst = append(appendKey(dst, key), '"')
		return append(append(dst, v...), '"')
	}
	if utf8.Valid(v) {
		return appendString(appendKey(dst, key), v)
	}
	dst = append(dst, ',', '"')
	dst = append(dst, key...)
	dst = append(dst, `_b64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, v)
	return append(dst, '"')
}

// needsNothing says that v is ASCII of which nothing is escaped in a JSON string, as nearly all text is.
func needsNothing[T string | []byte](v T) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(v); i += 8 {
		x := uint64(v[i]) | uint64(v[i+1])<<8 | uint64(v[i+2])<<16 | uint64(v[i+3])<<24 |
			uint64(v[i+4])<<32 | uint64(v[i+5])<<40 | uint64(v[i+6])<<48 | uint64(v[i+7])<<56
		// A byte has its high bit in one of these if it is no ASCII or 0x7f, below a space, a quote, a backslash;
		// what borrows from a byte beside it is one of those itself.
		if (x|(x+ones)|(x-0x20*ones)|((x^'"'*ones)-ones)|((x^'\\'*ones)-ones))&high != 0 {
			return false
		}
	}
	for ; i < len(v); i++ {
		if c := v[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string of valid UTF-8. Beyond what JSON asks for it escapes DEL and the
// C1 controls, so that no terminal that a raw recording is shown on obeys it.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 0x20 && c != '"' && c != '\\' && c != 0x7f && c != 0xc2:
			continue
		case c == 0xc2: // U+0080 to U+00BF
			if s[i+1] >= 0xa0 {
				continue
			}
			dst = append(dst, s[start:i]...)
			i++
			c = s[i]
		default:
			dst = append(dst, s[start:i]...)
		}
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
