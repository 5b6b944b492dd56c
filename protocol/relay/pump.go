package relay

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// errStopped ends a loop that finds the session stopped; Run never returns it.
var errStopped = errors.New("stopped")

// longAgo is a deadline that has passed: it wakes whoever waits on a connection.
var longAgo = time.Unix(1, 0)

// pump moves a session's bytes by two goroutines, one a direction.
type pump struct {
	*Relay
	fromC, fromS stream

	stopped atomic.Bool   // nothing is forwarded any more
	halted  chan struct{} // closed when stopped is set
	halting sync.Once
	ends    chan End
	inDone  chan struct{} // closed when the inbound loop has returned

	serverW sync.Mutex // held over a write to the server

	clientW sync.Mutex // held over a write to the client; guards what follows
	whole   bool       // the client has seen whole messages only
	broken  bool       // a write to the client failed: its stream can't be gone on with
	mute    bool       // the last words were said

	waiting atomic.Bool   // the outbound loop waits for an answer (ErrBusy)
	answers chan struct{} // wakes it
}

func newPump(r *Relay) *pump {
	p := &pump{
		Relay: r, whole: true, halted: make(chan struct{}), ends: make(chan End, 2), inDone: make(chan struct{}),
		answers: make(chan struct{}, 1),
	}
	p.fromC.init(r.client, &r.out)
	p.fromS.init(r.server, &r.in)
	return p
}

func (p *pump) run() End {
	unhook := context.AfterFunc(p.ctx, p.halt)
	go p.outbound()
	go p.inbound()
	var end End
	select {
	case end = <-p.ends:
	case <-p.halted:
		end = End{Context, context.Cause(p.ctx)}
	}
	unhook()
	p.halt()
	if p.ctx.Err() != nil { // the loops, woken by halt, may have been heard first
		end = End{Context, context.Cause(p.ctx)}
	}
	p.serverW.Lock() // a write that had begun is over; halt has cut it short
	defer p.serverW.Unlock()
	return end
}

// halt stops forwarding and wakes both loops.
func (p *pump) halt() {
	p.halting.Do(func() {
		p.stopped.Store(true)
		p.server.SetWriteDeadline(longAgo)
		p.client.SetReadDeadline(longAgo)
		p.server.SetReadDeadline(longAgo)
		close(p.halted)
	})
}

// outbound is the loop from the client to the server.
func (p *pump) outbound() {
	defer p.out.release()
	fresh := len(p.out.bytes()) > 0 // there is something to observe before the first read
	for {
		if !fresh {
			if err := p.fromC.read(); err != nil {
				if !p.obs.Goodbye() {
					p.ends <- End{Client, err}
				}
				return
			}
		}
		fresh = false
		if end, ok := p.observeOut(); !ok {
			if end.Err != errStopped {
				p.ends <- end
			}
			return
		}
	}
}

// observeOut has what was read observed and forwards it.
func (p *pump) observeOut() (End, bool) {
	for {
		n, out, err := p.obs.Outbound(p.out.bytes())
		if len(out) > 0 {
			if err := p.toServer(out); err != nil {
				p.part()
				return End{Server, err}, false
			}
		}
		p.fromC.drop(n)
		p.fromClient.Add(uint64(n))
		switch {
		case err == nil && p.out.full():
			return End{Watcher, errNoProgress}, false
		case err == nil:
			p.waiting.Store(false)
			return End{}, true
		case err != ErrBusy:
			return End{Watcher, err}, false
		case !p.awaitAnswer():
			return End{Err: errStopped}, false
		}
	}
}

// part gives a server that has hung up the time to be heard to its end.
func (p *pump) part() {
	enough := time.NewTimer(partingTime)
	defer enough.Stop()
	select {
	case <-p.inDone:
	case <-p.halted:
	case <-enough.C:
	}
}

// awaitAnswer waits for Inbound to have run. The first time it only raises the flag that asks for a
// wake-up and lets Outbound try again, because an answer may have come just before.
func (p *pump) awaitAnswer() bool {
	if p.waiting.Swap(true) {
		select {
		case <-p.answers:
		case <-p.halted:
			return false
		}
	}
	return true
}

// inbound is the loop from the server to the client.
func (p *pump) inbound() {
	defer close(p.inDone)
	fresh := len(p.in.bytes()) > 0
	for {
		if !fresh {
			if err := p.fromS.read(); err != nil {
				p.ends <- End{Server, err}
				return
			}
		}
		fresh = false
		if end, ok := p.observeIn(); !ok {
			if end.Err != errStopped {
				p.ends <- end
			}
			return
		}
	}
}

// observeIn has what was read observed and forwards it. A client that has said goodbye and left is not
// missed: what the server still says is observed all the same.
func (p *pump) observeIn() (End, bool) {
	n, out, err := p.obs.Inbound(p.in.bytes())
	if p.waiting.Swap(false) {
		select {
		case p.answers <- struct{}{}:
		default:
		}
	}
	var werr error
	if len(out) > 0 && err == nil {
		werr = p.toClient(out)
	}
	p.fromS.drop(n)
	p.fromServer.Add(uint64(n))
	switch {
	case err != nil:
		return End{Watcher, err}, false
	case werr == errStopped:
		return End{Err: errStopped}, false
	case werr != nil && !p.obs.Goodbye():
		return End{Client, werr}, false
	case p.in.full():
		return End{Watcher, errNoProgress}, false
	}
	return End{}, true
}

// over says whether nothing may be forwarded any more.
func (p *pump) over() bool { return p.stopped.Load() || p.ctx.Err() != nil }

// toServer forwards to the server, unless the session was stopped.
func (p *pump) toServer(b []byte) error {
	p.serverW.Lock()
	defer p.serverW.Unlock()
	if p.over() {
		return errStopped
	}
	_, err := p.server.Write(b)
	return err
}

// toClient forwards to the client, unless the session was stopped, and adds what waits for a boundary.
func (p *pump) toClient(b []byte) error {
	p.clientW.Lock()
	defer p.clientW.Unlock()
	if p.over() {
		return errStopped
	}
	p.whole = p.obs.Whole()
	if err := p.writeClient(b); err != nil {
		return err
	}
	if p.noted.Load() {
		return p.writeNotes()
	}
	return nil
}

// writeClient writes to the client; clientW is held.
func (p *pump) writeClient(b []byte) error {
	if p.broken {
		return io.ErrClosedPipe
	}
	_, err := p.client.Write(b)
	p.broken = err != nil
	return err
}

// writeNotes shows the client what waits for a boundary, if it is at one; clientW is held.
func (p *pump) writeNotes() error {
	if !p.whole || p.mute {
		return nil
	}
	if notes := p.takeNotes(); len(notes) > 0 {
		return p.writeClient(notes)
	}
	return nil
}

func (p *pump) nudge() {
	go func() { // a client that reads nothing holds this goroutine and nobody else, until it is hung up on
		p.clientW.Lock()
		defer p.clientW.Unlock()
		if !p.stopped.Load() {
			p.writeNotes() // if it fails, the next write fails too and ends the session
		}
	}()
}

func (p *pump) tell(msg []byte, within time.Duration) bool {
	p.client.SetWriteDeadline(time.Now().Add(within)) // also for a write that hangs right now
	p.clientW.Lock()
	defer p.clientW.Unlock()
	if !p.whole || p.mute {
		return false
	}
	p.mute = true
	return p.writeClient(msg) == nil
}

func (p *pump) drain(within time.Duration) error {
	deadline := time.Now().Add(within)
	if err := awaitObserver(p.inDone, within); err != nil {
		return err
	}
	return p.fromS.drain(p.obs, deadline)
}

// drain reads to the end of what the server says, and has it observed.
func (s *stream) drain(o Observer, deadline time.Time) error {
	defer s.held.release()
	s.conn.SetReadDeadline(deadline)
	for {
		if err := s.read(); errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		} else if err != nil {
			return nil // hung up, in order or not
		}
		n, _, err := o.Inbound(s.held.bytes())
		if err != nil {
			return err
		}
		s.drop(n)
	}
}
