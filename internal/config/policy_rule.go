package config

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/curfewdb/curfew/policy"
)

const (
	withLastSession = "with-last-session"
	maxParties      = 8
)

func (r policyRule) denies() bool { return r.Effect == "deny" }

func (f *policyFile) checkRules(d *decoder, text string, targets map[string]Target) {
	language, err := policy.NewLanguage()
	if err != nil {
		d.at("rules", "%s", err)
		return
	}
	names := map[string]bool{}
	for i := range f.Rules {
		r, key := &f.Rules[i], fmt.Sprintf("rules[%d]", i)
		if r.Name != "" && names[r.Name] {
			d.at(key+".name", "a rule named %q is there already", r.Name)
		}
		names[r.Name] = true
		for _, k := range []string{"longest", "approvals"} {
			if !r.denies() && !d.has(key+"."+k) && !d.complained(key) {
				d.at(key+"."+k, "is missing")
			}
		}
		f.checkScope(d, key, *r, targets)
		r.checkCondition(d, text, key+".when", language)
		switch r.Effect {
		case "deny":
			r.checkDenies(d, key)
		case "", "allow":
			r.checkGives(d, key)
		default:
			d.at(key+".effect", "%q is unknown: allow or deny", r.Effect)
		}
	}
}

// checkScope: whom and what the rule is about.
func (f *policyFile) checkScope(d *decoder, key string, r policyRule, targets map[string]Target) {
	if d.has(key + ".who") {
		r.Who.check(d, key+".who")
	}
	if !d.has(key+".targets") && !d.has(key+".labels") {
		d.at(key, "names no target: add targets: [name] or labels: {key: value}")
	}
	f.checkTargets(d, key+".targets", r.Targets)
	matched := f.checkLabels(d, key+".labels", r.Labels, targets)
	f.checkLevels(d, key+".levels", r, matched)
}

// checkCondition tells of each mistake where it stands, be that in the middle of a block of text.
func (r *policyRule) checkCondition(d *decoder, text, key string, language *policy.Language) {
	n := d.formulas[key]
	if n == nil {
		return
	}
	var mistakes []policy.Mistake
	r.condition, mistakes = language.Compile(r.When)
	for _, m := range mistakes {
		line, column := place(text, n, m.Line, m.Column)
		d.add(line, key, "column %d: %s", column, m.Message)
	}
	if r.condition != nil {
		line, _ := place(text, n, 1, 1)
		r.condition.Place = fmt.Sprintf("%s:%d", d.file, line)
	}
}

// checkDenies: a rule that denies says who, what and when; there is nothing that it could say of a grant.
func (r policyRule) checkDenies(d *decoder, key string) {
	for _, k := range []string{"longest", "lapse", "reason", "ticket", "mfa", "approvals", "break_glass", "review", "limits", "ends", "record"} {
		if d.has(key + "." + k) {
			d.at(key+"."+k, "a rule that denies gives nothing: remove it")
		}
	}
}

// checkGives: the terms of a rule that gives something.
func (r policyRule) checkGives(d *decoder, key string) {
	if r.Reason != "" && r.Reason != "required" && r.Reason != "optional" {
		d.at(key+".reason", "%q is unknown: required or optional", r.Reason)
	}
	if r.Ends != "" && r.Ends != withLastSession && r.Ends != "on-time" {
		d.at(key+".ends", "%q is unknown: on-time or %s", r.Ends, withLastSession)
	}
	if p := r.Record.Parameters; p != "" && p != "full" && p != policy.ParametersTypes {
		d.at(key+".record.parameters", "%q is unknown: full, or %s, which leaves their values out", p, policy.ParametersTypes)
	}
	if r.Limits.Sessions < 0 {
		d.at(key+".limits.sessions", "must not be negative")
	}
	if r.Limits.Idle > 0 && r.Limits.Idle < policy.ShortestIdle {
		d.at(key+".limits.idle", "%s is too short: a second at least", r.Limits.Idle)
	}
	if r.Review != nil && d.has(key+".review.by") {
		r.Review.By.check(d, key+".review.by")
	}
	r.Ticket.check(d, key+".ticket")
	r.MFA.check(d, key+".mfa")
	r.Approvals.check(d, key+".approvals")
	if r.BreakGlass {
		r.checkGlass(d, key)
	}
}

// checkGlass: breaking the glass waits for nobody; so it takes a reason, proof of who it is, and somebody
// who looks at it afterwards.
func (r policyRule) checkGlass(d *decoder, key string) {
	if r.Approvals.Count > 0 || len(r.Approvals.Parties) > 0 {
		d.at(key+".approvals", "breaking the glass waits for nobody: write count: 0")
	}
	if r.Reason == "optional" {
		d.at(key+".reason", "breaking the glass takes a reason: remove it")
	}
	if r.MFA == nil {
		d.at(key+".mfa", "is missing: what must the login of somebody who breaks the glass show?")
	}
	if r.Review == nil {
		d.at(key+".review", "is missing: until when must somebody else have looked at it?")
	}
}

func (t *policyTicket) check(d *decoder, key string) {
	if t == nil {
		return
	}
	if _, err := policy.NewTicketRule(t.Pattern, t.Confirm); err != nil && t.Pattern != "" {
		d.at(key+".pattern", "is not a regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	if t.Confirm == "" {
		return
	}
	switch u, err := url.Parse(t.Confirm); {
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		d.at(key+".confirm", "must be an address like https://tickets.example.com/curfew")
	case u.User != nil:
		d.at(key+".confirm", "a password does not belong in this file")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		d.at(key+".confirm", "https:// is required off loopback")
	}
}

func (m *policyMFA) check(d *decoder, key string) {
	if m == nil || d.complained(key) {
		return
	}
	if len(m.ACR)+len(m.AMR) == 0 && m.Within == 0 {
		d.at(key, "asks for nothing: name acr, amr or within")
	}
}

func (a policyApprovals) check(d *decoder, key string) {
	if !d.has(key) || d.complained(key) {
		return
	}
	for i, w := range a.Parties {
		w.check(d, fmt.Sprintf("%s.parties[%d]", key, i))
	}
	a.MFA.check(d, key+".mfa")
	switch n := a.Count; {
	case !d.has(key+".count") && !d.has(key+".parties"):
		d.at(key+".count", "is missing")
	case n < 0:
		d.at(key+".count", "must not be negative")
	case len(a.Parties) > maxParties:
		d.at(key+".parties", "%d parties: %d at most", len(a.Parties), maxParties)
	case d.has(key+".parties") && len(a.Parties) == 0 && !d.complained(key+".parties"):
		d.at(key+".parties", "is empty: name a party, or remove the key")
	case d.has(key+".count") && n < len(a.Parties):
		d.at(key+".count", "%d is fewer than there are parties: leave it out, or write %d or more", n, len(a.Parties))
	case d.has(key+".from") && n+len(a.Parties) > 0:
		a.From.check(d, key+".from")
	case n > len(a.Parties) && len(a.Parties) == 0:
		d.at(key+".from", "is missing: who may approve?")
	}
}

func (f *policyFile) checkFreezes(d *decoder) {
	names := map[string]bool{}
	for i, z := range f.Freezes {
		key := fmt.Sprintf("freezes[%d]", i)
		if z.Name != "" && names[z.Name] {
			d.at(key+".name", "a freeze named %q is there already", z.Name)
		}
		names[z.Name] = true
		if !z.From.IsZero() && !z.To.IsZero() && !z.From.Before(z.To) {
			d.at(key+".to", "is not after from")
		}
	}
}
