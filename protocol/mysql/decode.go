package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/curfewdb/curfew/recorder"
)

// stage is where the decoding of a command stands.
type stage byte

const (
	stageHead  stage = iota // what comes before the rest, of a length that the command has
	stageCount              // how many parameters, where the client says so
	stageSets               // how many sets of them: one
	stageNulls              // a bit for each parameter that is NULL
	stageBound              // whether their types follow
	stageType               // a parameter's type, and its name
	stageParam              // a parameter, if it is there whole
	stageValue              // more of a value that was not there whole
	stageRow                // bulk: a row of parameters, or the end of all
	stageRaw                // parameters that can't be told apart
	stageText               // SQL, or another argument, to the end of the packet
	stageDone
)

// incoming is a command that the client sends, or what is known of one so far.
type incoming struct {
	command byte
	kind    recorder.Kind
	stage   stage
	left    int  // bytes of the frame that were not decoded yet
	behind  int  // of these, what is not in the window
	more    bool // another frame of the same packet follows
	id      uint64
	of      uint64
	begun   bool // its TypeStatement event was made
	blocked bool // it is refused: what is left of it is zeroed
	ping    bool // all of it is, and the server is sent a COM_PING of the same length
	silent  bool // its argument is not recorded: it holds a secret, and the database is not shown it
	reading bool // its text is read for what must not pass
	why     refusal
	name    string
	def     *prepared
	maxRows uint64
	// argument is what is recorded as the text of a command whose argument is a number.
	argument []byte
	texted   bool // some of its text was read
	place    int  // stmt_send_long_data: the parameter
	list     list
}

// refusal is what a client reads in the place of an answer.
type refusal struct {
	no   errno
	text string
}

const (
	sentenceXA      = "XA is not allowed by your access level: what it prepares would outlive your grant; commit or roll back in the session"
	sentenceXid     = "this XA statement could not be rolled back for certain when your grant ends; send it as a statement of its own, with its xid in plain literals"
	sentenceMany    = "your session has prepared too many XA transactions; go on in a new connection"
	sentenceDynamic = "SQL that the server puts together itself could hold XA, which your access level does not allow; send the text, or PREPARE it from one plain literal"
	sentenceCommand = "this command is not allowed through Curfew"
	sentenceExtra   = "your grant has no connection left; this one is for KILL alone"
	sentenceThread  = "this is no connection of your grant"
)

// begin starts to decode a command whose first frame has size bytes. body is as much of it as is looked at
// in one piece, the command's own byte first.
func (o *observer) begin(body []byte, size int, whole bool) error {
	m := &o.out.msg
	if body[0] != comQuit {
		o.ids++
	}
	*m = incoming{command: body[0], id: o.ids, kind: recorder.KindCommand, name: commandName(body[0]), list: m.list.emptied()}
	o.out.carry = o.out.carry[:0]
	fixed, known := layout(m.command)
	switch m.command {
	case comQuery:
		m.kind, m.name = recorder.KindSimple, ""
	case comStmtPrepare:
		m.kind, m.name = recorder.KindPrepare, ""
	case comStmtExecute, comStmtBulkExecute:
		m.kind, m.name = recorder.KindExecute, ""
	}
	switch {
	case !known:
		o.refuse(refusal{errnoUnknownCom, sentenceCommand})
	case o.extra && !o.passesExtra(body, whole):
		o.refuse(refusal{errnoTooMany, sentenceExtra})
	case fixed > 0 && size != fixed, fixed == 0 && !whole, size < -fixed:
		return violation(errFormat)
	case m.command == comStmtPrepare:
		m.def = &prepared{id: m.id}
		o.prepares.last = m.def
	}
	m.silent = m.command == comChangeUser || m.command == comRegisterSlave
	return nil
}

// refuse puts the whole command out of action.
func (o *observer) refuse(why refusal) {
	m := &o.out.msg
	m.blocked, m.ping, m.why = true, true, why
}

// feed decodes the next window of a command: what is left of its frame, or as much as is looked at in one
// piece. It returns how much it dealt with, 0 when it must see more of it first. What belongs together is
// never parted; where a frame ends amid it, it is carried over to the next one.
func (o *observer) feed(rest []byte) (int, error) {
	m := &o.out.msg
	carried := len(o.out.carry)
	size := min(m.left, o.whole-carried)
	if len(rest) < size {
		return 0, nil
	}
	window := rest[:size:size]
	p := window
	if carried > 0 {
		o.out.joined = append(append(o.out.joined[:0], o.out.carry...), window...)
		p = o.out.joined
	}
	end := size == m.left
	last := end && !m.more
	m.behind = m.left - size
	first, was := m.stage == stageHead, m.blocked
	n, from, err := o.decode(p, last)
	switch {
	case err != nil:
	case last && (n < len(p) || m.stage != stageDone):
		err = errFormat
	case end && len(p)-n > o.whole/2, !end && n <= carried:
		err = errLongItem
	}
	if err != nil {
		return 0, err
	}
	used := n - carried
	o.out.carry = o.out.carry[:0]
	if end {
		o.out.carry = append(o.out.carry, p[n:]...)
		used = size
	}
	if m.blocked {
		if was || m.ping {
			from = 0
		}
		at := min(len(window), max(0, from-carried))
		if !was && !m.ping && m.left-at < 2 { // one zero alone, at the end, is a blank to the servers
			return 0, errLate
		}
		o.blank(window[at:used], first && m.ping)
	}
	m.left -= used
	if last {
		o.finish()
	}
	return used, nil
}

// errLongItem ends a session that no client has.
var errLongItem = violation(errors.New("a name or a list is too long"))

// blank has what must not pass zeroed once it is recorded. What is refused as a command begins as a COM_PING.
func (o *observer) blank(b []byte, ping bool) {
	p := patch{at: b}
	if ping {
		p.text[0], p.n = comPing, 1
	}
	o.out.patches = append(o.out.patches, p)
}

// decode takes as much of a window as it can, and makes the event of it. from is where in p begins what
// must not pass, if that was found.
func (o *observer) decode(p []byte, last bool) (n, from int, err error) {
	m := &o.out.msg
	first, index := len(o.out.params), m.list.index
	for m.stage < stageText {
		used, err := o.item(p[n:], last)
		if err != nil {
			return 0, 0, err
		}
		if used < 0 {
			break
		}
		n += used
	}
	list := o.out.params[first:len(o.out.params):len(o.out.params)]
	var text []byte
	textual := m.stage == stageText
	if textual {
		text = p[n:]
		if !last {
			text = wholeRunes(text)
		}
		if last {
			m.stage = stageDone
		}
	}
	from = n
	if err := o.commandEvent(list, index, text, textual, last); err != nil {
		return 0, 0, err
	}
	if textual && m.reading {
		at, err := o.read(text, last)
		if err != nil {
			return 0, 0, err
		}
		from += at
	}
	return n + len(text), from, nil
}

// item decodes one item before the text; -1 means that it is not there whole.
func (o *observer) item(p []byte, last bool) (int, error) {
	m := &o.out.msg
	if m.stage == stageHead {
		return o.head(p)
	}
	used, err := o.listItem(p, last)
	if used < 0 && err == nil && last {
		err = errFormat
	}
	if err != nil {
		err = violation(err)
	}
	return used, err
}

// head decodes what a command begins with.
func (o *observer) head(p []byte) (int, error) {
	m := &o.out.msg
	m.stage = stageText
	if m.ping {
		return 1, nil
	}
	size, _ := layout(m.command)
	size = max(1, size, -size)
	if len(p) < size {
		return 0, violation(errFormat)
	}
	switch m.command {
	case comStmtExecute, comStmtBulkExecute, comStmtLongData, comStmtFetch, comStmtReset, comStmtClose:
		m.def = o.prepares.of(binary.LittleEndian.Uint32(p[1:]), o.mariadb)
		if m.def != nil {
			m.of = m.def.id
		}
	}
	switch m.command {
	case comQuery:
		m.reading = true
		if o.caps&capQueryAttributes != 0 {
			m.stage = stageCount
		}
	case comStmtPrepare:
		m.reading = true
	case comStmtExecute:
		o.beginExecute(p[5])
	case comStmtBulkExecute:
		o.beginBulk(binary.LittleEndian.Uint16(p[5:]))
	case comStmtLongData:
		m.place = int(binary.LittleEndian.Uint16(p[5:]))
	case comStmtFetch:
		m.maxRows = uint64(binary.LittleEndian.Uint32(p[5:]))
		if m.def != nil && m.def.ran > 0 {
			m.of = m.def.ran
		}
	case comRefresh:
		m.argument = o.number(uint64(p[1]))
	case comSetOption:
		m.argument = o.number(uint64(binary.LittleEndian.Uint16(p[1:])))
	case comProcessKill:
		m.argument = o.number(uint64(binary.LittleEndian.Uint32(p[1:])))
		return size, o.processKill(p[1:5])
	}
	return size, nil
}

// commandEvent makes the event of what was decoded: a statement, or more of one.
func (o *observer) commandEvent(params []recorder.Param, index int, text []byte, textual, last bool) error {
	m := &o.out.msg
	if m.command == comQuit && !m.ping { // not recorded: the end of the session is
		return nil
	}
	if m.silent {
		text = nil
	}
	more := !last
	if m.begun {
		if len(params) > 0 {
			o.out.events = append(o.out.events, recorder.Event{
				Type: recorder.TypePart, ID: m.id, Field: recorder.FieldParam, Index: index, Params: params,
				More: more && m.stage < stageText,
			})
		}
		if textual {
			o.out.events = append(o.out.events, recorder.Event{Type: recorder.TypePart, ID: m.id, Field: recorder.FieldText, Text: text, More: more})
		}
		return nil
	}
	m.begun = true
	switch {
	case m.argument != nil:
		text = m.argument
		m.argument = nil
	case m.command == comFieldList && !m.ping:
		text = bytes.TrimSuffix(text, []byte{0}) // behind the table's name, for want of a pattern
	}
	event := recorder.Event{
		Type: recorder.TypeStatement, ID: m.id, Kind: m.kind, Of: m.of, Name: o.word(m.name), Text: text, Params: params, MaxRows: m.maxRows, More: more,
	}
	if m.command == comStmtLongData {
		event.Field, event.Index = recorder.FieldParam, m.place
	}
	o.out.events = append(o.out.events, event)
	if m.ping {
		o.block()
	}
	return nil
}

// block says that the statement is refused.
func (o *observer) block() {
	m := &o.out.msg
	o.out.events = append(o.out.events, recorder.Event{Type: recorder.TypeBlocked, Of: m.id, Reason: m.why.text})
}

// word copies a name to where it stays until the events are recorded.
func (o *observer) word(s string) []byte {
	if s == "" {
		return nil
	}
	from := len(o.out.text)
	o.out.text = append(o.out.text, s...)
	return o.out.text[from:len(o.out.text):len(o.out.text)]
}

// read looks for what must not pass in a text, and for XA transactions that it prepares. It returns where
// the first is, the text's length if there is none.
func (o *observer) read(text []byte, last bool) (int, error) {
	m, l := &o.out.msg, &o.out.lex
	first := !m.texted
	if first {
		m.texted = true
		l.dynamic, l.dollars, l.allowed = o.mariadb, !o.mariadb, o.level.PreparedTransactions
		if last && m.command == comQuery {
			if err := o.cancels(text); err != nil {
				return 0, err
			}
		}
		if last && !l.mayMatter(text) {
			return len(text), nil
		}
		l.begin()
	}
	at := l.scan(text, last)
	m.why = refusal{errnoForbidden, sentenceOf(l.found)}
	for _, xid := range l.xid.take() { // also of those that stand before what must not pass
		if !o.prepare(xid) {
			at, m.why.text = 0, sentenceMany
			break
		}
	}
	if at < 0 {
		return len(text), nil
	}
	// A server that takes one statement takes the first, and zeros behind it for its end.
	if m.command == comStmtPrepare || o.caps&capMultiStatements == 0 || o.option {
		if at = 0; !first && l.from > 0 {
			return 0, errLate
		}
	}
	m.reading, m.blocked = false, true
	o.block()
	return at, nil
}

// errLate ends a session that has so much of a statement forwarded that what is left can't be put out of
// action. Without it, the statement can't run.
var errLate = violation(errors.New("a statement of many parts that must not pass, as its end shows"))

func sentenceOf(f finding) string {
	switch f {
	case foundXid:
		return sentenceXid
	case foundDynamic:
		return sentenceDynamic
	}
	return sentenceXA
}

// prepare notes an XA transaction that the text prepares; false: there are too many. One event names one: a
// further one stands in an empty part.
func (o *observer) prepare(xid []byte) bool {
	if _, ok := o.gids[string(xid)]; !ok && len(o.gids) >= limitXids {
		return false
	}
	if o.gids == nil {
		o.gids = map[string]struct{}{}
	}
	o.gids[string(xid)] = struct{}{}
	e := &o.out.events[len(o.out.events)-1]
	if e.Prepares == nil {
		e.Prepares = xid
		return true
	}
	part := recorder.Event{Type: recorder.TypePart, ID: e.ID, Field: recorder.FieldText, Prepares: xid, More: e.More}
	e.More = true
	o.out.events = append(o.out.events, part)
	return true
}

// number writes one, to where word copies names.
func (o *observer) number(v uint64) []byte {
	from := len(o.out.text)
	o.out.text = strconv.AppendUint(o.out.text, v, 10)
	return o.out.text[from:len(o.out.text):len(o.out.text)]
}

// wholeRunes leaves out the beginning of a character whose end is not there yet.
func wholeRunes(b []byte) []byte {
	for i := 1; i <= min(utf8.UTFMax-1, len(b)); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// finish notes the command that was decoded.
func (o *observer) finish() {
	m := &o.out.msg
	if answered(m.command) || m.ping {
		e := o.queue.push()
		e.command, e.id, e.at, e.seq, e.ours, e.ping, e.why = m.command, m.id, o.out.now, o.out.seq, m.blocked, m.ping, m.why
		e.def = m.def
		if !m.ping {
			o.prepares.asked(m.command)
		}
	}
	if m.ping {
		return
	}
	switch def := m.def; m.command {
	case comQuit:
		o.bye = true
	case comSetOption:
		o.option = true
	case comStmtClose:
		if def != nil {
			o.prepares.forget(def.handle)
		}
	case comStmtReset:
		o.prepares.change(def, func(p *prepared) { p.long = nil })
	case comStmtLongData:
		o.prepares.change(def, func(p *prepared) { p.sent(m.place, m.id) })
	case comStmtExecute, comStmtBulkExecute:
		o.prepares.change(def, func(p *prepared) {
			p.ran, p.long = m.id, nil
			if m.list.told && m.list.whole {
				p.types = append(p.types[:0], m.list.types...)
			}
		})
	}
}
