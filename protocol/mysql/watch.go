package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

const (
	// secondLook is how long after the first look a backend that nobody knows is looked for again: one
	// of ours may have been between its login and the moment we were told its id.
	secondLook = 300 * time.Millisecond
	// openingMost is how long one of our own logins may take. As long as one is under way, a backend that
	// has just come may be it; one that was seen that long ago never is.
	openingMost = connectTime
	// expelMost bounds one foreign backend's end: one that won't die must not keep the others from being
	// looked at, nor the account from being cut.
	expelMost = 2 * time.Second
)

// seen is one backend of an account, as the server shows it. Ids go up and don't come again.
type seen struct {
	pid     uint32
	address string
}

// Watch kills backends of live accounts that are not Curfew's own sessions, and reports them. A person
// can change the password of their account and log in past the proxy; this is how that is found.
//
// A session's own backend must not be mistaken for one. Sessions join the account before they dial;
// what nobody knows at the first look is looked for again a moment later, and only what still nobody
// knows, while no own login could be it, is foreign. A session that has said goodbye may linger.
func (e *Engine) Watch(ctx context.Context) ([]protocol.Foreign, error) {
	accounts := e.live()
	if len(accounts) == 0 {
		return nil, nil
	}
	suspects, err := e.strangers(ctx, accounts)
	if err != nil || len(suspects) == 0 {
		return nil, err
	}
	if !pause(ctx, secondLook) {
		return nil, context.Cause(ctx)
	}
	again, err := e.strangers(ctx, accounts)
	if err != nil {
		return nil, err
	}
	var list []protocol.Foreign
	for a, now := range again {
		for _, s := range now {
			if !slices.ContainsFunc(suspects[a], func(x seen) bool { return x.pid == s.pid }) {
				continue // it has just come; the next pass looks again
			}
			foreign, killErr := a.expel(ctx, s)
			list, err = append(list, foreign), errors.Join(err, killErr)
		}
	}
	return list, err
}

// live gives the accounts that sessions may join.
func (e *Engine) live() map[string]*account {
	e.mu.Lock()
	accounts := maps.Clone(e.accounts)
	e.mu.Unlock()
	maps.DeleteFunc(accounts, func(_ string, a *account) bool {
		return a.Closing() || a.secret == ""
	})
	return accounts
}

// strangers gives the backends that none of our sessions answers for.
func (e *Engine) strangers(ctx context.Context, accounts map[string]*account) (map[*account][]seen, error) {
	before := map[*account]map[uint32]bool{}
	for _, a := range accounts {
		before[a] = a.Backends()
	}
	there := map[*account][]seen{}
	err := e.closing.do(ctx, func(ctx context.Context, c *conn) error {
		clear(there)
		return c.rows(ctx, "watch", func(rows *sql.Rows) error {
			var name string
			var s seen
			if err := rows.Scan(&name, &s.pid, &s.address); err != nil {
				return err
			}
			if _, _, err := net.SplitHostPort(s.address); err != nil {
				s.address = "local socket"
			}
			if a := accounts[name]; a != nil {
				there[a] = append(there[a], s)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	for _, a := range accounts {
		// A session may have joined or left since the first count: who was ours then or is now is ours.
		there[a] = a.unknown(there[a], before[a])
		if len(there[a]) == 0 {
			delete(there, a)
		}
	}
	return there, nil
}

// unknown sorts out whom our sessions answer for. Logins under way (their pid is still 0) each answer
// for one backend that has just come.
func (a *account) unknown(there []seen, before map[uint32]bool) []seen {
	opening, now := a.Opening(), a.Backends()
	gone := func(pid uint32) bool {
		return !slices.ContainsFunc(there, func(s seen) bool { return s.pid == pid })
	}
	a.Forget(gone)
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.noticed, func(pid uint32, _ time.Time) bool { return gone(pid) })
	there = slices.DeleteFunc(there, func(s seen) bool { return before[s.pid] || now[s.pid] })
	slices.SortFunc(there, func(x, y seen) int { return cmp.Compare(y.pid, x.pid) }) // youngest first
	return slices.DeleteFunc(there, func(s seen) bool {
		if _, known := a.noticed[s.pid]; !known {
			a.noticed[s.pid] = time.Now()
		}
		if opening > 0 && time.Since(a.noticed[s.pid]) < openingMost {
			opening--
			return true
		}
		return false
	})
}

// expel kills one foreign backend, or gives up for now.
func (a *account) expel(ctx context.Context, s seen) (protocol.Foreign, error) {
	f := protocol.Foreign{Account: a.spec.Name, Backend: strconv.FormatUint(uint64(s.pid), 10), Address: s.address}
	ctx, cancel := context.WithTimeout(ctx, expelMost)
	defer cancel()
	if err := a.Killing.Take(ctx); err != nil {
		return f, err
	}
	defer a.Killing.Give()
	ends, err := a.drain(ctx, s.pid)
	if err != nil {
		return f, fmt.Errorf("terminate foreign backend %d of %s: %w", s.pid, a.spec.Name, err)
	}
	f.Killed = true // or it was gone by itself
	a.note(ends)
	return f, nil
}
