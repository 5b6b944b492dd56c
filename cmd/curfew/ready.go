package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/curfewdb/curfew/store"
)

// Curfew is alive while its loops turn, and ready while it can do its work. A process that is not alive is
// to be started anew; one that is not ready is to be left alone by clients.

// stillMost is how long a loop that waits for nothing may not have turned.
const stillMost = 15 * time.Second

// alive says which of the loops that wait for nothing is stuck, or nil.
func (h *house) alive() error {
	var errs []error
	for name, still := range map[string]time.Duration{"the clocks": h.desk.Still(), "the sessions": h.proxy.Still()} {
		if still > stillMost {
			errs = append(errs, fmt.Errorf("nobody has looked after %s for %s", name, still.Round(time.Second)))
		}
	}
	return errors.Join(errs...)
}

// State is what /readyz says, and `curfew status`.
type State struct {
	Status  string  `json:"status"` // statusReady, or "not ready"
	Node    string  `json:"node"`
	Version string  `json:"version"`
	Checks  []Check `json:"checks"`
}

const statusReady = "ready"

// Check is one thing that Curfew needs for its work.
type Check struct {
	Name   string    `json:"name"`
	OK     bool      `json:"ok"`
	Needed bool      `json:"needed"` // without it Curfew is not ready
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// Names of the checks. Each target has one more, target:NAME, which is not needed, not even if there is no
// other: who connects then is told that the database is down, which beats a port that nobody answers at,
// and what else Curfew does goes on.
const (
	checkStarted    = "started"    // what a crash left is taken up, and the listeners are open
	checkAccepting  = "accepting"  // this node was not asked to stop
	checkRecordings = "recordings" // they can be kept
	checkStore      = "store"      // it can be written and read
	checkTarget     = "target:"
)

// storeMost is how long the store may take to be read before it counts as one that can't be.
const storeMost = 2 * time.Second

// state asks everything that Curfew needs. It is quick whatever hangs.
func (h *house) state(ctx context.Context) State {
	s := State{Status: statusReady, Node: h.cfg.Node, Version: version}
	add := func(name string, needed bool, since time.Time, err error) {
		c := Check{Name: name, OK: err == nil, Needed: needed, Since: since}
		if err != nil {
			c.Reason = err.Error()
			if needed {
				s.Status = "not ready"
			}
		}
		s.Checks = append(s.Checks, c)
	}
	add(checkStarted, true, time.Time{}, h.begun())
	add(checkAccepting, true, time.Time{}, h.leaving())
	add(checkRecordings, true, time.Time{}, h.library.Err())
	add(checkStore, true, time.Time{}, h.storeWorks(ctx))
	for _, t := range h.proxy.Targets() {
		add(checkTarget+t.Target, false, t.Since, t.Err)
	}
	return s
}

func (h *house) begun() error {
	if !h.serving.Load() {
		return errors.New("Curfew is starting: it takes up what an earlier process left")
	}
	return nil
}

func (h *house) leaving() error {
	if h.stopping.Load() || h.proxy.Draining() {
		return errors.New("Curfew was asked to stop")
	}
	return nil
}

// storeWorks asks the store for nothing, which takes a disk all the same.
func (h *house) storeWorks(ctx context.Context) error {
	if damage := h.damage.Load(); damage != nil {
		return *damage
	}
	if !h.serving.Load() {
		return nil // nothing is written yet
	}
	if err := h.desk.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeMost)
	defer cancel()
	read := make(chan error, 1)
	go func() { read <- h.store.View(ctx, func(*store.Tx) error { return nil }) }()
	select {
	case err := <-read:
		return err
	case <-ctx.Done():
		return errors.New("the store could not be read in time")
	}
}

// ready says what Curfew lacks to do its work, or nil.
func (h *house) ready(ctx context.Context) error {
	var errs []error
	for _, c := range h.state(ctx).Checks {
		if c.Needed && !c.OK {
			errs = append(errs, fmt.Errorf("%s: %s", c.Name, c.Reason))
		}
	}
	return errors.Join(errs...)
}

func (s State) httpStatus() int {
	if s.Status != statusReady {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}
