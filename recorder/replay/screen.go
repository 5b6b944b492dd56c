package replay

import (
	"bufio"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

type color string

const (
	plain  color = ""
	bold   color = "1"
	dim    color = "2"
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	cyan   color = "36"
)

const (
	margin = 14 // columns of the time
	inset  = 18 // columns before what belongs to the line above
)

// screen writes text of strangers to a terminal. It alone writes, and it alone writes escapes.
type screen struct {
	w      *bufio.Writer
	width  int
	color  bool
	column int
	rest   []byte // the beginning of a character whose end is in the next part
	err    error
}

func newScreen(w *bufio.Writer, width int, colors bool) *screen {
	if width > 0 {
		width = max(width, inset+20)
	}
	return &screen{w: w, width: width, color: colors}
}

func (s *screen) flush() error {
	s.note(s.w.Flush())
	return s.err
}

func (s *screen) end() error {
	s.endRest()
	if s.column > 0 {
		s.newline(0)
	}
	return s.flush()
}

func (s *screen) note(err error) {
	if s.err == nil {
		s.err = err
	}
}

// begin starts an event on a line of its own.
func (s *screen) begin(at string, c color, what string) {
	s.endRest()
	if s.column > 0 {
		s.newline(0)
	}
	s.text(dim, fmt.Sprintf("%*s", margin-2, at))
	s.text(plain, "  ")
	s.text(c, what)
	s.pad(inset)
}

func (s *screen) field(name, value string) {
	s.text(dim, fmt.Sprintf("%-10s", name))
	s.text(plain, value)
	s.newline(0)
}

func (s *screen) rule() {
	n := s.width
	if n == 0 {
		n = 72
	}
	s.text(dim, strings.Repeat("─", n-1))
	s.newline(0)
}

// line starts a further line of the same event.
func (s *screen) line(c color, text string) {
	s.endRest()
	s.newline(inset)
	s.text(c, text)
}

func (s *screen) newline(indent int) {
	s.raw("\n")
	s.column = 0
	s.pad(indent)
}

// pad goes to a column, or one further where it is passed already.
func (s *screen) pad(to int) {
	if to == 0 {
		return
	}
	n := max(to-s.column, 1)
	s.raw(strings.Repeat(" ", n))
	s.column += n
}

func (s *screen) raw(text string) {
	_, err := s.w.WriteString(text)
	s.note(err)
}

func (s *screen) text(c color, text string) { s.bytes(c, []byte(text), false) }

// bytes writes text, made visible. more: it goes on with the next call, and may end within a character.
func (s *screen) bytes(c color, text []byte, more bool) {
	if len(text) == 0 && (more || len(s.rest) == 0) {
		return
	}
	if s.color && c != plain {
		s.raw("\x1b[" + string(c) + "m")
		defer s.raw("\x1b[0m")
	}
	if len(s.rest) > 0 {
		text = append(s.rest, text...)
		s.rest = nil
	}
	for len(text) > 0 {
		if more && !utf8.FullRune(text) {
			s.rest = append([]byte(nil), text...)
			return
		}
		r, size := utf8.DecodeRune(text)
		s.char(r, size, text[0])
		text = text[size:]
	}
}

// endRest shows the beginning of a character that has no end.
func (s *screen) endRest() {
	rest := s.rest
	s.rest = nil
	for _, b := range rest {
		s.char(utf8.RuneError, 1, b)
	}
}

func (s *screen) char(r rune, size int, first byte) {
	shown := visible(r, size, first)
	switch shown {
	case "\n":
		s.newline(inset)
		return
	case "\t":
		shown = strings.Repeat(" ", 8-s.column%8)
	}
	n := utf8.RuneCountInString(shown)
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		n = 2 // or the terminal would wrap where we don't, to a column that is ours
	}
	if s.width > 0 && s.column+n > s.width {
		s.newline(inset)
	}
	s.raw(shown)
	s.column += n
}

// visible is how a character is shown: itself, if a terminal only draws it.
func visible(r rune, size int, first byte) string {
	switch {
	case r == utf8.RuneError && size <= 1:
		return fmt.Sprintf(`\x%02x`, first)
	case r == '\n', r == '\t':
		return string(r)
	case r < 0x20 || r == 0x7f:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x80:
		return string(r)
	case r > 0xffff && !unicode.IsGraphic(r):
		return fmt.Sprintf(`\U%08x`, r)
	case !unicode.IsGraphic(r), unicode.Is(unicode.Zs, r):
		return fmt.Sprintf(`\u%04x`, r)
	}
	return string(r)
}
