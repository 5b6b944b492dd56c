package postgres

import (
	"bytes"
	"slices"
)

// lexer finds PREPARE TRANSACTION in SQL that arrives in pieces, among comments, quotes and other
// statements, and reads the global id. It is no parser: it knows what the server's own lexer knows of
// where a token begins and ends. That depends on two settings of the session: whether a backslash in '…'
// escapes, and the client's encoding, in some of which the second byte of a character may look like a
// backslash. Where they are not known for certain, because a request that may change them has not been
// answered yet, the text is read in every way.
type lexer struct{ readings []reading }

// settings is what the server reads SQL by.
type settings struct {
	known     bool // the server has said so, and has nothing left to do that could change it
	backslash bool // standard_conforming_strings is off
	width     width
}

func newLexer(s settings) *lexer {
	if s.known {
		return &lexer{[]reading{{backslash: s.backslash, width: s.width}}}
	}
	l := &lexer{}
	for w := single; w <= quads; w++ {
		l.readings = append(l.readings, reading{width: w}, reading{width: w, backslash: true})
	}
	return l
}

// scan reads more; end says that nothing follows. It says whether there was such a statement so far, in
// any reading.
func (l *lexer) scan(text []byte, end bool) bool {
	for i := range l.readings {
		l.readings[i].scan(text, end)
	}
	return slices.ContainsFunc(l.readings, func(r reading) bool { return r.found > 0 })
}

// lost says whether some global id is not known for certain: what was found so far is not the same in all
// readings, or it was written in other than printable ASCII, or with escapes.
func (l *lexer) lost() bool {
	first := &l.readings[0]
	for i := range l.readings {
		if r := &l.readings[i]; r.odd || r.found != first.found || !bytes.Equal(r.gid, first.gid) || len(r.gids) != len(first.gids) {
			return true
		}
	}
	return false
}

// take gives the global ids that were read since the last call.
func (l *lexer) take() [][]byte {
	gids := l.readings[0].gids
	for i := range l.readings {
		l.readings[i].gids = nil
	}
	return gids
}

// mayPrepare says whether the word occurs at all. Whatever the encoding, the server sees ASCII letters only
// where such were sent.
func mayPrepare(text []byte) bool {
	const word = "prepare"
	for i := 0; i+len(word) <= len(text); i++ {
		if text[i]|0x20 == 'p' && bytes.EqualFold(text[i:i+len(word)], []byte(word)) {
			return true
		}
	}
	return false
}

// width is how an encoding's characters are told apart, as far as it matters: in most, bytes beyond ASCII
// are followed by their like.
type width byte

const (
	single  width = iota
	kana          // SJIS, SHIFT_JIS_2004: two bytes, but for half-width kana
	pairs         // BIG5, GBK, UHC: two bytes
	triples       // JOHAB: two bytes, three behind 0x8F
	quads         // GB18030: two bytes, or four if the second is a digit
)

// widthOf judges a client_encoding by the server's name for it.
func widthOf(encoding string) width {
	switch encoding {
	case "SJIS", "SHIFT_JIS_2004":
		return kana
	case "BIG5", "GBK", "UHC":
		return pairs
	case "JOHAB":
		return triples
	case "GB18030":
		return quads
	}
	return single
}

// after says how many bytes of the same character follow one.
func (w width) after(c byte) int {
	switch {
	case c < 0x80 || w == single || w == kana && c >= 0xa1 && c <= 0xdf:
		return 0
	case w == triples && c == 0x8f:
		return 2
	}
	return 1
}

const (
	limitGID = 200 // GIDSIZE: a longer one is refused by the server
	limitTag = 256 // of $tag$; a longer one is not followed
)

// spot is where in the text a reading stands.
type spot byte

const (
	inCode spot = iota
	inWord
	afterDash   // -
	afterSlash  // /
	afterU      // U&
	afterDollar // $, and the tag so far
	inParam     // $1
	inLine      // -- …
	inBlock     // /* …
	blockStar   // * in it
	blockSlash  // / in it
	inQuote     // '…
	quoteEscape // \ in it
	quoteQuote  // ' in it: the end, or the first of two
	inIdent     // "…
	inBody      // $tag$…
	inDoubt     // behind a tag that can't be followed
)

// step is how much of PREPARE TRANSACTION 'gid' has been seen in this statement.
type step int8

const (
	another step = iota - 1 // it is another statement
	atStart
	atPrepare
	atTransaction
	atGID
)

// char is a byte of the text; one that belongs to a character with others is above all ASCII.
type char uint16

const continued char = 0x100

// reading is the text read with one meaning of the settings.
type reading struct {
	backslash bool
	width     width
	found     int  // statements
	odd       bool // a global id was not written plainly, or a tag was too long to follow
	gids      [][]byte

	place   spot
	step    step
	skip    int  // bytes of the same character to come
	four    bool // it has four in all
	depth   int  // of nested comments
	word    [12]byte
	wordLen int
	tag     []char // $tag$
	matched int    // of it, that were seen of the end; in doubt, of the word prepare
	escapes bool   // a backslash in this quote escapes
	joined  byte   // a quote has just ended: 1; and a newline was seen since: 2. Then another goes on with it
	keep    bool   // the quote is the gid
	gid     []byte
}

func (r *reading) scan(text []byte, end bool) {
	for i := 0; i < len(text); i++ {
		if i += r.idle(text[i:]); i == len(text) {
			break
		}
		b := text[i]
		c := char(b)
		if r.skip > 0 {
			r.skip--
			if c |= continued; r.width == quads && b >= '0' && b <= '9' && !r.four {
				r.skip, r.four = 2, true
			}
		} else if n := r.width.after(b); n > 0 {
			r.skip, r.four, c = n, false, c|continued
		}
		for !r.next(c) {
		}
	}
	if end {
		for !r.next(';') {
		}
	}
}

// idle says how many bytes from here on change nothing: what stands in quotes and comments.
func (r *reading) idle(text []byte) int {
	var a, b byte // what ends it
	switch {
	case r.skip > 0:
		return 0
	case r.place == inQuote && !r.keep:
		a, b = '\'', '\\'
	case r.place == inBody && !r.keep && r.matched == 0:
		a, b = '$', '$'
	case r.place == inBlock:
		a, b = '*', '/'
	case r.place == inLine:
		a, b = '\n', '\r'
	default:
		return 0
	}
	for i, c := range text {
		if c == a || c == b || c >= 0x80 && r.width != single {
			return i
		}
	}
	return len(text)
}

// next moves on by one byte; false means that it ended a token and is to be looked at again.
func (r *reading) next(c char) bool {
	switch r.place {
	case inCode:
		return r.code(c)
	case inWord:
		return r.inWord(c)
	case afterDash, afterSlash, afterU:
		return r.second(c)
	case afterDollar:
		return r.dollar(c)
	case inParam:
		if c >= '0' && c <= '9' {
			return true
		}
		r.place = inCode
		return false
	case inLine:
		if c == '\n' || c == '\r' {
			r.place = inCode
			return false
		}
	case inBlock, blockStar, blockSlash:
		r.block(c)
	case inIdent:
		if c == '"' {
			r.place = inCode
		}
	case inBody:
		r.body(c)
	case inDoubt:
		r.doubt(c)
	default:
		return r.quote(c)
	}
	return true
}

// code looks at the first byte of a token.
func (r *reading) code(c char) bool {
	switch {
	case c == '\n' || c == '\r':
		if r.joined == 1 {
			r.joined = 2
		}
		return true
	case c == ' ' || c == '\t' || c == '\f' || c == '\v':
		return true
	case c == '-':
		r.place = afterDash
		return true
	case c == '\'' && r.joined == 2: // 'a' <newline> 'b' is one literal
		r.joined, r.place = 0, inQuote
		return true
	}
	r.joined = 0
	switch {
	case c == '\'':
		r.openQuote(r.backslash)
	case c == '/':
		r.place = afterSlash
	case c == '"':
		r.token()
		r.place = inIdent
	case c == '$':
		r.tag = append(r.tag[:0], '$')
		r.place = afterDollar
	case c == ';':
		r.finish()
		r.step = atStart
	case c == '_' || c >= 0x80 || c|0x20 >= 'a' && c|0x20 <= 'z':
		r.wordLen = 0
		r.place = inWord
		return false
	default: // digits, too: what follows them is a token of its own
		r.token()
	}
	return true
}

// token notes a token that has no part in PREPARE TRANSACTION.
func (r *reading) token() {
	r.finish()
	r.step = another
}

func wordByte(c char) bool {
	return c == '_' || c == '$' || c >= 0x80 || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}

func (r *reading) inWord(c char) bool {
	if wordByte(c) {
		if r.wordLen < len(r.word) {
			r.word[r.wordLen] = byte(min(c, 0xff))
			if c >= 'A' && c <= 'Z' {
				r.word[r.wordLen] |= 0x20
			}
		}
		r.wordLen++
		return true
	}
	r.place = inCode
	word := string(r.word[:min(r.wordLen, len(r.word))])
	switch {
	case c == '\'' && (word == "e" || word == "n"):
		r.openQuote(word == "e" || r.backslash)
		return true
	case c == '\'' && (word == "b" || word == "x"):
		r.token()
		r.place, r.escapes, r.keep = inQuote, false, false
		return true
	case c == '&' && word == "u":
		r.place = afterU
		return true
	case r.step == atStart && word == "prepare":
		r.step = atPrepare
	case r.step == atPrepare && word == "transaction":
		r.step = atTransaction
	default:
		r.token()
	}
	return false
}

// second looks at the byte behind one that may begin something longer.
func (r *reading) second(c char) bool {
	was := r.place
	r.place = inCode
	switch {
	case was == afterDash && c == '-':
		r.place = inLine
	case was == afterSlash && c == '*':
		r.place, r.depth = inBlock, 1
	case was == afterU && c == '\'':
		r.openQuote(false)
		r.odd = r.odd || r.keep
	case was == afterU && c == '"':
		r.token()
		r.place = inIdent
	default:
		r.joined = 0
		r.token()
		return false
	}
	return true
}

func (r *reading) block(c char) {
	switch {
	case r.place == blockStar && c == '/':
		r.depth--
		r.place = inBlock
		if r.depth == 0 {
			r.place = inCode
		}
	case r.place == blockSlash && c == '*':
		r.depth++
		r.place = inBlock
	case c == '*':
		r.place = blockStar
	case c == '/':
		r.place = blockSlash
	default:
		r.place = inBlock
	}
}

// openQuote begins a string constant.
func (r *reading) openQuote(escapes bool) {
	r.joined = 0
	r.keep = r.step == atTransaction
	if r.keep {
		r.found++
		r.step = atGID
		r.gid = r.gid[:0]
	} else {
		r.token()
	}
	r.escapes, r.place = escapes, inQuote
}

func (r *reading) quote(c char) bool {
	switch r.place {
	case quoteEscape:
		r.place = inQuote
	case quoteQuote:
		if c != '\'' {
			r.place, r.joined = inCode, 1
			return false
		}
		r.collect(c)
		r.place = inQuote
	default:
		switch {
		case c == '\'':
			r.place = quoteQuote
		case c == '\\' && r.escapes:
			r.odd = r.odd || r.keep
			r.place = quoteEscape
		default:
			r.collect(c)
		}
	}
	return true
}

// collect keeps a byte of the gid.
func (r *reading) collect(c char) {
	switch {
	case !r.keep:
	case c < ' ' || c > '~' || len(r.gid) == limitGID-1:
		r.odd = true
	default:
		r.gid = append(r.gid, byte(c))
	}
}

// dollar reads the tag of $tag$, or finds that it is none.
func (r *reading) dollar(c char) bool {
	switch {
	case c == '$' && slices.Max(r.tag) >= 0x80: // the server compares characters, and some can be written in two ways
		if r.step == atTransaction {
			r.found++
			r.odd = true
		}
		r.token()
		r.place, r.matched = inDoubt, 0
		return true
	case c == '$':
		r.tag = append(r.tag, c)
		r.openQuote(false)
		r.place, r.matched = inBody, 0
		return true
	case c >= '0' && c <= '9' && len(r.tag) == 1:
		r.token()
		r.place = inParam
		return true
	case wordByte(c) && len(r.tag) <= limitTag:
		r.tag = append(r.tag, c)
		return true
	case wordByte(c): // nobody writes this but to hide something
		r.found++
		r.odd = true
	}
	r.token()
	r.place = inCode
	return false
}

// body looks for the end of $tag$….
func (r *reading) body(c char) {
	was := r.matched
	switch {
	case c == r.tag[r.matched]:
		r.matched++
	case c == '$':
		r.matched = 1
	default:
		r.matched = 0
	}
	if r.matched <= was { // what looked like the end belongs to the text
		for _, t := range r.tag[:was] {
			r.collect(t)
		}
		if r.matched == 0 {
			r.collect(c)
		}
	}
	if r.matched == len(r.tag) {
		r.place = inCode
	}
}

// doubt looks for the word prepare in what may be code or not.
func (r *reading) doubt(c char) {
	const word = "prepare"
	if c < 0x80 {
		c |= 0x20
	}
	switch {
	case c == char(word[r.matched]):
		r.matched++
	case c == 'r' && r.matched == len("prep"):
		r.matched = len("pr")
	case c == 'p':
		r.matched = 1
	default:
		r.matched = 0
	}
	if r.matched == len(word) {
		r.found++
		r.odd, r.matched = true, 0
	}
}

// finish takes a gid that is complete.
func (r *reading) finish() {
	if r.step != atGID {
		return
	}
	r.step = another
	if len(r.gid) == 0 {
		r.odd = true
		return
	}
	r.gids = append(r.gids, bytes.Clone(r.gid))
	r.gid = r.gid[:0]
}
