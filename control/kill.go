package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// Wire is the sessions that go on on this node, as the desk sees them.
type Wire interface {
	// GrantOf gives the grant of a session that goes on here.
	GrantOf(session string) (grant string, ok bool)
	// Kill ends it, and has its client read why. False: it does not go on here any more.
	Kill(session, public string) bool
	// Extended says that a grant ends later than it was to. It must not wait.
	Extended(grant string, end time.Time)
}

// noWire is a node without sessions.
type noWire struct{}

func (noWire) GrantOf(string) (string, bool) { return "", false }
func (noWire) Kill(string, string) bool      { return false }
func (noWire) Extended(string, time.Time)    {}

// Kill ends a session by the word of whoever may end its grant, and leaves the grant; with revoke the grant
// is ended, and every session of it. The session is ended first, whatever the store does: who did it and
// why is then on the ledger, and in the session's recording in any case.
func (d *Desk) Kill(ctx context.Context, who auth.Identity, session, reason string, revoke bool) (policy.Grant, error) {
	if err := readable("reason", reason); err != nil {
		return policy.Grant{}, err
	}
	id, here := d.wire.GrantOf(session)
	if !here {
		return policy.Grant{}, d.notHere(ctx, who, session)
	}
	g, r, err := d.shown(ctx, who, id)
	if isCode(err, CodeNotFound) {
		return policy.Grant{}, noSuch("session", session)
	}
	if err != nil {
		return policy.Grant{}, err
	}
	if revoke {
		return d.Revoke(ctx, who, id, reason)
	}
	if !d.Policy().MayRevoke(who, r) {
		return policy.Grant{}, &Error{Code: CodeForbidden, Public: "you may see this session and not end it",
			Next: "ask its holder or an approver: " + r.Identity.Label()}
	}
	if reason = strings.TrimSpace(reason); reason == "" {
		reason = "no reason was given"
	}
	public := fmt.Sprintf("your session was ended by %s: %s; your grant goes on until %s: connect again when that is settled",
		who.Label(), reason, clockTime(g.End))
	if !d.wire.Kill(session, public) {
		return policy.Grant{}, sessionOver(session)
	}
	d.log.Info("session killed", "session", session, "grant", g.ID, "person", who.Label(), "reason", reason)
	err = d.transact(ctx, func(tx *store.Tx, _ *policy.Policy) error {
		return tx.Append(ledger.TypeSessionKilled, ledger.SessionKilled{Session: session, Grant: g.ID, Target: g.Target, Person: personOf(who), Reason: reason})
	}, func() {})
	if err != nil {
		return g, &Error{Code: CodeUnavailable, Public: fmt.Sprintf("session %s is ended, but that could not be written to the ledger", session),
			Next: "the end of its recording says who ended it and why; the server's log says what the store lacks", Err: err}
	}
	return g, nil
}

// notHere says why a session can't be ended that does not go on here, to somebody who may know of it.
func (d *Desk) notHere(ctx context.Context, who auth.Identity, session string) error {
	s, err := d.Session(ctx, who, session)
	if err != nil {
		return err
	}
	if s.Sealed != nil {
		return &Error{Code: CodeConflict, Public: fmt.Sprintf("session %s has ended already: %s at %s", session, s.Sealed.End.Code, clockTime(s.Ended)),
			Next: "nothing is left to do"}
	}
	return sessionOver(session)
}

func sessionOver(session string) *Error {
	return &Error{Code: CodeConflict, Public: fmt.Sprintf("session %s does not go on any more", session), Next: "nothing is left to do"}
}
