package mysql

// What follows reads comments, literals and names in quotes.

// second reads the byte behind one that may begin something longer.
func (l *lexer) second(r reading, c byte) {
	was := r.place
	r.place = inCode
	switch {
	case was == afterDash && c == '-':
		r.place = afterDashes
	case was == afterDashes && space(c):
		if c >= 0x80 { // a control character, in some character sets
			code := r
			l.token(&code)
			l.code(code, c)
		}
		if r.place = inLine; c == '\n' {
			r.place = inCode
		}
	case was == afterDashes && c == '-': // the first of the three stands alone
		l.token(&r)
		r.place = afterDashes
	case was == afterSlash && c == '*':
		r.place = afterOpen
	case was == afterStar && c == '/': // the end of a comment that is code, or there is none to end
		slash := r
		l.token(&slash)
		slash.place = afterSlash
		l.add(slash, c)
	case was == afterOpen || was == afterOpenM:
		l.open(r, was, c)
		return
	case was == inVersion && c >= '0' && c <= '9':
		r.place = inVersion
	case was == inVersion:
		l.code(r, c)
		return
	default:
		l.token(&r)
		l.code(r, c)
		return
	}
	l.add(r, c)
}

// open reads what stands behind /*. Whether the server takes a comment for code depends on its version.
func (l *lexer) open(r reading, was spot, c byte) {
	switch {
	case c == '!' || c == '+' && was == afterOpen:
		code := r
		code.place = inVersion
		l.add(code, c)
		r.place, r.depth = inBlock, 1
		l.add(r, c)
	case c == 'M' && was == afterOpen:
		r.place = afterOpenM
		l.add(r, c)
	default:
		r.place, r.depth = inBlock, 0
		l.block(r, c)
	}
}

// block reads a comment.
func (l *lexer) block(r reading, c byte) {
	was := r.place
	r.place = inBlock
	switch {
	case was == blockStar && c == '/':
		if r.depth == 2 {
			r.depth = 1
			break
		}
		r.place, r.depth = inCode, 0
	case was == blockSlash && c == '*':
		if r.depth == 1 { // some servers nest, some don't
			flat := r
			flat.place = blockStar
			l.add(flat, c)
			r.depth = 2
		} else {
			r.place = blockStar
		}
	case c == '*':
		r.place = blockStar
	case c == '/' && r.depth > 0:
		r.place = blockSlash
	}
	l.add(r, c)
}

// quoted reads what stands in '…' or "…".
func (l *lexer) quoted(r reading, c byte) {
	double := r.place == inDouble || r.place == doubleEnd || r.place == doubleSlash
	quote, in, end, slash := byte('\''), inSingle, singleEnd, singleSlash
	if double {
		quote, in, end, slash = '"', inDouble, doubleEnd, doubleSlash
	}
	switch r.place {
	case end:
		if c != quote {
			if r.step == inText {
				l.content(&r, ' ')
				r.step = afterText
			}
			l.code(r, c)
			return
		}
		r.place = in
		l.content(&r, c)
	case slash:
		r.place = in
		l.content(&r, unescape(c))
	default:
		switch {
		case c == quote:
			r.place = end
		case c == '\\': // it escapes, or it does not, or it is the second half of a character
			plain := r
			l.content(&plain, c)
			l.add(plain, c)
			r.place = slash
		default:
			l.content(&r, c)
		}
	}
	l.add(r, c)
}

// unescape is what an escaped character stands for, as far as words go.
func unescape(c byte) byte {
	switch c {
	case 'n', 't', 'r', 'b', '0', 'Z':
		return ' '
	}
	return c
}

// content looks for words in a text that is to be run.
func (l *lexer) content(r *reading, c byte) {
	if r.step != inText || r.spell(c) {
		return
	}
	switch w := r.text(); {
	case w == "xa" && l.allowed:
		l.find(foundXid)
	case w == "xa":
		l.find(foundXA)
	case w == "prepare" || w == "immediate":
		l.find(foundDynamic)
	}
	r.empty()
}

// ticked reads a name in backticks.
func (l *lexer) ticked(r reading, c byte) {
	switch {
	case r.place == tickEnd && c != '`':
		l.code(r, c)
		return
	case r.place == tickEnd:
		r.place = inTick
	case c == '`':
		if r.high { // or the second half of a character
			l.add(r, c)
		}
		r.place = tickEnd
	}
	l.add(r, c)
}
