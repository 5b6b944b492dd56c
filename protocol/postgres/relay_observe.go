package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

const (
	// defaultWhole is the longest message that is looked at in one piece. A longer one is recorded and
	// forwarded in parts of about this size, so that a statement of 1 GB takes no more memory than this.
	// The parts don't depend on how the network slices the message.
	defaultWhole = 32 << 10
	minWhole     = 256
	maxWhole     = relay.BufferSize - 4096

	// batch is how many events are recorded in one go at most, and how many are kept room for.
	batch = 64
	room  = 8
)

// observer sees all bytes of a session after login: it turns what the client sends into statements,
// which are on record before they are forwarded, and pairs the server's answers with them in order.
// It follows the server's own rules: after an error in the extended protocol it skips to the Sync, in
// copy-in mode a Sync is none, a simple Query is answered by one result for each of its statements.
//
// mu is never held while the sink records or anybody writes to a socket.
type observer struct {
	sink    protocol.Sink
	limiter protocol.Limiter // nil: it may read as much as it likes
	whole   int
	prepare bool // PREPARE TRANSACTION is allowed
	base    time.Time

	mu       sync.Mutex // guards all that follows but for what is said to be one goroutine's own
	queue    queue
	names    names
	ids      uint64 // number of the last statement
	skipping bool   // the server skips to the next Sync, which has not been seen yet
	copyOpen bool   // the server takes copy data; its end has not been seen yet
	doubt    bool   // while skipping: a Sync came amid the data of the copy that failed, and may have been taken notice of or not
	bye      bool   // the client said goodbye
	dying    bool   // the server said that it hangs up
	settings settings
	gids     []string
	oids     map[uint32]string // names of the form oid:N that were made

	out outbound // Outbound's own, but for out.meter
	in  inbound  // Inbound's own
}

// outbound is the state of what comes from the client.
type outbound struct {
	events []recorder.Event
	params []recorder.Param // what events[…].Params point into
	text   []byte           // what their values point into, where they were decoded
	zero   [][]byte         // bodies to be put out of action after they were recorded
	msg    incoming         // the statement message that is being decoded
	pass   uint32           // bytes left of a long CopyData message
	meter  meter            // copy data since the last statement
	now    int64
}

// incoming is a message that holds one, or part of one.
type incoming struct {
	typ     byte
	stage   stage
	left    int // bytes of the body that were not decoded yet
	id      uint64
	of      uint64
	begun   bool // its TypeStatement event was made
	blocked bool // it is refused: what is left of it is zeroed
	key     nameKey
	sname   []byte // names, valid while the first window is decoded
	pname   []byte
	def     *prepared
	lex     *lexer // nil while there is nothing to be found
	formats []byte // a byte for each: 0 text, else binary
	count   int    // items that are left in the list that is being read
	params  int    // parameters in all
	index   int    // the next one
	value   int    // bytes left of the value that is being read
	split   shape  // how such a value is shown
}

var _ relay.Observer = (*observer)(nil)

func newObserver(whole int, prepareAllowed bool) *observer {
	if whole <= 0 {
		whole = defaultWhole
	}
	return &observer{whole: min(max(whole, minWhole), maxWhole), prepare: prepareAllowed, base: time.Now()}
}

// Outbound records the statements in what the client sent.
func (o *observer) Outbound(buf []byte) (n int, out []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bye {
		return len(buf), nil, nil // the server reads nothing behind a Terminate
	}
	o.out.now = int64(time.Since(o.base))
	n, err = o.scanOut(buf)
	for again := true; again; again = len(o.out.events) > 0 {
		if rerr := o.recordOut(); rerr != nil {
			return n, nil, rerr
		}
	}
	return n, buf[:n], err
}

// scanOut deals with all that can be dealt with.
func (o *observer) scanOut(buf []byte) (pos int, err error) {
	for pos < len(buf) {
		if len(o.out.events) >= batch {
			if err := o.recordOut(); err != nil {
				return pos, err
			}
		}
		rest := buf[pos:]
		switch {
		case o.out.pass > 0:
			pos += o.passCopy(rest)
			continue
		case o.out.msg.left > 0:
			n, err := o.feed(rest)
			if n == 0 || err != nil {
				return pos, err
			}
			pos += n
			continue
		}
		if len(rest) < headerSize {
			return pos, nil
		}
		typ, size := rest[0], binary.BigEndian.Uint32(rest[1:])
		if err := checkClient(typ, size); err != nil {
			return pos, violation(err)
		}
		if o.queue.n >= limitPending {
			return pos, relay.ErrBusy
		}
		n, err := o.messageOut(typ, int(size), rest)
		if n == 0 || err != nil {
			return pos, err
		}
		pos += n
		if typ == msgTerminate {
			return pos, nil
		}
	}
	return pos, nil
}

// recordOut records what was found so far; then it may be forwarded.
func (o *observer) recordOut() error {
	if len(o.out.events) > 0 {
		if err := o.record(o.out.events); err != nil {
			return err
		}
		o.out.events, o.out.params = reset(o.out.events, room), reset(o.out.params, 16*room)
		o.out.text = reset(o.out.text, 4<<10)
		for _, body := range o.out.zero {
			clear(body)
		}
		o.out.zero = o.out.zero[:0]
	}
	o.queue.forwarded = o.queue.n
	if o.skipping {
		return o.skip(&o.out.events)
	}
	return nil
}

// reset empties s, and lets go of its memory if that is much.
func reset[T any](s []T, keep int) []T {
	if cap(s) > keep {
		return nil
	}
	return s[:0]
}

// record records without holding mu.
func (o *observer) record(events []recorder.Event) error {
	o.mu.Unlock()
	err := o.sink.Record(events...)
	o.mu.Lock()
	if err != nil {
		return &protocol.EndError{Code: recorder.EndRecord, Err: fmt.Errorf("the session can't be recorded: %w", err)}
	}
	return nil
}

// violation ends a session whose client does what no client does.
func violation(err error) error {
	return &protocol.EndError{Code: recorder.EndViolation, Err: err}
}

// errFormat is the server's own word for a body that doesn't fit its type.
var errFormat = errors.New("invalid message format")

// Whole says whether the client has seen whole messages only.
func (o *observer) Whole() bool { return o.in.pass == 0 }

// Goodbye says whether the client has sent Terminate.
func (o *observer) Goodbye() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bye
}

// Dying says whether the server has said that it hangs up: a client that does so first only does as it was told.
func (o *observer) Dying() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dying
}

// Waits says whether a statement waits for a disk before it is forwarded.
func (o *observer) Waits() bool {
	w, ok := o.sink.(protocol.Waiter)
	return ok && w.Waits()
}

// inFlight is the oldest statement without a result, 0 if there is none.
func (o *observer) inFlight() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.queue.oldest()
}

// prepared lists the global ids that the session's statements prepared.
func (o *observer) prepared() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gids[:len(o.gids):len(o.gids)]
}

// flush records what is held back for the server's next message, because none will come.
func (o *observer) flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.emitHeld(recorder.TxUnknown)
	return o.recordIn()
}
