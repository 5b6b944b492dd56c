package api

import (
	"context"
	"io"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// Logins turns people into identities and back.
//
// Start with a session's token begins the login that is to take that session's place: the same person's.
// Finish answers Pending while a device login is not finished. Whoami and Logout answer an error with
// CodeUnauthenticated for a token that is unknown, expired or was logged out.
type Logins interface {
	Start(ctx context.Context, s LoginStart, session, from string) (LoginStarted, error)
	Finish(ctx context.Context, f LoginFinish, from string) (LoggedIn, error)
	Whoami(ctx context.Context, token string) (auth.Identity, error)
	Logout(ctx context.Context, token string) error
}

// Requests is the desk's first half: from the wish to the decision.
//
// Wait answers as soon as the request is not open any more, or with ctx's error.
type Requests interface {
	Targets(ctx context.Context, who auth.Identity) ([]Target, error)
	Ask(ctx context.Context, who auth.Identity, ask Ask) (policy.Request, error)
	Decide(ctx context.Context, who auth.Identity, id string, approve bool, comment string) (policy.Request, error)
	CancelRequest(ctx context.Context, who auth.Identity, id string) (policy.Request, error)
	Comment(ctx context.Context, who auth.Identity, id, text string) (policy.Request, error)
	// Extend asks for more time under a grant: a request like any other.
	Extend(ctx context.Context, who auth.Identity, grant string, e Extend) (policy.Request, error)
	Requests(ctx context.Context, who auth.Identity, f RequestFilter) ([]policy.Request, error)
	Request(ctx context.Context, who auth.Identity, id string) (policy.Request, error)
	Wait(ctx context.Context, who auth.Identity, id string) (policy.Request, error)
}

// Grants is the desk's second half: from the grant to its end.
//
// Receipt gives nil while there is none; it is asked only for a grant that has ended and that Grant has shown to who.
type Grants interface {
	Grants(ctx context.Context, who auth.Identity, f GrantFilter) ([]policy.Grant, error)
	Grant(ctx context.Context, who auth.Identity, id string) (policy.Grant, error)
	Receipt(ctx context.Context, g policy.Grant) (*Receipt, error)
	Password(ctx context.Context, who auth.Identity, grant string) (Credentials, error)
	Release(ctx context.Context, who auth.Identity, id string) (policy.Grant, error)
	Revoke(ctx context.Context, who auth.Identity, id, reason string) (policy.Grant, error)
	EngineOf(target string) string
}

// Sessions lists sessions, opens their recordings, and ends them.
//
// Recording has authorised the reader and put the reading on the ledger before it returns.
type Sessions interface {
	Sessions(ctx context.Context, who auth.Identity, f SessionFilter) ([]Session, error)
	Session(ctx context.Context, who auth.Identity, id string) (Session, error)
	Recording(ctx context.Context, who auth.Identity, session, from string) (io.ReadCloser, error)
	// Kill gives the session's grant, which goes on unless it was revoked.
	Kill(ctx context.Context, who auth.Identity, session string, k Kill) (policy.Grant, error)
}

// Reviews is what somebody else must look at, and what they say.
type Reviews interface {
	Reviews(ctx context.Context, who auth.Identity, f ReviewFilter) ([]Review, error)
	Review(ctx context.Context, who auth.Identity, id string, r Reviewed) (Review, error)
}

// Evidence is what leaves the house.
//
// Export has authorised the reader, found that there is something to export, and put the reading on the
// ledger before it returns; the function that it returns then writes the stream.
type Evidence interface {
	Export(ctx context.Context, who auth.Identity, s Scope, format, from string) (func(ctx context.Context, w io.Writer) error, error)
	Checkpoint(ctx context.Context) ([]byte, error)
	VerifierKey() string
}
