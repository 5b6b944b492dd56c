package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Bearers are the issuers whose tokens are looked at. The zero value has none.
type Bearers []*Bearer

// NewBearers checks that a token always leads to one issuer.
func NewBearers(all ...*Bearer) (Bearers, error) {
	opaque := 0
	for _, b := range all {
		if b.take.Opaque != "" {
			opaque++
		}
	}
	if opaque > 1 {
		return nil, errors.New("tokens that say nothing themselves can be taken of one issuer only: each token would be shown to all of them")
	}
	return all, nil
}

// Offer is where people's tokens come from: the first issuer that takes any, and what to ask for there. No
// token is taken of anybody where it is not ok; without a configuration, of programs alone.
func (bs Bearers) Offer() (configuration, scope string, ok bool) {
	for _, b := range bs {
		if len(b.take.Audiences) == 0 {
			continue
		}
		if ok = true; !b.take.Workloads {
			return strings.TrimSuffix(b.cfg.URL, "/") + "/.well-known/openid-configuration", strings.Join(b.take.Scopes, " "), true
		}
	}
	return "", "", ok
}

// Holder is who may have shown a token.
type Holder int

const (
	People    Holder = 1 << iota
	Workloads        // programs
)

func (b *Bearer) holder() Holder {
	if b.take.Workloads {
		return Workloads
	}
	return People
}

// Verify says whose token this is, of those who may have shown it.
func (bs Bearers) Verify(ctx context.Context, raw string, by Holder) (Token, error) {
	if IsJWT(raw) {
		b, err := bs.claimed(raw)
		switch {
		case err != nil:
			return Token{}, err
		case b.holder()&by != 0:
		case b.take.Workloads:
			return Token{}, badToken("%s vouches for programs, and this is for people", b.cfg.URL)
		default:
			return Token{}, badToken("%s vouches for people: log in with curfew login", b.cfg.URL)
		}
		return b.Verify(ctx, raw)
	}
	for _, b := range bs {
		if b.take.Opaque != "" && b.holder()&by != 0 {
			return b.Verify(ctx, raw)
		}
	}
	return Token{}, badToken("it is not a signed one (JWT), and no others are taken here")
}

// Logout verifies a logout token, and gives who is to be told when it was acted upon.
func (bs Bearers) Logout(ctx context.Context, raw string) (*Bearer, Logout, error) {
	b, err := bs.claimed(raw)
	if err != nil {
		return nil, Logout{}, err
	}
	out, err := b.Logout(ctx, raw)
	return b, out, err
}

// claimed gives the issuer that a JWT says it is of, which is not proven by that.
func (bs Bearers) claimed(raw string) (*Bearer, error) {
	if len(raw) > LongestToken {
		return nil, badToken("it is longer than %d bytes", LongestToken)
	}
	_, rest, _ := strings.Cut(raw, ".")
	body, _, _ := strings.Cut(rest, ".")
	var c struct {
		Issuer string `json:"iss"`
	}
	text, err := base64.RawURLEncoding.DecodeString(body)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return nil, badToken("it is no JWT")
	}
	for _, b := range bs {
		if b.cfg.URL == c.Issuer {
			return b, nil
		}
	}
	return nil, badToken("its issuer %s is none that Curfew trusts", fmt.Sprintf("%.100q", c.Issuer))
}
