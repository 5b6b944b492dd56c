package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/protocol"
)

// tokenTime is how long a token may take to be verified at the wire: less than a stranger has, who is to
// read that the identity provider does not answer.
const tokenTime = 7 * time.Second

// openTokens makes what verifies tokens that other clients of the issuers show, and their sign-outs.
func (h *house) openTokens() error {
	var all []*auth.Bearer
	h.clocks = map[string][]timekeeper{}
	for _, i := range h.cfg.Issuers {
		secret, err := config.Secret(i.ClientSecret)
		if err != nil {
			return fmt.Errorf("issuer %s: %w", i.URL, err)
		}
		b, err := auth.NewBearer(h.issuer(i, secret), auth.TokenConfig{Audiences: i.Audiences, Clients: i.Clients,
			Opaque: i.Opaque, Scopes: i.TokenScopes, Workloads: i.Workloads})
		if err != nil {
			return err
		}
		all = append(all, b)
		h.clocks[i.URL] = []timekeeper{b}
	}
	var err error
	h.tokens, err = auth.NewBearers(all...)
	return err
}

// timekeeper knows how far an issuer's clock was ahead of ours when it last answered, and when that was.
type timekeeper interface {
	Skew() (time.Duration, time.Time)
}

// collectClocks gives the latest measurement of each issuer's clock; of one that has never answered there is none.
func (h *house) collectClocks(gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	for issuer, keepers := range h.clocks {
		ahead, last := time.Duration(0), time.Time{}
		for _, k := range keepers {
			if by, at := k.Skew(); at.After(last) {
				ahead, last = by, at
			}
		}
		if !last.IsZero() {
			gauge(descSkew, ahead.Seconds(), issuer)
		}
	}
}

// tokens is who a token at the wire stands for: half of protocol.Doorman.
type tokens struct {
	desk    *control.Desk
	issuers auth.Bearers
	engines map[string]string // by target
}

// Offer implements protocol.Doorman.
func (t tokens) Offer() (protocol.Offer, bool) {
	configuration, scope, ok := t.issuers.Offer()
	return protocol.Offer{Configuration: configuration, Scope: scope}, ok
}

// Token implements protocol.Doorman: the token says who it is, an e-mail that is named must agree, and the desk
// has the grant. Programs have none, and name their grant. What a token lacks is said to whoever holds it; where it is not even known whose it is, nothing is.
func (t tokens) Token(ctx context.Context, l protocol.TokenLogin) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	by := auth.People
	if l.Email == "" {
		by |= auth.Workloads
	}
	token, err := t.issuers.Verify(ctx, l.Bearer, by)
	switch {
	case errors.Is(err, auth.ErrToken):
		return "", &protocol.Refusal{Code: protocol.RefuseToken, Public: control.TokenWords(err)}
	case err != nil:
		return "", &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err, Public: "the identity provider can't be reached, so nobody can be let in with a token; " +
			"try again in a minute, or log in with your grant's id and password if you have them"}
	}
	who := token.Identity
	switch {
	case l.Email == "":
	case who.Email == "":
		return "", &protocol.Refusal{Code: protocol.RefuseToken, Public: "your token does not say which verified e-mail you have: ask for the scope email, or name your grant instead, oauth:GRANT or token:GRANT"}
	case !strings.EqualFold(who.Email, l.Email):
		return "", &protocol.Refusal{Code: protocol.RefuseToken, Public: fmt.Sprintf("your token is %s's, and you named %.100q", who.Email, l.Email)}
	}
	grant, err := t.desk.GrantFor(who, l.Choice, func(target string) bool {
		return t.engines[target] == l.Engine && (l.Target == "" || l.Target == target)
	})
	return grant.ID, refusal(err)
}
