package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

const (
	// askAgain is how soon a provider that could not be asked is asked again on somebody's request.
	askAgain = 30 * time.Second
	// askTime bounds one refresh and its store, whoever hangs up meanwhile.
	askTime = 30 * time.Second
	// keepTime is how long whoever asks for something, an end perhaps, waits for the store to take the answer of
	// their provider. Memory has it meanwhile.
	keepTime = 500 * time.Millisecond
	// goneReason is what the holder of a grant reads when it ends for this.
	goneReason = "your identity is disabled at the provider, or signed out there"
)

// verdict is what one stored login says of its person now.
type verdict int

const (
	mute    verdict = iota // it has no refresh token, or none that opens, so it says nothing
	alive                  // the provider vouches for them
	gone                   // the provider has withdrawn it
	unknown                // the provider could not be asked
	lost                   // it is void, and that may be because an answer of the provider's was not heard
	absent                 // it was logged out or dropped meanwhile
)

// Run asks the providers about everybody who holds a grant or has asked for one: at once, and again when
// Refresh has passed. Who is gone there loses grants and requests here; who has other groups there loses
// what no rule gives to those groups. It returns when ctx ends.
func (l *Logins) Run(ctx context.Context) error {
	tick := time.NewTicker(max(l.refresh/4, 10*time.Millisecond))
	defer tick.Stop()
	for {
		if err := l.pass(ctx); err != nil && ctx.Err() == nil {
			l.log.ErrorContext(ctx, "check identities at their providers", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// pass checks everybody once, and forgets the logins that serve nothing any more.
func (l *Logins) pass(ctx context.Context) error {
	people, err := l.desk.LiveIdentities(ctx)
	if err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		seats = make(chan struct{}, 8) // a provider that hangs must not hold up everybody's check
	)
	for _, who := range people {
		seats <- struct{}{}
		wg.Go(func() {
			defer func() { <-seats }()
			if err := l.judge(ctx, who); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", who.Label(), err))
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, l.forget(ctx, people))...)
}

// judge asks about one person, by all of their logins, and tells the desk if nobody vouches for them any
// more. One login that was signed out is no verdict while another one stands.
func (l *Logins) judge(ctx context.Context, who auth.Identity) error {
	rows, err := l.rows(ctx, who.Key())
	if err != nil {
		return err
	}
	count := map[verdict]int{}
	var withdrawn, void []store.Login
	for _, row := range rows {
		_, v := l.ask(ctx, row)
		count[v]++
		switch v {
		case gone:
			withdrawn = append(withdrawn, row)
		case lost:
			void = append(void, row)
		}
	}
	if err := l.lose(ctx, void); err != nil {
		return err
	}
	switch {
	case count[gone] == 0:
		return nil
	case count[alive] > 0:
		return l.drop(ctx, withdrawn, "withdrawn")
	case count[unknown] > 0:
		return nil // the next pass knows more
	}
	// First the desk, then the logins: who dies in between asks again after the restart.
	if err := l.desk.EndAll(ctx, who, recorder.EndRevoked, goneReason); err != nil {
		return err
	}
	l.log.InfoContext(ctx, "identity is gone at its provider", "person", who.Label(), "issuer", who.Issuer)
	return l.drop(ctx, rows, "withdrawn")
}

// recheck is Whoami's question about a login whose last check is too old.
func (l *Logins) recheck(ctx context.Context, row store.Login) (auth.Identity, error) {
	who, v := row.Identity, unknown
	if !l.missedLately(row.Hash) {
		who, v = l.ask(ctx, row)
	}
	switch {
	case v == gone:
		if err := l.judge(ctx, row.Identity); err != nil {
			l.log.ErrorContext(ctx, "end what a person who is gone holds", "person", row.Identity.Label(), "error", err)
		}
		return auth.Identity{}, unauthenticated(goneReason, nil)
	case v == lost:
		if err := l.lose(ctx, []store.Login{row}); err != nil {
			return auth.Identity{}, unavailable(err)
		}
		return auth.Identity{}, unauthenticated("your session was lost while the identity provider did not answer", nil)
	case v == absent:
		return auth.Identity{}, unauthenticated("this session token is not, or no longer, good", nil)
	case (v == unknown || v == mute) && l.store.Now().Sub(row.Refreshed) >= max(blindTime, l.refresh):
		return auth.Identity{}, &Error{
			Code:   CodeUnavailable,
			Public: "the identity provider could not be asked about you for an hour, so Curfew takes your word no longer",
			Next:   "try again when it is back",
		}
	}
	who.Stale = v == unknown
	return who, nil
}

// ask asks the provider about one stored login, unless that was done a moment ago, and keeps the answer.
// The refresh token may be rotated by the question, so nobody's hanging up may come between the question
// and the store; and two questions with one token would look like theft to the provider.
func (l *Logins) ask(ctx context.Context, row store.Login) (auth.Identity, verdict) {
	done, err := l.turns.take(ctx, string(row.Hash))
	if err != nil {
		return row.Identity, unknown
	}
	defer done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	now, err := l.row(ctx, row.Hash)
	if errors.Is(err, store.ErrNotFound) {
		return row.Identity, absent
	}
	if err != nil {
		return row.Identity, unknown
	}
	row = now
	if row.Refresh == nil {
		return row.Identity, mute
	}
	if l.store.Now().Sub(row.Refreshed) < l.refresh {
		return row.Identity, alive
	}
	if l.missedLately(row.Hash) { // by whoever had this turn before
		return row.Identity, unknown
	}
	provider := l.providers[row.Identity.Issuer]
	if provider == nil { // it was taken out of the configuration: nobody vouches any more
		return row.Identity, gone
	}
	token, err := l.token(row)
	if err != nil {
		l.miss(ctx, row, err)
		return row.Identity, mute // the sealing key is another one, for good
	}
	who, next, err := provider.Refresh(ctx, token, row.Identity)
	switch {
	case errors.Is(err, auth.ErrGone) && l.doubted(row.Hash):
		return row.Identity, lost
	case errors.Is(err, auth.ErrGone):
		return row.Identity, gone
	case err == nil || next != "":
		l.doubt(row.Hash, false)
	case errors.Is(err, auth.ErrUnheard):
		l.doubt(row.Hash, true)
	}
	if next != "" {
		row.Refresh = l.sealer.Seal([]byte(next), row.Identity.Key())
	}
	if err == nil {
		row.Identity, row.Refreshed = who, l.store.Now().UTC()
	}
	l.keep(ctx, row, next)
	if err != nil {
		l.miss(ctx, row, err)
		return row.Identity, unknown
	}
	l.met(row.Hash)
	if err := l.desk.Refreshed(ctx, who); err != nil {
		l.log.ErrorContext(ctx, "tell the desk what a person is now", "person", who.Label(), "error", err)
	}
	return who, alive
}

// lose drops logins that nobody can be asked about any more, and not because the provider has withdrawn them:
// it may have replaced a refresh token in an answer that was not heard, and takes the old one for stolen. Their
// people log in again; what they were granted goes on to its end, or until that login says otherwise.
func (l *Logins) lose(ctx context.Context, rows []store.Login) error {
	if len(rows) == 0 {
		return nil
	}
	for _, row := range rows {
		l.log.WarnContext(ctx, "a login is void since an answer of the identity provider was not heard; until its person logs in again nobody can be asked about them",
			"person", row.Identity.Label(), "issuer", row.Identity.Issuer)
		l.doubt(row.Hash, false)
	}
	return l.drop(ctx, rows, "lost")
}

// doubt notes whether the refresh token of a login may have been replaced by one that nobody has heard of. Memory
// alone keeps that: after a restart a void token counts as withdrawn.
func (l *Logins) doubt(hash []byte, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if delete(l.doubts, string(hash)); yes {
		l.doubts[string(hash)] = true
	}
}

func (l *Logins) doubted(hash []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doubts[string(hash)]
}

// keep stores what a refresh changed. If the store can't take it, memory keeps the rotated token: without
// it the next question would look like a theft, and end the person's grants.
func (l *Logins) keep(ctx context.Context, row store.Login, next string) {
	ctx, cancel := context.WithTimeout(ctx, keepTime)
	defer cancel()
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		was, err := tx.Login(row.Hash)
		if err != nil {
			return err
		}
		row.Expires = was.Expires
		return tx.PutLogin(row)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil || errors.Is(err, store.ErrNotFound) {
		delete(l.unsaved, string(row.Hash))
		return
	}
	l.log.ErrorContext(ctx, "keep what the identity provider said", "person", row.Identity.Label(), "error", err)
	if next != "" {
		l.unsaved[string(row.Hash)] = next
	}
}

// token is the refresh token that is good now.
func (l *Logins) token(row store.Login) (string, error) {
	l.mu.Lock()
	unsaved := l.unsaved[string(row.Hash)]
	l.mu.Unlock()
	if unsaved != "" {
		return unsaved, nil
	}
	plain, err := l.sealer.Open(row.Refresh, row.Identity.Key())
	return string(plain), err
}

// drop deletes logins that the provider has ended; how stands on the ledger.
func (l *Logins) drop(ctx context.Context, rows []store.Login, how string) error {
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		for _, row := range rows {
			if _, err := tx.Login(row.Hash); errors.Is(err, store.ErrNotFound) {
				continue // somebody else was faster, and it is on the ledger
			}
			if err := tx.DeleteLogin(row.Hash); err != nil {
				return err
			}
			gone := ledger.Login{Person: personOf(row.Identity), Flow: how}
			if err := tx.Append(ledger.TypeLogout, gone); err != nil {
				return err
			}
		}
		return nil
	})
	for _, row := range rows {
		l.met(row.Hash)
	}
	return err
}

// forget deletes the logins that are over, unless they are what a holder of grants is checked by.
func (l *Logins) forget(ctx context.Context, live []auth.Identity) error {
	needed := map[string]bool{}
	for _, who := range live {
		needed[who.Key()] = true
	}
	rows, err := l.rows(ctx, "")
	if err != nil {
		return err
	}
	now := l.store.Now()
	var over []store.Login
	for _, row := range rows {
		if !now.Before(row.Expires) && !(needed[row.Identity.Key()] && row.Refresh != nil) {
			over = append(over, row)
		}
	}
	if len(over) == 0 {
		return nil
	}
	return l.store.Update(ctx, func(tx *store.Tx) error {
		for _, row := range over {
			if err := tx.DeleteLogin(row.Hash); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *Logins) rows(ctx context.Context, key string) (rows []store.Login, err error) {
	err = l.store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = tx.Logins(key)
		return err
	})
	return rows, err
}

// miss notes that the provider could not be asked. Grants go on: a provider's outage is no reason to cut
// people off in the middle of their work, and their end is fixed.
func (l *Logins) miss(ctx context.Context, row store.Login, err error) {
	l.log.WarnContext(ctx, "the identity provider could not be asked about a person",
		"person", row.Identity.Label(), "issuer", row.Identity.Issuer, "last", row.Refreshed, "error", err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.missed[string(row.Hash)] = time.Now()
}

func (l *Logins) missedLately(hash []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.missed[string(hash)]
	return ok && time.Since(at) < min(askAgain, l.refresh)
}

func (l *Logins) met(hash []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.missed, string(hash))
}

// moveUnsaved follows a login to the hash it is kept under after a logout.
func (l *Logins) moveUnsaved(from, to []byte) {
	if bytes.Equal(from, to) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doubts[string(from)] {
		delete(l.doubts, string(from))
		l.doubts[string(to)] = true
	}
	if token, ok := l.unsaved[string(from)]; ok {
		l.unsaved[string(to)] = token
		delete(l.unsaved, string(from))
	}
}

// turns lets one at a time go on with one thing.
type turns struct {
	mu   sync.Mutex
	held map[string]*turn // guarded by mu
}

type turn struct {
	token chan struct{}
	users int // who has it or waits for it
}

func (t *turns) take(ctx context.Context, key string) (func(), error) {
	t.mu.Lock()
	own := t.held[key]
	if own == nil {
		own = &turn{token: make(chan struct{}, 1)}
		t.held[key] = own
	}
	own.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(t.held, key)
		}
	}
	select {
	case own.token <- struct{}{}:
		return func() { <-own.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
