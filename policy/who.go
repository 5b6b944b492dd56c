package policy

import (
	"slices"

	"github.com/curfewdb/curfew/auth"
)

// Matches reports whether w selects id. An identity without issuer and subject is nobody: not even
// Anyone selects it. A program is selected only where its issuer is named: what was written for people, be it by
// groups or for anyone, is not for whatever a CI system calls its jobs. E-mails are compared without regard to the case of ASCII letters, and of those
// alone, because Unicode folds letters onto each other that a provider keeps apart.
func (w Who) Matches(id auth.Identity) bool {
	if id.Issuer == "" || id.Subject == "" {
		return false
	}
	switch {
	case id.Workload && len(w.Issuers) == 0,
		len(w.Issuers) > 0 && !slices.Contains(w.Issuers, id.Issuer),
		len(w.Subjects) > 0 && !slices.Contains(w.Subjects, id.Subject),
		len(w.Emails) > 0 && !slices.ContainsFunc(w.Emails, func(e string) bool { return e != "" && equalASCII(e, id.Email) }),
		len(w.Groups) > 0 && !slices.ContainsFunc(w.Groups, func(g string) bool { return g != "" && id.InGroup(g) }):
		return false
	}
	return w.Anyone || len(w.Issuers)+len(w.Subjects)+len(w.Emails)+len(w.Groups) > 0
}

func equalASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerASCII(a[i]) != lowerASCII(b[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// covers reports whether the rule is about this target: by its name, or by all of the labels.
func (r *Rule) covers(name string, t Target) bool {
	if named(r.Targets, name) {
		return true
	}
	if len(r.Labels) == 0 {
		return false
	}
	for k, v := range r.Labels {
		if have, ok := t.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// named reports whether a list of target names holds this one; "*" holds all.
func named(list []string, name string) bool {
	return slices.Contains(list, name) || slices.Contains(list, "*")
}
