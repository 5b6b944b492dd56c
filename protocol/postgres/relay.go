package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

const (
	// drainTime is how long the server's side of a session is read to its end.
	drainTime = 5 * time.Second
	// tellTime is how long Relay waits for a client to be told; what takes longer goes on beside it.
	tellTime = 50 * time.Millisecond
)

// link is a client joined to a backend.
type link struct {
	client *client
	owner  *account
	dial   pgconn.DialFunc
	db     string
	up     *upstream
	pipe   *relay.Relay
	obs    *observer
	ticket *ticket

	version string // of the server

	backend atomic.Uint32 // its pid, 0 until the server has told
	live    atomic.Bool   // Relay runs: cancel requests are recorded and forwarded

	began atomic.Bool   // Relay was called
	ran   atomic.Bool   // and the pipe runs, or has run
	told  chan struct{} // closed when the client was told, or could not be
	heard atomic.Bool   // the client reads what it is sent, as far as known
	parts sync.Once
}

var (
	_ protocol.Link   = (*link)(nil)
	_ protocol.Client = (*client)(nil)
)

func (l *link) Backend() uint32    { return l.backend.Load() }
func (l *link) InFlight() uint64   { return l.obs.inFlight() }
func (l *link) Prepared() []string { return l.obs.prepared() }

// Attach logs in upstream as a's role, tells the client that it is in, and joins the two.
func (c *client) Attach(ctx context.Context, a protocol.Account) (protocol.Link, error) {
	acc, ok := a.(*account)
	if !ok || acc.secret == "" {
		return nil, errors.New("not an account that can be logged in with")
	}
	l := &link{
		client: c, owner: acc, dial: acc.engine.conn.DialFunc, db: c.login.Database, told: make(chan struct{}),
		obs: newObserver(c.front.cfg.MaxMessage, acc.spec.Level.PreparedTransactions),
	}
	l.heard.Store(true)
	if l.db == "" || l.db == c.login.User { // what clients send when nobody named a database
		l.db = acc.engine.conn.Database
	}
	// It joins before it dials: a backend that is just being opened must have somebody to answer for it.
	if _, err := acc.Join(l); err != nil {
		return nil, &protocol.Refusal{Code: protocol.RefuseNoGrant, Err: err,
			Public: "your grant is ending; ask again: curfew request"}
	}
	err := l.join(ctx)
	if err != nil {
		l.part()
		return nil, err
	}
	c.link = l
	return l, nil
}

// join makes the upstream session and lets the client in.
func (l *link) join(ctx context.Context) error {
	c := l.client
	up, err := dialUpstream(ctx, landing{
		conn: l.owner.engine.conn, user: l.owner.spec.Name, password: l.owner.secret, database: l.db, params: c.params,
	})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var said *serverError
		if errors.As(err, &said) && said.mayShow() {
			return err
		}
		return &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err,
			Public: "the database can't be reached at the moment; try again later or tell your Curfew administrator"}
	}
	l.up = up
	l.backend.Store(up.pid)
	l.ticket = c.front.cancels.issue(l, c.minor)
	fromClient, fromServer := c.reader.rest(), up.reader.rest()
	if max(len(fromClient), len(fromServer)) > relay.BufferSize {
		up.leave()
		return &protocol.Refusal{Code: recorder.EndViolation, Public: "too much was sent before the login was answered"}
	}
	if err := l.welcome(ctx); err != nil {
		up.leave()
		return err
	}
	l.pipe = relay.New(c.conn, up.conn, fromClient, fromServer, &c.front.loops, l.obs)
	l.obs.settings = settings{
		known: true, backslash: up.params["standard_conforming_strings"] != "on", width: widthOf(up.params["client_encoding"]),
	}
	c.reader, up.reader, up.params = frameReader{}, frameReader{}, nil
	return nil
}

// welcome tells the client that it is in: what the server said at login, but for the cancel key, which
// is ours.
func (l *link) welcome(ctx context.Context) error {
	msg := appendMessage(nil, msgAuthentication, []byte{0, 0, 0, authOK})
	msg = append(msg, l.up.status...)
	pair := binary.BigEndian.AppendUint32(nil, l.ticket.pid)
	msg = appendMessage(msg, msgBackendKeyData, append(pair, l.ticket.key...))
	msg = appendMessage(msg, msgReadyForQuery, []byte{'I'})
	l.version, l.up.status = l.up.params["server_version"], nil
	defer watch(ctx, l.client.raw)()
	_, err := l.client.conn.Write(msg)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Relay runs the session until it ends.
func (l *link) Relay(ctx context.Context, sink protocol.Sink) error {
	l.began.Store(true)
	l.obs.sink = sink
	l.obs.limiter, _ = sink.(protocol.Limiter)
	err := sink.Record(recorder.Event{Type: recorder.TypeAttached, Attached: &recorder.Attached{
		Backend: strconv.FormatUint(uint64(l.up.pid), 10), Server: l.version,
		TLS: l.up.tls, Address: l.up.route.address,
	}})
	if err != nil {
		err = &protocol.EndError{Code: recorder.EndRecord, Err: fmt.Errorf("the session can't be recorded: %w", err)}
	} else {
		l.ran.Store(true)
		l.live.Store(true)
		end := l.pipe.Run(ctx)
		l.live.Store(false)
		l.regain()
		err = l.outcome(end)
	}
	if err == nil {
		err = l.obs.flush()
	}
	l.tell(ctx, err)
	if err == nil {
		l.up.conn.Close()
		l.part()
	}
	return err
}

// regain takes the connections back: the relay may have put others in their place.
func (l *link) regain() {
	c := l.client
	c.conn, l.up.conn = l.pipe.Conns()
	c.raw = relay.Bare(c.conn)
}

// outcome turns the relay's end into the contract's.
func (l *link) outcome(end relay.End) error {
	switch end.Side {
	case relay.Context:
		return end.Err
	case relay.Client:
		if l.obs.Dying() {
			return &protocol.EndError{Code: recorder.EndServer, Err: errors.New("the database ended the session")}
		}
		return &protocol.EndError{Code: recorder.EndVanished, Err: fmt.Errorf("the client's connection broke: %w", end.Err)}
	case relay.Server:
		if l.obs.Goodbye() {
			return nil
		}
		return &protocol.EndError{Code: recorder.EndServer, Err: fmt.Errorf("the database closed the connection: %w", end.Err)}
	}
	return end.Err // the observer's own, an EndError
}

// tell says why to the client, if there is anything to say that it has not heard from the server. A
// client that reads nothing holds up only the goroutine that tells it.
func (l *link) tell(ctx context.Context, why error) {
	var end *protocol.EndError
	if why == nil || errors.As(why, &end) && (end.Code == recorder.EndServer || end.Code == recorder.EndVanished) && ctx.Err() == nil {
		l.heard.Store(why == nil || end.Code == recorder.EndServer)
		close(l.told)
		return
	}
	go func() {
		defer close(l.told)
		l.heard.Store(l.pipe.Tell(lastWords(ctx.Err() != nil, why), wordsTime))
	}()
	select {
	case <-l.told:
	case <-time.After(tellTime):
	}
}

// awaitTold waits until the client was told why, and says whether it still reads.
func (l *link) awaitTold() bool {
	<-l.told
	return l.heard.Load()
}

// Notify shows the client a notice at the next message boundary; it stands in the recording, too.
func (l *link) Notify(text string) {
	if !l.live.Load() {
		return
	}
	err := l.obs.sink.Record(recorder.Event{Type: recorder.TypeNotice, From: "curfew", Severity: []byte("NOTICE"), Message: []byte(text)})
	if err == nil {
		l.pipe.Notify(appendNotice(nil, text))
	}
}

// cancel forwards a cancel request, on record first.
func (l *link) cancel(ctx context.Context, from string) error {
	if !l.live.Load() {
		return nil
	}
	if err := l.obs.sink.Record(recorder.Event{Type: recorder.TypeCancel, Of: l.InFlight(), From: from}); err != nil {
		return err
	}
	if !l.live.Load() {
		return nil
	}
	return l.up.cancel(ctx, l.dial)
}

// Usage says what the session has moved so far.
func (l *link) Usage() protocol.Usage {
	in, out := l.pipe.Moved()
	return protocol.Usage{FromClient: in, FromServer: out, InFlight: l.InFlight() != 0}
}

// Kill terminates the backend and reads the server's side to its end, so that the results of what was in
// flight are on record. Nothing is forwarded.
func (l *link) Kill(ctx context.Context) (protocol.Outcome, error) {
	outcome, err := l.owner.kill(ctx, l)
	if l.ran.Load() {
		derr := l.pipe.Drain(drainTime)
		if derr == nil {
			derr = l.obs.flush()
		}
		if derr != nil {
			l.client.front.cfg.Log.Warn("the server's side was not read to its end", "backend", l.Backend(), "error", derr)
		}
	}
	if outcome.TxID == "" && outcome.InFlight != 0 && l.InFlight() == 0 { // it was answered before the backend went
		outcome.InFlight, outcome.Fate = 0, protocol.FateNone
	}
	l.up.conn.Close()
	l.part()
	return outcome, err
}

// part leaves the account and voids the cancel key.
func (l *link) part() {
	l.parts.Do(func() {
		if l.ticket != nil {
			l.client.front.cancels.revoke(l.ticket)
		}
		l.owner.Leave(l)
	})
}
