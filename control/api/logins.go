package api

import (
	"context"
	"errors"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
)

// Doorkeeper joins the API to control.Logins; it is Logins.
type Doorkeeper struct {
	Logins *control.Logins
}

// Start implements Logins.
func (d Doorkeeper) Start(ctx context.Context, s LoginStart, session, from string) (LoginStarted, error) {
	l, err := d.Logins.Start(ctx, control.StartLogin{Issuer: s.Issuer, Flow: s.Flow, RedirectURI: s.RedirectURI, From: from,
		Asked: s.asked(), Session: session})
	if err != nil {
		return LoginStarted{}, err
	}
	return LoginStarted{
		Login: l.Login, AuthURL: l.AuthURL, State: l.State, UserCode: l.UserCode,
		VerificationURI: l.VerificationURI, VerificationURIComplete: l.VerificationURIComplete,
		Interval: Duration(l.Interval), Expires: utc(l.Expires),
	}, nil
}

// Finish implements Logins.
func (d Doorkeeper) Finish(ctx context.Context, f LoginFinish, _ string) (LoggedIn, error) {
	l, err := d.Logins.Finish(ctx, control.FinishLogin{Login: f.Login, Code: f.Code, State: f.State, Issuer: f.Issuer})
	if errors.Is(err, control.ErrLoginPending) {
		return LoggedIn{Pending: true}, nil
	}
	if err != nil {
		return LoggedIn{}, err
	}
	person := ShowPerson(l.Identity)
	return LoggedIn{Token: l.Token, Expires: utc(l.Expires), Person: &person}, nil
}

// Whoami implements Logins.
func (d Doorkeeper) Whoami(ctx context.Context, token string) (auth.Identity, error) {
	return d.Logins.Whoami(ctx, token)
}

// Logout implements Logins.
func (d Doorkeeper) Logout(ctx context.Context, token string) error {
	return d.Logins.Logout(ctx, token)
}
