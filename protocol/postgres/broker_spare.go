package postgres

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// spareLife bounds how long a connection to another database than the broker's own is kept: a database
	// that somebody is in can't be dropped or renamed, and the server waits 5 s for them to go.
	spareLife = 2 * time.Second
	spareMost = 4
)

// spares are broker connections to other databases, kept for a moment because grants end in crowds: a fresh
// one knows nothing of its database's catalogs, and learns it at many times the cost of the question.
type spares struct {
	mu     sync.Mutex // guards what follows
	idle   []*spare
	closed bool
}

type spare struct {
	conn     *pgx.Conn
	database string
	made     time.Time
	expiry   *time.Timer
	hangUp   func()
}

// take gives a connection that is in use by nobody else: a spare one that is alive, or a new one.
func (p *spares) take(ctx context.Context, broker *pgx.ConnConfig, database string) (*spare, error) {
	for s := p.pop(database); s != nil; s = p.pop(database) {
		ping, cancel := context.WithTimeout(ctx, pingTimeout)
		err := s.conn.Ping(ping)
		cancel()
		if err == nil {
			return s, nil
		}
		hangUp(ctx, s.conn)
	}
	cc := broker.Copy()
	cc.Database = database
	c, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, err
	}
	return &spare{conn: c, database: database, made: time.Now()}, nil
}

func (p *spares) pop(database string) *spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, s := range p.idle {
		if s.database == database && s.expiry.Stop() {
			p.idle = slices.Delete(p.idle, i, i+1)
			return s
		}
	}
	return nil
}

// give takes a connection back, and keeps it if it is of use to somebody.
func (p *spares) give(ctx context.Context, s *spare) {
	left := spareLife - time.Since(s.made)
	if !s.conn.IsClosed() && s.conn.PgConn().TxStatus() == 'I' && left > 0 && p.push(ctx, s, left) {
		return
	}
	hangUp(ctx, s.conn)
}

func (p *spares) push(ctx context.Context, s *spare, left time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= spareMost {
		return false
	}
	s.hangUp = func() { hangUp(ctx, s.conn) }
	s.expiry = time.AfterFunc(left, func() {
		p.mu.Lock()
		p.idle = slices.DeleteFunc(p.idle, func(o *spare) bool { return o == s })
		p.mu.Unlock()
		s.hangUp()
	})
	p.idle = append(p.idle, s)
	return true
}

// close hangs up for good.
func (p *spares) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, s := range idle {
		if s.expiry.Stop() { // else it is being hung up
			s.hangUp()
		}
	}
}
