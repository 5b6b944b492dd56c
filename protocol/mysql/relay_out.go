package mysql

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/curfewdb/curfew/protocol/relay"
)

// scanOut deals with all that can be dealt with.
func (o *observer) scanOut(buf []byte) (pos int, err error) {
	for pos < len(buf) {
		if len(o.out.events) >= batch || len(o.out.params) >= batchParams {
			if err := o.recordOut(); err != nil {
				return pos, err
			}
		}
		n, err := o.frameOut(buf[pos:])
		if n == 0 || err != nil {
			return pos, err
		}
		pos += n
		if o.bye {
			return pos, nil
		}
	}
	return pos, nil
}

// frameOut deals with the next piece of a frame, or with its header. It returns 0 when it must see more.
func (o *observer) frameOut(rest []byte) (int, error) {
	m := &o.out.msg
	switch {
	case o.out.pass > 0:
		n := min(len(rest), o.out.pass)
		o.file.meter.add(rest[:n])
		o.out.pass -= n
		return n, nil
	case m.left > 0:
		return o.feed(rest)
	case len(rest) < headerSize:
		return 0, nil
	}
	size, seq := frameHeader(rest)
	asked := o.file.on && !o.file.ended
	if !m.more && !asked {
		return o.command(size, seq, rest)
	}
	if seq != o.out.seq {
		return 0, violation(fmt.Errorf("%w: got %d, expected %d", errSequence, seq, o.out.seq))
	}
	o.out.seq++
	if asked {
		o.out.pass = size
		o.file.ended = size == 0 && !o.file.more
		o.file.more = size == maxFrame
		return headerSize, nil
	}
	m.left, m.more = size, size == maxFrame
	if size == 0 { // the frame before was the last with anything in it
		_, err := o.feed(nil)
		return headerSize, err
	}
	return headerSize, nil
}

func frameHeader(b []byte) (size int, seq byte) {
	return int(b[0]) | int(b[1])<<8 | int(b[2])<<16, b[3]
}

var errEmpty = errors.New("a packet without a command")

// command begins with the first frame of a command; if it is short, it ends with it as well.
func (o *observer) command(size int, seq byte, rest []byte) (int, error) {
	switch {
	case seq != 0:
		return 0, violation(fmt.Errorf("%w: got %d, expected 0", errSequence, seq))
	case size == 0:
		return 0, violation(errEmpty)
	case o.queue.n >= limitPending:
		return 0, relay.ErrBusy
	}
	whole := headerSize+size <= o.whole
	if len(rest) < headerSize+min(size, o.whole) { // what feed takes at first
		return 0, nil
	}
	body := rest[headerSize:min(headerSize+size, o.whole)]
	if o.waits(body) {
		return 0, relay.ErrBusy
	}
	o.out.seq = 1
	if err := o.begin(body, size, whole); err != nil {
		return 0, err
	}
	m := &o.out.msg
	m.left, m.more = size, size == maxFrame
	n, err := o.feed(rest[headerSize:])
	return headerSize + n, err
}

// waits says whether a command is about a statement of which it is not known yet which one it is: its
// prepare has not been answered. MariaDB's clients send such, and wait for nothing; and handles can be guessed.
func (o *observer) waits(body []byte) bool {
	if len(body) < 5 {
		return false
	}
	switch body[0] {
	case comStmtExecute, comStmtBulkExecute, comStmtLongData, comStmtClose, comStmtReset, comStmtFetch:
		return !o.prepares.known(binary.LittleEndian.Uint32(body[1:]), o.mariadb)
	}
	return false
}
