package store

import (
	"context"
	"sync"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// setBackBy is how far the wall clock may fall behind the high-water mark before that is put on the
// ledger; smaller steps are what time synchronisation does all day.
const setBackBy = 2 * time.Second

// clock is the wall clock with a high-water mark. The mark moves with the wall clock and with the
// monotonic one, whichever is ahead: a clock set back neither stops time nor extends anything.
type clock struct {
	wall func() time.Time // nil: time.Now

	mu   sync.Mutex
	high time.Time // guarded by mu
	seen time.Time // guarded by mu: the last reading, for its monotonic part
}

func (c *clock) start(high time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.high, c.seen = high, time.Now()
}

// now gives the time and how far the wall clock is behind it.
func (c *clock) now() (now time.Time, behind time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.Now()
	if passed := t.Sub(c.seen); passed > 0 {
		c.high, c.seen = c.high.Add(passed), t
	}
	wall := t.Round(0).UTC()
	if c.wall != nil {
		wall = c.wall().Round(0).UTC()
	}
	if wall.After(c.high) {
		c.high = wall
	}
	// Microseconds, so that what other programs read back from the ledger compares as equal.
	return c.high.Truncate(time.Microsecond), c.high.Sub(wall)
}

// Now is the wall clock, but never earlier than the latest time that the store knows of.
func (s *Store) Now() time.Time {
	now, _ := s.clock.now()
	return now
}

// Tick keeps the high-water mark of time, so that at most the time since the last Tick or Update is
// forgotten by a crash. It puts a clock that was set back on the ledger, once for each time, and the
// counts of failed logins, once a minute is over. It is meant to be called every second.
func (s *Store) Tick(ctx context.Context) error { return s.tick(ctx, false) }

func (s *Store) tick(ctx context.Context, closing bool) error {
	var backset time.Duration
	var failed []ledger.LoginsFailed
	err := s.Update(ctx, func(tx *Tx) error {
		_, behind := s.clock.now()
		backset = s.backset
		switch {
		case behind <= setBackBy:
			backset = 0
		case behind-backset > setBackBy:
			backset = behind
			entry := ledger.ClockSetBack{Node: s.node, Wall: tx.now.Add(-behind), High: tx.now}
			if err := tx.Append(ledger.TypeClockSetBack, entry); err != nil {
				return err
			}
		}
		failed = s.strangers.due(tx.now, closing)
		for _, f := range failed {
			if err := tx.Append(ledger.TypeLoginsFailed, f); err != nil {
				return err
			}
		}
		tx.after = func() { s.backset = backset }
		return nil
	})
	if err != nil {
		return err
	}
	s.strangers.forget(failed)
	return nil
}
