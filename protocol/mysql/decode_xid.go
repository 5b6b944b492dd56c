package mysql

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// limitXidPart is how long either part of an xid may be: MAXGTRIDSIZE, MAXBQUALSIZE.
const limitXidPart = 64

// notEverywhere are the characters that servers lose when they take a literal into the connection's character
// set, which may be any: swe7 has others in their places.
const notEverywhere = "@[\\]^`{|}~"

// xidReader reads the xid of an XA PREPARE as far as it is written plainly: 'text' in printable ASCII
// without escapes, X'hex' or 0xhex, and a format id in digits or 0xhex. It gives up at anything else.
type xidReader struct {
	on    bool
	place xidPlace
	parts int
	buf   [2 * limitXidPart]byte // text, or hex digits
	n     int
	part  [2][]byte
	quote byte
	form  uint64
	xids  [][]byte
}

type xidPlace byte

const (
	xidText   xidPlace = iota // '…
	xidHex                    // X'…
	xidNumber                 // 0x…
	xidZero                   // 0
	xidX                      // X
	xidAfter                  // behind a part
	xidComma
	xidFormat // digits
	xidEnd
)

// begin is at the first byte of an xid; r is the reading that got there.
func (x *xidReader) begin(c byte, r *reading) bool {
	*x = xidReader{on: true, xids: x.xids}
	switch {
	case c == '0':
		x.place = xidZero
	case c != '\'':
		return false
	case r.n == 0 || r.n == longPrepare:
		x.place = xidText
	case r.n == 1 && r.word[0] == 'x':
		x.place = xidHex
	default:
		return false
	}
	return true
}

// longPrepare is the length of the word that stands before an xid without a prefix.
const longPrepare = byte(len("prepare"))

// next reads a byte; false means that the xid can't be made out.
func (x *xidReader) next(c byte) bool {
	switch x.place {
	case xidText:
		switch {
		case c == '\'':
			return x.end(x.buf[:x.n])
		case c < ' ' || c > '~' || strings.IndexByte(notEverywhere, c) >= 0:
			return false
		}
		return x.collect(c)
	case xidHex:
		if c == '\'' {
			return x.endHex()
		}
		return isHex(c) && x.collect(c)
	case xidNumber:
		if isHex(c) {
			return x.collect(c)
		}
		return x.endHex() && x.next(c)
	case xidZero:
		x.place = xidNumber
		return c == 'x'
	case xidX:
		x.place = xidHex
		return c == '\''
	case xidFormat:
		if inHex := x.n > 1 && x.buf[1] == 'x'; c >= '0' && c <= '9' || inHex && isHex(c) || c == 'x' && x.n == 1 && x.buf[0] == '0' {
			return x.collect(c)
		}
		form, err := parseFormat(string(x.buf[:x.n]))
		x.form, x.place = form, xidEnd
		return err == nil && x.next(c)
	}
	return x.between(c)
}

// parseFormat reads a format id, in digits or, as JDBC drivers write it, in hex.
func parseFormat(text string) (uint64, error) {
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		return strconv.ParseUint(digits, 16, 31)
	}
	return strconv.ParseUint(text, 10, 31)
}

// between reads what stands between the parts.
func (x *xidReader) between(c byte) bool {
	switch {
	case c == ' ' || c >= '\t' && c <= '\r':
	case c == ';' && x.place != xidComma:
		x.finish()
	case c == ',' && x.place == xidAfter && x.parts < 3:
		x.place = xidComma
	case x.place != xidComma:
		return false
	case x.parts == 2 && c >= '0' && c <= '9':
		x.place, x.n, x.parts = xidFormat, 0, 3
		return x.collect(c)
	case x.parts == 2:
		return false
	case c == '\'':
		x.place, x.n = xidText, 0
	case c == '0':
		x.place, x.n = xidZero, 0
	case c|0x20 == 'x':
		x.place, x.n = xidX, 0
	default:
		return false
	}
	return true
}

func (x *xidReader) collect(c byte) bool {
	if x.n == len(x.buf) {
		return false
	}
	x.buf[x.n] = c
	x.n++
	return true
}

// end takes a part. A quote behind it would go on with it.
func (x *xidReader) end(part []byte) bool {
	if len(part) > limitXidPart || x.parts == 2 {
		return false
	}
	x.part[x.parts] = append([]byte(nil), part...)
	x.parts++
	x.n, x.place = 0, xidAfter
	return true
}

// endHex takes a part written in hex.
func (x *xidReader) endHex() bool {
	part, err := hex.DecodeString(string(x.buf[:x.n]))
	return err == nil && x.end(part)
}

// finish takes the xid in its one form: what can stand behind XA ROLLBACK.
func (x *xidReader) finish() {
	x.on = false
	form := uint64(1)
	if x.parts == 3 {
		form = x.form
	}
	xid := append([]byte("X'"), hex.EncodeToString(x.part[0])...)
	xid = append(append(xid, "',X'"...), hex.EncodeToString(x.part[1])...)
	x.xids = append(x.xids, strconv.AppendUint(append(xid, "',"...), form, 10))
}

// take gives the xids that were read since the last call.
func (x *xidReader) take() [][]byte {
	xids := x.xids
	x.xids = nil
	return xids
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// spellings gives the ways in which the xid of a prepared transaction can stand on record: as it is, and, for each
// part, as the text of which the server makes that when the connection's character set is a wide one, or is the
// one that a MariaDB has for names of files.
func spellings(xid string) []string {
	part := strings.Split(xid, "'") // X'…',X'…',n
	if len(part) != 5 {
		return []string{xid}
	}
	var list []string
	for _, global := range narrowed(part[1]) {
		for _, branch := range narrowed(part[3]) {
			list = append(list, strings.Join([]string{part[0], global, part[2], branch, part[4]}, "'"))
		}
	}
	return list
}

// narrowed gives what a part, in hex, may have been written as, itself the first.
func narrowed(part string) []string {
	list := []string{part}
	b, err := hex.DecodeString(part)
	if err != nil {
		return list
	}
	for _, wide := range []struct{ size, at int }{{2, 1}, {2, 0}, {4, 3}} { // UTF-16 of either order, and UTF-32
		var text []byte
		for i := 0; i+wide.size <= len(b); i += wide.size {
			text = append(text, b[i+wide.at])
			b[i+wide.at] = 0
		}
		if len(text) > 0 && len(b)%wide.size == 0 && len(strings.Trim(string(b), "\x00")) == 0 {
			list = append(list, hex.EncodeToString(text))
		}
		b, _ = hex.DecodeString(part) // it was one before
	}
	text := fileName.ReplaceAllStringFunc(string(b), func(at string) string {
		c, _ := hex.DecodeString(at[3:]) // two digits, as the pattern says
		return string(c)
	})
	if text != string(b) {
		list = append(list, hex.EncodeToString([]byte(text)))
	}
	return list
}

// fileName is a character of ASCII that a file's name has not.
var fileName = regexp.MustCompile("@00[2-7][0-9a-f]")
