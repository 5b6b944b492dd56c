package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/crew"
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
	up     *upstream
	pipe   *relay.Relay
	obs    *observer

	version string // of the server
	mariadb bool

	backend atomic.Uint32 // its id at the server, 0 until the server has told
	live    atomic.Bool   // Relay runs: KILL is recorded and forwarded

	began atomic.Bool   // Relay was called
	ran   atomic.Bool   // and the pipe runs, or has run
	told  chan struct{} // closed when the client was told, or could not be
	heard atomic.Bool   // the client reads what it is sent, as far as known
	parts sync.Once
}

var (
	_ protocol.Link   = (*link)(nil)
	_ protocol.Client = (*client)(nil)
	_ crew.Session    = (*link)(nil)
	_ transactor      = (*link)(nil)
)

func (l *link) Backend() uint32 { return l.backend.Load() }
func (l *link) greeted() uint32 { return l.client.id }

func (l *link) InFlight() uint64 {
	if l.obs == nil {
		return 0
	}
	return l.obs.inFlight()
}

func (l *link) Prepared() []string {
	if l.obs == nil {
		return nil
	}
	return l.obs.prepared()
}

// transaction says whether a transaction was open by the server's last word to the session.
func (l *link) transaction() bool {
	if l.obs == nil {
		return false
	}
	l.obs.mu.Lock()
	defer l.obs.mu.Unlock()
	return l.obs.status&(statusInTrans|statusInTransReadOnly) != 0
}

// Attach logs in upstream as a's user, tells the client that it is in, and joins the two.
func (c *client) Attach(ctx context.Context, a protocol.Account) (protocol.Link, error) {
	acc, ok := a.(*account)
	if !ok || acc.secret == "" {
		return nil, errors.New("not an account that can be logged in with")
	}
	l := &link{client: c, owner: acc, told: make(chan struct{})}
	l.obs = newObserver(observerConfig{
		whole: c.front.cfg.MaxMessage, caps: c.caps, mariadb: c.server.mariadb, level: acc.spec.Level, kill: l.killed,
	})
	l.heard.Store(true)
	// It joins before it dials: a backend that is just being opened must have somebody to answer for it.
	extra, err := acc.add(l)
	if err != nil {
		return nil, &protocol.Refusal{Code: protocol.RefuseNoGrant, Err: err,
			Public: "your grant is ending; ask again: curfew request"}
	}
	l.obs.extra = extra
	if err := l.join(ctx); err != nil {
		l.part()
		return nil, err
	}
	c.link = l
	return l, nil
}

// join makes the upstream session and lets the client in.
func (l *link) join(ctx context.Context) error {
	up, err := dialUpstream(ctx, l.landing())
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var said *serverError
		var refusal *protocol.Refusal
		if errors.As(err, &said) && said.mayShow() || errors.As(err, &refusal) {
			return err
		}
		return &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err,
			Public: "the database can't be reached at the moment; try again later or tell your Curfew administrator"}
	}
	l.up = up
	l.backend.Store(up.id)
	c := l.client
	fromClient, fromServer := c.reader.rest(), up.reader.rest()
	if max(len(fromClient), len(fromServer)) > relay.BufferSize {
		up.leave()
		return &protocol.Refusal{Code: recorder.EndViolation, Public: "too much was sent before the login was answered"}
	}
	if err := c.welcome(ctx, up); err != nil {
		up.leave()
		return err
	}
	l.obs.caps, l.obs.mariadb, l.obs.status = up.caps, up.server.mariadb, up.status
	l.version, l.mariadb = up.server.version, up.server.mariadb
	l.pipe = relay.New(c.conn, up.conn, fromClient, fromServer, &c.front.loops, l.obs)
	c.reader, up.reader, up.ok = packetReader{}, packetReader{}, nil
	return nil
}

// landing says where the session goes: to the database that the client asked for, else to the target's.
func (l *link) landing() landing {
	c, e := l.client, l.owner.engine
	to := landing{
		target: e.target, prober: e.prober, user: l.owner.spec.Name, secret: l.owner.secret, database: c.database, grant: l.owner.spec.Grant,
		caps: c.caps, charset: c.charset, maxPacket: c.maxPacket, attrs: c.login.Attributes,
	}
	if to.database == "" {
		to.database = e.target.database
	}
	if !l.owner.spec.Level.LocalInfile {
		to.caps &^= capLocalFiles // the server itself refuses LOAD DATA LOCAL then
	}
	return to
}

// Relay runs the session until it ends.
func (l *link) Relay(ctx context.Context, sink protocol.Sink) error {
	l.began.Store(true)
	l.obs.sink = sink
	l.obs.limiter, _ = sink.(protocol.Limiter)
	err := sink.Record(recorder.Event{Type: recorder.TypeAttached, Attached: &recorder.Attached{
		Backend: strconv.FormatUint(uint64(l.up.id), 10), Server: l.version,
		TLS: l.up.tls, Address: l.up.address,
	}})
	if err != nil {
		err = unrecorded(err)
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
		words := lastWords(l.obs.next(), l.client.caps, l.mariadb, ctx.Err() != nil, why)
		l.heard.Store(l.pipe.Tell(words, wordsTime))
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

// Notify puts a notice on record. The client sees nothing of it: between the answer to one command and the
// next command the protocol has no place where a server may speak.
func (l *link) Notify(text string) {
	if !l.live.Load() {
		return
	}
	err := l.obs.sink.Record(recorder.Event{Type: recorder.TypeNotice, From: "curfew", Severity: []byte("NOTE"), Message: []byte(text)})
	if err != nil {
		l.client.front.cfg.Log.Warn("a notice was not recorded", "backend", l.Backend(), "error", err)
	}
}

// killed finds the session of the same grant whose client was greeted with an id, and puts on its record
// that it is cancelled from here.
func (l *link) killed(id uint64) (backend uint32, ok bool, err error) {
	mine, ok := ours(id)
	if !ok {
		return 0, false, nil
	}
	other, ok := l.owner.sessionOf(mine).(*link)
	if !ok || !other.live.Load() {
		return 0, false, nil
	}
	err = other.obs.sink.Record(recorder.Event{Type: recorder.TypeCancel, Of: other.InFlight(), From: l.client.login.Address})
	return other.Backend(), err == nil, err
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

// part leaves the account.
func (l *link) part() {
	l.parts.Do(func() { l.owner.Leave(l) })
}
