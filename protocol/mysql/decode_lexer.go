package mysql

// lexer finds XA in SQL that arrives in pieces, among comments, quotes and other statements. It is no
// parser: it knows what the server's own lexer knows of where a token begins and ends. Some of that depends
// on what Curfew is not told for certain, or not in time: whether a backslash escapes (sql_mode), whether
// "…" is a name (sql_mode), in which character set the client writes (in some a backslash or a backtick is
// the second half of a character), whether the server is of the version for which a comment is code. Where
// two readings of a byte are possible both are followed; they soon come together again, or are two.
//
// MariaDB runs XA from text that it puts together itself (PREPARE … FROM @v, EXECUTE IMMEDIATE …). What
// such a text is can be seen only if it is one plain literal.
type lexer struct {
	dynamic bool // XA can be run from text put together: MariaDB
	dollars bool // $$…$$ may be a literal
	escapes tri  // a backslash escapes in '…'
	ansi    tri  // "…" is a name
	allowed bool // XA is allowed; the xids that are prepared are read

	cur, next []reading
	lost      bool // too many readings: what can't be excluded counts
	tail      reading
	found     finding
	shaky     bool // sql_mode may have been set by a statement of this text
	xid       xidReader
	words     int // words in the text so far
}

// tri is yes, no or either.
type tri byte

const (
	no tri = iota
	yes
	maybe
)

// finding is what was found.
type finding byte

const (
	foundNothing finding = iota
	foundXA              // XA, which the level does not allow
	foundXid             // XA PREPARE of something that can't be made out for certain
	foundDynamic         // text put together by the server
)

// limitReadings is how many readings are followed at once. A text that nobody wrote to confuse has a few.
const limitReadings = 32

// spot is where in the text a reading stands.
type spot byte

const (
	inCode spot = iota
	inWord
	afterDash   // -
	afterDashes // --
	afterSlash  // /
	afterStar   // * in code
	afterOpen   // /*
	afterOpenM  // /*M
	inVersion   // /*! and digits
	inLine      // -- … or # …
	inBlock     // /* …
	blockStar   // * in it
	blockSlash  // / in it
	inSingle    // '…
	inDouble    // "…
	singleEnd   // ' in it: the end, or the first of two
	doubleEnd
	singleSlash // \ in it
	doubleSlash
	inTick // `…
	tickEnd
	inDollar // $$…
)

// step is how much of what is looked for has been seen.
type step byte

const (
	atStart      step = iota // of a statement
	elsewhere                // in one
	sawXA                    // XA, at the beginning of a statement
	sawXAWithin              // XA, elsewhere
	sawVerb                  // XA START and its like
	sawXAPrepare             // XA PREPARE, at the beginning
	sawXAPrepareWithin
	sawPrepare   // PREPARE
	sawName      // PREPARE name
	sawExecute   // EXECUTE
	atText       // PREPARE name FROM, EXECUTE IMMEDIATE
	inText       // a literal behind it
	afterText    // that has ended
	longestWord  = 9
	unlikeOthers = 0xff // length of a word that is none of ours
)

// reading is the text read in one way.
type reading struct {
	place spot
	step  step
	high  bool // the byte before is not ASCII
	depth byte // of comments that are not code: 0 don't nest, 1 and 2 do
	n     byte // length of the word
	word  [longestWord]byte
}

// begin prepares for a new text.
func (l *lexer) begin() {
	l.cur = append(l.cur[:0], reading{})
	l.lost, l.found, l.shaky, l.words = false, foundNothing, false, 0
	l.tail = reading{}
	l.xid = xidReader{}
}

// scan reads more of the text; end says that nothing follows. It returns where the first thing is that
// must not pass, -1 if there is none so far.
func (l *lexer) scan(text []byte, end bool) int {
	for i := 0; i < len(text); i++ {
		i += l.idle(text[i:])
		if i += l.stride(text[i:]); i == len(text) {
			break
		}
		if l.byte(text[i]); l.found != foundNothing {
			return i
		}
	}
	if end {
		if l.byte(';'); l.found != foundNothing {
			return max(0, len(text)-1)
		}
	}
	return -1
}

// byte has every reading move on.
func (l *lexer) byte(c byte) {
	if l.xid.on && !l.xid.next(c) {
		l.found = foundXid
		return
	}
	if l.lost {
		l.doubt(c)
		return
	}
	l.next = l.next[:0]
	for _, r := range l.cur {
		l.move(r, c)
	}
	l.cur, l.next = l.next, l.cur
	if len(l.cur) > limitReadings {
		l.lost = true
	}
	if l.xid.on && len(l.cur) > 1 {
		l.find(foundXid)
	}
}

// add takes a reading up to the next byte.
func (l *lexer) add(r reading, c byte) {
	r.high = c >= 0x80
	for i := range l.next {
		if l.next[i] == r {
			return
		}
	}
	l.next = append(l.next, r)
}

func (l *lexer) find(f finding) {
	if l.found == foundNothing && !(l.allowed && f == foundDynamic) {
		l.found = f
	}
}

// doubt looks for the words themselves in what may be code or not.
func (l *lexer) doubt(c byte) {
	if l.tail.spell(c) {
		return
	}
	switch w := l.tail.text(); {
	case w == "xa":
		l.find(foundXA)
	case l.dynamic && (w == "prepare" || w == "immediate"):
		l.find(foundDynamic)
	}
	l.tail.n = 0
}

// spell adds a byte to the word, if it belongs to one.
func (r *reading) spell(c byte) bool {
	if !wordByte(c) {
		return false
	}
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	if r.n < longestWord {
		r.word[r.n] = c
		r.n++
	} else { // none of ours; all such are alike
		r.n, r.word = unlikeOthers, [longestWord]byte{}
	}
	return true
}

func (r *reading) text() string {
	if r.n == unlikeOthers {
		return ""
	}
	return string(r.word[:r.n])
}

// empty forgets the word.
func (r *reading) empty() { r.n, r.word = 0, [longestWord]byte{} }

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}

// space says whether a byte may stand between two tokens. In some character sets bytes beyond ASCII may.
func space(c byte) bool { return c <= ' ' || c == 0x7f || c >= 0x80 }

// move reads one byte in one way, or in several.
func (l *lexer) move(r reading, c byte) {
	switch r.place {
	case inCode:
		l.code(r, c)
	case inWord:
		if r.spell(c) {
			l.add(r, c)
			return
		}
		if c >= 0x80 {
			l.goOn(r, c)
		}
		l.endWord(&r, c)
		l.code(r, c)
	case inSingle, inDouble, singleEnd, doubleEnd, singleSlash, doubleSlash:
		l.quoted(r, c)
	case inTick, tickEnd:
		l.ticked(r, c)
	case inDollar:
		l.add(r, c)
		if c == '$' {
			r.place = inCode
			l.add(r, c)
		}
	case inLine:
		if c == '\n' {
			r.place = inCode
		}
		l.add(r, c)
	case inBlock, blockStar, blockSlash:
		l.block(r, c)
	default:
		l.second(r, c)
	}
}

// code reads a byte between two tokens, or the first one of a token.
func (l *lexer) code(r reading, c byte) {
	r.place = inCode
	switch {
	case space(c):
		if c >= 0x80 {
			l.goOn(r, c)
		}
	case c == '\'' || c == '"':
		l.openQuote(&r, c)
	case c == '`':
		if r.high { // or the second half of a character
			l.add(r, c)
		}
		l.name(&r)
		r.empty()
		r.place = inTick
	case c == '#':
		r.place = inLine
	case c == '-':
		r.place = afterDash
	case c == '/':
		r.place = afterSlash
	case c == '*':
		r.place = afterStar
	case c == ';':
		r.step = atStart
		if l.shaky { // what stood before may have changed how this is read
			l.escapes, l.ansi = maybe, maybe
		}
	case wordByte(c):
		l.beginWord(r, c)
		return
	default:
		l.token(&r)
	}
	l.add(r, c)
}

// goOn takes a byte beyond ASCII for one of a name's, where one of those stands in the way of what is looked for.
func (l *lexer) goOn(r reading, c byte) {
	if r.step == sawPrepare {
		r.empty()
		r.place, r.n = inWord, unlikeOthers
		l.add(r, c)
	}
}

// beginWord reads the first byte of a word.
func (l *lexer) beginWord(r reading, c byte) {
	switch {
	case r.step == atText:
		l.find(foundDynamic)
	case c == '0' && (r.step == sawVerb || r.step == sawXAPrepare || r.step == sawXAPrepareWithin): // 0x…
		l.xidBegins(&r, c)
	}
	if c == '$' && l.dollars {
		in := r
		in.place, in.step = inDollar, elsewhere
		l.add(in, c)
	}
	r.place = inWord
	r.empty()
	r.spell(c)
	l.add(r, c)
}

// token notes a token that is none of those looked for.
func (l *lexer) token(r *reading) {
	if r.step == atText || r.step == afterText {
		l.find(foundDynamic)
	}
	r.step = elsewhere
}

// name notes a quoted name.
func (l *lexer) name(r *reading) {
	if r.step == sawPrepare {
		r.step = sawName
		return
	}
	l.token(r)
}

// openQuote begins a literal, or a name in double quotes.
func (l *lexer) openQuote(r *reading, c byte) {
	r.place = inSingle
	if c == '"' {
		r.place = inDouble
	}
	switch {
	case r.step == sawVerb, r.step == sawXAPrepare, r.step == sawXAPrepareWithin:
		l.xidBegins(r, c)
	case r.step == sawPrepare && c == '"':
		r.step = sawName
	case r.step == atText && (c == '\'' || l.ansi == no || l.words <= 3):
		// Behind PREPARE name FROM at the beginning of the text no "name" can stand that has a value.
		r.step = inText
		r.empty()
	default:
		l.token(r)
	}
}

// xidBegins is at the first literal of an xid.
func (l *lexer) xidBegins(r *reading, c byte) {
	switch {
	case !l.allowed:
		l.find(foundXA)
	case r.step == sawVerb:
	case r.step == sawXAPrepare && len(l.cur) == 1 && l.xid.begin(c, r):
	default:
		l.find(foundXid)
	}
	r.step = elsewhere
}

// endWord judges a word; c is what ended it.
func (l *lexer) endWord(r *reading, c byte) {
	l.words++
	w := r.text()
	was := r.step
	r.step = elsewhere
	l.shaky = l.shaky || w == "sql_mode" || w == "execute"
	switch was {
	case sawXA, sawXAWithin:
		switch w {
		case "start", "begin", "end", "commit", "rollback":
			r.step = sawVerb
			return
		case "prepare":
			if r.step = sawXAPrepare; was == sawXAWithin {
				r.step = sawXAPrepareWithin
			}
			return
		}
	case sawVerb, sawXAPrepare, sawXAPrepareWithin:
		if c == '\'' || c == '"' { // X'…', B'…'
			r.step = was
			return
		}
	case sawPrepare:
		r.step = sawName
		return
	case sawName:
		if w == "from" {
			r.step = atText
			return
		}
	case sawExecute:
		if w == "immediate" {
			r.step = atText
			return
		}
	case afterText:
		if w != "using" {
			l.find(foundDynamic)
		}
		return
	}
	switch {
	case w == "xa":
		if r.step = sawXAWithin; was == atStart {
			r.step = sawXA
		}
	case w == "prepare" && l.dynamic:
		r.step = sawPrepare
	case w == "execute" && l.dynamic:
		r.step = sawExecute
	}
}

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
		case c == '\\':
			escapes := l.escaping(double, r.high)
			if escapes != yes {
				plain := r
				l.content(&plain, c)
				l.add(plain, c)
			}
			if escapes == no {
				return
			}
			r.place = slash
		default:
			l.content(&r, c)
		}
	}
	l.add(r, c)
}

// escaping says whether a backslash escapes.
func (l *lexer) escaping(double, high bool) tri {
	e := l.escapes
	if double && l.ansi == yes {
		return no
	}
	if e == yes && (high || double && l.ansi == maybe) {
		return maybe // or it is the second half of a character
	}
	return e
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
		l.shaky = l.shaky || r.text() == "sql_mode"
		r.empty()
		r.place = tickEnd
	case !r.spell(c):
		r.n = unlikeOthers
	}
	l.add(r, c)
}
