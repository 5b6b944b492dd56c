package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/rig"
)

func itoa(n int) string { return strconv.Itoa(n) }

// holder is somebody who has a grant, works under it until it ends, and asks for the next one.
type holder struct {
	w        *world
	number   int
	target   string
	sessions int
	busy     bool
	shortest time.Duration
	longest  time.Duration
	rand     *rand.Rand
}

// held is one grant of a holder's.
type held struct {
	api.Grant
	creds api.Credentials
	ended atomic.Bool // somebody has ended it before its time
	over  chan struct{}
	once  sync.Once
}

// end says that the grant was ended before its time.
func (g *held) end() {
	g.ended.Store(true)
	g.once.Do(func() { close(g.over) })
}

// due says whether the grant's end explains that a connection is gone, or will be any moment.
func (g *held) due() bool { return g.ended.Load() || time.Now().After(g.End.Add(-time.Second)) }

// session is one connection, and what befell it.
type session struct {
	grant  *held
	conn   client
	target string
	busy   bool
	doomed atomic.Bool // an accident that explains its end was on its way
}

// work goes on until ctx ends; then the holder gives back what is held.
func (h *holder) work(ctx context.Context) {
	for ctx.Err() == nil {
		if err := h.oneGrant(ctx); err != nil && ctx.Err() == nil {
			h.w.problem("holder %d on %s: %v", h.number, h.target, err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// seating is how long it takes until all who have a grant have come: fifty people don't sit down in one moment.
const seating = 5 * time.Second

func (h *holder) oneGrant(ctx context.Context) error {
	lasting := context.WithoutCancel(ctx)
	d := h.shortest + time.Duration(h.rand.Int64N(int64(h.longest-h.shortest)+1))
	g := &held{over: make(chan struct{})}
	err := h.w.patiently(ctx, func() (err error) {
		h.w.asking <- struct{}{}
		defer func() { <-h.w.asking }()
		g.Grant, g.creds, err = rig.Grant(ctx, h.w.asker, h.w.approver, h.target, "worker", d.Truncate(time.Second))
		return err
	})
	if g.ID != "" && time.Until(g.End) < time.Second && err != nil {
		h.w.count("grants that were over before anybody could use them")
		return nil
	}
	if err != nil {
		return fmt.Errorf("a grant: %w", err)
	}
	h.w.count("grants")
	tills, stop := context.WithCancel(lasting)
	var side sync.WaitGroup
	for i := range h.sessions {
		r := rand.New(rand.NewPCG(h.rand.Uint64(), uint64(i)))
		side.Go(func() {
			pause(tills, time.Duration(r.Int64N(int64(min(d/6, seating))+1)))
			h.seat(tills, g, r)
		})
	}
	select {
	case <-time.After(time.Until(g.End)):
	case <-g.over:
	case <-ctx.Done():
		// Half give back what they have, the other half lose it, over some seconds: what it takes to end everything
		// in one moment is the benchmarks' matter.
		select {
		case <-time.After(time.Duration(h.rand.Int64N(int64(h.w.o.Duration) / 30))):
		case <-time.After(time.Until(g.End)):
		}
		g.ended.Store(true)
		err := h.w.patiently(lasting, func() (err error) {
			if h.number%2 == 0 {
				_, err = h.w.asker.Release(lasting, g.ID)
			} else {
				_, err = h.w.approver.Revoke(lasting, g.ID, "the soak is over")
			}
			return err
		})
		if err != nil && !over(err) {
			h.w.problem("give back grant %s: %v", g.ID, err)
		}
	}
	// Whoever is at work is cut off, and doesn't just leave in time.
	pause(lasting, 300*time.Millisecond)
	stop()
	side.Wait()
	return h.settle(lasting, g)
}

// over says whether an error is that a grant has ended already, which an accident or its time may have done.
func over(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Code == api.CodeConflict || err != nil && strings.Contains(err.Error(), "has ended already")
}

func classOf(target string, crowd bool) string {
	if crowd {
		return target + ", grants with more sessions"
	}
	return target + ", grants with up to 2 sessions"
}

// settle waits for the receipt and keeps how late it was.
func (h *holder) settle(ctx context.Context, g *held) error {
	var r api.Receipt
	err := h.w.patiently(ctx, func() (err error) {
		r, err = receipt(ctx, h.w.asker, g.ID)
		return err
	})
	if err != nil {
		return fmt.Errorf("the receipt of %s: %w", g.ID, err)
	}
	class := classOf(h.target, h.sessions > 2)
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if r.Account != "" { // else nobody came in
		h.w.late[class] = append(h.w.late[class], late{r.LateMS, g.ID + " " + r.Code + " on " + h.target})
	}
	h.w.counts["ended "+r.Code]++
	return nil
}

// receipt asks now and then: a thousand who ask without pause would be the load.
func receipt(ctx context.Context, c *api.Client, grant string) (api.Receipt, error) {
	deadline := time.Now().Add(time.Minute)
	for {
		g, err := c.Grant(ctx, grant)
		if err != nil {
			return api.Receipt{}, err
		}
		if g.Receipt != nil && len(g.Receipt.Clean) > 0 {
			return *g.Receipt, nil
		}
		if g.Status == api.GrantEnded && g.Receipt == nil && time.Since(g.Ended) > 10*time.Second {
			return api.Receipt{Code: g.EndCode}, nil // it was never used, so nothing was made
		}
		if time.Now().After(deadline) {
			return api.Receipt{}, fmt.Errorf("it is not whole a minute after the end: %+v", g.Receipt)
		}
		time.Sleep(250 * time.Millisecond) // what is waited for can be asked for only
	}
}

// seat is one place under a grant: whoever sits there and loses the connection comes back.
func (h *holder) seat(ctx context.Context, g *held, r *rand.Rand) {
	for ctx.Err() == nil && !g.due() {
		before := h.w.crashes.Load()
		conn, err := h.w.dial(ctx, h.target, g.creds)
		if err != nil {
			if ctx.Err() == nil && !g.due() && !h.w.down.Load() && h.w.crashes.Load() == before {
				h.w.problem("log in under %s on %s, %v before its end: %v", g.ID, h.target, time.Until(g.End).Round(time.Millisecond), err)
			}
			pause(ctx, 200*time.Millisecond)
			continue
		}
		s := &session{grant: g, conn: conn, target: h.target, busy: h.busy}
		h.w.enter(s)
		err = h.use(ctx, s, r)
		h.w.leave(s)
		switch bye := conn.hangUp(); {
		case err != nil && !s.doomed.Load() && !g.due() && h.w.crashes.Load() == before:
			h.w.problem("a session under %s on %s ended %v before its grant, for no reason: %v", g.ID, h.target, time.Until(g.End).Round(time.Millisecond), err)
		case err == nil && bye != nil && !gone(bye) && !s.doomed.Load() && !g.due() && h.w.crashes.Load() == before:
			h.w.problem("say goodbye on %s: %v", h.target, bye)
		}
	}
}

// use works until ctx ends, or now and then says goodbye by itself, or the connection is gone.
func (h *holder) use(ctx context.Context, s *session, r *rand.Rand) error {
	lasting := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		think := time.Duration(r.Int64N(int64(200 * time.Millisecond)))
		if !s.busy {
			think = time.Duration(r.Int64N(int64(20 * time.Second)))
		}
		pause(ctx, think)
		if ctx.Err() != nil {
			return nil
		}
		tag := h.w.tag(s.target)
		fatal, err := s.conn.run(lasting, r.IntN(kinds), tag.String())
		if err == nil {
			h.w.answered(tag)
		}
		if fatal {
			return err
		}
		if r.IntN(500) == 0 {
			return nil
		}
	}
	return nil
}

// pause lets time pass, as people do.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (w *world) enter(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[s] = struct{}{}
	w.counts["sessions"]++
}

func (w *world) leave(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sessions, s)
}
