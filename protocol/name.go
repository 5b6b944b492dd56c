package protocol

import (
	"context"
	"strings"
)

// Name is what a user name at the wire means. A server has to choose how a client proves itself before it
// has shown anything but that name, so the name's form alone decides, whether anybody has it or not:
//
//	g4k2m9x0aaab               a grant's id: its password
//	alice@example.test         an e-mail: a token of the identity provider, by the mechanism that clients have for it
//	token:alice@example.test   the same token where a client can send nothing but a password
//
// Behind an e-mail "/" and a grant's id or a target's name may choose among several grants.
type Name struct {
	Email  string // empty: the name is a grant's id
	Choice string
	Token  bool // the token comes as a password
}

// ParseName takes a user name apart.
func ParseName(user string) Name {
	rest, token := strings.CutPrefix(user, "token:")
	at := strings.LastIndexByte(rest, '@')
	if at < 0 && !token {
		return Name{}
	}
	n := Name{Email: rest, Token: token}
	// In front of the @ a "/" is part of the address.
	if i := strings.IndexByte(rest[at+1:], '/'); i >= 0 {
		n.Email, n.Choice = rest[:at+1+i], rest[at+1+i+1:]
	}
	return n
}

// ByToken reports whether somebody of that name proves it with a token.
func (n Name) ByToken() bool { return n.Token || n.Email != "" }

// TokenLogin is a token that was shown at the wire instead of a password.
type TokenLogin struct {
	Name
	Bearer string // the token
	// Engine and Target are what the listener serves; an empty Target: all of its engine. The Front leaves
	// that to whoever runs it.
	Engine, Target string
}

// Offer is what a client is told that wants to get itself a token.
type Offer struct {
	Configuration string // address of the identity provider's description (OpenID Connect Discovery)
	Scope         string // what to ask for there
}

// NoTokens is the half of a Doorman who takes none.
type NoTokens struct{}

// Token refuses.
func (NoTokens) Token(context.Context, TokenLogin) (string, error) {
	return "", &Refusal{Code: RefuseToken, Public: "no tokens are taken here: log in with your grant's id and password; `curfew credentials GRANT` shows them"}
}

// Offer has nothing to offer.
func (NoTokens) Offer() (Offer, bool) { return Offer{}, false }
