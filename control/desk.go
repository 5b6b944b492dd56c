package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// bySelf names Curfew itself where the ledger wants to know who.
const bySelf = "curfew"

// patience is how long one transaction may take before its caller is told that the store can't be used.
const patience = 10 * time.Second

// Options are what a desk needs.
type Options struct {
	Store  *store.Store
	Policy *policy.Policy
	// Enrol makes the verifiers that a target's logins need for a password (protocol.Engine.Enrol).
	Enrol   func(target, password string) ([]byte, error)
	Targets map[string]TargetInfo
	// Cause is what the contexts of Hold end with; nil: the *EndedError itself. A holder acts on it the
	// instant it comes, so it is made here and not by somebody who passes it on.
	Cause func(*EndedError) error
	Wire  Wire // the sessions of this node; nil: there are none
	// Confirm asks whoever keeps tickets about one; nil: AskTickets with a client of its own.
	Confirm Confirm
	Log     *slog.Logger
}

// TargetInfo is what clients are told about a target: where to connect, never the target's own address.
type TargetInfo struct {
	Engine   string // its name in the map of engines
	Host     string // of the listener
	Port     int
	Database string // default database
	SSLMode  string // "disable", or "verify-full": TLS, the certificate and its host verified
	CA       string // PEM of the CA that vouches for the listener, when the system's would not
}

// truth is what the desk uses of the store.
type truth interface {
	Update(ctx context.Context, fn func(*store.Tx) error) error
	View(ctx context.Context, fn func(*store.Tx) error) error
	Entries(ctx context.Context, from int64, fn func(line []byte) error) error
	Now() time.Time
	Tick(ctx context.Context) error
}

// Desk is safe for concurrent use.
type Desk struct {
	store   truth
	enrol   func(target, password string) ([]byte, error)
	targets map[string]TargetInfo
	cause   func(*EndedError) error
	wire    Wire
	confirm Confirm
	log     *slog.Logger

	// turn holds one token. Whoever has it may write to the store: so a decision and a reload of the
	// policy never pass each other, and memory follows the store in the store's order.
	turn    chan struct{}
	policy  atomic.Pointer[policy.Policy] // set by whoever has the turn
	kick    chan struct{}                 // wakes Run: an end waits to be written
	turned  atomic.Pointer[time.Time]     // when the loop that compares the clocks last did
	tallied time.Time                     // when reviews were counted last; Run's alone

	mu      sync.Mutex // guards what follows; never held across anything that can block
	live    map[string]*live
	open    map[string]policy.Request // open requests
	changed chan struct{}             // closed and replaced when a request has ended
	stale   bool                      // a transaction failed: memory may lag behind the store
	written time.Time                 // when Run last wrote to the store
	reviews Reviewing                 // when Run last counted
}

// New reads what is live from the store, puts the policy on the ledger if it is not the one that was in
// force last, and ends what this policy doesn't stand for any more.
func New(ctx context.Context, o Options) (*Desk, error) {
	return newDesk(ctx, o, o.Store)
}

func newDesk(ctx context.Context, o Options, s truth) (*Desk, error) {
	d := &Desk{
		store: s, enrol: o.Enrol, targets: o.Targets, wire: o.Wire, log: o.Log,
		turn: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		live: map[string]*live{}, open: map[string]policy.Request{}, changed: make(chan struct{}),
	}
	if d.cause = o.Cause; d.cause == nil {
		d.cause = func(e *EndedError) error { return e }
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.wire == nil {
		d.wire = noWire{}
	}
	if d.confirm = o.Confirm; d.confirm == nil {
		d.confirm = AskTickets(nil)
	}
	d.turn <- struct{}{}
	if err := d.load(ctx); err != nil {
		return nil, fmt.Errorf("read what is live: %w", err)
	}
	last, err := d.lastPolicy(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for the last policy on the ledger: %w", err)
	}
	if err := d.install(ctx, o.Policy, last); err != nil {
		return nil, fmt.Errorf("put the policy in force: %w", err)
	}
	return d, nil
}

// Policy is the policy in force.
func (d *Desk) Policy() *policy.Policy { return d.policy.Load() }

// Close stops the timers. Grants don't end by it: they stay as the store has them.
func (d *Desk) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.live {
		l.timer.Stop()
	}
}

// take gives the turn to the caller, who gives it back with the func. What then is begun is finished:
// the transaction's context is not the caller's, who may hang up at any moment.
func (d *Desk) take(ctx context.Context) (context.Context, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, unavailable(err)
	}
	waited := time.NewTimer(patience)
	defer waited.Stop()
	select {
	case <-d.turn:
	case <-ctx.Done():
		return nil, nil, unavailable(ctx.Err())
	case <-waited.C:
		return nil, nil, unavailable(errors.New("another transaction takes too long"))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	return ctx, func() { cancel(); d.turn <- struct{}{} }, nil
}

// update runs one transaction; the caller has the turn. An error that is not the desk's own may be a
// commit that was stored and reported as failed, so memory has to be compared with the store.
func (d *Desk) update(ctx context.Context, fn func(*store.Tx) error) error {
	err := d.store.Update(ctx, fn)
	var own *Error
	if err != nil && !errors.As(err, &own) {
		d.mu.Lock()
		d.stale = true
		d.mu.Unlock()
	}
	return err
}

// load brings memory up to the store. The caller has the turn (or is the only one there is), so nothing
// that has just ended can come back to life.
func (d *Desk) load(ctx context.Context) error {
	var grants []policy.Grant
	var of, open []policy.Request
	err := d.store.View(ctx, func(tx *store.Tx) (err error) {
		if open, err = tx.Requests(store.RequestFilter{Status: policy.Open}); err != nil {
			return err
		}
		if grants, err = tx.Grants(store.GrantFilter{Live: true}); err != nil {
			return err
		}
		of = make([]policy.Request, len(grants))
		for i, g := range grants {
			if of[i], err = tx.Request(g.Request); err != nil {
				return fmt.Errorf("request of grant %s: %w", g.ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, g := range grants {
		d.admit(g, of[i])
		d.lengthened(g) // if it was there, and its extension was stored and reported as failed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.open)
	for _, r := range open {
		d.open[r.ID] = r
	}
	d.stale = false
	d.announce()
	return nil
}

// announce wakes those who wait for a request; the caller holds mu.
func (d *Desk) announce() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func personOf(id auth.Identity) ledger.Person { return store.PersonOf(id) }
