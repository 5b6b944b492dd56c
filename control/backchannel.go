package control

import (
	"context"
	"errors"
	"slices"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/store"
)

// signedOutReason is what the holder of a grant reads when it ends for this.
const signedOutReason = "you signed out at your identity provider"

// SignOut acts on a provider's word that somebody has signed out there (OpenID Connect Back-Channel Logout
// 1.0). It is the same verdict as a refresh that is refused, only at once: the logins of that session are
// over, and with the person's last one their grants and requests. A login whose session is not known may be
// the one that is meant. A token counts as taken only when all of that is done, so that a provider whose
// try failed may try again.
func (l *Logins) SignOut(ctx context.Context, logoutToken string) error {
	issuer, out, err := l.tokens.Logout(ctx, logoutToken)
	switch {
	case errors.Is(err, auth.ErrUnreachable):
		return unreachable(err)
	case err != nil:
		l.log.WarnContext(ctx, "a logout token is refused", "error", err)
		return &Error{Code: CodeInvalid, Public: "the logout token is not accepted", Next: "the server's log says why", Err: err}
	}
	rows, err := l.rows(ctx, "")
	if err != nil {
		return unavailable(err)
	}
	person := auth.Identity{Issuer: out.Issuer, Subject: out.Subject}
	if person.Subject == "" {
		i := slices.IndexFunc(rows, func(r store.Login) bool {
			return r.Identity.Issuer == out.Issuer && r.Identity.Session == out.Session
		})
		if i < 0 { // a session that nobody is known to have here
			issuer.SignedOut(out)
			return nil
		}
		person = rows[i].Identity
	}
	if err := l.leave(ctx, person, out.Session, rows); err != nil {
		return err
	}
	issuer.SignedOut(out)
	return nil
}

// leave ends a person's logins of one session at the provider, or all of them.
func (l *Logins) leave(ctx context.Context, person auth.Identity, session string, rows []store.Login) error {
	var over []store.Login
	stands := false
	now := l.store.Now()
	for _, row := range rows {
		switch {
		case !row.Identity.Same(person):
		case session == "" || row.Identity.Session == "" || row.Identity.Session == session:
			over = append(over, row)
		case now.Before(row.Expires):
			stands = true
		}
	}
	// First the desk, then the logins: if this dies in between the provider hears of it, and tries again.
	if !stands {
		if err := l.desk.EndAll(ctx, person, recorder.EndRevoked, signedOutReason); err != nil {
			return err
		}
	}
	if err := l.drop(ctx, over, "signed out"); err != nil {
		return unavailable(err)
	}
	l.log.InfoContext(ctx, "signed out at the provider", "person", person.Key(), "logins", len(over), "grants_end", !stands)
	return nil
}
