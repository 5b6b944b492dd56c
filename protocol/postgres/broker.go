package postgres

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	dialTimeout  = 10 * time.Second
	queryTimeout = 5 * time.Second // one short query on the closing line; a dead network shows by it
	lineBeat     = 5 * time.Second
	lineRetry    = 2 * time.Second
	pingTimeout  = 2 * time.Second
	poolConns    = 4
	poolIdle     = 5 * time.Minute
)

var errClosed = errors.New("the engine is closed")

// line is the broker connection that stays open for closing alone, because a grant's own sessions can
// fill max_connections. One short query at a time; a broken connection is made anew, at once by whoever
// needs it, and in the background before anybody does.
type line struct {
	cfg  *pgx.ConnConfig
	log  *slog.Logger
	turn chan struct{} // holds one token: the right to use conn, and to replace it
	conn *pgx.Conn     // nil: not connected
	stop context.CancelFunc
	done chan struct{}
}

func newLine(ctx context.Context, cfg *pgx.ConnConfig, log *slog.Logger) *line {
	ctx, stop := context.WithCancel(ctx)
	l := &line{cfg: cfg.Copy(), log: log, turn: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	l.cfg.RuntimeParams["application_name"] += " closing"
	// A person can hold the lock on their own role's row; then their backends go first (cut.go).
	l.cfg.RuntimeParams["lock_timeout"] = "50ms"
	l.turn <- struct{}{}
	go l.keep(ctx)
	return l
}

// do runs one short piece of work on the line. If the connection turns out to be dead it is made anew
// and f runs again, so f must bear to be repeated.
func (l *line) do(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	select {
	case <-l.turn:
	case <-l.done:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { l.turn <- struct{}{} }()
	fresh := l.conn == nil
	err := l.once(ctx, f)
	if err != nil && !fresh && l.conn == nil && ctx.Err() == nil {
		err = l.once(ctx, f)
	}
	return err
}

// once connects if need be and runs f. The caller holds the turn.
func (l *line) once(ctx context.Context, f func(context.Context, *pgx.Conn) error) (err error) {
	if l.conn == nil {
		if l.conn, err = pgx.ConnectConfig(ctx, l.cfg); err != nil {
			l.conn = nil
			return err
		}
	}
	if err = writable(l.conn); err == nil {
		query, cancel := context.WithTimeout(ctx, queryTimeout)
		err = f(query, l.conn)
		cancel()
	}
	// After a failover the old address may answer as a standby: dial again, the writer may be found.
	if l.conn.IsClosed() || err == errStandby || is(err, "25006") {
		hangUp(ctx, l.conn)
		l.conn = nil
	}
	return err
}

// keep has the line open before it is needed.
func (l *line) keep(ctx context.Context) {
	defer l.end(ctx)
	down := false
	for {
		err := l.do(ctx, func(ctx context.Context, c *pgx.Conn) error { return c.Ping(ctx) })
		wait := lineBeat
		if err != nil {
			wait = lineRetry
		}
		if (err != nil) != down && ctx.Err() == nil {
			if down = err != nil; down {
				l.log.Error("the connection kept for closing is down; it is being made anew", "error", err)
			} else {
				l.log.Info("the connection kept for closing is up again")
			}
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (l *line) close() {
	l.stop()
	<-l.done
}

// end hangs up for good: the token is kept, so nobody connects again.
func (l *line) end(ctx context.Context) {
	<-l.turn
	if l.conn != nil {
		hangUp(ctx, l.conn)
		l.conn = nil
	}
	close(l.done)
}

// hangUp closes a connection whether or not ctx is over.
func hangUp(ctx context.Context, c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.Close(ctx) // it is being thrown away
}

// pause waits d, or reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
