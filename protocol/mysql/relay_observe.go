package mysql

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

const (
	// defaultWhole is the longest packet that is looked at in one piece. A longer one is recorded and
	// forwarded in parts of about this size, so that a statement of 1 GB takes no more memory than this.
	// The parts don't depend on how the network slices the packet.
	defaultWhole = 32 << 10
	minWhole     = 256
	maxWhole     = relay.BufferSize - 4096

	// batch is how many events are recorded in one go at most, and how many are kept room for.
	batch = 64
	room  = 8
	// batchParams is the same of parameters: a statement of 8 KiB can have 65535 that are NULL.
	batchParams = 4096
)

// observerConfig is what an observer has to know of its session.
type observerConfig struct {
	whole   int            // the longest packet that is looked at in one piece; 0 = defaultWhole
	caps    capability     // what both legs have agreed on
	mariadb bool           // the server is a MariaDB
	status  uint16         // the server's, when the login was over
	level   protocol.Level // what the account may do
	extra   bool           // the connection above the level's limit, in which nothing but KILL passes
	// kill puts on record that the session whose client was greeted with this id is cancelled, and gives
	// its id at the server; ok is false if there is no such session of the same account.
	kill func(id uint64) (backend uint32, ok bool, err error)
}

// observer sees all bytes of a session after login: it turns the client's commands into statements,
// which are on record before they are forwarded, and pairs the server's answers with them in order.
//
// mu is never held while the sink records or anybody writes to a socket.
type observer struct {
	observerConfig
	sink    protocol.Sink
	limiter protocol.Limiter // nil: it may read as much as it likes
	base    time.Time

	mu       sync.Mutex // guards all that follows but for what is said to be one goroutine's own
	queue    queue
	prepares statements
	ids      uint64 // number of the last statement
	bye      bool   // the client said goodbye
	dying    bool   // the server said that it hangs up
	file     file
	gids     map[string]struct{} // XA transactions that its statements prepared
	option   bool                // whether several statements may stand in a text was set anew

	out outbound // Outbound's own, but for out.meter and out.seq
	in  inbound  // Inbound's own
}

// outbound is the state of what comes from the client.
type outbound struct {
	events  []recorder.Event
	params  []recorder.Param // what events[…].Params point into
	text    []byte           // what their values and names point into, where they were decoded
	patches []patch          // what is forwarded otherwise than it was recorded
	msg     incoming         // the command that is being decoded
	lex     lexer            // its text
	carry   []byte           // the end of a frame that belongs together with the beginning of the next
	joined  []byte           // the two together
	seq     byte             // sequence number of the client's next frame, if it does not begin a command
	pass    int              // bytes left of a frame of file data
	now     int64
}

// patch is a change to bytes that were recorded, and are about to be forwarded: they become text, and zeros behind it.
type patch struct {
	at   []byte
	text [24]byte
	n    int  // bytes of text
	fill byte // what comes behind it
}

// file is a file that the server has asked the client for.
type file struct {
	on      bool // the client is sending it, or about to
	ended   bool // the client has sent its end
	resumed bool // the server's packets count on behind it
	more    bool // the last frame has a successor
	name    []byte
	meter   meter
}

// meter measures bulk data.
type meter struct {
	hash  hash.Hash
	bytes uint64
}

func (m *meter) reset() {
	if m.bytes > 0 {
		m.hash.Reset()
		m.bytes = 0
	}
}

func (m *meter) add(b []byte) {
	if m.hash == nil {
		m.hash = sha256.New()
	}
	m.hash.Write(b)
	m.bytes += uint64(len(b))
}

func (m *meter) sum() []byte {
	m.add(nil)
	return m.hash.Sum(nil)
}

var _ relay.Observer = (*observer)(nil)

func newObserver(c observerConfig) *observer {
	if c.whole <= 0 {
		c.whole = defaultWhole
	}
	c.whole = min(max(c.whole, minWhole), maxWhole)
	return &observer{observerConfig: c, base: time.Now()}
}

// Outbound records the commands in what the client sent.
func (o *observer) Outbound(buf []byte) (n int, out []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bye {
		return len(buf), nil, nil // the server reads nothing behind a COM_QUIT
	}
	o.out.now = int64(time.Since(o.base))
	n, err = o.scanOut(buf)
	if rerr := o.recordOut(); rerr != nil {
		return n, nil, rerr
	}
	return n, buf[:n], err
}

// recordOut records what was found so far; then it may be forwarded.
func (o *observer) recordOut() error {
	if len(o.out.events) > 0 {
		if err := o.record(o.out.events); err != nil {
			return err
		}
		o.out.events, o.out.params = reset(o.out.events, room), reset(o.out.params, 16*room)
		o.out.text = reset(o.out.text, 4<<10)
		for i := range o.out.patches {
			o.out.patches[i].apply()
		}
		o.out.patches = reset(o.out.patches, room)
	}
	o.queue.forwarded = o.queue.n
	return nil
}

func (p *patch) apply() {
	n := copy(p.at, p.text[:p.n])
	for i := range p.at[n:] {
		p.at[n+i] = p.fill
	}
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
		return unrecorded(err)
	}
	return nil
}

func unrecorded(err error) error {
	return &protocol.EndError{Code: recorder.EndRecord, Err: fmt.Errorf("the session can't be recorded: %w", err)}
}

// violation ends a session whose client does what no client does.
func violation(err error) error {
	return &protocol.EndError{Code: recorder.EndViolation, Err: err}
}

// fromServer ends a session whose server does what no server does.
func fromServer(err error) error { return &protocol.EndError{Code: recorder.EndServer, Err: err} }

// errFormat is the server's own word for a body that doesn't fit its command.
var errFormat = errors.New("malformed packet")

// Whole says whether the client has seen whole packets only.
func (o *observer) Whole() bool { return o.in.pass == 0 && !o.in.more }

// Goodbye says whether the client has sent COM_QUIT.
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

// prepared lists the XA transactions that the session's statements prepared.
func (o *observer) prepared() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.gids))
}

// flush records what is left.
func (o *observer) flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if head := o.queue.head(); o.file.on && head != nil { // what was sent of a file that was cut off
		o.endOfFile(head, okPacket{})
	}
	return o.recordIn()
}
