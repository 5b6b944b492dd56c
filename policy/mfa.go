package policy

import (
	"slices"
	"time"

	"github.com/curfewdb/curfew/auth"
)

// MFA is what a login must show: a context class (acr) or a method (amr) that is among those named, and a
// moment of proof that is not longer ago than Within. What is not named is not asked for.
type MFA struct {
	ACR    []string      `json:"acr,omitempty"`
	AMR    []string      `json:"amr,omitempty"`
	Within time.Duration `json:"within,omitempty"`
}

// StepUp is a new login that would do what the present one does not.
type StepUp MFA

// Met reports whether a login shows what m asks for. An issuer that is declared to guarantee MFA satisfies
// any strength, and no age: for that it has to say when the person proved who they are.
func (m MFA) Met(who auth.Identity, now time.Time) bool {
	return m.strong(who) && m.recent(who, now)
}

func (m MFA) strong(who auth.Identity) bool {
	if len(m.ACR)+len(m.AMR) == 0 || who.Declared {
		return true
	}
	return (who.ACR != "" && slices.Contains(m.ACR, who.ACR)) ||
		slices.ContainsFunc(who.AMR, func(method string) bool { return method != "" && slices.Contains(m.AMR, method) })
}

func (m MFA) recent(who auth.Identity, now time.Time) bool {
	return m.Within == 0 || (!who.AuthTime.IsZero() && now.Sub(who.AuthTime) <= m.Within)
}

func (m *MFA) equal(n *MFA) bool {
	if m == nil || n == nil {
		return m == n
	}
	return m.Within == n.Within && slices.Equal(m.ACR, n.ACR) && slices.Equal(m.AMR, n.AMR)
}
