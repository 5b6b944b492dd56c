package auth

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// claims are those that go-oidc leaves to its caller. Providers are sloppy with types, so the ones that
// vary are read by hand.
type claims struct {
	AZP           string          `json:"azp"`
	ACR           string          `json:"acr"`
	AMR           json.RawMessage `json:"amr"`
	AuthTime      json.Number     `json:"auth_time"`
	Email         string          `json:"email"`
	EmailVerified json.RawMessage `json:"email_verified"`
	Name          string          `json:"name"`
}

// identify verifies the ID token of a token response and reads the identity out of it. What the issuer
// leaves out of its ID tokens (groups, often; the e-mail, sometimes) is asked at its userinfo endpoint.
func (p *Provider) identify(ctx context.Context, d *discovered, tok *oauth2.Token, nonce string) (Identity, error) {
	raw, ok := tok.Extra("id_token").(string)
	if !ok || raw == "" {
		return Identity{}, errNoIDToken
	}
	t, err := d.verifier.Verify(ctx, raw)
	if err != nil {
		return Identity{}, fmt.Errorf("ID token: %w", p.overdue(err))
	}
	var c claims
	all := map[string]json.RawMessage{}
	if err := errors.Join(t.Claims(&c), t.Claims(&all)); err != nil {
		return Identity{}, fmt.Errorf("ID token: %w", err)
	}
	if err := p.verifyRest(t, c, nonce); err != nil {
		return Identity{}, fmt.Errorf("ID token: %w", err)
	}
	if t.AccessTokenHash != "" {
		if err := t.VerifyAccessToken(tok.AccessToken); err != nil {
			return Identity{}, fmt.Errorf("ID token: %w", err)
		}
	}
	id := Identity{Issuer: p.cfg.URL, Subject: t.Subject, ACR: c.ACR, AMR: stringsOf(c.AMR)}
	if id.AuthTime, err = authTime(c.AuthTime); err != nil {
		return Identity{}, fmt.Errorf("ID token: %w", err)
	}
	_, hasGroups := lookup(all, p.cfg.GroupsClaim)
	_, hasEmail := all["email"]
	if (!hasGroups || !hasEmail || p.cfg.lacks(all)) && d.op.UserInfoEndpoint() != "" {
		if err := p.userinfo(ctx, d, tok, t.Subject, all); err != nil {
			return Identity{}, err
		}
	}
	p.describe(&id, all)
	return id, nil
}

// verifyRest does what go-oidc names as its caller's business.
func (p *Provider) verifyRest(t *oidc.IDToken, c claims, nonce string) error {
	if t.Subject == "" {
		return errors.New("it names no subject")
	}
	if nonce != "" && subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(nonce)) != 1 {
		return errors.New("its nonce is not that of this login")
	}
	// Core 3.1.3.7: with several audiences it must say which of them asked for it, and that must be us.
	if len(t.Audience) > 1 && c.AZP == "" {
		return errors.New("it has several audiences and no azp")
	}
	if c.AZP != "" && c.AZP != p.cfg.ClientID {
		return fmt.Errorf("it was made for the client %q (azp)", c.AZP)
	}
	if ahead := time.Until(t.IssuedAt); ahead > skew {
		return &SkewError{p.clock.apartBy(ahead)}
	}
	return nil
}

// overdue tells a token that is over from one that only seems to be, because the issuer's clock is behind.
func (p *Provider) overdue(err error) error {
	var over *oidc.TokenExpiredError
	if errors.As(err, &over) {
		if why := p.clock.apartBy(0); why != "" {
			return &SkewError{why}
		}
	}
	return err
}

func authTime(n json.Number) (time.Time, error) {
	if n == "" {
		return time.Time{}, nil
	}
	sec, err := n.Float64()
	if err != nil || sec <= 0 {
		return time.Time{}, errors.New("auth_time is no time")
	}
	at := time.Unix(int64(sec), 0).UTC()
	if at.After(time.Now().Add(skew)) {
		return time.Time{}, errors.New("auth_time is in the future")
	}
	return at, nil
}

// userinfo adds to all the claims that it lacks. What the signed token says stands.
func (p *Provider) userinfo(ctx context.Context, d *discovered, tok *oauth2.Token, subject string, all map[string]json.RawMessage) error {
	info, err := d.op.UserInfo(ctx, oauth2.StaticTokenSource(tok))
	if err != nil {
		return fmt.Errorf("userinfo: %w", transportError(err))
	}
	// Core 5.3.2: a userinfo answer with another subject must not be used.
	if info.Subject != subject {
		return errors.New("userinfo: it is about another subject than the ID token")
	}
	more := map[string]json.RawMessage{}
	if err := info.Claims(&more); err != nil {
		return fmt.Errorf("userinfo: %w", err)
	}
	_, hadEmail := all["email"]
	for name, value := range more {
		// An address and its verification are one statement: never join halves of two documents.
		if name == "email_verified" && hadEmail {
			continue
		}
		if _, ok := all[name]; !ok {
			all[name] = value
		}
	}
	return nil
}

// describe fills in who the person is to readers and to the policy: e-mail, name, groups, and what the
// configuration says of the issuer.
func (p *Provider) describe(id *Identity, all map[string]json.RawMessage) {
	id.Session = stringOf(all["sid"])
	id.Declared = p.cfg.Declared
	id.Name = stringOf(all["name"])
	if id.Name == "" {
		id.Name = stringOf(all["preferred_username"])
	}
	id.Name = visible(id.Name) // at many providers people choose it themselves
	if email := stringOf(all["email"]); email != "" && p.verified(all["email_verified"]) {
		id.Email = email
	} else if email != "" {
		p.log.Warn("the issuer does not call this e-mail verified, it is left out", "subject", id.Subject)
	}
	if raw, ok := lookup(all, p.cfg.GroupsClaim); ok {
		id.Groups = stringsOf(raw)
		slices.Sort(id.Groups)
		id.Groups = slices.Compact(id.Groups)
	}
	p.cfg.pick(id, all)
}

// maxClaim is how many bytes of JSON a claim for conditions may have.
const maxClaim = 4096

// pick keeps those claims that the configuration lists, and of those what a condition can look at.
func (c IssuerConfig) pick(id *Identity, all map[string]json.RawMessage) {
	id.Claims = nil
	for _, name := range c.Claims {
		raw, ok := lookup(all, name)
		var v any
		if !ok || len(raw) > maxClaim || json.Unmarshal(raw, &v) != nil || v == nil {
			continue
		}
		if id.Claims == nil {
			id.Claims = map[string]any{}
		}
		id.Claims[name] = v
	}
}

// lacks reports whether a claim that the configuration lists is not there.
func (c IssuerConfig) lacks(all map[string]json.RawMessage) bool {
	return slices.ContainsFunc(c.Claims, func(name string) bool { _, ok := lookup(all, name); return !ok })
}

// verified reads email_verified, which some issuers send as a string.
func (p *Provider) verified(raw json.RawMessage) bool {
	switch string(raw) {
	case "true", `"true"`:
		return true
	case "":
		return p.cfg.TrustEmail
	default:
		return false
	}
}

// lookup finds a claim by its name, or, if there is none of that name, along its dots:
// "realm_access.roles" is how Keycloak tells roles.
func lookup(all map[string]json.RawMessage, path string) (json.RawMessage, bool) {
	if raw, ok := all[path]; ok {
		return raw, true
	}
	head, rest, ok := strings.Cut(path, ".")
	if !ok {
		return nil, false
	}
	inner := map[string]json.RawMessage{}
	if json.Unmarshal(all[head], &inner) != nil {
		return nil, false
	}
	return lookup(inner, rest)
}

func stringOf(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s) // what is no string is no name
	return s
}

// stringsOf reads a list of strings, or the single string that some issuers send for a list of one.
// Anything else is an empty list: it must never be taken for membership.
func stringsOf(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return slices.DeleteFunc(list, func(s string) bool { return s == "" })
	}
	if s := stringOf(raw); s != "" {
		return []string{s}
	}
	return nil
}
