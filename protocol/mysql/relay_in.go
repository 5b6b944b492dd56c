package mysql

import (
	"errors"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// phase is where the answer to the oldest command stands.
type phase byte

const (
	phaseFirst      phase = iota // its first packet, or the first one of its next result
	phaseColumns                 // definitions of columns
	phaseColumnsEnd              // the EOF packet behind them
	phaseRows
	phaseParams     // prepare: definitions of parameters
	phaseParamsEnd  // the EOF packet behind them
	phaseResults    // prepare: definitions of columns
	phaseResultsEnd // the EOF packet behind them
	phaseFields     // field list: definitions, to an EOF packet
	phaseFile       // the server is reading a file
)

// inbound is the state of what comes from the server.
type inbound struct {
	events []recorder.Event
	chunk  []byte // what Inbound was shown
	pass   int    // bytes left of a frame
	more   bool   // the frame has a successor
	row    bool   // it is a row
	seq    byte   // sequence number of the server's next packet
	begun  bool   // the answer to the oldest command has begun
	now    int64  // 0: not asked yet in this chunk
	swap   []byte // what is forwarded when it is not the chunk itself
	swapTo int    // how far swap replaces the chunk
	kept   bool   // swap holds something

	phase    phase
	left     int  // definitions that are to come
	columns  int  // prepare: of columns, behind those of parameters
	n        int  // results of the command so far
	outs     bool // the result is a procedure's OUT parameters, and there are more
	rows     uint64
	bytes    uint64
	allRows  uint64 // of the session
	allBytes uint64
	firstRow int64
}

// Inbound pairs what the server sent with the commands it answers.
func (o *observer) Inbound(buf []byte) (n int, out []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.in.now, o.in.chunk, o.in.swap, o.in.swapTo, o.in.kept = 0, buf, o.in.swap[:0], 0, false
	n, err = o.scanIn(buf)
	if err == nil && o.limiter != nil {
		err = o.limit(n)
	}
	out = buf[:n]
	if o.in.kept {
		o.in.swap = append(o.in.swap, buf[o.in.swapTo:n]...)
		out = o.in.swap
	}
	if rerr := o.recordIn(); rerr != nil {
		return n, nil, rerr
	}
	return n, out, err
}

func (o *observer) recordIn() error {
	if len(o.in.events) == 0 {
		return nil
	}
	err := o.record(o.in.events)
	o.in.events = reset(o.in.events, room)
	return err
}

// limit asks whether the client may see n bytes more, and all the rows that were counted. It asks no more once
// it may not: what comes then reaches nobody.
func (o *observer) limit(n int) error {
	o.in.allBytes += uint64(n)
	err := o.limiter.Read(o.in.allRows, o.in.allBytes)
	if err != nil {
		o.limiter = nil
		return &protocol.EndError{Code: recorder.EndLimit, Err: err}
	}
	return nil
}

// clock is the time of this chunk.
func (o *observer) clock() int64 {
	if o.in.now == 0 {
		o.in.now = int64(time.Since(o.base))
	}
	return o.in.now
}

// scanIn deals with all that can be dealt with. Rows are counted by their headers alone.
func (o *observer) scanIn(buf []byte) (pos int, err error) {
	for pos < len(buf) {
		rest := buf[pos:]
		if o.in.pass > 0 {
			n := min(len(rest), o.in.pass)
			o.in.pass -= n
			pos += n
			continue
		}
		if len(rest) < headerSize {
			return pos, nil
		}
		size, seq := frameHeader(rest)
		if o.in.more {
			if err := o.checkSeq(seq); err != nil {
				return pos, err
			}
			o.passIn(size)
			pos += headerSize
			continue
		}
		if len(rest) == headerSize && size > 0 {
			return pos, nil
		}
		if head := o.queue.head(); head != nil && !o.in.begun && head.command == comStmtFetch && !head.ping { // rows, and nothing before them
			o.in.begun, o.in.seq, o.in.phase = true, head.seq, phaseRows
		}
		if o.in.phase == phaseRows && size > 0 && seq == o.in.seq && !o.endsRows(rest[headerSize], size) {
			o.row(size)
			pos += headerSize
			continue
		}
		if len(o.in.events) >= batch {
			if err := o.recordIn(); err != nil {
				return pos, err
			}
		}
		n, err := o.packetIn(size, seq, rest, pos)
		if n == 0 || err != nil {
			return pos, err
		}
		pos += n
	}
	return pos, nil
}

// endsRows says whether a packet in a row's place is none.
func (o *observer) endsRows(first byte, size int) bool {
	switch {
	case first == packetErr:
		return true
	case first != packetEOF:
		return false
	case o.caps&capDeprecateEOF != 0:
		return size < maxFrame
	}
	return size < 9 // a row that begins with 0xfe has eight bytes of length behind it
}

// row counts a row.
func (o *observer) row(size int) {
	if o.in.rows == 0 {
		o.in.firstRow = o.clock()
	}
	o.in.rows++
	o.in.allRows++
	o.in.row = true
	o.in.seq++
	o.passIn(size)
}

// passIn lets a frame pass.
func (o *observer) passIn(size int) {
	o.in.pass, o.in.more = size, size == maxFrame
	if o.in.row {
		o.in.bytes += uint64(size)
	}
}

func (o *observer) checkSeq(seq byte) error {
	if seq != o.in.seq {
		return fromServer(fmt.Errorf("%w from the server: got %d, expected %d", errSequence, seq, o.in.seq))
	}
	o.in.seq++
	return nil
}

// packetIn deals with one packet, or with the beginning of a long one. It returns 0 when it must see more.
func (o *observer) packetIn(size int, seq byte, rest []byte, pos int) (int, error) {
	whole := min(headerSize+size, o.whole)
	if len(rest) < whole {
		return 0, nil
	}
	body := rest[headerSize:whole]
	if len(body) == 0 {
		return 0, fromServer(errors.New("an empty packet from the server"))
	}
	head := o.queue.head()
	o.resume()
	if head == nil || body[0] == packetErr && seq != o.in.seq && (o.in.begun || seq != head.seq) {
		return whole, o.unasked(body, size)
	}
	if !o.in.begun {
		o.in.begun = true
		o.in.seq = head.seq
	}
	if o.in.phase == phaseFile && !o.file.resumed {
		return 0, fromServer(errors.New("the server answers before it has read the file"))
	}
	if err := o.checkSeq(seq); err != nil {
		return 0, err
	}
	if err := o.answer(head, body, pos, whole, size); err != nil {
		return 0, err
	}
	o.in.row = false
	o.in.pass, o.in.more = headerSize+size-whole, size == maxFrame
	return whole, nil
}

// resume takes up the answer behind a file, once the client has sent it. It may be of several packets:
// MariaDB's reports of progress go before its end.
func (o *observer) resume() {
	if o.in.phase == phaseFile && o.file.ended && !o.file.resumed {
		o.file.resumed = true
		o.in.seq = o.out.seq
	}
}

// unasked records what the server says when nobody has asked: why it will hang up.
func (o *observer) unasked(body []byte, size int) error {
	e, ok := parseErr(body, o.caps)
	if body[0] != packetErr || !ok {
		return fromServer(fmt.Errorf("a packet of %d bytes from the server that answers nothing", size))
	}
	o.dying = true
	o.in.pass, o.in.more = headerSize+size-min(headerSize+size, o.whole), size == maxFrame
	o.in.events = append(o.in.events, recorder.Event{
		Type: recorder.TypeNotice, From: "server", Severity: []byte("ERROR"), Code: e.state, Errno: e.code, Message: e.message,
	})
	return nil
}

// next is the sequence number by which the client takes a packet of ours for what it waits for. An idle
// client waits for nothing: it finds the packet when it has sent its next command, and takes it for the
// answer. So seen with the mariadb client and go-sql-driver, which both show what it says.
func (o *observer) next() byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	head := o.queue.head()
	switch {
	case head == nil:
		return 1 // behind the command that it sends next
	case !o.in.begun:
		return head.seq
	case o.in.phase == phaseFile && !o.file.resumed:
		return o.out.seq
	}
	return o.in.seq
}
