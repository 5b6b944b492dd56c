package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// Reload puts a policy in force, or leaves the old one there and says why. Open requests that the new
// policy doesn't allow, or for which it wants other approvals, are denied by Curfew and must be asked
// again; live grants of a level that no rule gives to their holder any more are revoked.
//
// A policy that leaves nobody with anything is refused, unless it says itself that this is meant.
func (d *Desk) Reload(ctx context.Context, p *policy.Policy) error {
	if !p.Lockdown {
		people, err := d.LiveIdentities(ctx)
		if err == nil {
			err = p.LocksOut(d.Policy(), people...)
		}
		if err != nil {
			return &Error{Code: CodePolicy, Public: "this policy would lock everybody out: " + err.Error(),
				Next: "if that is meant, it has to say so: lockdown: true", Err: err}
		}
	}
	return d.install(ctx, p, d.Policy().Hash)
}

// install puts p in force; last is the hash of the policy that was before.
func (d *Desk) install(ctx context.Context, p *policy.Policy, last string) error {
	denied, err := d.exchange(ctx, p, last)
	if err != nil {
		return err
	}
	for _, r := range denied {
		d.log.Info("request denied, because the policy changed", "request", r.ID, "person", r.Identity.Label(), "target", r.Target)
	}
	ended := d.endWhere(recorder.EndRevoked, func(g policy.Grant) string {
		if p.Holds(g.Identity, g) {
			return ""
		}
		return fmt.Sprintf("the policy gives %s on %s to %s no more", g.Level, g.Target, g.Identity.Label())
	})
	for _, g := range ended {
		if err := d.putEnd(ctx, g); err != nil {
			d.log.Error("revoke grant that the policy no longer gives", "grant", g.ID, "error", err)
		}
	}
	return nil
}

// exchange swaps the policies: on the ledger, for the open requests and in memory, or not at all.
func (d *Desk) exchange(ctx context.Context, p *policy.Policy, last string) (denied []policy.Request, err error) {
	ctx, done, err := d.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	err = d.update(ctx, func(tx *store.Tx) error {
		if p.Hash != last {
			if err := tx.Append(ledger.TypePolicyLoaded, ledger.PolicyLoaded{Hash: p.Hash, Text: p.Text}); err != nil {
				return err
			}
		}
		denied, err = deny(tx, "the policy has changed; ask again to see what it says now", func(r policy.Request) bool {
			return !stands(tx, p, r.Identity, r)
		})
		return err
	})
	if err != nil {
		return nil, failed(err, "policy", p.Hash)
	}
	d.policy.Store(p)
	d.note(denied...)
	return denied, nil
}

// deny ends the open requests that which selects, by Curfew's own word.
func deny(tx *store.Tx, why string, which func(policy.Request) bool) (denied []policy.Request, err error) {
	open, err := tx.Requests(store.RequestFilter{Status: policy.Open})
	if err != nil {
		return nil, err
	}
	for _, r := range open {
		if !which(r) {
			continue
		}
		status := policy.Lapsed // if its time was up before
		if !r.Late(tx.Now()) {
			status, r.EndReason = policy.Denied, why
		}
		if err := endRequest(tx, &r, status, bySelf); err != nil {
			return nil, err
		}
		denied = append(denied, r)
	}
	return denied, nil
}

// Refreshed tells the desk what the provider says of a person now. What no rule would give to somebody
// in these groups, they lose: grants are revoked, open requests denied.
func (d *Desk) Refreshed(ctx context.Context, now auth.Identity) error {
	p := d.Policy()
	lost := func(g policy.Grant) bool { return !p.Holds(now, g) }
	good := func(tx *store.Tx, r policy.Request) bool { return stands(tx, p, now, r) }
	return d.withdraw(ctx, now, recorder.EndRevoked, "your groups at the identity provider no longer give you this", lost, good)
}

// EndAll ends everything that a person holds or has asked for: their identity is gone.
func (d *Desk) EndAll(ctx context.Context, who auth.Identity, code, reason string) error {
	return d.withdraw(ctx, who, code, reason,
		func(policy.Grant) bool { return true },
		func(*store.Tx, policy.Request) bool { return false })
}

// withdraw ends those grants of a person that are lost and denies those open requests that don't stand.
// Nobody is cut off later because the store is slow: grants end in memory first. Then the requests go, and what
// has become a grant of them meanwhile.
func (d *Desk) withdraw(ctx context.Context, who auth.Identity, code, reason string,
	lost func(policy.Grant) bool, good func(*store.Tx, policy.Request) bool,
) error {
	why := func(g policy.Grant) string {
		if !g.Identity.Same(who) || !lost(g) {
			return ""
		}
		return reason
	}
	ended := d.endWhere(code, why)
	var errs []error
	if d.asks(who) {
		var denied []policy.Request
		errs = append(errs, d.transact(ctx, func(tx *store.Tx, _ *policy.Policy) (err error) {
			denied, err = deny(tx, reason, func(r policy.Request) bool {
				return r.Identity.Same(who) && !good(tx, r)
			})
			return err
		}, func() { d.note(denied...) }))
	}
	for _, g := range append(ended, d.endWhere(code, why)...) { // again: a request may have become one meanwhile
		errs = append(errs, d.putEnd(ctx, g))
	}
	return errors.Join(errs...)
}

// asks reports whether a person has an open request.
func (d *Desk) asks(who auth.Identity) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.open {
		if r.Identity.Same(who) {
			return true
		}
	}
	return false
}

// LiveIdentities lists the people who hold grants that have not ended or have asked for one, each once,
// for the loop that asks the provider about them.
func (d *Desk) LiveIdentities(context.Context) ([]auth.Identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	people := map[string]auth.Identity{}
	for _, r := range d.open {
		people[r.Identity.Key()] = r.Identity
	}
	for _, l := range d.live {
		if l.grant.Ended.IsZero() {
			people[l.grant.Identity.Key()] = l.grant.Identity
		}
	}
	return slices.SortedFunc(maps.Values(people), func(a, b auth.Identity) int {
		return strings.Compare(a.Key(), b.Key())
	}), nil
}

// lastPolicy finds the hash of the policy that was put on the ledger last.
func (d *Desk) lastPolicy(ctx context.Context) (hash string, err error) {
	mark := []byte(ledger.TypePolicyLoaded)
	err = d.store.Entries(ctx, 0, func(line []byte) error {
		if !bytes.Contains(line, mark) {
			return nil
		}
		e, err := ledger.Decode(line)
		if err != nil || e.Type != ledger.TypePolicyLoaded {
			return err
		}
		var loaded ledger.PolicyLoaded
		err = e.Into(&loaded)
		hash = loaded.Hash
		return err
	})
	return hash, err
}
