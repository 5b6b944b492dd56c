package intended

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/curfewdb/curfew/recorder"
)

// statement is one of a text.
type statement struct {
	text []byte // as it was written
	key  string // two with one key are the same
}

// maxText is how much of a text is looked at: no longer one can be inside, since what is intended is shorter.
const maxText = 1 << 20

// split takes a text apart that was run. What holds no statement at all gives none; what can be read in several ways
// that are not alike is one, and only its bytes count.
func split(d recorder.Dialect, text []byte) []statement {
	usual := d == recorder.DialectBackslashes
	first := lex(d, usual, text)
	exact := first.doubt || !utf8.Valid(text)
	var second *lexer
	if bytes.IndexByte(text, '\\') >= 0 {
		// Whether it escapes is a setting of the session: the statements must be the same either way.
		second = lex(d, !usual, text)
		exact = exact || second.doubt || !slices.Equal(first.ends, second.ends)
	}
	if exact {
		whole := bytes.Trim(text, ";"+blanks)
		if len(whole) == 0 {
			return nil
		}
		return []statement{{text: whole, key: "=" + string(whole)}}
	}
	var all []statement
	for i, end := range first.ends {
		part := bytes.Trim(text[end.first:end.at], blanks)
		switch {
		case len(first.norms[i]) == 0:
		case second == nil || bytes.Equal(first.norms[i], second.norms[i]): // the backslash may be in another one
			all = append(all, statement{part, "1" + string(first.norms[i])})
		default:
			all = append(all, statement{part, "2" + string(first.norms[i]) + "\x00" + string(second.norms[i])})
		}
	}
	return all
}

// plan takes a text apart that is intended: as it is read usually.
func plan(d recorder.Dialect, text []byte) (all []statement) {
	for _, part := range lex(d, d == recorder.DialectBackslashes, text).parts(text) {
		all = append(all, split(d, part)...)
	}
	return all
}

// parts are the statements' bytes, with the comments before them.
func (l *lexer) parts(text []byte) (all [][]byte) {
	from := 0
	for _, end := range l.ends {
		all = append(all, bytes.Trim(text[from:end.at], blanks))
		from = end.next
	}
	return all
}

// end is where a statement has its first token, where it ends, and where the next one begins.
type end struct{ first, at, next int }

// lexer reads a text in one way and writes down each statement's normal form.
type lexer struct {
	dialect recorder.Dialect
	escapes bool // a backslash escapes in '…'
	text    []byte
	at      int

	ends  []end
	norms [][]byte
	doubt bool // something does not end, or is read differently by different servers

	norm   []byte
	first  int      // where its first token is
	space  bool     // something that is no token stands between the last one and the next
	params []string // numbers of parameters, in the order in which they came first

	parens int
	words  int
	begin  bool // its first word is CREATE
	body   bool // it makes a routine, in which a semicolon may stand
	depth  int  // of BEGIN … END in it
	ended  bool // the word before was END
}

func lex(d recorder.Dialect, escapes bool, text []byte) *lexer {
	l := &lexer{dialect: d, escapes: escapes, text: text}
	for l.at < len(text) {
		l.next()
	}
	l.finish(len(text), len(text))
	return l
}

// finish ends a statement.
func (l *lexer) finish(at, next int) {
	if len(l.norm) == 0 {
		l.first = at
	}
	l.ends = append(l.ends, end{l.first, at, next})
	l.norms = append(l.norms, l.norm)
	*l = lexer{dialect: l.dialect, escapes: l.escapes, text: l.text, at: next, ends: l.ends, norms: l.norms, doubt: l.doubt}
}

func (l *lexer) next() {
	rest := l.text[l.at:]
	c := rest[0]
	backslashes := l.dialect == recorder.DialectBackslashes
	switch {
	case blank(c):
		l.at++
		l.space = true
	case bytes.HasPrefix(rest, []byte("--")) && (!backslashes || len(rest) == 2 || rest[2] <= ' '), c == '#' && backslashes:
		l.line()
	case bytes.HasPrefix(rest, []byte("/*")):
		l.comment()
	case bytes.HasPrefix(rest, []byte("--;")): // without what is behind it this would be a comment
		l.doubt = true
		l.put(rest[:2])
		l.at += 2
	case c == ';' && l.parens == 0 && l.depth == 0:
		l.finish(l.at, l.at+1)
	case c == '\'', c == '"', c == '`' && backslashes:
		l.quoted(0, c, c != '`' && l.escapes && (c == '\'' || backslashes))
	case c == '$' && !backslashes:
		l.dollar()
	case wordByte(c) && (c != '$' || backslashes):
		l.word()
	default:
		switch c {
		case '(':
			l.parens++
		case ')':
			l.parens = max(0, l.parens-1)
		}
		l.put(rest[:1])
		l.at++
	}
}

// blanks are what separates tokens: no space beyond ASCII does.
const blanks = " \t\n\v\f\r"

func blank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}

// put writes a token behind the others.
func (l *lexer) put(token []byte) {
	if l.space && len(l.norm) > 0 && !l.joins(l.norm[len(l.norm)-1], token[0]) {
		l.norm = append(l.norm, ' ')
	}
	if len(l.norm) == 0 {
		l.first = l.at
	}
	l.space, l.ended = false, false
	l.norm = append(l.norm, token...)
}

// joins reports whether what stands between two tokens makes no difference.
func (l *lexer) joins(a, b byte) bool {
	const apart, operators = "(),;", "=<>+-*/%|^!~"
	parameter := l.dialect == recorder.DialectBackslashes // else it is an operator's
	in := func(set string, c byte) bool { return bytes.IndexByte([]byte(set), c) >= 0 }
	plain := func(c byte) bool { return wordByte(c) || c == '\'' || c == '"' || c == '`' || c == '?' && parameter }
	return in(apart, a) || in(apart, b) || in(operators, a) && plain(b) || plain(a) && in(operators, b)
}

// line passes over a comment to the end of its line.
func (l *lexer) line() {
	l.space = true
	if i := bytes.IndexAny(l.text[l.at:], "\r\n"); i >= 0 && (l.dialect != recorder.DialectBackslashes || l.text[l.at+i] == '\n') {
		l.at += i
		return
	}
	if i := bytes.IndexByte(l.text[l.at:], '\n'); i >= 0 {
		l.at += i
		return
	}
	l.at = len(l.text)
}

// comment passes over one in /* */. Where one may be code, the text is not read but compared.
func (l *lexer) comment() {
	l.space = true
	rest := l.text[l.at:]
	if l.dialect == recorder.DialectBackslashes && len(rest) > 2 && (rest[2] == '!' || rest[2] == '+' || rest[2] == 'M') {
		l.doubt = true
	}
	depth := 0
	for i := 0; i+1 < len(rest); i++ {
		switch {
		case rest[i] == '/' && rest[i+1] == '*' && (depth == 0 || l.dialect == recorder.DialectDollars):
			depth++
			i++
		case rest[i] == '*' && rest[i+1] == '/':
			depth--
			if i++; depth == 0 {
				l.at += i + 1
				return
			}
		}
	}
	l.doubt = true
	l.at = len(l.text)
}

// quoted takes a literal or a name in quotes as it is; so many bytes stand before its first quote.
func (l *lexer) quoted(prefix int, quote byte, escapes bool) {
	rest := l.text[l.at:]
	for i := prefix + 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && escapes:
			i++
		case rest[i] == quote && i+1 < len(rest) && rest[i+1] == quote:
			i++
		case rest[i] == quote:
			l.put(rest[:i+1])
			l.at += i + 1
			return
		}
	}
	l.doubt = true
	l.put(rest)
	l.at = len(l.text)
}

// dollar takes $1, $tag$…$tag$, or a dollar.
func (l *lexer) dollar() {
	rest := l.text[l.at:]
	n := 1
	for n < len(rest) && wordByte(rest[n]) && rest[n] != '$' {
		n++
	}
	switch {
	case n > 1 && rest[1] >= '0' && rest[1] <= '9':
		for n = 2; n < len(rest) && rest[n] >= '0' && rest[n] <= '9'; {
			n++
		}
		l.param(string(rest[1:n]))
		l.at += n
	case n < len(rest) && rest[n] == '$':
		tag := rest[:n+1]
		i := bytes.Index(rest[n+1:], tag)
		if i < 0 {
			l.doubt = true
			l.put(rest)
			l.at = len(l.text)
			return
		}
		whole := n + 1 + i + len(tag)
		l.put(rest[:whole])
		l.at += whole
	default:
		l.put(rest[:1])
		l.at++
	}
}

// param writes a parameter by its place among others: which number it has makes no difference, which others are the
// same does.
func (l *lexer) param(number string) {
	place := slices.Index(l.params, number)
	if place < 0 {
		place = len(l.params)
		l.params = append(l.params, number)
	}
	l.put(append([]byte{'$'}, byte('0'+place/1000%10), byte('0'+place/100%10), byte('0'+place/10%10), byte('0'+place%10)))
	l.doubt = l.doubt || place > 9999
}

// word takes one, with the literal of which it may be the beginning.
func (l *lexer) word() {
	rest := l.text[l.at:]
	n := 1
	for n < len(rest) && wordByte(rest[n]) {
		n++
	}
	word := bytes.ToLower(rest[:n]) // only of ASCII does the case not matter
	if !ascii(word) {
		word = rest[:n]
	}
	backslashes := l.dialect == recorder.DialectBackslashes
	if backslashes && bytes.Contains(word, []byte("$$")) { // some servers read a literal there
		l.doubt = true
	}
	if n < len(rest) && rest[n] == '\'' && begins(word) {
		l.quoted(n, '\'', string(word) == "e" && !backslashes || l.escapes && string(word) != "b" && string(word) != "x")
		return
	}
	if n+1 < len(rest) && rest[n] == '&' && string(word) == "u" && !backslashes && (rest[n+1] == '\'' || rest[n+1] == '"') {
		l.quoted(n+1, rest[n+1], l.escapes && rest[n+1] == '\'')
		return
	}
	behind := byte(0)
	if len(l.norm) > 0 {
		behind = l.norm[len(l.norm)-1]
	}
	token := rest[:n]
	if !backslashes || l.words == 0 || behind != '.' && behind != '@' && keyword(string(word)) {
		token = word
	}
	ended := l.ended
	l.put(token)
	l.at += n
	l.nest(string(word), ended)
}

func ascii(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 })
}

// begins reports whether a literal may follow a word at once, and is one with it.
func begins(word []byte) bool {
	switch string(word) {
	case "e", "n", "b", "x":
		return true
	}
	return false
}

// nest follows the bodies of routines, in which a semicolon ends no statement.
func (l *lexer) nest(word string, ended bool) {
	l.words++
	switch {
	case l.words == 1:
		l.begin = word == "create" || word == "begin"
	case l.words == 2 && word == "not" && l.begin && l.dialect == recorder.DialectBackslashes: // BEGIN NOT ATOMIC
		l.body, l.depth = true, 1
		return
	case l.begin && l.words <= 12 && routine(word):
		l.body = true
	}
	if !l.body {
		return
	}
	switch word {
	case "begin":
		l.depth++
	case "case":
		if l.depth > 0 && !ended {
			l.depth++
		}
	case "if", "loop", "while", "repeat", "for":
		if ended { // it was not a BEGIN that ended
			l.depth++
		}
	case "end":
		l.ended = l.depth > 0
		l.depth = max(0, l.depth-1)
	}
}

func routine(word string) bool {
	switch word {
	case "function", "procedure", "trigger", "event", "package":
		return true
	}
	return false
}
