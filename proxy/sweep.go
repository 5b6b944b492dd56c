package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// How often a target is looked at.
const (
	watchEvery = 2 * time.Second // for backends that are not Curfew's own sessions
	sweepEvery = time.Minute     // for accounts that nothing accounts for
	sweepAgain = 5 * time.Second // while the target can't be reached

	// A target that says nothing any more is asked anew after this.
	watchMost = 15 * time.Second
	sweepMost = 5 * time.Minute
)

// Resume takes up what an earlier process left: accounts of live grants are adopted (their backends
// killed, their secrets changed), those of ended grants are closed with a receipt. It returns when every
// adoption was tried once; a target that can't be reached is tried again by the tenures themselves.
func (s *Server) Resume(ctx context.Context) error {
	intents, err := s.cfg.Accounts.Intended(ctx)
	if err != nil {
		return fmt.Errorf("read intents: %w", err)
	}
	var adoptions sync.WaitGroup
	for _, intent := range intents {
		s.takeUp(ctx, intent, &adoptions)
	}
	adoptions.Wait()
	return nil
}

// takeUp begins the tenure of an intent that has none. The group is done with it when an adoption was
// tried once.
func (s *Server) takeUp(ctx context.Context, in Intent, adoptions *sync.WaitGroup) {
	grant, err := s.cfg.Grants.Recall(ctx, in.Grant)
	if err == nil && in.Cut && grant.Ended.IsZero() {
		// Its end was decided, and its account cut off, and then Curfew died before the end was written.
		err = s.cfg.Grants.End(ctx, in.Grant, recorder.EndRevoked, "it had ended already when Curfew was stopped")
	}
	if err == nil {
		err = s.tenures.resume(ctx, grant, in, adoptions)
	}
	if err != nil {
		s.cfg.Log.Error("ALERT account can't be taken up again", "account", in.Account, "target", in.Target, "error", err)
	}
}

// resume begins the tenure of an intent that an earlier process made.
func (ts *tenures) resume(ctx context.Context, g policy.Grant, in Intent, adoptions *sync.WaitGroup) error {
	prepared, err := ts.prepared(ctx, g.ID)
	if err != nil {
		return err
	}
	if ts.byID(g.ID) != nil {
		return nil
	}
	t, err := ts.begin(ctx, g, true, prepared)
	var refusal *protocol.Refusal
	if errors.As(err, &refusal) && ts.cfg.Engines[g.Target] != nil { // the grant is over, or the node stops
		return ts.wind(ctx, g, in, prepared, err)
	}
	if err != nil {
		return err
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.draining {
		return nil
	}
	adoptions.Add(1)
	tried := sync.OnceFunc(adoptions.Done)
	ts.running.Go(func() { t.adoption(ts.stop, tried) })
	return nil
}

// wind closes the account of a grant that ended while Curfew was not there.
func (ts *tenures) wind(ctx context.Context, g policy.Grant, in Intent, prepared []string, cause error) error {
	t, err := ts.make(g, true, prepared)
	if err != nil {
		return err
	}
	held, end := context.WithCancelCause(context.WithoutCancel(ctx))
	end(cause)
	t.held, t.receipted = held, in.Cut
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.draining || ts.byGrant[g.ID] != nil {
		return nil
	}
	ts.byGrant[g.ID] = t
	ts.running.Go(func() {
		t.close(context.WithoutCancel(ctx), ts.stop)
		ts.forget(t)
	})
	return nil
}

// prepared lists the global transaction ids that the grant's recordings show as prepared.
func (ts *tenures) prepared(ctx context.Context, grant string) ([]string, error) {
	sessions, err := ts.cfg.Sessions.OfGrant(ctx, grant)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, session := range sessions {
		ids, err := ts.cfg.Recordings.Prepares(session)
		if err != nil {
			ts.cfg.Log.Error("recording can't be read to its end for prepared transactions", "session", session, "error", err)
		}
		all = append(all, ids...)
	}
	return all, nil
}

// Tend looks after the sessions and every target until ctx ends: sessions that idle or lost their
// recording, backends that are not ours every two seconds, accounts without a grant every minute.
func (s *Server) Tend(ctx context.Context) {
	var targets sync.WaitGroup
	targets.Go(func() {
		s.every(ctx, func() time.Duration {
			s.roll.attend()
			s.pulse.beat()
			return attendEvery
		})
	})
	for target, engine := range s.cfg.Engines {
		targets.Go(func() {
			s.every(ctx, func() time.Duration {
				s.watch(ctx, target, engine, &targets)
				return watchEvery
			})
		})
		targets.Go(func() {
			told, due := map[string]bool{}, time.Time{}
			s.every(ctx, func() time.Duration {
				if now := time.Now(); s.reach.of(target).Err != nil || !now.Before(due) {
					told, due = s.sweep(ctx, target, engine, told), now.Add(sweepEvery)
				}
				return sweepAgain
			})
		})
	}
	targets.Wait()
}

// every does f now, and again and again after the time that it gives, from the beginning of one to that of
// the next, never twice at once.
func (s *Server) every(ctx context.Context, f func() time.Duration) {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		began := time.Now()
		next.Reset(max(0, f()-time.Since(began)))
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
	}
}

// watch ends the grants whose accounts are used past the proxy.
func (s *Server) watch(ctx context.Context, target string, engine protocol.Engine, reports *sync.WaitGroup) {
	try, cancel := context.WithTimeout(ctx, watchMost)
	defer cancel()
	foreign, err := engine.Watch(try)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Error("watch", "target", target, "error", err)
		s.reach.tried(target, err) // that it can be reached is the sweep's to say: a watch may have nothing to ask
	}
	s.metrics.foreign.WithLabelValues(target).Add(float64(len(foreign)))
	for _, f := range foreign {
		t := s.tenures.of(f.Account)
		if t == nil {
			continue
		}
		t.log.Warn("ALERT account used past the proxy", "backend", f.Backend, "address", f.Address, "killed", f.Killed)
		// The ledger may hang; the next look at this target does not wait for it.
		reports.Go(func() { t.betray(context.WithoutCancel(ctx), f) })
	}
}

// betray ends the grant whose account was used past the proxy, and puts that on the ledger.
func (t *tenure) betray(ctx context.Context, f protocol.Foreign) {
	err := errors.Join(
		t.cfg.Grants.End(ctx, t.grant.ID, recorder.EndForeign, "the grant's account was used past Curfew; the grant is over and security has been told"),
		t.cfg.Accounts.Foreign(ctx, ledger.AccountForeign{Grant: t.grant.ID, Target: t.grant.Target, Account: f.Account,
			Backend: f.Backend, Address: f.Address, Killed: f.Killed}))
	if err != nil {
		t.log.Error("end grant whose account was used past the proxy", "error", err)
	}
}

// sweep takes up intents of the target that no tenure stands for, and ends accounts of this installation
// that no tenure and no intent accounts for. What it finds and may not touch is logged when it is new;
// told is what it found the last time.
func (s *Server) sweep(ctx context.Context, target string, engine protocol.Engine, told map[string]bool) map[string]bool {
	intents, err := s.cfg.Accounts.Intended(ctx)
	if err != nil {
		s.cfg.Log.Error("sweep", "target", target, "error", err)
		s.metrics.sweeps.WithLabelValues(target, "error").Inc()
		return told
	}
	if slices.ContainsFunc(intents, func(i Intent) bool { return s.orphan(i, target) }) {
		// A tenure that has just ended has closed its intent: only what is still there is one's own to take up.
		if intents, err = s.cfg.Accounts.Intended(ctx); err != nil {
			s.cfg.Log.Error("sweep", "target", target, "error", err)
			s.metrics.sweeps.WithLabelValues(target, "error").Inc()
			return told
		}
	}
	intended := make(map[string]bool, len(intents))
	for _, i := range intents {
		intended[i.Account] = true
		if s.orphan(i, target) {
			s.takeUp(ctx, i, &sync.WaitGroup{})
		}
	}
	try, cancel := context.WithTimeout(ctx, sweepMost)
	defer cancel()
	findings, err := engine.Sweep(try, func(account string) bool { return intended[account] || s.tenures.of(account) != nil })
	if ctx.Err() == nil {
		s.swept(target, findings, err)
	}
	found := make(map[string]bool, len(findings))
	for _, f := range findings {
		found[f.What] = true
		if !told[f.What] {
			s.cfg.Log.Warn("sweep", "target", target, "severity", f.Severity, "what", f.What, "fix", f.Fix)
		}
	}
	return found
}

// swept says how a sweep of a target went.
func (s *Server) swept(target string, findings []protocol.Finding, err error) {
	s.reach.tried(target, err)
	if err != nil {
		s.cfg.Log.Error("sweep", "target", target, "error", err)
		s.metrics.sweeps.WithLabelValues(target, "error").Inc()
		return
	}
	s.metrics.sweeps.WithLabelValues(target, "ok").Inc()
	s.metrics.swept.WithLabelValues(target).SetToCurrentTime()
	bySeverity := map[string]int{"error": 0, "warning": 0, "note": 0}
	for _, f := range findings {
		bySeverity[f.Severity]++
	}
	for severity, n := range bySeverity {
		s.metrics.findings.WithLabelValues(target, severity).Set(float64(n))
	}
}

// orphan reports whether no tenure stands for an intent: it could not be taken up at start, or its write
// was reported as failed and had been stored.
func (s *Server) orphan(in Intent, target string) bool {
	return in.Target == target && s.tenures.of(in.Account) == nil
}
