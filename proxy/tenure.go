package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// How long a step of a grant's end may take before it is tried again, and how far apart the tries are.
const (
	cutTimeout   = 10 * time.Second
	cleanTimeout = time.Minute
	makeTimeout  = 20 * time.Second // an account, from its intent until it can be used
	retryFirst   = 100 * time.Millisecond
	retryMost    = time.Minute
	cutAgain     = 5 * time.Second // the same for a cut: it costs little, and whoever is in goes on working
	sealAgain    = 5 * time.Second // and for a recording: it is a disk's matter alone
	alertAgain   = 10 * time.Minute
)

// tenure is the life of a grant on this node, from its first session until its account is gone.
// One goroutine (run) owns its end; sessions come and go.
type tenure struct {
	cfg     *Config
	metrics *metrics
	engine  protocol.Engine
	grant   policy.Grant
	spec    protocol.AccountSpec
	adopt   bool // an earlier process had this account
	// receipted: an earlier process wrote the first part of the receipt.
	receipted bool
	log       *slog.Logger

	held context.Context // the tenure's own hold: ends the instant the grant does, and says why
	cut  chan struct{}   // closed once no backend of the account is left

	ending atomic.Pointer[time.Time] // since when its end goes on

	sessions sync.WaitGroup

	making sync.Mutex // held while the account is provisioned, so that one session does it for all; guards account, adopt, intended
	// account is nil until a session needed one.
	account  protocol.Account
	intended bool // this process made the intent durable

	mu   sync.Mutex         // guards what follows; never held across a call that can wait
	over bool               // the grant has ended or the node stops: nothing is provisioned any more
	open int                // sessions now
	here map[*life]struct{} // those that have a recording
	end  time.Time          // the grant's, which an extension moves
	done bool               // its last session was closed, and its rule ends it with that
}

// tenures are the grants that have, or may have, an account on this node.
type tenures struct {
	cfg     *Config
	metrics *metrics

	mu       sync.Mutex // guards what follows
	byGrant  map[string]*tenure
	draining bool
	running  sync.WaitGroup
	leaving  chan struct{} // closed by leave
	stop     chan struct{} // closed by drain
	stopped  sync.Once
}

func newTenures(cfg *Config, m *metrics) *tenures {
	return &tenures{cfg: cfg, metrics: m, byGrant: map[string]*tenure{},
		leaving: make(chan struct{}), stop: make(chan struct{})}
}

// enter counts a session into the grant's tenure, which begins with the first one. The func counts it out.
// goodbye says whether its client took leave in order.
func (ts *tenures) enter(ctx context.Context, g policy.Grant) (t *tenure, leave func(goodbye bool), err error) {
	if t, err = ts.find(ctx, g); err != nil {
		return nil, nil, err
	}
	if err := t.isOver(); err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return nil, nil, &protocol.Refusal{Code: recorder.EndReleased, Public: lastSession}
	}
	if t.open >= t.spec.Level.Sessions {
		return nil, nil, &protocol.Refusal{Code: protocol.RefuseLimit,
			Public: fmt.Sprintf("your grant allows %d sessions at once and they are all in use; close one and try again", t.spec.Level.Sessions)}
	}
	t.open++
	t.sessions.Add(1)
	return t, func(goodbye bool) {
		t.mu.Lock()
		t.open--
		last := goodbye && t.open == 0 && t.grant.WithLastSession
		t.done = t.done || last
		t.mu.Unlock()
		t.sessions.Done()
		if last {
			t.release(context.WithoutCancel(ctx))
		}
	}, nil
}

// admit has a session end no later than the account is closed, if that comes first; the func ends that.
func (t *tenure) admit(l *life) (leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.here[l] = struct{}{}
	if t.held.Err() != nil {
		l.end(context.Cause(t.held))
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.here, l)
	}
}

// dismiss ends the sessions that have not heard yet why: each holds the grant by itself, and may be told a moment
// after the tenure. Once it has returned nothing is forwarded any more, so that no client reads the database's word
// for its end instead of the reason.
func (t *tenure) dismiss(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.here {
		l.end(why)
	}
}

// lastSession is why a grant ends with its last session.
const lastSession = "its last session was closed, and the rule that gave it ends it with that"

// release ends a grant whose last session has been closed by its client. One that was lost may be taken up
// again, and ends nothing.
func (t *tenure) release(ctx context.Context) {
	if err := t.cfg.Grants.End(ctx, t.grant.ID, recorder.EndReleased, lastSession); err != nil {
		t.log.Error("end grant with its last session", "error", err)
	}
}

// find gives the grant's tenure, begun if need be.
func (ts *tenures) find(ctx context.Context, g policy.Grant) (*tenure, error) {
	if t := ts.byID(g.ID); t != nil {
		return t, nil
	}
	return ts.begin(ctx, g, false, nil)
}

func (ts *tenures) byID(grant string) *tenure {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.byGrant[grant]
}

// begin starts a tenure, or gives the one that somebody else has just begun.
func (ts *tenures) begin(ctx context.Context, g policy.Grant, adopt bool, prepared []string) (*tenure, error) {
	t, err := ts.make(g, adopt, prepared)
	if err != nil {
		return nil, err
	}
	// The tenure outlives the session that began it, so it holds the grant by itself. Why a grant can't be
	// held may have to be looked up, so mu is not held meanwhile.
	held, release, err := ts.cfg.Grants.Hold(context.WithoutCancel(ctx), g.ID)
	if err != nil {
		return nil, err
	}
	t.held = held
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if other := ts.byGrant[g.ID]; other != nil || ts.draining {
		release()
		if other != nil {
			return other, nil
		}
		return nil, draining()
	}
	ts.byGrant[g.ID] = t
	ts.running.Go(func() {
		defer release()
		// The end may have been moved since g was found; from here on Extended finds the tenure.
		if now, err := ts.cfg.Grants.Recall(held, g.ID); err == nil && t.extend(now.End) {
			t.moveBackstops(ts.stop)
		}
		select {
		case <-held.Done():
		case <-ts.leaving:
			t.lockUp(context.WithoutCancel(ctx))
			select {
			case <-held.Done(): // it ends while the node still can end it
			case <-ts.stop:
				return
			}
		}
		t.close(context.WithoutCancel(ctx), ts.stop)
		ts.forget(t)
	})
	return t, nil
}

// make builds a tenure's value: no side effects.
func (ts *tenures) make(g policy.Grant, adopt bool, prepared []string) (*tenure, error) {
	engine := ts.cfg.Engines[g.Target]
	if engine == nil {
		return nil, &protocol.Refusal{Code: protocol.RefuseNoGrant,
			Public: fmt.Sprintf("the target %s is no longer configured; ask your Curfew administrator", g.Target)}
	}
	spec := protocol.AccountSpec{
		Installation: ts.cfg.Installation, Grant: g.ID, Name: "curfew_" + ts.cfg.Installation + "_" + g.ID,
		Requester: g.Identity.Email, End: g.End, Level: LevelOf(g.Level, g.Can), Prepared: prepared,
	}
	spec.Level.Sessions = sessionsOf(g)
	if !g.BreakGlass { // which is not extended
		spec.Longer = g.Longest
	}
	return &tenure{cfg: ts.cfg, metrics: ts.metrics, engine: engine, grant: g, spec: spec, adopt: adopt, cut: make(chan struct{}), end: g.End,
		here: map[*life]struct{}{}, log: ts.cfg.Log.With("grant", g.ID, "target", g.Target, "account", spec.Name)}, nil
}

// LevelOf says an access level of the policy in an engine's words.
func LevelOf(name string, l policy.Level) protocol.Level {
	return protocol.Level{Name: name, Roles: l.Roles, SetRole: l.SetRole,
		PreparedTransactions: l.PreparedTransactions, LocalInfile: l.LocalInfile, Sessions: l.ConnectionLimit()}
}

func (ts *tenures) forget(t *tenure) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.byGrant, t.grant.ID)
}

// of gives the tenure that an account belongs to, or nil.
func (ts *tenures) of(account string) *tenure {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.byGrant {
		if t.spec.Name == account {
			return t
		}
	}
	return nil
}

// leave locks the accounts of live grants until Curfew is back. It does not wait for that, nor does that wait
// for the sessions, which may take their time to be sealed.
func (ts *tenures) leave() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if !ts.draining {
		ts.draining = true
		close(ts.leaving)
	}
}

// drain is leave when the sessions are gone: it waits, and lets grants that are ending end.
func (ts *tenures) drain() {
	ts.leave()
	ts.stopped.Do(func() { close(ts.stop) })
	if !waitFor(&ts.running, drainTimeout) {
		ts.cfg.Log.Error("accounts did not close in time; they are taken up again at the next start")
	}
}

// take gives the grant's account; the first session of a grant provisions it, durable intent first.
func (t *tenure) take(ctx context.Context) (protocol.Account, error) {
	t.making.Lock()
	defer t.making.Unlock()
	if err := t.isOver(); err != nil {
		return nil, err
	}
	if t.account != nil {
		return t.account, nil
	}
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	err := t.intend(ctx)
	if err == nil {
		t.adopt = true // from here on something may exist: a second try takes it over
		t.spec.End = t.until()
		t.account, err = t.engine.Provision(ctx, t.spec)
	}
	if err == nil {
		return t.account, nil
	}
	t.account = nil
	if ctx.Err() != nil && context.Cause(ctx) != ctx.Err() {
		return nil, context.Cause(ctx)
	}
	t.log.Error("provision account", "error", err)
	var refusal *protocol.Refusal
	if errors.As(err, &refusal) {
		return nil, err
	}
	return nil, &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err, Public: fmt.Sprintf(
		"your account on %s could not be made; try again in a moment, and if it stays so, `curfew check` tells your administrator why", t.grant.Target)}
}

// intend makes the intent durable, once; the caller holds making.
func (t *tenure) intend(ctx context.Context) error {
	if t.intended {
		return nil
	}
	err := t.cfg.Accounts.Intend(ctx, ledger.AccountIntended{
		Grant: t.grant.ID, Target: t.grant.Target, Account: t.spec.Name, End: t.until(), Adopt: t.adopt})
	if err != nil {
		return err
	}
	t.intended = true
	return t.cfg.Step.Do("account.intended")
}

// adoption takes over the account of an earlier process, and tries that until it is done, the grant is
// over or the node stops: until then the account is as it was left, and nobody watches it. It calls
// tried after each try.
func (t *tenure) adoption(stop <-chan struct{}, tried func()) {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		ctx, cancel := context.WithTimeout(t.held, cutTimeout)
		_, err := t.take(ctx)
		cancel()
		tried()
		if err == nil {
			return
		}
		select {
		case <-time.After(wait):
		case <-t.held.Done():
			return
		case <-stop:
			return
		}
	}
}

// isOver says why nothing new may begin under the tenure; nil: it may.
func (t *tenure) isOver() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.held.Err() != nil:
		return context.Cause(t.held)
	case t.over:
		return draining()
	}
	return nil
}

// awaitCut waits for the end of the grant to have terminated every backend; a session that ended because
// the node stops has nothing to wait for. The tenure may hear of the end a moment after the session.
func (t *tenure) awaitCut(held context.Context, most time.Duration) {
	var why *protocol.Refusal
	if errors.As(context.Cause(held), &why) && why.Code == recorder.EndDrained {
		return
	}
	select {
	case <-t.cut:
	case <-time.After(most):
	}
}

// finish gives the account to end with: the one in use, or, when provisioning failed half-way or
// happened in an earlier process, a recalled one. nil: this grant never intended an account.
// No session provisions anything after it.
func (t *tenure) finish() protocol.Account {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.making.Lock() // a provision under way hears of the end by its context
	defer t.making.Unlock()
	if t.account == nil && t.adopt {
		t.account = t.engine.Recall(t.spec)
	}
	return t.account
}

// close is the end of a grant, in order: the sessions are over, most of them by the same signal that brought us
// here; the account is locked and its backends terminated; the first part of the receipt; when the
// sessions are gone the account is cleaned and dropped; the second part. Nothing gives up: what fails is
// tried again, with an alert, until it succeeds or this node stops (and then at the next start).
func (t *tenure) close(ctx context.Context, stop <-chan struct{}) {
	began := time.Now()
	t.ending.Store(&began)
	t.dismiss(context.Cause(t.held))
	account := t.finish()
	if account == nil {
		close(t.cut)
		return
	}
	cut, ok := t.cutOff(ctx, account, stop)
	if !ok || t.cfg.Step.Do("account.cut") != nil {
		return
	}
	t.metrics.cut.WithLabelValues(t.grant.Target).Observe(time.Since(began).Seconds())
	if !t.receipted && !t.writeCut(ctx, cut, stop) {
		return
	}
	waitFor(&t.sessions, 2*endTimeout)
	t.clean(ctx, account, stop)
}

// cutOff locks the account and terminates its backends until none is left. It asks nobody but the
// database: no store, recorder or client can hold it up.
func (t *tenure) cutOff(ctx context.Context, account protocol.Account, stop <-chan struct{}) (cut protocol.Cut, ok bool) {
	ok = t.retry(ctx, "cut", stop, cutTimeout, func(ctx context.Context) (err error) {
		cut, err = account.Cut(ctx)
		return err
	})
	if ok {
		close(t.cut)
	}
	return cut, ok
}

// writeCut writes the first part of the receipt.
func (t *tenure) writeCut(ctx context.Context, cut protocol.Cut, stop <-chan struct{}) bool {
	receipt := t.receipt(ctx, cut)
	t.metrics.late.WithLabelValues(t.grant.Target).Observe(receipt.LateMS / 1000)
	if !t.journal("cut", stop, func() error { return t.cfg.Accounts.Cut(ctx, receipt) }) || t.cfg.Step.Do("receipt.cut") != nil {
		return false
	}
	t.log.Info("grant ended: account locked, backends gone", "code", receipt.Code, "late_ms", receipt.LateMS, "backends", len(cut.Outcomes))
	return true
}

// receipt is the first part of the receipt. The deadline is what the grant says of its own end.
func (t *tenure) receipt(ctx context.Context, cut protocol.Cut) ledger.AccountCut {
	r := ledger.AccountCut{Grant: t.grant.ID, Target: t.grant.Target, Account: t.spec.Name, Deadline: t.until()}
	var refusal *protocol.Refusal
	if errors.As(context.Cause(t.held), &refusal) {
		r.Code, r.Reason = refusal.Code, refusal.Public
	}
	if now, err := t.cfg.Grants.Recall(ctx, t.grant.ID); err == nil && !now.Ended.IsZero() {
		r.Code, r.Reason, r.Deadline = now.EndCode, now.EndReason, now.Ended
	}
	r.LateMS = max(0, float64(cut.GoneAt.Sub(r.Deadline).Microseconds())/1000)
	r.Cut, _ = json.Marshal(cut) // plain values: can't fail
	return r
}

// clean drops the account and writes the second part of the receipt.
func (t *tenure) clean(ctx context.Context, account protocol.Account, stop <-chan struct{}) {
	began := time.Now()
	var clean protocol.Clean
	ok := t.retry(ctx, "clean", stop, cleanTimeout, func(ctx context.Context) (err error) {
		clean, err = account.Clean(ctx)
		return err
	})
	if !ok || t.cfg.Step.Do("account.cleaned") != nil {
		return
	}
	t.metrics.clean.WithLabelValues(t.grant.Target).Observe(time.Since(began).Seconds())
	raw, _ := json.Marshal(clean) // plain values: can't fail
	for _, r := range clean.Residue {
		if r.Alert {
			t.log.Warn("ALERT residue may show what a stranger may not see", "database", r.Database, "kind", r.Kind, "object", r.Object, "owner", r.Owner, "action", r.Action)
		}
	}
	receipt := ledger.AccountCleaned{Grant: t.grant.ID, Target: t.grant.Target, Account: t.spec.Name, Clean: raw}
	if t.journal("clean", stop, func() error { return t.cfg.Accounts.Cleaned(ctx, receipt) }) {
		t.log.Info("account gone", "residue", len(clean.Residue), "rolled_back", len(clean.RolledBack))
	}
}

// lockUp is what a stopping node does with the account of a live grant: nobody gets in until Curfew is
// back and adopts it. It leaves no receipt, for the grant has not ended.
func (t *tenure) lockUp(ctx context.Context) {
	account := t.finish()
	if account == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cutTimeout)
	defer cancel()
	if _, err := account.Cut(ctx); err != nil {
		t.log.Error("lock account while Curfew is down", "error", err)
	}
}

// retry does f until it succeeds, with back-off; the third failure puts an alert on the ledger,
// and so does what still fails ten minutes later. It reports false when the node stopped first.
func (t *tenure) retry(ctx context.Context, part string, stop <-chan struct{}, timeout time.Duration, f func(context.Context) error) bool {
	most := retryMost
	if part == "cut" {
		most = cutAgain
	}
	var alerted time.Time
	for attempt, wait := 1, retryFirst; ; attempt, wait = attempt+1, min(2*wait, most) {
		try, cancel := context.WithTimeout(ctx, timeout)
		err := f(try)
		cancel()
		if err == nil {
			return true
		}
		t.metrics.retries.WithLabelValues(t.grant.Target, part).Inc()
		t.log.Error("ALERT the end of a grant is not complete; it is tried again", "part", part, "attempt", attempt, "error", err)
		if attempt >= 3 && (alerted.IsZero() || time.Since(alerted) >= alertAgain) {
			alerted = time.Now()
			go t.alert(ctx, ledger.AccountOpen{Grant: t.grant.ID, Target: t.grant.Target, Account: t.spec.Name,
				Part: part, Attempts: attempt, Error: err.Error()})
		}
		select {
		case <-time.After(wait):
		case <-stop:
			return false
		}
	}
}

// alert puts an alert on the ledger, beside the tries: a store that hangs holds up no cut.
func (t *tenure) alert(ctx context.Context, open ledger.AccountOpen) {
	if err := t.cfg.Accounts.StillOpen(ctx, open); err != nil {
		t.log.Error("alert not on the ledger", "error", err)
	}
}

// journal writes one entry until it is written.
func (t *tenure) journal(part string, stop <-chan struct{}, write func() error) bool {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := write()
		if err == nil {
			return true
		}
		t.log.Error("receipt not on the ledger; it is tried again", "part", part, "error", err)
		select {
		case <-time.After(wait):
		case <-stop:
			return false
		}
	}
}
