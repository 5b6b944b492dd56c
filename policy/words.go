package policy

import (
	"fmt"
	"strings"
	"time"
)

// Words says whom w selects: "group leads or owners".
func (w Who) Words() string {
	var parts []string
	add := func(word string, values []string) {
		if len(values) > 0 {
			parts = append(parts, word+strings.Join(values, " or "))
		}
	}
	if w.Anyone {
		parts = append(parts, "anybody")
	}
	add("group ", w.Groups)
	add("", w.Emails)
	add("subject ", w.Subjects)
	add("issuer ", w.Issuers)
	if len(parts) == 0 {
		return "nobody"
	}
	return strings.Join(parts, ", ")
}

// Words says who must agree: "2 people: 1 of group leads and 1 of group security".
func (a Approvals) Words() string {
	n := a.Needed()
	if n <= 0 {
		return "nobody: it is granted at once"
	}
	if len(a.Parties) == 0 {
		return fmt.Sprintf("%d of %s", n, a.From.Words())
	}
	parties := make([]string, len(a.Parties))
	for i, w := range a.Parties {
		parties[i] = "1 of " + w.Words()
	}
	all := strings.Join(parties, " and ")
	if more := n - len(parties); more > 0 {
		all += fmt.Sprintf(" and %d more of any of them", more)
		if !a.From.empty() {
			all += " or of " + a.From.Words()
		}
	}
	return all
}

func (a Approvals) sentence() string {
	if a.Needed() <= 0 {
		return "granted at once"
	}
	return "approved by " + a.Words()
}

func (w Who) empty() bool {
	return !w.Anyone && len(w.Groups)+len(w.Emails)+len(w.Subjects)+len(w.Issuers) == 0
}

// words says what a login must be: "with amr mfa or otp, at most 15m old".
func (m MFA) words() string {
	var kinds, all []string
	if len(m.ACR) > 0 {
		kinds = append(kinds, "acr "+strings.Join(m.ACR, " or "))
	}
	if len(m.AMR) > 0 {
		kinds = append(kinds, "amr "+strings.Join(m.AMR, " or "))
	}
	if len(kinds) > 0 {
		all = append(all, "with "+strings.Join(kinds, " or "))
	}
	if m.Within > 0 {
		all = append(all, "at most "+span(m.Within)+" old")
	}
	return strings.Join(all, ", ")
}

// Words says what the new login must show: "amr otp, at most 15m old".
func (s StepUp) Words() string { return strings.TrimPrefix(MFA(s).words(), "with ") }

// line gives the condition's text on one line.
func (c *Condition) line() string {
	if c == nil {
		return ""
	}
	return strings.Join(strings.Fields(c.Text), " ")
}

// Words says the limits: "1 session at once, 10m idle".
func (l Limits) Words() string {
	var all []string
	if l.Sessions > 0 {
		all = append(all, fmt.Sprintf("%d at once", l.Sessions))
	}
	if l.Idle > 0 {
		all = append(all, span(l.Idle)+" idle")
	}
	if l.Rows > 0 {
		all = append(all, fmt.Sprintf("%d rows", l.Rows))
	}
	if l.Bytes > 0 {
		all = append(all, fmt.Sprintf("%d bytes", l.Bytes))
	}
	return strings.Join(all, ", ")
}

func ago(d time.Duration) string { return span(d.Round(time.Second)) + " ago" }
