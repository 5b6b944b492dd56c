package protocol

import "strings"

// Name is what a user name at the wire means. A server has to choose how a client proves itself before it
// has shown anything but that name, so the name's form alone decides, whether anybody has it or not:
//
//	g4k2m9x0aaab               a grant's id: its password
//	alice@example.test         an e-mail: a token of the identity provider, by the mechanism that clients have for it
//	oauth:g4k2m9x0aaab         a grant's id: a token of whoever has it, the same way; programs have no e-mail
//	token:alice@example.test   a token where a client can send nothing but a password
//	token:g4k2m9x0aaab
//
// Behind an e-mail "/" and a grant's id or a target's name may choose among several grants; where no e-mail is
// named a target's name chooses as well as a grant's id.
type Name struct {
	Email  string // whose the token must be; empty: it alone says
	Choice string // a grant's id or a target's name
	OAuth  bool   // a token is shown by the mechanism for it
	Token  bool   // a token comes as a password
}

// ParseName takes a user name apart.
func ParseName(user string) Name {
	rest, token := strings.CutPrefix(user, "token:")
	oauth := false
	if !token {
		rest, oauth = strings.CutPrefix(user, "oauth:")
	}
	at := strings.LastIndexByte(rest, '@')
	n := Name{Token: token, OAuth: oauth || at >= 0 && !token}
	switch {
	case at < 0 && !n.ByToken():
	case at < 0:
		n.Choice = rest
	default:
		// In front of the @ a "/" is part of the address.
		n.Email = rest
		if i := strings.IndexByte(rest[at+1:], '/'); i >= 0 {
			n.Email, n.Choice = rest[:at+1+i], rest[at+1+i+1:]
		}
	}
	return n
}

// ByToken reports whether somebody of that name proves it with a token.
func (n Name) ByToken() bool { return n.Token || n.OAuth }

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
	Configuration string // address of the identity provider's description (OpenID Connect Discovery); empty: there is none for people
	Scope         string // what to ask for there
}
