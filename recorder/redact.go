package recorder

import "bytes"

// redactedLiteral stands in the text for a literal that was taken out.
const redactedLiteral = "'***'"

// redactor takes the text of passwords out of SQL while it streams past: what it puts out for a text
// does not depend on how the text was sliced. It holds nothing back, so that what went in is recorded
// when Record returns. It knows tokens, not grammar:
//
//   - the literal behind PASSWORD (also PASSWORD('…'), SET PASSWORD [FOR …] = '…',
//     MASTER_PASSWORD = '…', SOURCE_PASSWORD = '…')
//   - the literals behind BY, AS, USING and REPLACE after IDENTIFIED BY, WITH or VIA, up to the ;
//
// with comments and line breaks between, and literals written as '…', E'…', U&'…', N'…', X'…',
// _charset'…', $tag$…$tag$, and, for MySQL, "…". Bodies between dollar quotes are read as SQL, the inside of
// '…' is not. docs/FORMAT.md names what this does not find.
type redactor struct {
	backslashes bool // backslash escapes, # comments, "…" is a literal, no dollar quotes

	state  redactState
	prev   byte // byte before, within the state
	depth  int  // nested /* */ (PostgreSQL)
	quote  byte // which quote the literal or identifier ends with
	escape bool // backslash escapes in this literal
	secret bool // the literal is being dropped

	word    [18]byte // the word being read, lower case
	wordLen int      // may exceed len(word): then it is none of ours
	words   int      // words read in this statement
	first   byte     // 's' if its first word was SET

	armed      bool  // the next literal is a secret
	equals     bool  // and an = may stand before it
	forUser    bool  // SET PASSWORD FOR …: the next = arms
	identified uint8 // 1: IDENTIFIED was just read, 2: it names how

	tag   []byte // dollar quote being read, without the dollars
	inner dollar // dollar-quoted secret being dropped
	outer dollar // dollar-quoted body being read as SQL

	count int // secrets found since the last call of take
}

type redactState uint8

const (
	stNormal redactState = iota
	stDash               // after --, which MySQL takes for a comment only before a space
	stLine               // a comment to the end of the line
	stOpen               // after /*, which MySQL takes for code before ! or M!
	stBlock              // within /* */
	stQuoted             // within a literal or a quoted identifier
	stClosed             // after its closing quote, which another one takes back
	stTag                // after a $, within what may be a dollar quote's tag
	stDollar             // within a dollar-quoted secret
)

const maxTag = 256 // bytes of a dollar quote's tag that are followed

// dollar looks for the end of a dollar quote, byte by byte.
type dollar struct {
	on   bool
	tag  []byte
	seen int // bytes of $tag that were seen
}

func (d *dollar) begin(tag []byte) { d.on, d.tag, d.seen = true, append(d.tag[:0], tag...), 0 }

func (d *dollar) ends(c byte) bool {
	switch {
	case c == '$' && d.seen == len(d.tag)+1:
		d.on = false
		return true
	case c == '$':
		d.seen = 1
	case d.seen > 0 && d.seen <= len(d.tag) && d.tag[d.seen-1] == c:
		d.seen++
	default:
		d.seen = 0
	}
	return false
}

// mayHoldSecret is the fast way past the texts that hold none of the words a redactor acts on.
func mayHoldSecret(text []byte) bool {
	return containsFold(text, "password", 'w', 4) || containsFold(text, "identified", 'f', 6)
}

// containsFold looks for an ASCII word by its rarest letter, which stands at position at.
func containsFold(text []byte, word string, letter byte, at int) bool {
	for _, c := range [2]byte{letter, letter - 'a' + 'A'} {
		for from := at; from < len(text); {
			i := bytes.IndexByte(text[from:], c)
			if i < 0 {
				break
			}
			from += i
			if begin := from - at; begin+len(word) <= len(text) && equalFold(text[begin:begin+len(word)], word) {
				return true
			}
			from++
		}
	}
	return false
}

func equalFold(b []byte, lower string) bool {
	for i := range b {
		if lowerByte(b[i]) != lower[i] {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// reset begins a new text.
func (r *redactor) reset() {
	*r = redactor{backslashes: r.backslashes, tag: r.tag[:0], inner: dollar{tag: r.inner.tag}, outer: dollar{tag: r.outer.tag}}
}

// take gives the number of secrets begun since it was called last.
func (r *redactor) take() int {
	n := r.count
	r.count = 0
	return n
}

// append adds the next bytes of the text to dst, without secrets.
func (r *redactor) append(dst, text []byte) []byte {
	for i := 0; i < len(text); i++ {
		if r.state == stQuoted && !r.escape && !r.outer.on { // most of a large statement is literals
			n := bytes.IndexByte(text[i:], r.quote)
			if n < 0 {
				n = len(text) - i
			}
			if !r.secret {
				dst = append(dst, text[i:i+n]...)
			}
			if i += n; i == len(text) {
				break
			}
		}
		c := text[i]
		if r.outer.on && r.outer.ends(c) {
			if r.dropping() {
				dst = append(append(dst, '$'), r.outer.tag...)
			}
			dst = append(dst, c)
			r.state, r.wordLen = stNormal, 0
			r.statement()
			continue
		}
		dst = r.step(dst, c)
	}
	return dst
}

func (r *redactor) dropping() bool {
	return r.state == stDollar || r.secret && (r.state == stQuoted || r.state == stClosed)
}

func (r *redactor) step(dst []byte, c byte) []byte {
	switch r.state {
	case stQuoted:
		return r.quoted(dst, c)
	case stClosed:
		if c == r.quote { // a doubled quote
			r.state = stQuoted
			return r.keep(dst, c)
		}
		r.state, r.secret = stNormal, false
		return r.normal(dst, c)
	case stDollar:
		if r.inner.ends(c) {
			r.state = stNormal
			dst = append(dst, '$')
			dst = append(dst, r.inner.tag...)
			dst = append(dst, '$')
		}
		return dst
	case stTag:
		return r.dollarTag(dst, c)
	case stLine:
		if c == '\n' {
			r.state = stNormal
		}
		return append(dst, c)
	case stBlock:
		return append(dst, r.block(c))
	case stDash:
		r.state = stNormal
		if c <= ' ' {
			r.state = stLine
			return r.step(dst, c)
		}
		return r.normal(dst, c)
	case stOpen:
		return r.open(dst, c)
	}
	return r.normal(dst, c)
}

// keep adds a byte of a literal, unless it belongs to a secret.
func (r *redactor) keep(dst []byte, c byte) []byte {
	if r.secret {
		return dst
	}
	return append(dst, c)
}

func (r *redactor) quoted(dst []byte, c byte) []byte {
	switch {
	case r.escape && r.prev == '\\':
		r.prev = 0
	case c == r.quote:
		r.state, r.prev = stClosed, 0
	default:
		r.prev = c
	}
	return r.keep(dst, c)
}

// block follows a comment to its end; PostgreSQL's nest.
func (r *redactor) block(c byte) byte {
	prev := r.prev
	r.prev = c
	switch {
	case prev == '*' && c == '/':
		r.prev = 0
		if r.depth--; r.depth <= 0 {
			r.state = stNormal
		}
	case prev == '/' && c == '*' && !r.backslashes:
		r.prev = 0
		r.depth++
	}
	return c
}

func (r *redactor) open(dst []byte, c byte) []byte {
	switch {
	case c == '!':
		r.state, r.prev = stNormal, 0
		return append(dst, c)
	case c == 'M' && r.prev != 'M': // MariaDB's /*M!
		r.prev = c
		return append(dst, c)
	}
	r.state, r.depth, r.prev = stBlock, 1, 0
	return append(dst, r.block(c))
}

func (r *redactor) normal(dst []byte, c byte) []byte {
	prev := r.prev
	r.prev = c
	switch {
	case c == '\'' || c == '"' || c == '`' && r.backslashes:
		return r.openQuote(dst, c)
	case isWord(c) || c == '$' && (r.wordLen > 0 || r.backslashes):
		if r.wordLen < len(r.word) {
			r.word[r.wordLen] = lowerByte(c)
		}
		r.wordLen = min(r.wordLen+1, len(r.word)+1)
		return append(dst, c)
	case c == '&' && r.is("u"): // U&'…'
		r.wordLen = 0
		return append(dst, c)
	}
	r.endWord()
	switch {
	case c == '$':
		r.state, r.tag = stTag, r.tag[:0]
	case c == '-' && prev == '-':
		if r.state, r.prev = stLine, 0; r.backslashes {
			r.state = stDash
		}
	case c == '#' && r.backslashes:
		r.state = stLine
	case c == '*' && prev == '/':
		if r.state, r.depth, r.prev = stBlock, 1, 0; r.backslashes {
			r.state = stOpen
		}
	case c == '-' || c == '/' || c <= ' ':
		// the next byte tells, or it means nothing
	default:
		r.symbol(c)
	}
	return append(dst, c)
}

func (r *redactor) symbol(c byte) {
	switch {
	case c == ';':
		r.statement()
		return
	case c == '=' && r.forUser:
		r.armed, r.equals, r.forUser = true, true, false
	case c == '=' && !r.equals, c != '=' && c != '(' && c != ':':
		r.armed = false
	}
	if r.identified == 1 {
		r.identified = 0
	}
}

// statement forgets what the statement before has said.
func (r *redactor) statement() {
	r.words, r.first, r.identified = 0, 0, 0
	r.armed, r.equals, r.forUser = false, false, false
}

func (r *redactor) openQuote(dst []byte, c byte) []byte {
	literal := c == '\'' || c == '"' && r.backslashes
	r.escape = literal && r.backslashes
	switch {
	case !literal:
		r.endWord()
		r.armed = false
	case r.is("e") && c == '\'':
		r.escape = true
	case r.is("n"), r.is("b"), r.is("x"), r.wordLen > 0 && r.word[0] == '_':
	default:
		r.endWord()
	}
	r.wordLen = 0
	r.state, r.quote, r.prev = stQuoted, c, 0
	r.secret = literal && r.armed
	if !r.secret {
		return append(dst, c)
	}
	r.count++
	return append(dst, redactedLiteral...)
}

func (r *redactor) dollarTag(dst []byte, c byte) []byte {
	switch {
	case c == '$':
		dst = append(dst, c)
		r.state, r.prev = stNormal, 0
		if r.armed {
			r.count++
			r.state = stDollar
			r.inner.begin(r.tag)
			return append(dst, "***"...)
		}
		if !r.outer.on {
			r.outer.begin(r.tag)
			r.statement()
		}
		return dst
	case isWord(c) && len(r.tag) < maxTag && (len(r.tag) > 0 || c < '0' || c > '9'):
		r.tag = append(r.tag, c)
		return append(dst, c)
	}
	r.state = stNormal // $1, or a lone dollar
	r.armed = false
	return r.normal(dst, c)
}

func (r *redactor) is(word string) bool {
	return r.wordLen == len(word) && string(r.word[:len(word)]) == word
}

// endWord judges the word that was just read.
func (r *redactor) endWord() {
	if r.wordLen == 0 {
		return
	}
	r.words++
	stage := r.identified
	if stage == 1 {
		r.identified = 0
	}
	switch {
	case r.is("set") && r.words == 1:
		r.first = 's'
		r.armed = false
	case r.is("password"), r.is("old_password"):
		r.armed, r.equals = true, r.equals && r.armed || r.first == 's' && r.words == 2
	case r.is("master_password"), r.is("source_password"):
		r.armed, r.equals = true, true
	case r.is("for") && r.first == 's' && r.words == 3 && r.armed:
		r.armed, r.forUser = false, true
	case r.is("identified"):
		r.armed, r.identified = false, max(stage, 1)
	case stage == 1 && (r.is("with") || r.is("via")):
		r.armed, r.identified = false, 2
	case stage > 0 && (r.is("by") || r.is("as")):
		r.armed, r.equals, r.identified = true, false, 2
	case stage == 2 && (r.is("using") || r.is("replace")):
		r.armed, r.equals = true, false
	case r.backslashes && r.word[0] == '_' && r.armed: // a character set before its literal
	default:
		r.armed = false
	}
	r.wordLen = 0
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80
}

// Redact gives a text as a recording of it would have it.
func Redact(d Dialect, text []byte) []byte {
	if !mayHoldSecret(text) {
		return text
	}
	r := redactor{backslashes: d == DialectBackslashes}
	return r.append(nil, text)
}
