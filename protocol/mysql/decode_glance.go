package mysql

// What follows keeps the lexer cheap on ordinary text: it takes the same steps, many bytes at a time, and
// leaves alone whatever is not ordinary.

// mayMatter says whether a text holds one of the words that are looked for. Whatever the character set, the
// server sees ASCII letters only where such were sent.
func (l *lexer) mayMatter(text []byte) bool {
	for i := 0; i+1 < len(text); i++ {
		switch text[i] | 0x20 {
		case 'x':
			if text[i+1]|0x20 == 'a' && (i == 0 || !wordByte(text[i-1]) || text[i-1] <= '9') && (i+2 == len(text) || !wordByte(text[i+2])) {
				return true
			}
		case 'i':
			if l.dynamic && foldPrefix(text[i:], "immediate") {
				return true
			}
		case 'p':
			if l.dynamic && foldPrefix(text[i:], "prepare") {
				return true
			}
		}
	}
	return false
}

// foldPrefix says whether text begins with a word in lower case, in whatever case.
func foldPrefix(text []byte, word string) bool {
	if len(text) < len(word) {
		return false
	}
	for i := range len(word) {
		if text[i]|0x20 != word[i] {
			return false
		}
	}
	return true
}

// idle says how many bytes from here on change nothing: what stands in quotes and comments.
func (l *lexer) idle(text []byte) (i int) {
	if len(l.cur) != 1 || l.lost || l.xid.on {
		return 0
	}
	r := &l.cur[0]
	var a, b byte // what ends it
	switch {
	case r.step == inText:
		return 0
	case r.place == inSingle:
		a, b = '\'', '\\'
	case r.place == inDouble:
		a, b = '"', '\\'
	case r.place == inLine:
		a, b = '\n', '\n'
	case r.place == inBlock && r.depth == 0:
		a, b = '*', '*'
	default:
		return 0
	}
	for i < len(text) && text[i] != a && text[i] != b {
		i++
	}
	if i > 0 {
		r.high = text[i-1] >= 0x80
	}
	return i
}

// stride reads ordinary code in the one way there is to read it: words that are none of those looked for,
// numbers, operators and plain literals. It says how many bytes that was.
func (l *lexer) stride(text []byte) (i int) {
	if len(l.cur) != 1 || l.lost || l.xid.on {
		return 0
	}
	r := &l.cur[0]
	if r.place != inCode || r.step > elsewhere {
		return 0
	}
	for i < len(text) {
		n := 1
		switch c := text[i]; {
		case space(c):
		case wordByte(c):
			if n = l.plainWord(text[i:]); n > 0 {
				r.step = elsewhere
				l.words++
			}
		case c == '\'':
			if n = l.plainLiteral(text[i:]); n > 0 {
				r.step = elsewhere
			}
		case c == '"', c == '`', c == '#', c == '-', c == '/', c == '*', c == ';', c == ':', c == '>':
			n = 0
		default:
			r.step = elsewhere
		}
		if n == 0 {
			break
		}
		i += n
	}
	if i > 0 {
		r.high = text[i-1] >= 0x80
		r.empty()
	}
	return i
}

// plainWord is the length of the word at the beginning of text, 0 if it is not whole or may be one of those
// looked for.
func (l *lexer) plainWord(text []byte) int {
	n := 1
	for n < len(text) && wordByte(text[n]) {
		n++
	}
	if n == len(text) || l.dollars && text[0] == '$' || l.looked(text[0]|0x20, n) {
		return 0
	}
	return n
}

// looked says whether a word may be looked for, as far as its first letter and its length tell.
func (l *lexer) looked(first byte, n int) bool {
	if n == len("xa") && first == 'x' {
		return true
	}
	if !l.dynamic {
		return false
	}
	switch n {
	case 2: // do
		return first == 'd'
	case 3: // for
		return first == 'f'
	case 4: // then, else, loop
		return first == 't' || first == 'e' || first == 'l'
	case 5: // begin
		return first == 'b'
	case 6: // repeat, atomic, create
		return first == 'r' || first == 'a' || first == 'c'
	case 7: // prepare, execute, handler
		return first == 'p' || first == 'e' || first == 'h'
	}
	return false
}

// plainLiteral is the length of the '…' at the beginning of text, 0 if it is not whole, or there is more
// than one way to read it.
func (l *lexer) plainLiteral(text []byte) int {
	for i := 1; i+1 < len(text); i++ {
		switch text[i] {
		case '\'':
			if text[i+1] != '\'' {
				return i + 1
			}
			i++
		case '\\':
			return 0
		}
	}
	return 0
}

// calm says how many bytes from here on lead none of several readings anywhere else.
func (l *lexer) calm(text []byte) int {
	if len(l.cur) < 2 || l.lost || l.xid.on {
		return 0
	}
	for i, c := range text {
		for j := range l.cur {
			if !l.cur[j].calm(c) {
				return i
			}
		}
		for j := range l.cur {
			r := &l.cur[j]
			if r.high = c >= 0x80; r.place == inWord {
				r.spell(c)
			}
		}
	}
	return len(text)
}

// calm says whether a byte leaves a reading where it is.
func (r *reading) calm(c byte) bool {
	switch r.place {
	case inSingle:
		return c != '\'' && c != '\\' && r.step != inText
	case inDouble:
		return c != '"' && c != '\\' && r.step != inText
	case inTick:
		return c != '`'
	case inLine:
		return c != '\n'
	case inBlock:
		return c != '*' && c != '/'
	case inWord:
		return wordByte(c)
	case inCode:
		return c <= ' '
	}
	return false
}
