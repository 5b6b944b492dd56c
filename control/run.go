package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

// writable is how old the last good pass of Run may be before the store counts as one that can't be written.
const writable = 5 * time.Second

// Err is nil while the store can be written, as far as Run has seen: it writes each second. A store that
// hangs is as bad as one that fails.
func (d *Desk) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if since := time.Since(d.written); since > writable {
		return fmt.Errorf("the store was last written %s ago", since.Round(time.Second))
	}
	return nil
}

// Still is for how long the loop that compares the clocks has not turned; 0 before Run. It waits for no
// disk, so anything but a second or two means that this process is stuck.
func (d *Desk) Still() time.Duration {
	if at := d.turned.Load(); at != nil {
		return time.Since(*at)
	}
	return 0
}

// Census counts what there is to look after: grants that have not ended on the ledger, and open requests.
type Census struct {
	Scheduled int // still to begin
	Active    int
	Ending    int // ended, and not on the ledger yet
	Open      int // requests
	Broken    int // active ones for which the glass was broken
	Reviews   Reviewing
}

// Census counts in memory; it waits for no disk.
func (d *Desk) Census() (c Census) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.store.Now()
	for _, l := range d.live {
		switch {
		case !l.grant.Ended.IsZero():
			c.Ending++
		case now.Before(l.grant.Start):
			c.Scheduled++
		default:
			c.Active++
			if l.grant.BreakGlass {
				c.Broken++
			}
		}
	}
	c.Open, c.Reviews = len(d.open), d.reviews
	return c
}

// tick keeps the store's mark of time.
func (d *Desk) tick(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return d.store.Tick(ctx)
}

func (d *Desk) wrote() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written = time.Now()
}

// Run keeps the desk's time until ctx ends: it compares the clocks each second, lapses requests, writes
// the ends that wait to be written, and keeps the store's mark of time. Grants end on time without it by
// their timers; with it also when the machine slept or its clock was moved.
func (d *Desk) Run(ctx context.Context) error {
	var clocks sync.WaitGroup
	defer clocks.Wait()
	// Apart from the writer, because nothing that a disk does may keep a grant from ending.
	clocks.Go(func() { d.watchClocks(ctx) })

	second := time.NewTicker(time.Second)
	defer second.Stop()
	failing := false
	d.wrote()
	for {
		tick := false
		select {
		case <-ctx.Done():
			// What has ended until now is written if it can be; the caller's context is over already.
			return d.writeEnds(context.WithoutCancel(ctx))
		case <-d.kick:
		case <-second.C:
			tick = true
		}
		err := d.writeEnds(ctx)
		if tick {
			err = errors.Join(err, d.regular(ctx))
		}
		if err == nil && tick {
			d.wrote()
		}
		switch {
		case err != nil && !failing && ctx.Err() == nil:
			d.log.Error("ALERT the store can't be written; grants end on time, their ledger entries are late", "error", err)
			failing = true
		case err == nil && failing && tick:
			d.log.Info("the store can be written again")
			failing = false
		}
	}
}

// regular is what is done each second beside.
func (d *Desk) regular(ctx context.Context) error {
	return errors.Join(d.refresh(ctx), d.lapseDue(ctx), d.tallyReviews(ctx), d.tick(ctx))
}

// watchClocks ends grants that either clock has left behind.
func (d *Desk) watchClocks(ctx context.Context) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-second.C:
		}
		d.mu.Lock()
		for _, l := range d.live {
			if l.grant.Ended.IsZero() && d.past(l) {
				d.expired(l)
			}
		}
		d.mu.Unlock()
		now := time.Now()
		d.turned.Store(&now)
	}
}

// writeEnds writes every end that is decided and not written.
func (d *Desk) writeEnds(ctx context.Context) error {
	var errs []error
	for _, g := range d.unwritten() {
		if err := d.writeEnd(ctx, g); err != nil {
			errs = append(errs, err)
			break // the store can't be used now: the others would only wait for it, too
		}
	}
	return errors.Join(errs...)
}

func (d *Desk) unwritten() (ends []policy.Grant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.live {
		if !l.grant.Ended.IsZero() {
			ends = append(ends, l.grant)
		}
	}
	return ends
}

// refresh brings memory up to the store after a transaction whose outcome was not known.
func (d *Desk) refresh(ctx context.Context) error {
	d.mu.Lock()
	stale := d.stale
	d.mu.Unlock()
	if !stale {
		return nil
	}
	ctx, done, err := d.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	return d.load(ctx)
}

// lapseDue lapses the open requests whose time to be decided is over.
func (d *Desk) lapseDue(ctx context.Context) error {
	var due []string
	now := d.store.Now()
	d.mu.Lock()
	for id, r := range d.open {
		if !now.Before(r.Lapses) {
			due = append(due, id)
		}
	}
	d.mu.Unlock()
	if len(due) == 0 {
		return nil
	}
	var lapsed []policy.Request
	return d.transact(ctx, func(tx *store.Tx, _ *policy.Policy) error {
		for _, id := range due {
			r, err := tx.Request(id)
			if err != nil {
				return err
			}
			if _, err := lapse(tx, &r); err != nil {
				return err
			}
			lapsed = append(lapsed, r)
		}
		return nil
	}, func() { d.note(lapsed...) })
}
