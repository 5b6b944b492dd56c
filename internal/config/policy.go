package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/curfewdb/curfew/policy"
)

// policyFile is policy.yaml as people write it; LoadPolicy turns it into a policy.Policy.
type policyFile struct {
	Targets map[string]policyTarget `yaml:"targets,required"`
	Rules   []policyRule            `yaml:"rules,required"`
	Readers []policyReader          `yaml:"readers"`
	Freezes []policyFreeze          `yaml:"freezes"`

	Lockdown bool `yaml:"lockdown"`

	People map[string]policyPerson `yaml:"people"` // whom the cases are about
	Cases  []policyCase            `yaml:"cases"`
}

type policyTarget struct {
	Levels map[string]policyLevel `yaml:"levels,required"`
}

type policyLevel struct {
	Roles                []string `yaml:"roles,required"`
	SetRole              bool     `yaml:"set_role"`
	PreparedTransactions bool     `yaml:"prepared_transactions"`
	LocalInfile          bool     `yaml:"local_infile"`
	Sessions             int      `yaml:"sessions"`

	Idle time.Duration `yaml:"idle,zero"`
}

type policyRule struct {
	Name      string            `yaml:"name,required"`
	Effect    string            `yaml:"effect"`
	Who       policyWho         `yaml:"who,required"`
	Targets   []string          `yaml:"targets"`
	Labels    map[string]string `yaml:"labels"`
	Levels    []string          `yaml:"levels,required"`
	When      string            `yaml:"when,formula"`
	Longest   time.Duration     `yaml:"longest"`
	Lapse     time.Duration     `yaml:"lapse"`
	Reason    string            `yaml:"reason"`
	Ticket    *policyTicket     `yaml:"ticket"`
	MFA       *policyMFA        `yaml:"mfa"`
	Approvals policyApprovals   `yaml:"approvals"`

	BreakGlass bool          `yaml:"break_glass"`
	Review     *policyReview `yaml:"review"`
	Limits     policyLimits  `yaml:"limits"`
	Ends       string        `yaml:"ends"`
	Record     policyRecord  `yaml:"record"`

	condition *policy.Condition // what When says, once it is checked
}

type policyTicket struct {
	Pattern string `yaml:"pattern,required"`
	Confirm string `yaml:"confirm"`
}

type policyMFA struct {
	ACR    []string      `yaml:"acr"`
	AMR    []string      `yaml:"amr"`
	Within time.Duration `yaml:"within"`
}

type policyReview struct {
	Within time.Duration `yaml:"within,required"`
	By     policyWho     `yaml:"by"`
}

type policyLimits struct {
	Sessions int           `yaml:"sessions"`
	Idle     time.Duration `yaml:"idle"`
	Rows     uint64        `yaml:"rows"`
	Bytes    uint64        `yaml:"bytes,size"`
}

type policyRecord struct {
	Parameters string `yaml:"parameters"`
}

type policyFreeze struct {
	Name string    `yaml:"name,required"`
	From time.Time `yaml:"from,required"`
	To   time.Time `yaml:"to,required"`
}

type policyWho struct {
	Groups   []string `yaml:"groups"`
	Emails   []string `yaml:"emails"`
	Subjects []string `yaml:"subjects"`
	Issuers  []string `yaml:"issuers"`
	Anyone   bool     `yaml:"anyone"`
}

type policyApprovals struct {
	Count   int         `yaml:"count"`
	From    policyWho   `yaml:"from"`
	Parties []policyWho `yaml:"parties"`
	MFA     *policyMFA  `yaml:"mfa"`
}

type policyReader struct {
	Who     policyWho `yaml:"who,required"`
	Targets []string  `yaml:"targets,required"`
}

// LoadPolicy reads a policy file and checks every name in it against the configured targets.
func LoadPolicy(path string, targets map[string]Target) (*policy.Policy, error) {
	book, err := loadPolicy(path, targets)
	if err != nil {
		return nil, err
	}
	return book.Policy, nil
}

func loadPolicy(path string, targets map[string]Target) (*Book, error) {
	text, problems := readFile(path)
	if problems != nil {
		return nil, wrong(problems)
	}
	d := &decoder{file: path}
	var f policyFile
	d.decode(bytes.NewReader(text), &f)
	f.check(d, string(text), targets)
	cases := casesOf(d, f.People, f.Cases, f.Rules)
	if err := wrong(d.problems); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	p := f.policy(targets)
	p.Text, p.Hash = string(text), "sha256:"+hex.EncodeToString(sum[:])
	if f.People == nil {
		f.People = map[string]policyPerson{}
	}
	return &Book{Policy: p, Cases: cases, people: f.People}, nil
}

func (f *policyFile) policy(targets map[string]Target) *policy.Policy {
	p := &policy.Policy{Targets: map[string]policy.Target{}, Lockdown: f.Lockdown}
	for name, t := range f.Targets {
		out := policy.Target{Labels: targets[name].Labels, Levels: map[string]policy.Level{}}
		for l, v := range t.Levels {
			out.Levels[l] = policy.Level(v)
		}
		p.Targets[name] = out
	}
	for _, r := range f.Rules {
		p.Rules = append(p.Rules, r.rule())
	}
	for _, r := range f.Readers {
		p.Readers = append(p.Readers, policy.Reader{Who: policy.Who(r.Who), Targets: r.Targets})
	}
	for _, z := range f.Freezes {
		p.Freezes = append(p.Freezes, policy.Freeze(z))
	}
	return p
}

func (r policyRule) rule() policy.Rule {
	out := policy.Rule{
		Name: r.Name, Deny: r.denies(), Who: policy.Who(r.Who), Targets: r.Targets, Labels: r.Labels, Levels: r.Levels, When: r.condition,
	}
	if r.denies() {
		return out
	}
	out.Longest, out.Lapse, out.Reason = r.Longest, r.Lapse, r.Reason != "optional"
	if out.Lapse == 0 {
		out.Lapse = policy.DefaultLapse
	}
	out.Approvals = policy.Approvals{Count: max(r.Approvals.Count, len(r.Approvals.Parties)), From: policy.Who(r.Approvals.From), MFA: r.Approvals.MFA.mfa()}
	for _, w := range r.Approvals.Parties {
		out.Approvals.Parties = append(out.Approvals.Parties, policy.Who(w))
	}
	out.MFA, out.BreakGlass, out.Limits, out.WithLastSession = r.MFA.mfa(), r.BreakGlass, policy.Limits(r.Limits), r.Ends == withLastSession
	if r.Record.Parameters == policy.ParametersTypes {
		out.Record.Parameters = policy.ParametersTypes
	}
	if r.Review != nil {
		out.Review = &policy.Review{Within: r.Review.Within, By: policy.Who(r.Review.By)}
	}
	if r.Ticket != nil {
		// A pattern that can't be compiled was a problem of the file already.
		out.Ticket, _ = policy.NewTicketRule(r.Ticket.Pattern, r.Ticket.Confirm)
	}
	return out
}

func (m *policyMFA) mfa() *policy.MFA {
	if m == nil {
		return nil
	}
	out := policy.MFA(*m)
	return &out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func hasKey[V any](m map[string]V, k string) bool { _, ok := m[k]; return ok }

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}
