package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/curfewdb/curfew/policy"
)

func (f *policyFile) check(d *decoder, text string, targets map[string]Target) {
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
	if len(f.Rules) == 0 && !f.Lockdown && d.has("rules") && !d.complained("rules") {
		d.at("rules", "is empty: without a rule nobody gets access")
	}
	f.checkRules(d, text, targets)
	f.checkFreezes(d)
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
		if level == "*" && r.denies() {
			continue
		}
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
