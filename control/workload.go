package control

import (
	"context"
	"errors"
	"strings"

	"github.com/curfewdb/curfew/auth"
)

// workload is who shows a token of an issuer of workloads instead of a session token. There is no login:
// the token is good until it expires, and can't be renewed here. Nobody is asked about it again, so what a
// program is granted ends at its time, by a revocation, or with its rule.
func (l *Logins) workload(ctx context.Context, token string) (auth.Identity, error) {
	t, err := l.tokens.Verify(ctx, token, auth.Workloads)
	switch {
	case err == nil:
		return t.Identity, nil
	case errors.Is(err, auth.ErrToken):
		return auth.Identity{}, &Error{Code: CodeUnauthenticated, Public: TokenWords(err),
			Next: "show a new one that was made for Curfew", Err: err}
	case errors.Is(err, auth.ErrUnreachable):
		return auth.Identity{}, unreachable(err)
	}
	l.log.ErrorContext(ctx, "a workload's token can't be verified", "error", err)
	return auth.Identity{}, unreachable(err)
}

// TokenWords is what whoever showed a token may read of why it is refused (auth.ErrToken).
func TokenWords(err error) string {
	_, why, found := strings.Cut(err.Error(), auth.ErrToken.Error()+": ")
	if !found {
		return "your token is not accepted"
	}
	return "your token is not accepted: " + why
}
