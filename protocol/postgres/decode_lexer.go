package postgres

import (
	"bytes"
	"unicode/utf8"
)

// lexer finds PREPARE TRANSACTION in SQL that arrives in pieces, among comments, quotes and other
// statements, and reads the global id. It is no parser: it knows what the server's own lexer knows of
// where a token begins and ends. What a backslash means in '…' depends on a setting of the session
// (standard_conforming_strings) that may change behind our back, so the text is read both ways, and what
// is found in either counts.
type lexer struct{ on, off reading }

func newLexer() *lexer { return &lexer{off: reading{backslash: true}} }

// scan reads more; end says that nothing follows. It says whether there was such a statement so far.
func (l *lexer) scan(text []byte, end bool) bool {
	l.on.scan(text, end)
	l.off.scan(text, end)
	return l.on.found || l.off.found
}

// take gives the global ids that were read since the last call.
func (l *lexer) take() [][]byte {
	gids := l.on.gids
	for _, gid := range l.off.gids {
		if !containsGID(gids, gid) {
			gids = append(gids, gid)
		}
	}
	l.on.gids, l.off.gids = nil, nil
	return gids
}

func containsGID(gids [][]byte, gid []byte) bool {
	for _, g := range gids {
		if bytes.Equal(g, gid) {
			return true
		}
	}
	return false
}

// mayPrepare says whether the word occurs at all.
func mayPrepare(text []byte) bool {
	const word = "prepare"
	for i := 0; i+len(word) <= len(text); i++ {
		if text[i]|0x20 == 'p' && bytes.EqualFold(text[i:i+len(word)], []byte(word)) {
			return true
		}
	}
	return false
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
)

// mode is how a '…' is written.
type mode byte

const (
	plain   mode = iota // no escapes
	escapes             // E'…', or any with the setting off
	unicode             // U&'…'
	dollar              // $tag$…$tag$
)

// step is how much of PREPARE TRANSACTION 'gid' UESCAPE 'c' has been seen in this statement.
type step int8

const (
	another step = iota - 1 // it is another statement
	atStart
	atPrepare
	atTransaction
	atGID
	atUescape
)

// reading is the text read with one meaning of the backslash.
type reading struct {
	backslash bool
	found     bool
	lost      bool // a tag was too long to follow
	gids      [][]byte

	place   spot
	step    step
	depth   int // of nested comments
	word    [12]byte
	wordLen int
	tag     []byte // $tag$
	matched int    // bytes of it that were seen of the end
	mode    mode
	joined  byte // a quote has just ended: 1; and a newline was seen since: 2. Then another goes on with it
	keep    bool // the quote is the gid, or what UESCAPE names
	gid     []byte
	gidMode mode
	escape  []byte
}

func (r *reading) scan(text []byte, end bool) {
	for _, c := range text {
		for !r.next(c) {
		}
	}
	if end {
		for !r.next(';') {
		}
		r.finish()
	}
}

// next moves on by one byte; false means that it ended a token and is to be looked at again.
func (r *reading) next(c byte) bool {
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
	default:
		return r.quote(c)
	}
	return true
}

// code looks at the first byte of a token.
func (r *reading) code(c byte) bool {
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
		r.openQuote(plain)
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

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}

func (r *reading) inWord(c byte) bool {
	if wordByte(c) {
		if r.wordLen < len(r.word) {
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			r.word[r.wordLen] = c
		}
		r.wordLen++
		return true
	}
	r.place = inCode
	word := string(r.word[:min(r.wordLen, len(r.word))])
	if r.wordLen == 1 {
		switch {
		case c == '\'' && word == "e":
			r.openQuote(escapes)
			return true
		case c == '\'' && (word == "b" || word == "x"):
			r.token()
			r.place, r.mode, r.keep = inQuote, plain, false
			return true
		case c == '\'' && word == "n":
			r.openQuote(plain)
			return true
		case c == '&' && word == "u":
			r.place = afterU
			return true
		}
	}
	switch {
	case r.step == atStart && word == "prepare" && r.wordLen == len("prepare"):
		r.step = atPrepare
	case r.step == atPrepare && word == "transaction" && r.wordLen == len("transaction"):
		r.step = atTransaction
	case r.step == atGID && word == "uescape" && r.wordLen == len("uescape"):
		r.step = atUescape
	default:
		r.token()
	}
	return false
}

// second looks at the byte behind one that may begin something longer.
func (r *reading) second(c byte) bool {
	was := r.place
	r.place = inCode
	switch {
	case was == afterDash && c == '-':
		r.place = inLine
	case was == afterSlash && c == '*':
		r.place, r.depth = inBlock, 1
	case was == afterU && c == '\'':
		r.openQuote(unicode)
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

func (r *reading) block(c byte) {
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
func (r *reading) openQuote(m mode) {
	r.joined = 0
	r.keep = r.step == atTransaction || r.step == atUescape
	switch {
	case r.step == atTransaction:
		r.found = true
		r.step = atGID
		r.gid, r.gidMode = r.gid[:0], m
		if m == plain && r.backslash {
			r.gidMode = escapes
		}
		r.escape = nil
	case r.step == atUescape:
	default:
		r.token()
	}
	if m == plain && r.backslash {
		m = escapes
	}
	r.mode = m
	r.place = inQuote
	if m == dollar {
		r.place, r.matched = inBody, 0
	}
}

func (r *reading) quote(c byte) bool {
	switch r.place {
	case quoteEscape:
		r.collect(c)
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
		case c == '\\' && r.mode == escapes:
			r.collect(c)
			r.place = quoteEscape
		default:
			r.collect(c)
		}
	}
	return true
}

// collect keeps a byte of the gid, or of what UESCAPE names.
func (r *reading) collect(c byte) {
	switch {
	case !r.keep:
	case r.step == atUescape:
		if len(r.escape) < 4 {
			r.escape = append(r.escape, c)
		}
	case len(r.gid) < 8*limitGID+2*limitTag: // written with escapes it is longer
		r.gid = append(r.gid, c)
	}
}

// dollar reads the tag of $tag$, or finds that it is none.
func (r *reading) dollar(c byte) bool {
	switch {
	case c == '$':
		r.tag = append(r.tag, c)
		r.openQuote(dollar)
		return true
	case c >= '0' && c <= '9' && len(r.tag) == 1:
		r.token()
		r.place = inParam
		return true
	case wordByte(c) && len(r.tag) <= limitTag:
		r.tag = append(r.tag, c)
		return true
	case wordByte(c): // nobody writes this but to hide something
		r.found, r.lost = true, true
	}
	r.token()
	r.place = inCode
	return false
}

// body looks for the end of $tag$….
func (r *reading) body(c byte) {
	r.collect(c)
	switch {
	case c == r.tag[r.matched]:
		r.matched++
	case c == '$':
		r.matched = 1
	default:
		r.matched = 0
	}
	if r.matched == len(r.tag) {
		r.place = inCode
		if r.keep && len(r.gid) >= len(r.tag) {
			r.gid = r.gid[:len(r.gid)-len(r.tag)]
		}
	}
}

// finish takes a gid that is complete.
func (r *reading) finish() {
	if r.step != atGID && r.step != atUescape {
		return
	}
	r.step = another
	gid := r.gid
	switch r.gidMode {
	case escapes:
		gid = unescape(gid)
	case unicode:
		gid = unescapeUnicode(gid, r.escape)
	}
	if len(gid) > 0 && len(gid) < limitGID {
		r.gids = append(r.gids, bytes.Clone(gid))
	}
}

// unescape reads the backslashes of E'…'.
func unescape(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'v':
			out = append(out, '\v')
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v, n := digits(s[i:], 8, 3)
			out = append(out, byte(v))
			i += n - 1
		case 'x', 'u', 'U':
			v, n := digits(s[i+1:], 16, map[byte]int{'x': 2, 'u': 4, 'U': 8}[c])
			switch {
			case n == 0:
				out = append(out, c)
			case c == 'x':
				out = append(out, byte(v))
			default:
				out = utf8.AppendRune(out, rune(v))
			}
			i += n
		default:
			out = append(out, c)
		}
	}
	return out
}

// unescapeUnicode reads the \XXXX and \+XXXXXX of U&'…'.
func unescapeUnicode(s, escape []byte) []byte {
	esc := byte('\\')
	if len(escape) == 1 {
		esc = escape[0]
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != esc || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		rest, skip, most := s[i+1:], 0, 4
		if rest[0] == esc {
			out = append(out, esc)
			i++
			continue
		}
		if rest[0] == '+' {
			rest, skip, most = rest[1:], 1, 6
		}
		v, n := digits(rest, 16, most)
		out = utf8.AppendRune(out, rune(v))
		i += skip + n
	}
	return out
}

// digits reads up to most digits.
func digits(s []byte, base, most int) (v uint32, n int) {
	for n < most && n < len(s) {
		d := -1
		switch c := s[n]; {
		case c >= '0' && c <= '9':
			d = int(c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = int(c|0x20-'a') + 10
		}
		if d < 0 || d >= base {
			break
		}
		v = v*uint32(base) + uint32(d)
		n++
	}
	return v, n
}
