package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// heal brings to an end what a crash left of recordings, before anybody is let in.
func (h *house) heal(ctx context.Context) error {
	open, err := h.store.OpenSessions(ctx)
	if err != nil {
		return err
	}
	healed, err := h.library.Heal(ctx, open)
	if err != nil {
		return err
	}
	for _, r := range healed {
		err := h.healOne(ctx, r, slices.Contains(open, r.Session))
		if errors.Is(err, store.ErrNotFound) { // the store is older than the recording: it was restored
			h.stray(r, "its grant is not on the ledger, either")
		} else if err != nil {
			return fmt.Errorf("put the healed recording of %s on the ledger: %w", r.Session, err)
		}
	}
	return nil
}

func (h *house) healOne(ctx context.Context, r recorder.Healed, known bool) error {
	if r.Lost {
		h.log.Error("ALERT recording lost: its file is gone", "session", r.Session)
		r.Sealed.Session, r.Sealed.Interrupted = r.Session, true
		r.Sealed.End = recorder.End{Code: recorder.EndInterrupted, Reason: "the recording's file is gone"}
	}
	if !known {
		// The crash came between the recording's first line and its entry; nothing was forwarded.
		err := h.store.Opened(ctx, ledger.SessionOpened{Session: r.Session, Grant: r.Header.Grant, Target: r.Header.Target,
			Account: r.Header.Account, Node: r.Header.Node, Client: r.Header.Client, Header: r.HeaderHash})
		if err != nil {
			return err
		}
	}
	h.log.Warn("recording healed after a crash", "session", r.Session, "leaves", r.Sealed.Count, "end", r.Sealed.End.Code)
	return h.store.Sealed(ctx, ledger.SessionSealed{Grant: r.Header.Grant, Target: r.Header.Target, Sealed: r.Sealed})
}

// straysTold bounds how many recordings that the ledger does not know are named: a store that was restored may know
// none.
const straysTold = 20

// lookThrough looks, while sessions go on already, at what lies on the disk and nobody asks for: once for recordings
// that the ledger does not know, and at the store's file soon and then now and then.
func (h *house) lookThrough(ctx context.Context) error {
	h.strays(ctx)
	wait := time.NewTimer(examineFirst)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
			h.examine(ctx)
			wait.Reset(examineEvery)
		case <-ctx.Done():
			return nil
		}
	}
}

// strays finds sealed recordings that the ledger does not know. One that a crash has left before anything was forwarded
// is entered; any other is for a person to look at.
func (h *house) strays(ctx context.Context) {
	unknown := func(sessions []string) ([]string, error) { return h.store.Unknown(ctx, sessions) }
	found := 0
	err := h.library.Strays(ctx, unknown, func(r recorder.Healed) error {
		why := "it is whole, so no crash has left it"
		switch {
		case r.Lost:
			why = "it can't be read"
		case r.Sealed.Interrupted && r.Sealed.End.Statements == 0:
			err := h.healOne(ctx, r, false)
			if err == nil {
				return nil
			}
			if why = "its grant is not on the ledger, either"; !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		if found++; found <= straysTold {
			h.stray(r, why)
		}
		return nil
	})
	if found > straysTold {
		h.log.Error("ALERT more sealed recordings that the ledger does not know", "of_them", found-straysTold)
	}
	if err != nil && ctx.Err() == nil {
		h.log.Error("it is not known whether there are recordings that the ledger does not know; they are looked for at the next start", "error", err)
	}
}

func (h *house) stray(r recorder.Healed, why string) {
	h.log.Error("ALERT a sealed recording that the ledger does not know", "session", r.Session, "file", r.Sealed.File,
		"grant", r.Header.Grant, "statements", r.Sealed.End.Statements, "why", why)
}

// When the store's file is looked through, and for how long at most: a reader keeps the log from being cut short.
const (
	examineFirst = time.Minute
	examineEvery = 6 * time.Hour
	examineMost  = 5 * time.Minute
)

// examine finds a damaged store before the pages are needed that are lost.
func (h *house) examine(ctx context.Context) {
	most, cancel := context.WithTimeout(ctx, examineMost)
	defer cancel()
	err := h.store.Examine(most)
	switch {
	case err == nil:
		h.damage.Store(nil)
	case errors.Is(err, store.ErrDamaged):
		h.damage.Store(&err)
		h.log.Error("ALERT the store is damaged; restore a backup", "error", err)
	case ctx.Err() == nil:
		h.log.Warn("the store was not looked through to its end", "error", err)
	}
}
