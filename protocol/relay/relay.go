// Package relay is the one hot loop that the engines share: read a chunk, let the engine's observer
// see it, forward it. It knows nothing of any protocol.
//
// What a caller may rely on:
//   - bytes are forwarded only after the observer was shown them and returned without an error, in order,
//     unchanged but for what the observer itself hands back, and in whole chunks;
//   - whether the session was stopped is checked right before each forward; once Run has returned, no
//     byte goes to the server any more, whatever a hung observer does later;
//   - Run returns as soon as the first side ends, the observer fails or ctx ends. A peer that reads
//     nothing or an observer that hangs does not delay that, nor any other session;
//   - whatever goes to the client beside the stream (Notify, Tell) goes between two messages or not at all;
//   - a buffer belongs to a direction only while it holds bytes: an idle session has none. No memory is
//     allocated per chunk.
//
// How it waits is hidden. Where both connections are plain sockets of Linux, one goroutine waits for
// many sessions, with TLS (under.go) or without (loop_linux.go); other systems, and an observer that waits for a disk, have
// two goroutines a session (pump.go). docs/adr/0009 says why.
package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// BufferSize is how many bytes a direction holds at most. An Observer that is shown this many must
// deal with some of them.
const BufferSize = 64 << 10

// ErrBusy is what Outbound returns when it can take no more before the server has answered some: what
// it has dealt with is forwarded, and it is called again with the rest after the next Inbound.
var ErrBusy = errors.New("too many requests without an answer")

// Observer sees every byte of one session, in order, however the network slices them. Outbound is never
// called twice at once, nor is Inbound, but the one may be called while the other runs.
type Observer interface {
	// Outbound is shown what the client sent and was not dealt with yet. It deals with the first n
	// bytes and says what is to be forwarded for them: usually buf[:n] itself. It may change buf[:n].
	Outbound(buf []byte) (n int, out []byte, err error)
	// Inbound is the same for what the server sent.
	Inbound(buf []byte) (n int, out []byte, err error)
	// Whole says whether all that Inbound returned so far ends with a whole message. It is not called
	// while Inbound runs.
	Whole() bool
	// Goodbye says whether the client took its leave in order: then the server is listened to until
	// it has hung up, even if the client has already gone. Like Whole it never waits.
	Goodbye() bool
	// Waits says whether Outbound waits for a disk as a rule: then the session has goroutines of its own,
	// where that holds nobody else up.
	Waits() bool
}

// partingTime is how long a server that can't be written to any more is listened to: it may have said why.
const partingTime = time.Second

// Side says who ended a session.
type Side string

const (
	Client  Side = "client"   // the client hung up, or could not be written to
	Server  Side = "server"   // the server hung up, or could not be written to
	Watcher Side = "observer" // the observer returned an error
	Context Side = "context"  // ctx ended
)

// End is why Run returned.
type End struct {
	Side Side
	Err  error // io.EOF when a peer hung up
}

// errNoProgress ends a session whose observer deals with nothing although the buffer is full.
var errNoProgress = errors.New("the observer makes no progress")

// Relay joins two connections. Make it with New, and call Run once.
type Relay struct {
	obs            Observer
	loops          *Loops
	client, server net.Conn        // closed while Run has them on a loop, others afterwards: Conns
	out, in        held            // from the client, from the server
	ctx            context.Context // Run's: asked right before each forward, because halting comes by a goroutine of its own

	fromClient, fromServer atomic.Uint64 // bytes that were dealt with

	carrier atomic.Pointer[carrier] // set by Run

	notesMu sync.Mutex // guards notes
	notes   []byte     // messages for the client that wait for a boundary
	noted   atomic.Bool
}

// carrier is how a session's bytes are moved.
type carrier interface {
	// run is Relay.Run.
	run() End
	// nudge has the notes written, if the client is at a boundary. It never waits.
	nudge()
	// tell and drain are Relay's, after run has returned.
	tell(msg []byte, within time.Duration) bool
	drain(within time.Duration) error
}

// New joins client and server, which are the Relay's own from here on: what becomes of them, Conns gives
// back. fromClient and fromServer, at most BufferSize, were already read from them.
func New(client, server net.Conn, fromClient, fromServer []byte, l *Loops, o Observer) *Relay {
	r := &Relay{obs: o, loops: l, client: client, server: server}
	r.out.init(l, fromClient)
	r.in.init(l, fromServer)
	return r
}

// Run relays until the first side ends, the observer fails or ctx ends; then forwarding has stopped.
// Both connections stay open.
func (r *Relay) Run(ctx context.Context) End {
	r.ctx = ctx
	c := carrier(nil)
	if !r.obs.Waits() {
		c = takeSeat(r)
	}
	if c == nil {
		c = newPump(r)
	}
	r.carrier.Store(&c)
	if r.noted.Load() {
		c.nudge()
	}
	return c.run()
}

// Conns gives the two connections back. Before Run they are those that New was given; while it runs they
// are of no use, and afterwards they may be others than before.
func (r *Relay) Conns() (client, server net.Conn) { return r.client, r.server }

// Notify shows the client a message at the next boundary. It never waits.
func (r *Relay) Notify(msg []byte) {
	r.notesMu.Lock()
	r.notes = append(r.notes, msg...)
	r.noted.Store(true)
	r.notesMu.Unlock()
	if c := r.carrier.Load(); c != nil {
		(*c).nudge()
	}
}

// takeNotes gives what waits for a boundary, and forgets it.
func (r *Relay) takeNotes() []byte {
	r.notesMu.Lock()
	defer r.notesMu.Unlock()
	notes := r.notes
	r.notes = nil
	r.noted.Store(false)
	return notes
}

// Moved says how many bytes came from the client and from the server and were dealt with.
func (r *Relay) Moved() (fromClient, fromServer uint64) {
	return r.fromClient.Load(), r.fromServer.Load()
}

// how is what moves the bytes.
func (r *Relay) how() carrier {
	if c := r.carrier.Load(); c != nil {
		return *c
	}
	return newPump(r)
}

// Tell writes the last message that this client sees, if it can be done between two messages and
// within the time given; otherwise nothing. Call it after Run has returned, or in its place.
func (r *Relay) Tell(msg []byte, within time.Duration) bool {
	return r.how().tell(msg, within)
}

// Drain reads the server's side to its end and has it observed; nothing is forwarded. Call it after Run
// has returned. It gives up after the time given, or when the observer still hangs by then.
func (r *Relay) Drain(within time.Duration) error {
	return r.how().drain(within)
}

// awaitObserver waits until the observer is done with what the server said before Run returned.
func awaitObserver(done <-chan struct{}, within time.Duration) error {
	hung := time.NewTimer(within)
	defer hung.Stop()
	select {
	case <-done:
		return nil
	case <-hung.C:
		return errors.New("the observer hangs")
	}
}
