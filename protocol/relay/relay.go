// Package relay is the one hot loop that the engines share: read a chunk, let the engine's observer
// see it, forward it. It knows nothing of any protocol.
//
// What a caller may rely on:
//   - bytes are forwarded only after the observer was shown them and returned without an error, in order,
//     unchanged but for what the observer itself hands back, and in whole chunks;
//   - whether the session was stopped is checked right before each forward; once Run has returned, no
//     byte goes to the server any more, whatever a hung observer does later;
//   - Run returns as soon as the first side ends, the observer fails or ctx ends. A peer that reads
//     nothing or an observer that hangs does not delay that;
//   - whatever goes to the client beside the stream (Notify, Tell) goes between two messages or not at all;
//   - a buffer belongs to a direction only while it holds bytes: an idle session has none. No memory is
//     allocated per chunk.
//
// How it waits (today two goroutines a session) is hidden, so that one loop over raw descriptors can
// take its place without any engine noticing.
package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
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

// Observer sees every byte of one session, in order, however the network slices them. Outbound and
// Inbound are called by one goroutine each, at the same time.
type Observer interface {
	// Outbound is shown what the client sent and was not dealt with yet. It deals with the first n
	// bytes and says what is to be forwarded for them: usually buf[:n] itself. It may change buf[:n].
	Outbound(buf []byte) (n int, out []byte, err error)
	// Inbound is the same for what the server sent.
	Inbound(buf []byte) (n int, out []byte, err error)
	// Whole says whether all that Inbound returned so far ends with a whole message. It is called by
	// the goroutine that calls Inbound.
	Whole() bool
	// Goodbye says whether the client took its leave in order: then the server is listened to until
	// it has hung up, even if the client has already gone.
	Goodbye() bool
}

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

// errStopped ends a loop that finds the session stopped; Run never returns it.
var errStopped = errors.New("stopped")

// errNoProgress ends a session whose observer deals with nothing although the buffer is full.
var errNoProgress = errors.New("the observer makes no progress")

// longAgo is a deadline that has passed: it wakes whoever waits on a connection.
var longAgo = time.Unix(1, 0)

// Relay joins two connections. Make it with New, and call Run once.
type Relay struct {
	obs            Observer
	client, server net.Conn
	out, in        stream // from the client, from the server

	ctx     context.Context // Run's: asked right before each forward, because halt comes by a goroutine of its own
	stopped atomic.Bool     // nothing is forwarded any more
	halted  chan struct{}   // closed when stopped is set
	halting sync.Once
	ends    chan End
	inDone  chan struct{} // closed when the inbound loop has returned

	fromClient, fromServer atomic.Uint64 // bytes that were dealt with

	serverW sync.Mutex // held over a write to the server

	clientW sync.Mutex // held over a write to the client; guards what follows
	whole   bool       // the client has seen whole messages only
	broken  bool       // a write to the client failed: its stream can't be gone on with
	mute    bool       // the last words were said

	notesMu sync.Mutex // guards notes
	notes   []byte     // messages for the client that wait for a boundary
	noted   atomic.Bool

	waiting atomic.Bool   // the outbound loop waits for an answer (ErrBusy)
	answers chan struct{} // wakes it
}

// New joins client and server. fromClient and fromServer, at most BufferSize, were already read from them.
func New(client, server net.Conn, fromClient, fromServer []byte, b *Buffers, o Observer) *Relay {
	r := &Relay{
		obs: o, client: client, server: server, whole: true,
		halted: make(chan struct{}), ends: make(chan End, 2), inDone: make(chan struct{}),
		answers: make(chan struct{}, 1),
	}
	r.out.init(client, fromClient, b)
	r.in.init(server, fromServer, b)
	return r
}

// Run relays until the first side ends, the observer fails or ctx ends; then forwarding has stopped.
// Both connections stay open.
func (r *Relay) Run(ctx context.Context) End {
	r.ctx = ctx
	unhook := context.AfterFunc(ctx, r.halt)
	go r.outbound()
	go r.inbound()
	var end End
	select {
	case end = <-r.ends:
	case <-r.halted:
		end = End{Context, context.Cause(ctx)}
	}
	unhook()
	r.halt()
	if ctx.Err() != nil { // the loops, woken by halt, may have been heard first
		end = End{Context, context.Cause(ctx)}
	}
	r.serverW.Lock() // a write that had begun is over; halt has cut it short
	defer r.serverW.Unlock()
	return end
}

// halt stops forwarding and wakes both loops.
func (r *Relay) halt() {
	r.halting.Do(func() {
		r.stopped.Store(true)
		r.server.SetWriteDeadline(longAgo)
		r.client.SetReadDeadline(longAgo)
		r.server.SetReadDeadline(longAgo)
		close(r.halted)
	})
}

// outbound is the loop from the client to the server.
func (r *Relay) outbound() {
	defer r.out.release()
	fresh := len(r.out.held()) > 0 // there is something to observe before the first read
	for {
		if !fresh {
			if err := r.out.read(); err != nil {
				if !r.obs.Goodbye() {
					r.ends <- End{Client, err}
				}
				return
			}
		}
		fresh = false
		if end, ok := r.observeOut(); !ok {
			if end.Err != errStopped {
				r.ends <- end
			}
			return
		}
	}
}

// observeOut has what was read observed and forwards it.
func (r *Relay) observeOut() (End, bool) {
	for {
		n, out, err := r.obs.Outbound(r.out.held())
		if len(out) > 0 {
			if err := r.toServer(out); err != nil {
				return End{Server, err}, false
			}
		}
		r.out.drop(n)
		r.fromClient.Add(uint64(n))
		switch {
		case err == nil && r.out.full():
			return End{Watcher, errNoProgress}, false
		case err == nil:
			r.waiting.Store(false)
			return End{}, true
		case err != ErrBusy:
			return End{Watcher, err}, false
		case !r.awaitAnswer():
			return End{Err: errStopped}, false
		}
	}
}

// awaitAnswer waits for Inbound to have run. The first time it only raises the flag that asks for a
// wake-up and lets Outbound try again, because an answer may have come just before.
func (r *Relay) awaitAnswer() bool {
	if r.waiting.Swap(true) {
		select {
		case <-r.answers:
		case <-r.halted:
			return false
		}
	}
	return true
}

// inbound is the loop from the server to the client.
func (r *Relay) inbound() {
	defer close(r.inDone)
	fresh := len(r.in.held()) > 0
	for {
		if !fresh {
			if err := r.in.read(); err != nil {
				r.ends <- End{Server, err}
				return
			}
		}
		fresh = false
		if end, ok := r.observeIn(); !ok {
			if end.Err != errStopped {
				r.ends <- end
			}
			return
		}
	}
}

// observeIn has what was read observed and forwards it. A client that has said goodbye and left is not
// missed: what the server still says is observed all the same.
func (r *Relay) observeIn() (End, bool) {
	n, out, err := r.obs.Inbound(r.in.held())
	if r.waiting.Swap(false) {
		select {
		case r.answers <- struct{}{}:
		default:
		}
	}
	var werr error
	if len(out) > 0 && err == nil {
		werr = r.toClient(out)
	}
	r.in.drop(n)
	r.fromServer.Add(uint64(n))
	switch {
	case err != nil:
		return End{Watcher, err}, false
	case werr == errStopped:
		return End{Err: errStopped}, false
	case werr != nil && !r.obs.Goodbye():
		return End{Client, werr}, false
	case r.in.full():
		return End{Watcher, errNoProgress}, false
	}
	return End{}, true
}

// over says whether nothing may be forwarded any more.
func (r *Relay) over() bool { return r.stopped.Load() || r.ctx.Err() != nil }

// toServer forwards to the server, unless the session was stopped.
func (r *Relay) toServer(b []byte) error {
	r.serverW.Lock()
	defer r.serverW.Unlock()
	if r.over() {
		return errStopped
	}
	_, err := r.server.Write(b)
	return err
}

// toClient forwards to the client, unless the session was stopped, and adds what waits for a boundary.
func (r *Relay) toClient(b []byte) error {
	r.clientW.Lock()
	defer r.clientW.Unlock()
	if r.over() {
		return errStopped
	}
	r.whole = r.obs.Whole()
	if err := r.writeClient(b); err != nil {
		return err
	}
	if r.noted.Load() {
		return r.writeNotes()
	}
	return nil
}

// writeClient writes to the client; clientW is held.
func (r *Relay) writeClient(b []byte) error {
	if r.broken {
		return io.ErrClosedPipe
	}
	_, err := r.client.Write(b)
	r.broken = err != nil
	return err
}

// writeNotes shows the client what waits for a boundary, if it is at one; clientW is held.
func (r *Relay) writeNotes() error {
	if !r.whole || r.mute {
		return nil
	}
	r.notesMu.Lock()
	notes := r.notes
	r.notes = nil
	r.noted.Store(false)
	r.notesMu.Unlock()
	if len(notes) == 0 {
		return nil
	}
	return r.writeClient(notes)
}

// Notify shows the client a message at the next boundary. It never waits.
func (r *Relay) Notify(msg []byte) {
	r.notesMu.Lock()
	r.notes = append(r.notes, msg...)
	r.noted.Store(true)
	r.notesMu.Unlock()
	go func() { // a client that reads nothing holds this goroutine and nobody else, until it is hung up on
		r.clientW.Lock()
		defer r.clientW.Unlock()
		if !r.stopped.Load() {
			r.writeNotes() // if it fails, the next write fails too and ends the session
		}
	}()
}

// Moved says how many bytes came from the client and from the server and were dealt with.
func (r *Relay) Moved() (fromClient, fromServer uint64) {
	return r.fromClient.Load(), r.fromServer.Load()
}

// Tell writes the last message that this client sees, if it can be done between two messages and
// within the time given; otherwise nothing. Call it after Run has returned.
func (r *Relay) Tell(msg []byte, within time.Duration) bool {
	r.client.SetWriteDeadline(time.Now().Add(within)) // also for a write that hangs right now
	r.clientW.Lock()
	defer r.clientW.Unlock()
	if !r.whole || r.mute {
		return false
	}
	r.mute = true
	return r.writeClient(msg) == nil
}

// Drain reads the server's side to its end and has it observed; nothing is forwarded. Call it after Run
// has returned. It gives up after the time given, or when the observer still hangs by then.
func (r *Relay) Drain(within time.Duration) error {
	deadline := time.Now().Add(within)
	hung := time.NewTimer(within)
	defer hung.Stop()
	select {
	case <-r.inDone:
	case <-hung.C:
		return errors.New("the observer hangs")
	}
	defer r.in.release()
	r.server.SetReadDeadline(deadline)
	for {
		if err := r.in.read(); errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		} else if err != nil {
			return nil // hung up, in order or not
		}
		n, _, err := r.obs.Inbound(r.in.held())
		if err != nil {
			return err
		}
		r.in.drop(n)
	}
}
