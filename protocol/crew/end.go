package crew

import (
	"context"
	"strconv"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// receiptWindow is how long before a cut backends were killed that belong to the same end.
const receiptWindow = 5 * time.Second

// How long it is tried to kill a session's backend, and how long after the first try the second comes.
const (
	killPatience = 2 * time.Second
	killAgain    = 50 * time.Millisecond
)

// End is a backend that was killed.
type End struct {
	Backend  uint32
	Session  Session // nil: none of ours
	InFlight uint64  // as Session's, when it was killed
	TxID     string  // transaction in flight; empty: it had written nothing
	Fate     string
}

// ending is the same for the receipt.
type ending struct {
	at      time.Time
	outcome protocol.Outcome
}

// Kill kills a session's backend and learns what became of what it was doing, or gives what is known already: once
// a cut has seen the last of the backends nobody need ask. Sessions end in crowds: whoever has the token kills the
// backends of all that wait for it, by end, which Notes those that it killed. No backend named means all of the
// account's, because it is being closed. What breaks the session's connection may break end's, too, so it is tried
// again for a while: a backend that is not told to go works on.
func (c *Crew) Kill(ctx context.Context, s Session, end func(ctx context.Context, backends ...uint32) error) (protocol.Outcome, error) {
	if s.Backend() == 0 { // it never got in
		return protocol.Outcome{Fate: protocol.FateNone}, nil
	}
	enough := time.Now().Add(killPatience)
	for wait := killAgain; ; wait *= 2 {
		o, err := c.tryKill(ctx, s, end)
		if err == nil || time.Now().Add(wait).After(enough) {
			return o, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return o, err
		}
	}
}

func (c *Crew) tryKill(ctx context.Context, s Session, end func(ctx context.Context, backends ...uint32) error) (protocol.Outcome, error) {
	if o, ok := c.ended(s); ok {
		return o, nil
	}
	c.doom(s)
	defer c.spare(s)
	if err := c.Killing.Take(ctx); err != nil {
		return unasked(s), err
	}
	defer c.Killing.Give()
	if o, ok := c.ended(s); ok {
		return o, nil
	}
	batch, backends := c.batch(s)
	if err := end(ctx, backends...); err != nil {
		return unasked(s), err
	}
	c.gone(batch)
	o, _ := c.outcome(s)
	return o, nil
}

// ended is what became of a session's backend, if that is known without asking the server.
func (c *Crew) ended(s Session) (protocol.Outcome, bool) {
	if o, ok := c.outcome(s); ok || !c.Emptied() {
		return o, ok
	}
	return unproven(s), true
}

// outcome is what became of a session's backend, if it was killed.
func (c *Crew) outcome(s Session) (protocol.Outcome, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.outcomes[s]
	return o, ok
}

func (c *Crew) doom(s Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doomed[s] = struct{}{}
}

func (c *Crew) spare(s Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.doomed, s)
}

// batch gives s and the other sessions whose backends are to be killed, and those backends; none means all of the
// account's.
func (c *Crew) batch(s Session) (list []Session, backends []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list = append(list, s)
	for other := range c.doomed {
		if _, known := c.outcomes[other]; !known && other != s {
			list = append(list, other)
		}
	}
	if c.closing {
		return list, nil
	}
	for _, s := range list {
		backends = append(backends, s.Backend())
	}
	return list, backends
}

// gone notes which of these had ended by themselves, or were killed by somebody else.
func (c *Crew) gone(batch []Session) {
	for _, s := range batch {
		o := unproven(s)
		c.mu.Lock()
		if _, known := c.outcomes[s]; !known {
			c.outcomes[s] = o
		}
		c.mu.Unlock()
	}
}

// unproven is the outcome of a backend that nobody saw go, which does not prove what it did before.
func unproven(s Session) protocol.Outcome {
	o := unasked(s)
	if o.InFlight == 0 {
		o.Fate = protocol.FateNone
	}
	return o
}

// unasked is the outcome of a backend of which the server could not be asked.
func unasked(s Session) protocol.Outcome {
	return protocol.Outcome{Backend: name(s.Backend()), InFlight: s.InFlight(), Fate: protocol.FateUnknown}
}

func name(backend uint32) string { return strconv.FormatUint(uint64(backend), 10) }

// Note keeps the outcomes of killed backends, with the sessions they belonged to. A backend of nobody's is foreign,
// but not if the account is recalled: nobody remembers the sessions of the process before, and they were ours.
func (c *Crew) Note(ends []End, recalled bool) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range ends {
		o := protocol.Outcome{Backend: name(e.Backend), TxID: e.TxID, Fate: e.Fate, InFlight: e.InFlight}
		if e.Session != nil {
			c.outcomes[e.Session] = o
		}
		_, ours := c.released[e.Backend]
		o.Foreign = e.Session == nil && !ours && !recalled
		c.killed = append(c.killed, ending{at: now, outcome: o})
	}
}

// Cut lets no session join any more and has the account emptied: after that nobody is in and nobody gets in. empty
// has the token, and says what it sees by Locked, Left, Vacant and Note. The receipt is what cutting has learned so
// far, across attempts.
func (c *Crew) Cut(ctx context.Context, empty func(context.Context) error) (protocol.Cut, error) {
	began := time.Now()
	c.Shut()
	if err := c.Killing.Take(ctx); err != nil {
		return c.receipt(began), err
	}
	defer c.Killing.Give()
	err := empty(ctx)
	if err == nil {
		c.emptied()
	}
	return c.receipt(began), err
}

// Locked notes that nobody can log in any more.
func (c *Crew) Locked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut.LockedAt.IsZero() {
		c.cut.LockedAt = time.Now()
	}
}

// Left notes how many backends the last look has found.
func (c *Crew) Left(backends int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut.Left = backends
}

// Vacant notes that a look found no backend, which counts once the account is locked. Looks that come after it confirm
// that, or find somebody, who was killed: then it counts from the look that found nobody after them.
func (c *Crew) Vacant(killed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cut.LockedAt.IsZero() && (killed || c.vacant.IsZero()) {
		c.vacant = time.Now()
	}
}

func (c *Crew) emptied() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut.GoneAt.IsZero() {
		if c.cut.GoneAt = c.vacant; c.vacant.IsZero() { // there was nothing on the server to look at
			c.cut.GoneAt = time.Now()
		}
	}
	c.cut.Left = 0
}

// Emptied says whether a cut has seen the last of the account's backends.
func (c *Crew) Emptied() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.cut.GoneAt.IsZero()
}

func (c *Crew) receipt(began time.Time) protocol.Cut {
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.cut.LockedAt; !first.IsZero() && first.Before(began) {
		began = first
	}
	cut := c.cut
	for _, k := range c.killed {
		if !k.at.Before(began.Add(-receiptWindow)) {
			cut.Outcomes = append(cut.Outcomes, k.outcome)
		}
	}
	return cut
}

// Opened begins the account's life anew after it was taken over from another process: its cut is still to come.
func (c *Crew) Opened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.vacant, c.killed = protocol.Cut{}, time.Time{}, nil
}
