package auth

import (
	"slices"
	"strings"
	"time"
	"unicode"
)

// Identity is one verified person or workload, as its provider described it at a login.
// It is stored whole with every request and decision, so that an auditor sees what was known then.
type Identity struct {
	Issuer  string `json:"issuer"`         // OIDC issuer URL
	Subject string `json:"subject"`        // OIDC "sub", unique within the issuer, never reused
	Email   string `json:"email"`          // verified e-mail, for people to read; never a key
	Name    string `json:"name,omitempty"` // display name

	Groups []string `json:"groups,omitempty"` // from the issuer's configured groups claim

	// Workload: this is a program, at an issuer that vouches for programs. It asks and connects; it never
	// decides anything about others.
	Workload bool `json:"workload,omitempty"`
	// Session is the provider's own name of the login's session (sid), by which it tells of a sign-out.
	Session string `json:"sid,omitempty"`

	// MFA evidence (OpenID Connect Core section 2, RFC 8176), as the provider asserted it.
	ACR      string    `json:"acr,omitempty"`
	AMR      []string  `json:"amr,omitempty"`
	AuthTime time.Time `json:"auth_time,omitzero"`
	// Declared: the provider asserts nothing of the kind, but the configuration says that nobody logs in
	// there without MFA. That is somebody's word, not evidence, and every record says so.
	Declared bool `json:"mfa_declared,omitempty"`

	// Stale: the provider could not be asked lately, so this is how it was when it last could. It is of one call,
	// and never stored.
	Stale bool `json:"-"`

	Claims map[string]any `json:"claims,omitempty"` // those that the issuer's configuration lists, for conditions
}

// Key names the human: two logins with one key are one person, whatever e-mail or groups they carry.
func (id Identity) Key() string { return id.Issuer + "#" + id.Subject }

// Same reports whether both are the same person. An identity without a subject is nobody, and equals nobody.
func (id Identity) Same(other Identity) bool {
	return id.Subject != "" && id.Key() == other.Key()
}

// SameHuman reports whether both may be one human: one person, or two identities, at whichever issuers, that carry one
// verified e-mail. It is for what nobody may do for themselves: taking two for one denies a word, and gives none.
func (id Identity) SameHuman(other Identity) bool {
	return id.Same(other) || (id.Subject != "" && other.Subject != "" && id.Email != "" && strings.EqualFold(id.Email, other.Email))
}

// Label names the person to people: the e-mail, or, where the provider verifies none, the key. Never the
// display name, which at many providers everybody may choose for themselves. Whatever a provider lets through, it has
// nothing in it that moves a terminal's cursor or turns the direction of a text: database clients show it as it is.
func (id Identity) Label() string {
	label := id.Email
	if label == "" {
		label = id.Key()
	}
	return visible(label)
}

// visible replaces what is not seen as a sign of its own.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// InGroup reports whether the provider put this identity into the group.
func (id Identity) InGroup(group string) bool { return slices.Contains(id.Groups, group) }
