package config

import (
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// place finds where in the file a line and column of a scalar's value stand, all of them from 1. What YAML
// does to a scalar concerns white space, quotes and escapes alone: so the characters that are seen come in
// the same order in the file as in the value, and the place is found by walking both together.
func place(file string, n *yaml.Node, line, column int) (int, int) {
	lines := strings.Split(file, "\n")
	from := walker{lines: lines, line: n.Line - 1, column: n.Column - 1}
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		from = walker{lines: lines, line: n.Line} // what is above is |, > and what belongs to them
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		from.column++
	}
	at, end := from, walker{}
	for i, text := range strings.Split(n.Value, "\n") {
		for j, c := range []rune(text) {
			if i+1 > line || (i+1 == line && j+1 >= column && !unicode.IsSpace(c)) {
				if next, ok := at.find(c); ok {
					return next.line + 1, next.column + 1
				}
				return at.line + 1, at.column + 1
			}
			if unicode.IsSpace(c) {
				continue
			}
			next, ok := at.find(c)
			if !ok {
				return n.Line, n.Column // it is written with escapes that hide it
			}
			at, end = next, next
			at.column++
		}
	}
	return end.line + 1, end.column + 2 // behind the last character
}

// walker stands at a character of a file.
type walker struct {
	lines        []string
	line, column int // from 0; columns are characters
}

// find goes on to the next character that is seen, which must be this one, but for an escape before it.
func (w walker) find(c rune) (walker, bool) {
	for skipped := 0; w.line < len(w.lines); {
		text := []rune(w.lines[w.line])
		if w.column >= len(text) {
			w.line, w.column = w.line+1, 0
			continue
		}
		switch at := text[w.column]; {
		case at == c:
			return w, true
		case unicode.IsSpace(at):
		case (at == '\\' || at == '\'') && skipped < 2:
			skipped++
		default:
			return w, false
		}
		w.column++
	}
	return w, false
}
