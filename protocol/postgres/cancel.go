package postgres

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// cancelPause is how long a session's cancel requests are apart at the server, and cancelsWaiting how
	// many may wait for that: more than a person sends.
	cancelPause    = 20 * time.Millisecond
	cancelsWaiting = 4
)

// cancels maps the (pid, key) pairs that clients were given to their sessions. The pairs are Curfew's own:
// a client never learns the server's, so nothing can be cancelled past the proxy.
type cancels struct {
	mu   sync.Mutex // guards keys
	keys map[uint32]*ticket
}

// ticket is one session's pair, as long as the client's version of the protocol has it, whatever the
// server's is.
type ticket struct {
	pid     uint32
	key     []byte
	link    *link
	turn    chan struct{} // holds one token: the right to send a cancel request
	waiting atomic.Int32
}

func (c *cancels) init() { c.keys = map[uint32]*ticket{} }

// issue makes a pair for a session.
func (c *cancels) issue(l *link, minor uint32) *ticket {
	size := keyShort
	if minor >= 2 {
		size = keyLong
	}
	t := &ticket{link: l, key: make([]byte, size), turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	_, _ = rand.Read(t.key) // never fails (crypto/rand)
	c.mu.Lock()
	defer c.mu.Unlock()
	for t.pid == 0 || c.keys[t.pid] != nil {
		var b [4]byte
		_, _ = rand.Read(b[:])
		t.pid = binary.BigEndian.Uint32(b[:]) >> 1 // clients keep it in a signed integer
	}
	c.keys[t.pid] = t
	return t
}

func (c *cancels) revoke(t *ticket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keys, t.pid)
}

// find gives the session of a pair, nil if there is none. How long it takes says nothing about the key.
func (c *cancels) find(body []byte) *ticket {
	if len(body) < 4+keyShort || len(body) > 4+keyLongest {
		return nil
	}
	c.mu.Lock()
	t := c.keys[binary.BigEndian.Uint32(body)]
	c.mu.Unlock()
	key := make([]byte, len(body)-4) // of nobody, and compared all the same
	if t != nil {
		key = t.key
	}
	if subtle.ConstantTimeCompare(key, body[4:]) != 1 || t == nil {
		return nil
	}
	return t
}

// enter waits for the right to send a cancel request; false says that too many wait already, or for too
// long. A client that floods its own session with them costs the server no more than one that does not.
func (t *ticket) enter(ctx context.Context) bool {
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > cancelsWaiting {
		return false
	}
	select {
	case <-t.turn:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave gives it back, after a pause.
func (t *ticket) leave() { time.AfterFunc(cancelPause, func() { t.turn <- struct{}{} }) }

// cancel does what a CancelRequest asks for. The one who asks learns nothing from it, as with PostgreSQL.
func (f *Front) cancel(ctx context.Context, body []byte, from string) {
	t := f.cancels.find(body)
	if t == nil {
		f.cfg.Log.Debug("cancel request for no session", "from", from)
		return
	}
	if !t.enter(ctx) {
		f.cfg.Log.Debug("one cancel request too many", "from", from, "backend", t.link.Backend())
		return
	}
	defer t.leave()
	if err := t.link.cancel(ctx, from); err != nil {
		f.cfg.Log.Warn("cancel request", "from", from, "backend", t.link.Backend(), "error", err)
	}
}

// cancel sends a session's own cancel request to the server it landed on, in the same way as the session
// went there, and waits until the server has taken it.
func (u *upstream) cancel(ctx context.Context, dial pgconn.DialFunc) error {
	raw, err := dial(ctx, u.route.network, u.route.address)
	if err != nil {
		return err
	}
	defer raw.Close()
	defer watch(ctx, raw)()
	c, _, err := secure(ctx, raw, u.route)
	if err != nil {
		return err
	}
	msg := binary.BigEndian.AppendUint32(nil, uint32(12+len(u.key)))
	msg = binary.BigEndian.AppendUint32(msg, codeCancel)
	msg = binary.BigEndian.AppendUint32(msg, u.pid)
	if _, err := c.Write(append(msg, u.key...)); err != nil {
		return err
	}
	var none [1]byte
	if _, err := c.Read(none[:]); err != nil && !errors.Is(err, io.EOF) && ctx.Err() != nil {
		return err
	}
	return nil
}
