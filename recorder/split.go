package recorder

import "unicode/utf8"

// maxPart is how many bytes of text, or of parameter values together, one line carries; what goes
// beyond follows in parts. It bounds the memory that writing and reading a statement takes.
const maxPart = 64 << 10

// runeCut is the longest prefix of p, at most n bytes, that does not end within a UTF-8 sequence; of
// bytes that are no UTF-8 it is n.
func runeCut(p []byte, n int) int {
	if n >= len(p) {
		return len(p)
	}
	for i := n; i > 0 && i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			return i
		}
	}
	return n
}

// add encodes one event: one line, or several where it is too long for one.
func (w *Writer) add(dst []byte, e *Event) ([]byte, error) {
	head := e
	if e.Type == TypePart && e.Of == 0 {
		moved := *e
		moved.Of, moved.ID = e.ID, 0
		head = &moved
	}
	if w.header.Parameters == ParametersTypes {
		head = w.withhold(head)
	}
	text := head.Text
	redacts := head.Type == TypeStatement || head.Type == TypePart && head.Field == FieldText
	if head.Type == TypeStatement {
		w.statements = max(w.statements, head.ID)
		w.redacting = len(text) > 0 && (head.More || mayHoldSecret(text))
		if w.redacting {
			w.redact.reset()
		}
	}
	redacts = redacts && w.redacting

	cut := runeCut(text, maxPart)
	dst, err := w.line(dst, head, text[:cut], redacts, head.More || cut < len(text))
	if err != nil {
		return dst, err
	}
	if len(text) == cut && len(head.Params) == 0 {
		return dst, nil
	}
	part := Event{Type: TypePart, Of: head.ID, Field: FieldText}
	if head.Type == TypePart {
		part.Of, part.Field, part.Index = head.Of, head.Field, head.Index
	}
	for text = text[cut:]; len(text) > 0; text = text[cut:] {
		cut = runeCut(text, maxPart)
		dst, err = w.line(dst, &part, text[:cut], redacts, head.More || cut < len(text))
		if err != nil {
			return dst, err
		}
	}
	return w.addParams(dst, head)
}

// addParams encodes the values that the statement's own line had no room for.
func (w *Writer) addParams(dst []byte, e *Event) ([]byte, error) {
	inline := maxPart
	for i := range e.Params {
		p := &e.Params[i]
		if p.Null {
			continue
		}
		if len(p.Value) <= inline {
			inline -= len(p.Value)
			continue
		}
		part := Event{Type: TypePart, Of: e.ID, Field: FieldParam, Index: e.Index + i}
		if e.Type == TypePart {
			part.Of = e.Of
		}
		for value, cut := p.Value, 0; len(value) > 0; value = value[cut:] {
			cut = runeCut(value, maxPart)
			var err error
			if dst, err = w.line(dst, &part, value[:cut], false, p.More || cut < len(value)); err != nil {
				return dst, err
			}
		}
	}
	return dst, nil
}
