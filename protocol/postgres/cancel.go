package postgres

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// cancels maps the (pid, key) pairs that clients were given to their sessions. The pairs are Curfew's own:
// a client never learns the server's, so nothing can be cancelled past the proxy.
type cancels struct {
	mu   sync.Mutex // guards keys
	keys map[uint32]*ticket
}

// ticket is one session's pair.
type ticket struct {
	pid  uint32
	key  [4]byte
	link *link
}

func (c *cancels) init() { c.keys = map[uint32]*ticket{} }

// issue makes a pair for a session.
func (c *cancels) issue(l *link) *ticket {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &ticket{link: l}
	_, _ = rand.Read(t.key[:]) // never fails (crypto/rand)
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
func (c *cancels) find(body []byte) *link {
	if len(body) != 8 {
		return nil
	}
	c.mu.Lock()
	t := c.keys[binary.BigEndian.Uint32(body)]
	c.mu.Unlock()
	var key [4]byte
	if t != nil {
		key = t.key
	}
	if subtle.ConstantTimeCompare(key[:], body[4:]) != 1 || t == nil {
		return nil
	}
	return t.link
}

// cancel does what a CancelRequest asks for. The one who asks learns nothing from it, as with PostgreSQL.
func (f *Front) cancel(ctx context.Context, body []byte, from string) {
	l := f.cancels.find(body)
	if l == nil {
		f.cfg.Log.Debug("cancel request for no session", "from", from)
		return
	}
	if err := l.cancel(ctx, from); err != nil {
		f.cfg.Log.Warn("cancel request", "from", from, "backend", l.pid(), "error", err)
	}
}

// cancel sends a session's own cancel request to the server it landed on, in the same way as the session
// went there, and waits until the server has taken it.
func (u *upstream) cancel(ctx context.Context, dial pgconn.DialFunc) error {
	raw, err := dial(ctx, u.network, u.address)
	if err != nil {
		return err
	}
	defer raw.Close()
	defer watch(ctx, raw)()
	c, _, err := secure(ctx, raw, u.config)
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
