package control

import (
	"context"
	"errors"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

// stepUp answers somebody whose login is too weak or too old for what they want, and could be better.
func stepUp(wanted policy.StepUp, public string) *Error {
	return &Error{Code: CodeStepUp, Public: public, Next: "log in again, with your second factor; the command line does it by itself", StepUp: &wanted}
}

// Asked is the login that answers a step-up. It is asked to be a little younger than the rule wants, because
// what follows it takes time as well.
func Asked(s policy.StepUp) auth.Asked {
	a := auth.Asked{ACR: s.ACR, AMR: s.AMR}
	if s.Within > 0 {
		age := (s.Within * 9 / 10).Truncate(time.Second)
		a.MaxAge = &age
	}
	return a
}

// replace ends the session that a new one of the same person takes the place of. What the provider is asked
// about the person by goes on, if the new one has nothing for that.
func (l *Logins) replace(tx *store.Tx, old, with store.Login) error {
	old, err := tx.Login(old.Hash)
	if errors.Is(err, store.ErrNotFound) {
		return unauthenticated("the session that this login was for has ended meanwhile", nil)
	}
	if err != nil {
		return err
	}
	if err := tx.DeleteLogin(old.Hash); err != nil || with.Refresh != nil || old.Refresh == nil {
		return err
	}
	_, old.Hash = auth.NewSessionToken() // that nobody has ever seen
	old.Expires = old.Created
	return tx.PutLogin(old)
}

// instead finds the session that a login is to take the place of: a step-up proves something of one person.
func (l *Logins) instead(ctx context.Context, login *pendingLogin, s *StartLogin) error {
	if len(s.Asked.ACR)+len(s.Asked.AMR) > mostAsked || s.Asked.MaxAge != nil && *s.Asked.MaxAge < 0 {
		return &Error{Code: CodeInvalid, Public: "that is no login that can be asked for", Next: "use curfew login"}
	}
	if s.Session == "" {
		return nil
	}
	row, err := l.row(ctx, auth.HashToken(s.Session))
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && !l.store.Now().Before(row.Expires):
		return unauthenticated("this session token is not, or no longer, good", nil)
	case err != nil:
		return unavailable(err)
	}
	if s.Issuer != "" && s.Issuer != row.Identity.Issuer {
		return &Error{Code: CodeInvalid, Public: "a step-up is a login at the same identity provider", Next: "leave the issuer out"}
	}
	p := l.providers[row.Identity.Issuer]
	if p == nil {
		return unauthenticated("your identity provider is not known here any more", nil)
	}
	login.provider, login.instead, s.Asked.Hint = p, &row, row.Identity.Email
	return nil
}
