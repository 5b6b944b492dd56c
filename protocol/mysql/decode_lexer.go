package mysql

// lexer finds XA in SQL that arrives in pieces, among comments, quotes and other statements. It is no
// parser: it knows what the server's own lexer knows of where a token begins and ends. Some of that depends
// on what Curfew is not told for certain: whether a backslash escapes, and whether "…" is a name (sql_mode; a
// routine that sets it can leave the server's status flags wrong), in which character set the client writes
// (in some a backslash or a backtick is the second half of a character), whether the server is of the version
// for which a comment is code. Where two readings of a byte are possible both are followed; they soon come
// together again, or are two.
//
// MariaDB runs XA from text that it puts together itself (PREPARE … FROM @v, EXECUTE IMMEDIATE …). What
// such a text is can be seen only if it is one plain literal.
type lexer struct {
	dynamic bool // XA can be run from text put together: MariaDB
	dollars bool // $$…$$ may be a literal
	allowed bool // XA is allowed; the xids that are prepared are read

	cur, next []reading
	lost      bool // too many readings: what can't be excluded counts
	tail      reading
	found     finding
	from      int  // where the statement begins in which it was found, or the first of several that it may be
	compound  bool // a statement may begin within another at places that are not looked at
	xid       xidReader
	words     int // words in the text so far
	at        int // bytes of the text so far
}

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
	atInner                  // of one within another
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
	from  int // where the statement begins; the earlier one, where readings come together
}

// begin prepares for a new text.
func (l *lexer) begin() {
	l.cur = append(l.cur[:0], reading{})
	l.lost, l.found, l.from, l.compound, l.words, l.at = false, foundNothing, 0, false, 0, 0
	l.tail = reading{}
	l.xid = xidReader{}
}

// scan reads more of the text; end says that nothing follows. It returns where in it begins what must not
// pass, -1 if there is nothing so far.
func (l *lexer) scan(text []byte, end bool) int {
	base := l.at
	for i := 0; i < len(text); i++ {
		i += l.idle(text[i:])
		i += l.stride(text[i:])
		if i += l.calm(text[i:]); i == len(text) {
			break
		}
		l.at = base + i
		if l.byte(text[i]); l.found != foundNothing {
			return max(0, l.from-base)
		}
	}
	l.at = base + len(text)
	if end {
		if l.byte(';'); l.found != foundNothing {
			return max(0, l.from-base)
		}
	}
	return -1
}

// byte has every reading move on.
func (l *lexer) byte(c byte) {
	if l.xid.on && !l.xid.next(c) {
		l.find(foundXid)
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
		from := l.next[i].from
		if l.next[i].from = r.from; l.next[i] == r {
			l.next[i].from = min(from, r.from)
			return
		}
		l.next[i].from = from
	}
	l.next = append(l.next, r)
}

// find notes that something must not pass. The statements before that one do; but where it begins may not be sure.
func (l *lexer) find(f finding) {
	if l.found != foundNothing || l.allowed && f == foundDynamic {
		return
	}
	l.found, l.from = f, l.cur[0].from
	for _, r := range l.cur {
		l.from = min(l.from, r.from)
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
		if c >= 0x80 || r.high && c >= '@' && c < 0x7f { // or the second half of a character
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
		r.step, r.from = atStart, l.at+1
	case c == ':' || c == '>': // of a label
		l.token(&r)
		r.step = atInner
	case wordByte(c):
		l.beginWord(r, c)
		return
	default:
		l.token(&r)
	}
	l.add(r, c)
}

// goOn takes a byte of a character beyond ASCII for one of a name's, where that makes a difference.
func (l *lexer) goOn(r reading, c byte) {
	switch r.step {
	case sawPrepare:
		r.empty()
		r.place, r.n = inWord, unlikeOthers
		l.add(r, c)
	case atText:
		l.find(foundDynamic)
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
	case r.step == atText && (c == '\'' || l.words <= 3):
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
	first := was == atStart || was == atInner || l.compound
	switch {
	case w == "xa":
		if r.step = sawXAWithin; was == atStart {
			r.step = sawXA
		}
	case !l.dynamic:
	case w == "prepare" && first:
		r.step = sawPrepare
	case w == "execute" && first:
		r.step = sawExecute
	case w == "create", w == "handler":
		l.compound = true
	case opens(w):
		r.step = atInner
	}
}

// opens says whether a statement may follow a word.
func opens(w string) bool {
	switch w {
	case "then", "else", "do", "loop", "repeat", "begin", "atomic", "for":
		return true
	}
	return false
}
