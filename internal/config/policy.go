package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/policy"
)

// policyFile is policy.yaml as people write it; LoadPolicy turns it into a policy.Policy.
type policyFile struct {
	Targets map[string]policyTarget `yaml:"targets,required"`
	Rules   []policyRule            `yaml:"rules,required"`
	Readers []policyReader          `yaml:"readers"`
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
	Who       policyWho         `yaml:"who,required"`
	Targets   []string          `yaml:"targets"`
	Labels    map[string]string `yaml:"labels"`
	Levels    []string          `yaml:"levels,required"`
	Longest   time.Duration     `yaml:"longest,required"`
	Lapse     time.Duration     `yaml:"lapse"`
	Reason    string            `yaml:"reason"`
	Approvals policyApprovals   `yaml:"approvals,required"`
}

type policyWho struct {
	Groups   []string `yaml:"groups"`
	Emails   []string `yaml:"emails"`
	Subjects []string `yaml:"subjects"`
	Issuers  []string `yaml:"issuers"`
	Anyone   bool     `yaml:"anyone"`
}

type policyApprovals struct {
	Count int       `yaml:"count,required"`
	From  policyWho `yaml:"from"`
}

type policyReader struct {
	Who     policyWho `yaml:"who,required"`
	Targets []string  `yaml:"targets,required"`
}

// LoadPolicy reads a policy file and checks every name in it against the configured targets.
func LoadPolicy(path string, targets map[string]Target) (*policy.Policy, error) {
	text, problems := readFile(path)
	if problems != nil {
		return nil, wrong(problems)
	}
	d := &decoder{file: path}
	var f policyFile
	d.decode(bytes.NewReader(text), &f)
	f.check(d, targets)
	if err := wrong(d.problems); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	p := f.policy(targets)
	p.Text, p.Hash = string(text), "sha256:"+hex.EncodeToString(sum[:])
	return p, nil
}

func (f *policyFile) check(d *decoder, targets map[string]Target) {
	for _, name := range sortedKeys(f.Targets) {
		key := "targets." + name
		if _, ok := targets[name]; !ok && targets != nil {
			d.at(key, "no such target in the configuration%s", hint(name, sortedKeys(targets)))
		}
		levels := f.Targets[name].Levels
		if len(levels) == 0 && d.has(key+".levels") && !d.complained(key+".levels") {
			d.at(key+".levels", "is empty: at least one access level is needed")
		}
		for _, level := range sortedKeys(levels) {
			levels[level].check(d, key+".levels."+level)
		}
	}
	if len(f.Rules) == 0 && d.has("rules") && !d.complained("rules") {
		d.at("rules", "is empty: without a rule nobody gets access")
	}
	names := map[string]bool{}
	for i, r := range f.Rules {
		key := fmt.Sprintf("rules[%d]", i)
		if r.Name != "" && names[r.Name] {
			d.at(key+".name", "a rule named %q is there already", r.Name)
		}
		names[r.Name] = true
		f.checkRule(d, key, r, targets)
	}
	for i, r := range f.Readers {
		key := fmt.Sprintf("readers[%d]", i)
		r.Who.check(d, key+".who")
		f.checkTargets(d, key+".targets", r.Targets)
	}
}

func (l policyLevel) check(d *decoder, key string) {
	if len(l.Roles) == 0 && d.has(key+".roles") && !d.complained(key+".roles") {
		d.at(key+".roles", "is empty: a level is made of at least one group role")
	}
	for i, r := range l.Roles {
		at := fmt.Sprintf("%s.roles[%d]", key, i)
		switch {
		case strings.HasPrefix(r, "curfew_"):
			d.at(at, "%q: roles named curfew_… are Curfew's own", r)
		case len(r) > 63:
			d.at(at, "a role's name has at most 63 bytes")
		}
	}
	if l.Sessions < 0 {
		d.at(key+".sessions", "must not be negative")
	}
	if l.Idle > 0 && l.Idle < policy.ShortestIdle {
		d.at(key+".idle", "%s is too short: a second at least, or 0 for as long as the grant lasts", l.Idle)
	}
}

func (f *policyFile) checkRule(d *decoder, key string, r policyRule, targets map[string]Target) {
	if d.has(key + ".who") {
		r.Who.check(d, key+".who")
	}
	if !d.has(key+".targets") && !d.has(key+".labels") {
		d.at(key, "names no target: add targets: [name] or labels: {key: value}")
	}
	f.checkTargets(d, key+".targets", r.Targets)
	matched := f.checkLabels(d, key+".labels", r.Labels, targets)
	f.checkLevels(d, key+".levels", r, matched)
	if r.Reason != "" && r.Reason != "required" && r.Reason != "optional" {
		d.at(key+".reason", "%q is unknown: required or optional", r.Reason)
	}
	switch n := r.Approvals.Count; {
	case n < 0:
		d.at(key+".approvals.count", "must not be negative")
	case n > 0 && !d.has(key+".approvals.from"):
		d.at(key+".approvals.from", "is missing: who may approve?")
	case n > 0:
		r.Approvals.From.check(d, key+".approvals.from")
	}
}

func (f *policyFile) checkTargets(d *decoder, key string, names []string) {
	if len(names) == 0 && d.has(key) && !d.complained(key) {
		d.at(key, "is empty: name a target, or \"*\" for all")
	}
	for i, name := range names {
		if _, ok := f.Targets[name]; !ok && name != "*" && name != "" {
			d.at(fmt.Sprintf("%s[%d]", key, i), "no target %q in this policy%s", name, hint(name, sortedKeys(f.Targets)))
		}
	}
}

// checkLabels gives the targets that have all the labels.
func (f *policyFile) checkLabels(d *decoder, key string, labels map[string]string, targets map[string]Target) []string {
	if len(labels) == 0 || targets == nil {
		return nil
	}
	var keys []string
	for _, t := range targets {
		keys = append(keys, slices.Collect(maps.Keys(t.Labels))...)
	}
	known := true
	for _, l := range sortedKeys(labels) {
		if !slices.Contains(keys, l) {
			d.at(join(key, l), "no target has a label %q%s", l, hint(l, slices.Compact(slices.Sorted(slices.Values(keys)))))
			known = false
		}
	}
	var matched []string
	for _, name := range sortedKeys(f.Targets) {
		if hasAll(targets[name].Labels, labels) {
			matched = append(matched, name)
		}
	}
	if known && len(matched) == 0 {
		d.at(key, "no target of this policy has these labels")
	}
	return matched
}

// checkLevels: a level must exist on every target that the rule names, and on one of those that it
// selects by labels or "*".
func (f *policyFile) checkLevels(d *decoder, key string, r policyRule, matched []string) {
	if len(r.Levels) == 0 && d.has(key) && !d.complained(key) {
		d.at(key, "is empty: name an access level")
	}
	if slices.Contains(r.Targets, "*") {
		matched = sortedKeys(f.Targets)
	}
	for i, level := range r.Levels {
		at := fmt.Sprintf("%s[%d]", key, i)
		for _, name := range r.Targets {
			if t, ok := f.Targets[name]; ok && !hasKey(t.Levels, level) {
				d.at(at, "target %q has no level %q%s", name, level, hint(level, sortedKeys(t.Levels)))
			}
		}
		found := slices.ContainsFunc(matched, func(name string) bool { return hasKey(f.Targets[name].Levels, level) })
		if len(matched) > 0 && !found {
			d.at(at, "no target that this rule selects has a level %q", level)
		}
	}
}

func (w policyWho) check(d *decoder, key string) {
	named := len(w.Groups) + len(w.Emails) + len(w.Subjects) + len(w.Issuers)
	switch {
	case d.complained(key):
	case named == 0 && !w.Anyone:
		d.at(key, "selects nobody: name groups, emails, subjects or issuers, or write anyone: true")
	case named > 0 && w.Anyone:
		d.at(key+".anyone", "anyone: true beside a narrower selection: remove one of them")
	}
}

func (f *policyFile) policy(targets map[string]Target) *policy.Policy {
	p := &policy.Policy{Targets: map[string]policy.Target{}}
	for name, t := range f.Targets {
		out := policy.Target{Labels: targets[name].Labels, Levels: map[string]policy.Level{}}
		for l, v := range t.Levels {
			out.Levels[l] = policy.Level(v)
		}
		p.Targets[name] = out
	}
	for _, r := range f.Rules {
		if r.Lapse == 0 {
			r.Lapse = policy.DefaultLapse
		}
		p.Rules = append(p.Rules, policy.Rule{
			Name: r.Name, Who: policy.Who(r.Who), Targets: r.Targets, Labels: r.Labels, Levels: r.Levels,
			Longest: r.Longest, Lapse: r.Lapse, Reason: r.Reason != "optional",
			Approvals: policy.Approvals{Count: r.Approvals.Count, From: policy.Who(r.Approvals.From)},
		})
	}
	for _, r := range f.Readers {
		p.Readers = append(p.Readers, policy.Reader{Who: policy.Who(r.Who), Targets: r.Targets})
	}
	return p
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
