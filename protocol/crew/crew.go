// Package crew keeps the sessions of one account and what became of their backends: what is the same of an
// account whichever database it is on. It asks no server; who does tells it what there was to see.
//
// What a caller may rely on:
//   - a backend is known for its session's from the moment the server has told its id until the session has left,
//     and for 10 s more, since it may linger; a session joins before it dials, so the others can be told apart;
//   - backends are killed by one at a time, who has the token, so that each has one outcome, which its session
//     and the receipt tell alike;
//   - sessions that end together are killed together (Kill);
//   - the receipt of a cut holds over its attempts: the first moment when nobody could log in, the look from which on
//     nobody was in, and every backend that was killed for it;
//   - no lock is held while a server is asked.
package crew

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// lingerMost is how long a backend may outlive its session, which said goodbye.
const lingerMost = 10 * time.Second

// Session is what must be known of a client's connection.
type Session interface {
	Backend() uint32    // the server's id of its backend; 0 until the server has told it
	InFlight() uint64   // id of the oldest statement without a result; 0 = none
	Prepared() []string // ids of the transactions that its statements prepared
}

// Crew is the sessions of one account. Its methods may be called by many at once.
type Crew struct {
	Killing Token // the right to kill backends

	mu       sync.Mutex // guards what follows; never held across I/O
	sessions map[Session]struct{}
	outcomes map[Session]protocol.Outcome // of those whose backend was killed, or was gone when it was to be
	doomed   map[Session]struct{}         // those whose backend is to be killed: whoever has the token kills them all
	killed   []ending                     // backends by time, for the receipt
	released map[uint32]time.Time         // backends of sessions that have left, until the server has let go of them
	prepared map[string]struct{}          // ids of transactions that sessions prepared
	closing  bool                         // no session may join any more
	cut      protocol.Cut                 // what cutting has learned so far
	vacant   time.Time                    // since when nobody is in, by a look after the lock
}

// New is the crew of an account that nobody has joined.
func New() *Crew {
	return &Crew{
		Killing:  NewToken(),
		sessions: map[Session]struct{}{}, outcomes: map[Session]protocol.Outcome{}, doomed: map[Session]struct{}{},
		released: map[uint32]time.Time{}, prepared: map[string]struct{}{},
	}
}

// ErrClosing refuses a session that comes too late.
var ErrClosing = errors.New("the account is being closed")

// Join lets a session in, and says how many others there are. It comes before the session dials the database, so
// that a backend which is just being opened has somebody to answer for it.
func (c *Crew) Join(s Session) (others int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return 0, ErrClosing
	}
	others = len(c.sessions)
	c.sessions[s] = struct{}{}
	return others, nil
}

// Leave lets a session go. Its backend may take a moment longer to go, too.
func (c *Crew) Leave(s Session) {
	backend := s.Backend()
	c.Learn(s.Prepared())
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, joined := c.sessions[s]; !joined {
		return
	}
	if _, killed := c.outcomes[s]; backend != 0 && !killed {
		c.released[backend] = time.Now()
	}
	delete(c.sessions, s)
	delete(c.outcomes, s)
}

// Joined gives the sessions of now.
func (c *Crew) Joined() []Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.sessions))
}

// Learn keeps ids of transactions that sessions prepared.
func (c *Crew) Learn(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.prepared[id] = struct{}{}
	}
}

// Prepared gives the id of every transaction that sessions prepared, sorted.
func (c *Crew) Prepared() []string {
	for _, s := range c.Joined() {
		c.Learn(s.Prepared())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.prepared))
}

// Opening is how many sessions have joined and have no backend yet.
func (c *Crew) Opening() (n int) {
	for _, s := range c.Joined() {
		if s.Backend() == 0 {
			n++
		}
	}
	return n
}

// Backends are those of the sessions, and of sessions that have just left.
func (c *Crew) Backends() map[uint32]bool {
	known := map[uint32]bool{}
	for _, s := range c.Joined() {
		known[s.Backend()] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for backend, at := range c.released {
		if time.Since(at) < lingerMost {
			known[backend] = true
		}
	}
	return known
}

// Forget lets go of the backends of sessions that have left: of those that have lingered too long, or are gone.
func (c *Crew) Forget(gone func(backend uint32) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.released, func(backend uint32, at time.Time) bool { return time.Since(at) >= lingerMost || gone(backend) })
}

// Shut lets no session join any more.
func (c *Crew) Shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
}

// Closing says whether no session may join any more.
func (c *Crew) Closing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// Token is a right that one at a time has.
type Token chan struct{}

// NewToken makes one that nobody has.
func NewToken() Token {
	t := make(Token, 1)
	t.Give()
	return t
}

// Take waits until nobody else has it.
func (t Token) Take(ctx context.Context) error {
	select {
	case <-t:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Give hands it back.
func (t Token) Give() { t <- struct{}{} }
