package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

var errAnswer = errors.New("an answer from the server that does not fit the command")

// answer pairs a packet with the command it answers.
func (o *observer) answer(head *entry, body []byte, pos, whole, size int) error {
	first := body[0]
	if first == packetErr {
		return o.failure(head, body, pos, whole)
	}
	short := headerSize+size == whole
	switch o.in.phase {
	case phaseFirst:
		return o.firstPacket(head, body, pos, whole, short)
	case phaseFile:
		if first != packetOK {
			return fromServer(errAnswer)
		}
		return o.success(head, body, pos, whole)
	case phaseRows:
		return o.endOfRows(head, body)
	case phaseFields:
		if o.endsRows(first, size) {
			return o.endOfRows(head, body)
		}
		return nil
	case phaseColumns, phaseParams, phaseResults:
		if first == packetEOF && size < 9 {
			return fromServer(errAnswer)
		}
		if o.in.left--; o.in.left == 0 {
			o.in.phase++
			if o.caps&capDeprecateEOF != 0 {
				o.endOfColumns(head)
			}
		}
		return nil
	}
	// behind definitions
	if first != packetEOF || size >= 9 {
		return fromServer(errAnswer)
	}
	if o.in.phase == phaseColumnsEnd {
		status := eofStatus(body)
		if status&statusCursorExists != 0 {
			return o.endOfRows(head, body)
		}
		// That a result follows OUT parameters MySQL says here alone, not behind the row.
		o.in.outs = status&statusOutParams != 0 && status&statusMoreResults != 0
	}
	o.endOfColumns(head)
	return nil
}

// endOfColumns is behind definitions, and the EOF packet that may follow them.
func (o *observer) endOfColumns(head *entry) {
	switch o.in.phase {
	case phaseColumnsEnd:
		o.in.phase = phaseRows
	case phaseParamsEnd:
		o.results(head)
	case phaseResultsEnd:
		o.pop()
	}
}

// results is before the definitions of a prepared statement's columns.
func (o *observer) results(head *entry) {
	o.in.phase, o.in.left = phaseResults, o.in.columns
	if o.in.left == 0 {
		o.pop()
	}
}

func eofStatus(body []byte) uint16 {
	if len(body) < 5 {
		return 0
	}
	return binary.LittleEndian.Uint16(body[3:])
}

// firstPacket begins an answer, or the next result of one.
func (o *observer) firstPacket(head *entry, body []byte, pos, whole int, short bool) error {
	first := body[0]
	if head.ping {
		return o.success(head, body, pos, whole)
	}
	switch head.command {
	case comStmtPrepare:
		return o.prepareAnswer(head, body)
	case comStatistics:
		o.in.bytes = uint64(len(body))
		o.result(head, okPacket{}, recorder.TxUnknown)
		o.pop()
		return nil
	case comFieldList:
		o.in.phase = phaseFields
		if first == packetEOF {
			return o.endOfRows(head, body)
		}
		return nil
	}
	switch {
	case first == packetOK:
		return o.success(head, body, pos, whole)
	case first == packetEOF && (head.command == comSetOption || head.command == comDebug):
		return o.endOfRows(head, body)
	case !hasResults(head.command) || first == packetEOF || !short:
		return fromServer(errAnswer)
	case first == packetLocal:
		return o.fileAsked(head, body[1:])
	}
	return o.resultSet(head, body)
}

// hasResults says whether a command may be answered by rows.
func hasResults(command byte) bool {
	switch command {
	case comQuery, comStmtExecute, comStmtBulkExecute, comProcessInfo:
		return true
	}
	return false
}

// resultSet begins a result that has columns.
func (o *observer) resultSet(head *entry, body []byte) error {
	columns, n, ok := lenencInt(body)
	if !ok || columns == 0 || columns > 1<<16 {
		return fromServer(errAnswer)
	}
	o.in.phase, o.in.left = phaseColumns, int(columns)
	if o.caps&(capOptionalMetadata|capCacheMetadata) != 0 {
		if len(body) != n+1 {
			return fromServer(errAnswer)
		}
		if body[n] == 0 { // the client has the definitions already
			o.in.phase = phaseColumnsEnd
			if o.caps&capDeprecateEOF != 0 {
				o.endOfColumns(head)
			}
		}
	} else if len(body) != n {
		return fromServer(errAnswer)
	}
	return nil
}

// prepareAnswer learns what the server calls a statement, and how many parameters it has.
func (o *observer) prepareAnswer(head *entry, body []byte) error {
	if body[0] != packetOK || len(body) < 9 {
		return fromServer(errAnswer)
	}
	le := binary.LittleEndian
	def := head.def
	def.handle, def.answered = le.Uint32(body[1:]), true
	o.in.columns, def.params = int(le.Uint16(body[5:])), int(le.Uint16(body[7:]))
	if o.prepares.add(def); o.prepares.full() {
		return violation(errors.New("too many prepared statements"))
	}
	o.in.phase, o.in.left = phaseParams, def.params
	switch {
	case o.caps&capOptionalMetadata != 0 && len(body) > 12 && body[12] == 0:
		o.pop()
	case o.in.left == 0:
		o.results(head)
	}
	return nil
}

// success is an OK packet.
func (o *observer) success(head *entry, body []byte, pos, whole int) error {
	ok, good := parseOK(body, o.caps)
	if !good && headerSize+len(body) < o.whole {
		return fromServer(errAnswer)
	}
	if head.ping {
		o.status = ok.status
		o.refused(head, pos, whole, txOf(ok.status))
		o.pop()
		return nil
	}
	if head.command == comResetConnection {
		o.prepares.clear()
	}
	if o.in.phase == phaseFile {
		o.endOfFile(head, ok)
	}
	return o.endOfResult(head, ok, ok.affected)
}

// endOfRows is an EOF packet, or an OK packet in its place.
func (o *observer) endOfRows(head *entry, body []byte) error {
	var ok okPacket
	if o.caps&capDeprecateEOF != 0 && len(body) >= 7 {
		var good bool
		if ok, good = parseOK(body, o.caps); !good && headerSize+len(body) < o.whole {
			return fromServer(errAnswer)
		}
	} else if len(body) == 5 {
		ok.warnings, ok.status = binary.LittleEndian.Uint16(body[1:]), eofStatus(body)
	} else {
		return fromServer(errAnswer)
	}
	return o.endOfResult(head, ok, o.in.rows)
}

// endOfResult ends a result, and the command with it unless there are more.
func (o *observer) endOfResult(head *entry, ok okPacket, rows uint64) error {
	o.status = ok.status
	o.in.rows = rows
	o.result(head, ok, txOf(ok.status))
	if ok.status&statusMoreResults == 0 && !o.in.outs {
		o.pop()
		return nil
	}
	o.in.outs = false
	if !hasResults(head.command) {
		return fromServer(errAnswer)
	}
	o.in.phase = phaseFirst
	return nil
}

func txOf(status uint16) recorder.Tx {
	if status&(statusInTrans|statusInTransReadOnly) != 0 {
		return recorder.TxOpen
	}
	return recorder.TxIdle
}

// result makes the event of what was counted.
func (o *observer) result(head *entry, ok okPacket, tx recorder.Tx) {
	o.in.events = append(o.in.events, recorder.Event{
		Type: recorder.TypeResult, Of: head.id, N: o.in.n, Tag: ok.info, Rows: o.in.rows, Bytes: o.in.bytes,
		Duration: o.since(head), FirstRow: o.firstRow(head), InsertID: ok.insertID, Warnings: ok.warnings, Tx: tx,
	})
	o.in.n++
	o.in.rows, o.in.bytes, o.in.firstRow = 0, 0, 0
}

func (o *observer) since(head *entry) time.Duration { return time.Duration(max(0, o.clock()-head.at)) }

func (o *observer) firstRow(head *entry) time.Duration {
	if o.in.firstRow == 0 {
		return 0
	}
	return time.Duration(max(1, o.in.firstRow-head.at))
}

// pop is behind the last packet of an answer.
func (o *observer) pop() {
	if head := o.queue.head(); !head.ping {
		o.prepares.answered(head.command)
	}
	o.queue.pop()
	o.in.begun, o.in.outs, o.in.phase, o.in.n = false, false, phaseFirst, 0
	o.file.on = false
}

const (
	errnoParse    = 1064   // ER_PARSE_ERROR: what is zeroed is no SQL
	errnoProgress = 0xffff // MariaDB: no error, but how far a statement is
)

// failure is an ERR packet: it ends the answer, whatever stood before it.
func (o *observer) failure(head *entry, body []byte, pos, whole int) error {
	e, good := parseErr(body, o.caps)
	switch {
	case !good:
		return fromServer(errAnswer)
	case e.code == errnoProgress && o.caps&capProgress != 0:
		return nil
	}
	switch e.code {
	case 1053, errnoEndedMariaDB.code, errnoEndedMySQL.code: // ER_SERVER_SHUTDOWN, and somebody's KILL
		o.dying = true
	}
	if head.def != nil && head.command == comStmtPrepare {
		head.def.answered, head.def.failed = true, true
	}
	if o.in.phase == phaseFile {
		o.endOfFile(head, okPacket{})
	}
	if head.ours && e.code == errnoParse {
		o.refused(head, pos, whole, recorder.TxUnknown)
	} else {
		o.fail(head, errno{e.code, ""}, e.state, e.message, recorder.TxUnknown)
	}
	o.pop()
	return nil
}

// fail makes the event of an error.
func (o *observer) fail(head *entry, no errno, state, message []byte, tx recorder.Tx) {
	o.in.events = append(o.in.events, recorder.Event{
		Type: recorder.TypeResult, Of: head.id, N: o.in.n, Rows: o.in.rows, Bytes: o.in.bytes, Duration: o.since(head), FirstRow: o.firstRow(head),
		Code: state, Errno: no.code, Message: message, Tx: tx,
	})
	o.in.rows, o.in.bytes, o.in.firstRow = 0, 0, 0
}

// refused forwards our error in the place of the packet at pos.
func (o *observer) refused(head *entry, pos, whole int, tx recorder.Tx) {
	why := head.why
	o.fail(head, why.no, []byte(why.no.state), []byte(why.text), tx)
	o.in.kept = true
	o.in.swap = append(o.in.swap, o.in.chunk[o.in.swapTo:pos]...)
	o.in.swap = appendErr(o.in.swap, o.in.seq-1, o.caps, why.no.code, why.no.state, why.text)
	o.in.swapTo = pos + whole
}

// fileAsked is the server's request for a file of the client's.
func (o *observer) fileAsked(head *entry, name []byte) error {
	switch {
	case !o.level.LocalInfile:
		return fromServer(errors.New("the server asks for a file, which the access level does not allow"))
	case o.queue.n > 1 || o.out.msg.left > 0 || o.out.msg.more:
		return violation(fmt.Errorf("commands were sent behind a statement that asks for a file"))
	}
	o.in.phase = phaseFile
	o.file.on, o.file.ended, o.file.resumed, o.file.more = true, false, false, false
	o.file.name = append(o.file.name[:0], name...)
	o.file.meter.reset()
	o.out.seq = o.in.seq
	return nil
}

// endOfFile records what the server was sent.
func (o *observer) endOfFile(head *entry, ok okPacket) {
	o.in.events = append(o.in.events, recorder.Event{
		Type: recorder.TypeCopy, Of: head.id, N: o.in.n, Direction: "in", Rows: ok.affected, Bytes: o.file.meter.bytes,
		SHA256: o.file.meter.sum(), Duration: o.since(head), Tag: bytes.Clone(o.file.name),
	})
	o.in.bytes = o.file.meter.bytes
	o.file.on = false
}
