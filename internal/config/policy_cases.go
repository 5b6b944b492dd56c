package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// casesFile is policy.cases.yaml, beside policy.yaml: cases that would make that one too long.
type casesFile struct {
	Labels map[string]map[string]string `yaml:"labels"` // of the targets, where no configuration says
	People map[string]policyPerson      `yaml:"people"`
	Cases  []policyCase                 `yaml:"cases,required"`
}

// policyPerson is what a login says of somebody; the names are those of curfew whoami -o json.
type policyPerson struct {
	Issuer   string         `yaml:"issuer"`
	Subject  string         `yaml:"subject"`
	Email    string         `yaml:"email"`
	Name     string         `yaml:"name"`
	Groups   []string       `yaml:"groups"`
	ACR      string         `yaml:"acr"`
	AMR      []string       `yaml:"amr"`
	AuthTime time.Time      `yaml:"auth_time"`
	AuthAge  time.Duration  `yaml:"auth_age"`
	Declared bool           `yaml:"mfa_declared"`
	Workload bool           `yaml:"workload"`
	Claims   map[string]any `yaml:"claims"`
}

type policyCase struct {
	Case    string        `yaml:"case,required"`
	Who     string        `yaml:"who,required"`
	At      time.Time     `yaml:"at"`
	Asks    policyAsk     `yaml:"asks,required"`
	History policyHistory `yaml:"history"`
	Approve []string      `yaml:"approve"`
	Deny    []string      `yaml:"deny"`
	Expect  policyExpect  `yaml:"expect,required"`
}

type policyAsk struct {
	Target     string        `yaml:"target,required"`
	Level      string        `yaml:"level,required"`
	For        time.Duration `yaml:"for"`
	Start      time.Time     `yaml:"start"`
	Reason     string        `yaml:"reason"`
	Ticket     string        `yaml:"ticket"`
	BreakGlass bool          `yaml:"break_glass"`
}

type policyHistory struct {
	Grants      []policyPast `yaml:"grants"`
	OpenReviews int          `yaml:"open_reviews"`
	Debt        bool         `yaml:"debt"`
}

type policyPast struct {
	Target     string        `yaml:"target,required"`
	Level      string        `yaml:"level,required"`
	Ago        time.Duration `yaml:"ago,required"`
	BreakGlass bool          `yaml:"break_glass"`
}

type policyExpect struct {
	Allowed   string `yaml:"allowed"`
	Denied    string `yaml:"denied"`
	Refused   string `yaml:"refused"`
	StepUp    string `yaml:"step_up"`
	Failed    string `yaml:"failed"`
	Approvals *int   `yaml:"approvals"`
	From      string `yaml:"from"`
	Then      string `yaml:"then"`
}

const (
	defaultIssuer = "https://issuer.example.com"
	defaultFor    = 30 * time.Minute
)

// caseTime is when a case plays that doesn't say: a Thursday, at noon.
var caseTime = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// Book is a policy with its cases, and the people that they are about.
type Book struct {
	Policy *policy.Policy
	Cases  []policy.Case
	people map[string]policyPerson
}

// Person gives somebody of the cases, as they are at a time.
func (b *Book) Person(name string, now time.Time) (auth.Identity, bool) {
	p, known := b.people[name]
	return p.identity(name, now), known
}

// LoadBook reads a policy together with its cases: those in the file, and those in the file that is named
// like it and ends in .cases.yaml. Without targets, labels are those that the latter gives.
func LoadBook(path string, targets map[string]Target) (*Book, error) {
	beside := strings.TrimSuffix(path, filepath.Ext(path)) + ".cases.yaml"
	d, f := &decoder{file: beside}, casesFile{}
	text, problems := readFile(beside)
	switch _, err := os.Stat(beside); {
	case os.IsNotExist(err):
	case problems != nil:
		d.problems = problems
	default:
		d.decode(bytes.NewReader(text), &f)
	}
	if targets == nil && f.Labels != nil {
		targets = map[string]Target{}
	}
	book, err := loadPolicy(path, labelled(path, targets, f.Labels))
	if err != nil {
		return nil, together(err, wrong(d.problems))
	}
	for name, p := range f.People {
		if _, twice := book.people[name]; twice {
			d.at("people."+name, "is in %s already", path)
		}
		book.people[name] = p
	}
	book.Cases = append(book.Cases, casesOf(d, book.people, f.Cases, rulesOf(book.Policy))...)
	if err := wrong(d.problems); err != nil {
		return nil, err
	}
	return book, nil
}

// labelled adds the labels that a file of cases gives, and the policy's own targets, which then have none.
func labelled(path string, targets map[string]Target, labels map[string]map[string]string) map[string]Target {
	if targets == nil || labels == nil {
		return targets
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return targets
	}
	var f policyFile
	(&decoder{file: path}).decode(bytes.NewReader(text), &f)
	for name := range f.Targets {
		if _, known := targets[name]; !known {
			targets[name] = Target{Labels: labels[name]}
		}
	}
	return targets
}

func rulesOf(p *policy.Policy) (rules []policyRule) {
	for _, r := range p.Rules {
		rules = append(rules, policyRule{Name: r.Name, Effect: map[bool]string{true: "deny"}[r.Deny]})
	}
	return rules
}

// ReadIdentity reads what is known of somebody from a file: YAML, or the JSON of curfew whoami -o json.
func ReadIdentity(path string, now time.Time) (auth.Identity, error) {
	text, problems := readFile(path)
	if problems != nil {
		return auth.Identity{}, wrong(problems)
	}
	d, p := &decoder{file: path}, policyPerson{}
	d.decode(bytes.NewReader(text), &p)
	if p.Subject == "" {
		p.Subject = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	return p.identity(p.Subject, now), wrong(d.problems)
}

func (p policyPerson) identity(name string, now time.Time) auth.Identity {
	id := auth.Identity{
		Issuer: p.Issuer, Subject: p.Subject, Email: p.Email, Name: p.Name, Groups: p.Groups, ACR: p.ACR, AMR: p.AMR,
		AuthTime: p.AuthTime, Declared: p.Declared, Workload: p.Workload, Claims: p.Claims,
	}
	if id.Issuer == "" {
		id.Issuer = defaultIssuer
	}
	if id.Subject == "" {
		id.Subject = name
	}
	if id.Email == "" && !id.Workload && !strings.Contains(id.Subject, "@") {
		id.Email = id.Subject + "@example.com"
	}
	if p.AuthAge > 0 {
		id.AuthTime = now.Add(-p.AuthAge)
	}
	return id
}

// ReadHistory reads somebody's past from a file, as a case's history is written.
func ReadHistory(path string, now time.Time) (policy.Facts, error) {
	text, problems := readFile(path)
	if problems != nil {
		return policy.Facts{}, wrong(problems)
	}
	d, h := &decoder{file: path}, policyHistory{}
	d.decode(bytes.NewReader(text), &h)
	return h.facts(now), wrong(d.problems)
}

// ParseTime reads a moment as the files have it.
func ParseTime(s string) (time.Time, error) { return parseMoment(s) }

// casesOf makes the cases of a file, and reports what they speak of that there is not.
func casesOf(d *decoder, people map[string]policyPerson, cases []policyCase, rules []policyRule) (out []policy.Case) {
	names := map[string]bool{}
	for i, c := range cases {
		key := fmt.Sprintf("cases[%d]", i)
		if c.Case != "" && names[c.Case] {
			d.at(key+".case", "a case of this name is there already")
		}
		names[c.Case] = true
		if c.At.IsZero() {
			c.At = caseTime
		}
		someone := func(key, name string) auth.Identity {
			p, known := people[name]
			if !known && name != "" {
				d.at(key, "nobody of this name under people%s", hint(name, sortedKeys(people)))
			}
			return p.identity(name, c.At)
		}
		one := policy.Case{
			Name: c.Case, Place: fmt.Sprintf("%s:%d", d.file, d.lines[key]), Who: someone(key+".who", c.Who), At: c.At,
			Ask: c.Asks.ask(), Facts: c.History.facts(c.At), Expect: c.Expect.expect(d, key+".expect", rules),
		}
		for j, name := range c.Approve {
			one.Approve = append(one.Approve, someone(fmt.Sprintf("%s.approve[%d]", key, j), name))
		}
		for j, name := range c.Deny {
			one.Deny = append(one.Deny, someone(fmt.Sprintf("%s.deny[%d]", key, j), name))
		}
		out = append(out, one)
	}
	return out
}

func (a policyAsk) ask() policy.Ask {
	if a.For == 0 {
		a.For = defaultFor
	}
	return policy.Ask{
		Target: a.Target, Level: a.Level, Duration: a.For, Start: a.Start, Reason: a.Reason, Ticket: a.Ticket, BreakGlass: a.BreakGlass,
	}
}

func (h policyHistory) facts(at time.Time) policy.Facts {
	f := policy.Facts{OpenReviews: h.OpenReviews, Debt: h.Debt}
	for _, g := range h.Grants {
		f.Grants = append(f.Grants, policy.Past{Target: g.Target, Level: g.Level, Start: at.Add(-g.Ago), BreakGlass: g.BreakGlass})
	}
	return f
}

func (e policyExpect) expect(d *decoder, key string, rules []policyRule) policy.Expect {
	said := 0
	for _, s := range []string{e.Allowed, e.Denied, e.Refused, e.StepUp, e.Failed} {
		if s != "" {
			said++
		}
	}
	if said != 1 && d.has(key) && !d.complained(key) {
		d.at(key, "say one of allowed: RULE, denied: RULE, refused: WORDS, step_up: WORDS, failed: RULE")
	}
	if e.Allowed == "" && (e.Approvals != nil || e.From != "" || e.Then != "") {
		d.at(key, "approvals, from and then go with allowed")
	}
	e.named(d, key, rules)
	if status := []string{"", "open", "approved", "denied"}; !slices.Contains(status, e.Then) {
		d.at(key+".then", "%q is unknown: open, approved or denied", e.Then)
	}
	return policy.Expect{
		Allowed: e.Allowed, Denied: e.Denied, Refused: e.Refused, StepUp: e.StepUp, Failed: e.Failed,
		Approvals: e.Approvals, From: e.From, Then: policy.Status(e.Then),
	}
}

// named: the rules that are expected to decide are there.
func (e policyExpect) named(d *decoder, key string, rules []policyRule) {
	names := func(which func(policyRule) bool) (names []string) {
		for _, r := range rules {
			if which(r) {
				names = append(names, r.Name)
			}
		}
		return names
	}
	for k, c := range map[string]struct {
		name  string
		which func(policyRule) bool
	}{
		"allowed": {e.Allowed, func(r policyRule) bool { return !r.denies() }},
		"denied":  {e.Denied, policyRule.denies},
		"failed":  {e.Failed, func(policyRule) bool { return true }},
	} {
		if known := names(c.which); c.name != "" && rules != nil && !slices.Contains(known, c.name) {
			d.at(key+"."+k, "no rule %q that could%s", c.name, hint(c.name, known))
		}
	}
}

// LoadTargets gives the targets of a configuration, and the policy that it names, for what has to do with
// policies alone: what else is wrong with it is not asked.
func LoadTargets(path string) (map[string]Target, string, error) {
	c, problems := load(path, nil)
	if c == nil || len(c.Targets) == 0 {
		return nil, "", wrong(problems)
	}
	return c.Targets, c.Policy, nil
}

// HasPeople reports whether the policy names any.
func (b *Book) HasPeople() bool { return len(b.people) > 0 }
