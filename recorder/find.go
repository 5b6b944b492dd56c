package recorder

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Find makes Next give only events that hold a text: in a statement's text, names, parameters' values, or what it
// prepares; in a tag, message, code, reason or address; to the byte, wherever a statement was cut into parts. Of
// the events between, those that look as a [Writer] writes them are held against the format only in their
// number. Empty text ends it.
func (r *Reader) Find(text []byte) {
	r.find, r.looked = nil, 0
	if len(text) == 0 {
		return
	}
	f := &finder{text: bytes.Clone(text), tails: map[tailKey][]byte{}}
	if utf8.Valid(text) && !bytes.ContainsFunc(text, func(c rune) bool { return c >= 0x7f && c < 0xa0 }) {
		quoted := appendString(nil, text)
		f.quoted = quoted[1 : len(quoted)-1]
	}
	r.find = f
}

// finder looks for a text in events.
type finder struct {
	text   []byte
	quoted []byte // as a Writer quotes it; nil if another may have done it otherwise in a way that can't be foreseen
	sought []sought
	tails  map[tailKey][]byte
}

// sought is a text that is looked for by the byte of it that there is least of.
type sought struct {
	text []byte
	rare int
}

// seek says which bytes are rare, by some lines.
func seek(lines []byte, texts ...[]byte) (list []sought) {
	var often [256]int
	for _, c := range lines {
		often[c]++
	}
	for _, text := range texts {
		s := sought{text: text}
		for i, c := range text {
			if often[c] < often[text[s.rare]] {
				s.rare = i
			}
		}
		list = append(list, s)
	}
	return list
}

// in is bytes.Contains.
func (s *sought) in(lines []byte) bool {
	for from, misses := 0, 0; ; misses++ {
		if from+s.rare >= len(lines) {
			return false
		}
		if misses > 16+from/16 { // it is not that rare here
			return bytes.Contains(lines[from:], s.text)
		}
		i := bytes.IndexByte(lines[from+s.rare:], s.text[s.rare])
		if i < 0 {
			return false
		}
		if from += i; bytes.HasPrefix(lines[from:], s.text) {
			return true
		}
		from++
	}
}

// tailKey names a field that goes on in parts.
type tailKey struct {
	statement uint64
	field     string
	index     int
}

// maxTails bounds how many fields are watched for a text that stands across their parts.
const maxTails = 1 << 16

// free says that whole lines hold nothing of what is looked for, however it may be written there.
func (f *finder) free(lines []byte) bool {
	if f.quoted == nil {
		return false
	}
	if f.sought == nil { // beside it, bytes in another form, and a text that may go on in a part
		f.sought = seek(lines, f.quoted, []byte(`_b64"`), []byte(`"hex"`), []byte(`"more"`))
	}
	for i := range f.sought {
		if f.sought[i].in(lines) {
			return false
		}
	}
	for rest := lines; ; {
		i := bytes.IndexByte(rest, '\\')
		if i < 0 {
			return true
		}
		if i+1 == len(rest) || strings.IndexByte(`"\nrt`, rest[i+1]) < 0 {
			return false // it may stand for anything
		}
		rest = rest[i+2:]
	}
}

// plain gives the number of a line that is free if it looks as one that a Writer has written.
func plain(line []byte) (seq uint64, ok bool) {
	c := cursor{rest: line}
	s, ok := c.stamp()
	if !ok || len(c.rest) < 2 || c.rest[0] != ',' || line[len(line)-1] != '}' {
		return 0, false
	}
	switch Type(s.name) {
	case TypeStatement, TypeResult, TypeCopy, TypeNotice:
		return s.seq, true
	}
	return 0, false
}

// in says whether an event holds the text.
func (f *finder) in(e *Event) bool {
	found := false
	switch {
	case e.Type == TypePart && len(e.Params) == 0:
		found = f.piece(tailKey{e.Of, e.Field, e.Index}, e.Text, e.More)
	case len(e.Text) > 0:
		found = f.piece(tailKey{e.ID, FieldText, 0}, e.Text, e.More)
	}
	statement := e.ID
	if e.Type == TypePart {
		statement = e.Of
	}
	for i := range e.Params {
		p := &e.Params[i]
		key := tailKey{statement, FieldParam, i}
		if e.Type == TypePart {
			key.index += e.Index
		}
		hit := f.piece(key, p.Value, p.More)
		found = found || hit || bytes.Contains(p.Name, f.text)
	}
	for _, b := range [][]byte{e.Name, e.Portal, e.Prepares, e.Tag, e.Code, e.Message, e.Severity, []byte(e.Reason), []byte(e.From)} {
		found = found || bytes.Contains(b, f.text)
	}
	return found
}

// piece looks at the next piece of a field, and at where it joins the one before.
func (f *finder) piece(key tailKey, text []byte, more bool) bool {
	tail := f.tails[key]
	if tail == nil && !more {
		return bytes.Contains(text, f.text)
	}
	seam := append(bytes.Clone(tail), text[:min(len(text), len(f.text)-1)]...)
	found := bytes.Contains(text, f.text) || bytes.Contains(seam, f.text)
	delete(f.tails, key)
	if more && len(f.tails) < maxTails {
		if len(text) < len(f.text)-1 {
			text = append(tail, text...)
		}
		f.tails[key] = bytes.Clone(text[max(0, len(text)-len(f.text)+1):])
	}
	return found
}
