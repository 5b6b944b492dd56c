package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// accidents happen until ctx ends, about every so often.
func (w *world) accidents(ctx context.Context, every time.Duration, r *rand.Rand) {
	lasting := context.WithoutCancel(ctx)
	for {
		pause(ctx, every/2+time.Duration(r.Int64N(int64(every))))
		if ctx.Err() != nil {
			return
		}
		if w.down.Load() {
			continue
		}
		all := []func(context.Context, *rand.Rand) (string, error){w.cutWire, w.killBackend, w.killSession, w.revoke, w.release}
		what, err := all[r.IntN(len(all))](lasting, r)
		switch {
		case err != nil && w.down.Load():
		case err != nil:
			w.problem("%s: %v", what, err)
		case what != "":
			w.count(what)
		}
	}
}

// pick gives a session that has some time left; busy ones are picked as often as idle ones.
func (w *world) pick(r *rand.Rand) *session {
	w.mu.Lock()
	defer w.mu.Unlock()
	busy := r.IntN(2) == 0
	var all []*session
	for s := range w.sessions {
		if s.busy == busy && !s.grant.due() && !s.doomed.Load() {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[r.IntN(len(all))]
}

// cutWire breaks a client's connection, with or without a word.
func (w *world) cutWire(_ context.Context, r *rand.Rand) (string, error) {
	s := w.pick(r)
	if s == nil {
		return "", nil
	}
	s.doomed.Store(true)
	if tcp, ok := s.conn.socket().(*net.TCPConn); ok && r.IntN(2) == 0 {
		_ = tcp.SetLinger(0) // RST instead of FIN; if not, then FIN
	}
	if err := s.conn.socket().Close(); err != nil && !gone(err) {
		return "cut a client's connection", err
	}
	return "client cut", nil
}

// killBackend is what a DBA does at the database.
func (w *world) killBackend(ctx context.Context, r *rand.Rand) (string, error) {
	s := w.pick(r)
	if s == nil {
		return "", nil
	}
	s.doomed.Store(true)
	if s.target == harness.Orders {
		return "backend killed", w.pg.Exec(ctx, "postgres", "SELECT pg_terminate_backend("+s.conn.backend()+")")
	}
	err := w.my.Exec(ctx, "", "KILL "+s.conn.backend())
	var my *mysql.MySQLError
	if errors.As(err, &my) && my.Number == 1094 { // it has gone in the meantime
		err = nil
	}
	return "backend killed", err
}

// open finds the session that a client's port belongs to, or nil when it has just gone.
func (w *world) open(ctx context.Context, grant, port string) (*api.Session, error) {
	all, err := w.reader.Sessions(ctx, api.SessionFilter{Grant: grant, Open: true, Limit: 1000})
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		if _, p, err := net.SplitHostPort(x.Client); err == nil && p == port {
			return &x, nil
		}
	}
	return nil, nil
}

// killSession is what security does.
func (w *world) killSession(ctx context.Context, r *rand.Rand) (string, error) {
	s := w.pick(r)
	if s == nil {
		return "", nil
	}
	_, port, err := net.SplitHostPort(s.conn.socket().LocalAddr().String())
	if err != nil {
		return "find a session's port", err
	}
	found, err := w.open(ctx, s.grant.ID, port)
	if err != nil {
		return "find a session", err
	}
	if found == nil { // it has just gone
		return "", nil
	}
	s.doomed.Store(true)
	if _, err := w.bob.Run(ctx, "sessions", "kill", found.ID, "--reason", "the soak says so"); err != nil && !s.grant.due() {
		return "kill session " + found.ID, err
	}
	return "session killed", nil
}

func (w *world) revoke(ctx context.Context, r *rand.Rand) (string, error) {
	s := w.pick(r)
	if s == nil {
		return "", nil
	}
	defer s.grant.end()
	s.grant.ended.Store(true)
	if _, err := w.bob.Run(ctx, "revoke", s.grant.ID, "--reason", "the soak says so"); err != nil && !over(err) {
		return "revoke " + s.grant.ID, err
	}
	return "grant revoked", nil
}

func (w *world) release(ctx context.Context, r *rand.Rand) (string, error) {
	s := w.pick(r)
	if s == nil {
		return "", nil
	}
	defer s.grant.end()
	s.grant.ended.Store(true)
	if _, err := w.asker.Release(ctx, s.grant.ID); err != nil && !over(err) {
		return "release " + s.grant.ID, err
	}
	return "grant released", nil
}

// crash is kill -9, and a start after it.
func (w *world) crash(ctx context.Context) error {
	w.down.Store(true)
	w.crashes.Add(1)
	if err := w.cur.Kill(); err != nil {
		return err
	}
	began := time.Now()
	if err := w.cur.Start(ctx); err != nil {
		return fmt.Errorf("start after kill -9: %w", err)
	}
	w.crashes.Add(1) // what began while it was down is explained, too
	w.down.Store(false)
	w.o.Log("Curfew was killed and is back after %v", time.Since(began).Round(time.Millisecond))
	return nil
}
