package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
)

// account is one grant's role on this server. Its story is told in provision.go, cut.go and clean.go;
// this file holds what its sessions share.
type account struct {
	engine *Engine
	spec   protocol.AccountSpec
	secret string // the role's password, 256 random bits as text; "" for one that was only recalled

	killing  chan struct{} // holds one token: the right to terminate backends, so that each has one outcome
	cleaning chan struct{} // holds one token: the right to make or clean the role

	mu       sync.Mutex // guards what follows; never held across I/O
	links    map[session]struct{}
	outcomes map[session]protocol.Outcome // of links whose backend was terminated, or was gone when it was to be
	doomed   map[session]struct{}         // links whose backend is to go: whoever has the token terminates them all
	killed   []ending                     // the same by time, for the receipt
	released map[uint32]time.Time         // backends of links that are gone, until the server has let go of them
	prepared map[string]struct{}          // global ids that sessions prepared
	oid      uint32                       // the role's, once known
	closing  bool                         // no session may join any more
	cut      protocol.Cut                 // what cutting has learned so far
	vacant   time.Time                    // since when nobody is in, by a look after the lock
	clean    protocol.Clean               // what cleaning has learned so far
}

// session is what an account must know of a client's connection: a *link.
type session interface {
	pid() uint32        // of its backend; 0 until the server has told it
	inFlight() uint64   // id of the oldest statement without a result; 0 = none
	prepared() []string // global ids that its statements prepared
}

// ending is one terminated backend.
type ending struct {
	at      time.Time
	outcome protocol.Outcome
}

func newAccount(e *Engine, spec protocol.AccountSpec) *account {
	a := &account{
		engine: e, spec: spec,
		killing: make(chan struct{}, 1), cleaning: make(chan struct{}, 1),
		links: map[session]struct{}{}, outcomes: map[session]protocol.Outcome{}, doomed: map[session]struct{}{},
		released: map[uint32]time.Time{}, prepared: map[string]struct{}{},
	}
	a.killing <- struct{}{}
	a.cleaning <- struct{}{}
	a.learn(spec.Prepared)
	return a
}

// Name is the role's name.
func (a *account) Name() string { return a.spec.Name }

// errClosing refuses a session that comes too late.
var errClosing = errors.New("the account is being closed")

// add lets a session join. It is called before the session dials the database, so that a backend which
// is just being opened has somebody to answer for it; l.pid is 0 until the server has told it.
func (a *account) add(l session) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return errClosing
	}
	a.links[l] = struct{}{}
	return nil
}

// remove lets a session go. Its backend may take a moment longer to go, too.
func (a *account) remove(l session) {
	pid, gids := l.pid(), l.prepared()
	a.learn(gids)
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, joined := a.links[l]; !joined {
		return
	}
	if _, terminated := a.outcomes[l]; pid != 0 && !terminated {
		a.released[pid] = time.Now()
	}
	delete(a.links, l)
	delete(a.outcomes, l)
}

// learn keeps global ids that this grant's sessions prepared.
func (a *account) learn(gids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, gid := range gids {
		a.prepared[gid] = struct{}{}
	}
}

// gids gives every global id that this grant's sessions prepared.
func (a *account) gids() []string {
	for _, l := range a.joined() {
		a.learn(l.prepared())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.prepared))
}

// joined gives the sessions of now.
func (a *account) joined() []session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.links))
}

// shut lets no session join any more.
func (a *account) shut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closing = true
}

// kill terminates a session's backend and learns what became of what it was doing, or gives what Cut has
// learned already. Sessions end in crowds: whoever has the token terminates the backends of all that wait
// for it, and once the account was emptied nobody need ask the server.
func (a *account) kill(ctx context.Context, l session) (protocol.Outcome, error) {
	if l.pid() == 0 { // it never got in
		return protocol.Outcome{Fate: protocol.FateNone}, nil
	}
	if o, ok := a.ended(l); ok {
		return o, nil
	}
	a.doom(l)
	defer a.spare(l)
	if err := take(ctx, a.killing); err != nil {
		return unasked(l), err
	}
	defer give(a.killing)
	if o, ok := a.ended(l); ok {
		return o, nil
	}
	batch, pids := a.batch(l)
	oid, err := a.role(ctx)
	var ends []end
	if err == nil {
		ends, err = a.drain(ctx, oid, pids...)
	}
	if err != nil {
		return unasked(l), fmt.Errorf("terminate backend %d of %s: %w", l.pid(), a.spec.Name, err)
	}
	a.note(a.engine.fates(ctx, ends))
	a.gone(batch)
	o, _ := a.outcome(l)
	return o, nil
}

// ended is what became of a link's backend, if that is known without asking the server.
func (a *account) ended(l session) (protocol.Outcome, bool) {
	if o, ok := a.outcome(l); ok || !a.emptied() {
		return o, ok
	}
	return unproven(l), true
}

// emptied says whether a cut has seen the last of the account's backends.
func (a *account) emptied() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closing && !a.cut.GoneAt.IsZero()
}

func (a *account) doom(l session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doomed[l] = struct{}{}
}

func (a *account) spare(l session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.doomed, l)
}

// batch gives l and the other sessions whose backends are to go, and those backends; none means all of the
// account's, because it is being closed.
func (a *account) batch(l session) (list []session, pids []uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list = append(list, l)
	for other := range a.doomed {
		if _, known := a.outcomes[other]; !known && other != l {
			list = append(list, other)
		}
	}
	if a.closing {
		return list, nil
	}
	for _, l := range list {
		pids = append(pids, l.pid())
	}
	return list, pids
}

// gone notes which of these had ended by themselves.
func (a *account) gone(batch []session) {
	for _, l := range batch {
		o := unproven(l)
		a.mu.Lock()
		if _, known := a.outcomes[l]; !known {
			a.outcomes[l] = o
		}
		a.mu.Unlock()
	}
}

// unproven is the outcome of a backend that nobody saw go, which does not prove what it did before.
func unproven(l session) protocol.Outcome {
	o := unasked(l)
	if o.InFlight == 0 {
		o.Fate = protocol.FateNone
	}
	return o
}

// unasked is the outcome of a backend of which the server could not be asked.
func unasked(l session) protocol.Outcome {
	return protocol.Outcome{Backend: strconv.FormatUint(uint64(l.pid()), 10), InFlight: l.inFlight(), Fate: protocol.FateUnknown}
}

// outcome is what became of a link's backend, if it was terminated.
func (a *account) outcome(l session) (protocol.Outcome, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.outcomes[l]
	return o, ok
}

// note keeps the outcomes of terminated backends, with the sessions they belonged to.
func (a *account) note(ends []end) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range ends {
		o := protocol.Outcome{Backend: strconv.FormatUint(uint64(e.pid), 10), TxID: e.xid, Fate: e.fate, InFlight: e.inFlight}
		if e.link != nil {
			a.outcomes[e.link] = o
		}
		_, ours := a.released[e.pid]
		// After a restart nobody remembers the sessions of the process before: they were ours.
		o.Foreign = e.link == nil && !ours && a.secret != ""
		a.killed = append(a.killed, ending{at: now, outcome: o})
	}
}

// since gives the outcomes of backends that were terminated after at.
func (a *account) since(at time.Time) []protocol.Outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []protocol.Outcome
	for _, k := range a.killed {
		if !k.at.Before(at) {
			list = append(list, k.outcome)
		}
	}
	return list
}

// row is what the server knows of an account.
type row struct {
	oid   uint32
	login bool
	note  note
	since int64 // transaction that made it, 64 bits; what is newer may be the account's doing
}

// note is what Curfew keeps in the role's comment.
type note struct {
	Installation string             `json:"installation"`
	Grant        string             `json:"grant"`
	Requester    string             `json:"requester"`
	End          time.Time          `json:"end"`
	Level        string             `json:"level"`
	Roles        []string           `json:"roles"`
	SetRole      bool               `json:"set_role,omitempty"`
	Since        int64              `json:"since"`             // the transaction that made the account
	Residue      []protocol.Residue `json:"residue,omitempty"` // noted before cleaning began
}

// errNoRole says that the account is not (any more) on the server.
var errNoRole = errors.New("the account does not exist on the server")

// row asks the server, on the closing line.
func (a *account) row(ctx context.Context) (row, error) {
	var r row
	err := a.engine.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		r, err = readRow(ctx, c, a.spec.Name)
		return err
	})
	return r, err
}

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// role is the role's oid, asked once.
func (a *account) role(ctx context.Context) (uint32, error) {
	a.mu.Lock()
	oid := a.oid
	a.mu.Unlock()
	if oid != 0 {
		return oid, nil
	}
	r, err := a.row(ctx)
	if err == nil {
		a.is(r.oid)
	}
	return r.oid, err
}

// is keeps the role's oid.
func (a *account) is(oid uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.oid = oid
}

func readRow(ctx context.Context, q querier, name string) (row, error) {
	return scanRow(q.QueryRow(ctx, query("account"), name))
}

// askRow is readRow among other questions.
func askRow(ask *pgx.Batch, name string, r *row) {
	ask.Queue(query("account"), name).QueryRow(func(from pgx.Row) (err error) {
		*r, err = scanRow(from)
		return err
	})
}

func scanRow(from pgx.Row) (row, error) {
	var r row
	var oid, fallback int64
	var comment string
	err := from.Scan(&oid, &r.login, &comment, &fallback)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, errNoRole
	}
	if err != nil {
		return r, err
	}
	r.oid = uint32(oid)
	if json.Unmarshal([]byte(comment), &r.note) != nil {
		r.note = note{} // somebody has written another comment over ours
	}
	switch {
	case r.note.Since > 0:
		r.since = r.note.Since
	case fallback > 0:
		r.since = fallback
	default:
		r.since = math.MaxInt64 // nothing can be told apart
	}
	return r, nil
}

// take waits for a token.
func take(ctx context.Context, token chan struct{}) error {
	select {
	case <-token:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func give(token chan struct{}) { token <- struct{}{} }
