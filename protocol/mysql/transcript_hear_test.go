package mysql

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// hear shows the answers to all that was sent. It knows by itself where an answer ends, apart from the
// observer that it is held against.
func (k *talk) hear() {
	for len(k.waiting) > 0 && !k.closed {
		c := k.waiting[0]
		k.waiting = k.waiting[1:]
		if !c.file {
			k.reader.seq = c.frames
		}
		k.answer(c)
	}
	k.waiting = nil
}

// answer shows all packets of one.
func (k *talk) answer(c said) {
	switch c.command {
	case comQuit:
		if p := k.next(); p != nil {
			k.leg.show(k, "? behind the goodbye: %s", brief(p))
		}
		return
	case comStmtPrepare:
		k.prepared()
		return
	case comStmtFetch:
		k.rows(nil, true)
		return
	case comStatistics:
		if p := k.next(); p != nil {
			text := brief(p)
			if k.leg.s.rule("statistics") {
				text = regexp.MustCompile(`[0-9.]+`).ReplaceAllString(text, "N")
			}
			k.leg.show(k, "%d statistics %s", k.reader.seq-1, text)
		}
		return
	case comFieldList:
		for p := k.next(); p != nil; p = k.next() {
			if p[0] == packetErr || p[0] == packetEOF && len(p) < 9 {
				k.plain(p)
				return
			}
			k.column("field", p)
		}
		return
	}
	for more := true; more; {
		more = k.result(c)
	}
}

// result shows one result, and says whether another one follows.
func (k *talk) result(c said) (more bool) {
	p := k.next()
	for reported := false; p != nil && k.progress(p, &reported); p = k.next() {
	}
	switch {
	case p == nil:
		return false
	case p[0] == packetLocal:
		k.leg.show(k, "%d file_wanted %q", k.reader.seq-1, p[1:])
		k.file, k.fileSeq = &c, k.reader.seq
		return false
	case p[0] == packetOK || p[0] == packetErr || p[0] == packetEOF:
		return k.plain(p)&statusMoreResults != 0
	}
	n, size, ok := lenencInt(p)
	if !ok {
		k.leg.show(k, "? %s", brief(p))
		return false
	}
	switch full := p[size:]; {
	case len(full) == 0:
		k.leg.show(k, "%d columns %d", k.reader.seq-1, n)
	case full[0] == 0:
		k.leg.show(k, "%d columns %d without their definitions", k.reader.seq-1, n)
		n = 0
	default:
		k.leg.show(k, "%d columns %d with their definitions", k.reader.seq-1, n)
	}
	for range n {
		if p = k.next(); p == nil {
			return false
		}
		k.column("column", p)
	}
	var behind uint16
	if k.caps&capDeprecateEOF == 0 {
		if p = k.next(); p == nil {
			return false
		}
		if behind = k.plain(p); behind&statusCursorExists != 0 {
			return false
		}
	}
	status := k.rows(&c, c.command == comStmtExecute || c.command == comStmtBulkExecute)
	// MySQL says of OUT parameters before their row alone that something follows.
	const outs = statusOutParams | statusMoreResults
	return status&statusMoreResults != 0 || behind&outs == outs && status != failed
}

// failed stands for the status of an answer that ended with an error.
const failed uint16 = 0

// rows shows rows to their end, whose status it gives.
func (k *talk) rows(c *said, binary bool) uint16 {
	for p := k.next(); p != nil; p = k.next() {
		reported := false
		switch {
		case k.progress(p, &reported):
		case p[0] == packetErr, p[0] == packetEOF && (len(p) < 9 || k.caps&capDeprecateEOF != 0 && len(p) < maxFrame):
			return k.plain(p)
		case c != nil && c.command == comProcessInfo && k.leg.s.rule("processlist"):
			if p[0] == 0xfb || k.reader.seq == 0 {
				k.leg.show(k, "? %s", brief(p))
			}
		case binary:
			k.leg.show(k, "%d binary_row %s", k.reader.seq-1, short(p))
		default:
			k.leg.show(k, "%d row %s", k.reader.seq-1, values(p))
		}
	}
	return failed
}

// progress shows a report of progress, if it is one.
func (k *talk) progress(p []byte, reported *bool) bool {
	if p[0] != packetErr || binary.LittleEndian.Uint16(p[1:]) != errnoProgress || k.caps&capProgress == 0 {
		return false
	}
	if !k.leg.s.rule("progress") {
		k.leg.show(k, "? a report of progress without a rule: %s", brief(p))
	}
	if !*reported {
		k.leg.show(k, "progress")
	}
	*reported = true
	return true
}

// prepared shows the answer to a prepare.
func (k *talk) prepared() {
	p := k.next()
	if p == nil {
		return
	}
	if p[0] != packetOK {
		k.plain(p)
		return
	}
	le := binary.LittleEndian
	k.handles = append(k.handles, le.Uint32(p[1:]))
	columns, params := int(le.Uint16(p[5:])), int(le.Uint16(p[7:]))
	k.leg.show(k, "%d prepared %d columns=%d params=%d rest=%x", k.reader.seq-1, len(k.handles), columns, params, p[9:])
	if k.caps&capOptionalMetadata != 0 && len(p) > 12 && p[12] == 0 {
		return
	}
	for i, n := range []int{params, columns} {
		for range n {
			if p = k.next(); p == nil {
				return
			}
			k.column([]string{"param", "column"}[i], p)
		}
		if n > 0 && k.caps&capDeprecateEOF == 0 {
			if p = k.next(); p == nil {
				return
			}
			k.plain(p)
		}
	}
}

// column shows a definition.
func (k *talk) column(word string, p []byte) {
	b := p
	var names []string
	for range 6 {
		v, rest, ok := lenencBytes(b)
		if !ok {
			k.leg.show(k, "? %s", brief(p))
			return
		}
		names, b = append(names, strings.Trim(strconv.Quote(string(v)), `"`)), rest
	}
	text := fmt.Sprintf("%s.%s.%s(%s).%s(%s)", names[0], names[1], names[2], names[3], names[4], names[5])
	if k.caps&capExtendedMetadata != 0 {
		v, rest, _ := lenencBytes(b)
		if b = rest; len(v) > 0 {
			text += fmt.Sprintf(" extended=%q", v)
		}
	}
	if len(b) < 13 || b[0] != 12 {
		k.leg.show(k, "? %s", brief(p))
		return
	}
	le := binary.LittleEndian
	text += fmt.Sprintf(" charset=%d length=%d type=%#x flags=%#x decimals=%d", le.Uint16(b[1:]), le.Uint32(b[3:]), b[7], le.Uint16(b[8:]), b[10])
	if rest := b[11:]; !bytes.Equal(rest, []byte{0, 0}) {
		text += fmt.Sprintf(" rest=%x", rest)
	}
	k.leg.show(k, "%d %s %s", k.reader.seq-1, word, text)
}

// values shows a row of text.
func values(b []byte) string {
	var list []string
	for len(b) > 0 {
		if b[0] == 0xfb {
			list, b = append(list, "NULL"), b[1:]
			continue
		}
		v, rest, ok := lenencBytes(b)
		if !ok {
			return strings.Join(append(list, "? "+brief(b)), " ")
		}
		list, b = append(list, brief(v)), rest
	}
	return strings.Join(list, " ")
}

// plain shows an OK, an EOF or an ERR packet, and gives the status that it has.
func (k *talk) plain(p []byte) uint16 {
	text, status := k.describe(p)
	if k.leg.s.rule("progress") || k.leg.s.rule("processlist") {
		k.leg.show(k, "%s", text)
	} else {
		k.leg.show(k, "%d %s", k.reader.seq-1, text)
	}
	return status
}

func (k *talk) describe(p []byte) (text string, status uint16) {
	switch {
	case p[0] == packetErr:
		e, ok := parseErr(p, k.caps)
		if !ok {
			return "? " + brief(p), failed
		}
		message := string(e.message)
		for i, handle := range k.handles {
			message = strings.ReplaceAll(message, fmt.Sprintf("(%d)", handle), fmt.Sprintf("(statement %d)", i+1))
		}
		return fmt.Sprintf("err %d %s %q", e.code, e.state, message), failed
	case p[0] == packetEOF && len(p) == 5:
		status = eofStatus(p)
		return fmt.Sprintf("eof status=%s warnings=%d", statusNames(status), binary.LittleEndian.Uint16(p[1:])), status
	}
	ok, whole := parseOK(p, k.caps)
	if !whole {
		return "? " + brief(p), failed
	}
	word := "ok"
	if p[0] == packetEOF {
		word = "end"
	}
	text = fmt.Sprintf("%s status=%s", word, statusNames(ok.status))
	for _, part := range []struct {
		name string
		v    uint64
	}{{"affected", ok.affected}, {"id", ok.insertID}, {"warnings", uint64(ok.warnings)}} {
		if part.v > 0 {
			text += fmt.Sprintf(" %s=%d", part.name, part.v)
		}
	}
	if len(ok.info) > 0 {
		text += " info=" + brief(ok.info)
	}
	return text + track(ok.state), ok.status
}

// trackWords are what a session's changes are called, by their numbers.
var trackWords = []string{"variable", "schema", "state", "gtid", "transaction_characteristics", "transaction_state"}

// track shows the changes of a session's state. Several variables come in no order: the server keeps them in a
// hash table.
func track(b []byte) string {
	var parts []string
	for len(b) > 1 {
		word := fmt.Sprintf("change_%d", b[0])
		if int(b[0]) < len(trackWords) {
			word = trackWords[b[0]]
		}
		data, rest, ok := lenencBytes(b[1:])
		if !ok {
			break
		}
		shown := values(data)
		if word == "state" || word == "gtid" { // no list
			shown = brief(data)
		}
		parts, b = append(parts, word+"="+shown), rest
	}
	variables := 0
	for variables < len(parts) && strings.HasPrefix(parts[variables], trackWords[0]) {
		variables++
	}
	slices.Sort(parts[:variables])
	if len(b) > 0 {
		parts = append(parts, "? "+brief(b))
	}
	if len(parts) == 0 {
		return ""
	}
	return " " + strings.Join(parts, " ")
}

// statusWords are the names of the server's status flags, by their bits.
var statusWords = strings.Fields("in_trans autocommit bit_2 more_results no_good_index no_index cursor_exists last_row_sent db_dropped no_backslash_escapes " +
	"metadata_changed slow out_params read_only session_state_changed ansi_quotes")

func statusNames(status uint16) string {
	var list []string
	for i, word := range statusWords {
		if status&(1<<i) != 0 {
			list = append(list, word)
		}
	}
	return strings.Join(list, "|")
}

// brief quotes a text, or says what it is of.
func brief(b []byte) string {
	if len(b) > 200 {
		sum := sha256.Sum256(b)
		return fmt.Sprintf("%.20q…(%d bytes, %x)", b, len(b), sum[:8])
	}
	return fmt.Sprintf("%q", b)
}

// short is the same in hex.
func short(b []byte) string {
	if len(b) > 200 {
		return brief(b)
	}
	return fmt.Sprintf("%x", b)
}
