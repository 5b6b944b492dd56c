package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/policy"
)

// sinks is the head of a policy whose rules a test writes.
const sinks = `targets: {orders: {levels: {reader: {roles: [r]}, writer: {roles: [w]}}}}
`

// What each rule may say arrives as it is meant.
func TestPolicySaysTerms(t *testing.T) {
	p, err := LoadPolicy(write(t, "policy.yaml", sinks+`lockdown: true
freezes:
  - {name: tax, from: 2026-12-23 Europe/Berlin, to: 2026-12-27 08:30 Europe/Berlin}
rules:
  - {name: no, effect: deny, who: {anyone: true}, targets: ["*"], levels: ["*"], when: '"tax" in frozen'}
  - name: yes
    effect: allow
    who: {groups: [developers]}
    targets: [orders]
    levels: [writer]
    longest: 1h
    ticket: {pattern: 'T-\d+', confirm: https://tickets.example.com/curfew}
    mfa: {acr: [gold], amr: [otp, hwk], within: 15m}
    approvals: {count: 3, from: {emails: [x@y.z]}, parties: [{groups: [leads]}, {groups: [security]}], mfa: {within: 5m}}
    review: {within: 72h, by: {groups: [security]}}
    limits: {sessions: 2, idle: 1m, rows: 5000000000, bytes: 64MiB}
    ends: with-last-session
    record: {parameters: types}
  - name: glass
    break_glass: true
    who: {groups: [on-call]}
    targets: [orders]
    levels: [writer]
    longest: 10m
    mfa: {amr: [otp]}
    approvals: {count: 0}
    review: {within: 24h}
  - {name: two, who: {groups: [x]}, targets: [orders], levels: [reader], longest: 1h, approvals: {parties: [{groups: [a]}, {groups: [b]}]}}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if f := p.Freezes[0]; !p.Lockdown || f.Name != "tax" || !f.From.Equal(time.Date(2026, 12, 23, 0, 0, 0, 0, berlin)) || !f.To.Equal(time.Date(2026, 12, 27, 8, 30, 0, 0, berlin)) {
		t.Errorf("freeze %+v", f)
	}
	if no := p.Rules[0]; !no.Deny || no.When == nil || no.Reason || no.Lapse != 0 || !strings.HasSuffix(no.When.Place, "policy.yaml:6") {
		t.Errorf("deny %+v", no)
	}
	yes := p.Rules[1]
	if !yes.Ticket.Matches("T-1") || yes.Ticket.Matches("T-") || yes.Ticket.Confirm != "https://tickets.example.com/curfew" {
		t.Errorf("ticket %+v", yes.Ticket)
	}
	yes.Ticket = nil
	leads, security := policy.Who{Groups: []string{"leads"}}, policy.Who{Groups: []string{"security"}}
	want := policy.Rule{
		Name: "yes", Who: policy.Who{Groups: []string{"developers"}}, Targets: []string{"orders"}, Levels: []string{"writer"},
		Longest: time.Hour, Lapse: 24 * time.Hour, Reason: true,
		MFA: &policy.MFA{ACR: []string{"gold"}, AMR: []string{"otp", "hwk"}, Within: 15 * time.Minute},
		Approvals: policy.Approvals{Count: 3, From: policy.Who{Emails: []string{"x@y.z"}}, Parties: []policy.Who{leads, security},
			MFA: &policy.MFA{Within: 5 * time.Minute}},
		Review: &policy.Review{Within: 72 * time.Hour, By: security}, WithLastSession: true, Record: policy.Record{Parameters: policy.ParametersTypes},
		Limits: policy.Limits{Sessions: 2, Idle: time.Minute, Rows: 5_000_000_000, Bytes: 64 << 20},
	}
	if !reflect.DeepEqual(yes, want) {
		t.Errorf("rule %+v\nwant %+v", yes, want)
	}
	if !p.Rules[2].BreakGlass || p.Rules[2].Review.Within != 24*time.Hour {
		t.Errorf("glass %+v", p.Rules[2])
	}
	if n := p.Rules[3].Approvals.Count; n != 2 {
		t.Errorf("two parties are %d people", n)
	}
}

// Everything that is wrong in what rules may say, at once.
func TestPolicyReportsTerms(t *testing.T) {
	rule := func(more string) string {
		return sinks + "rules:\n  - {name: a, who: {anyone: true}, targets: [orders], levels: [reader], " + more + "}\n"
	}
	for name, c := range map[string]struct{ file, want string }{
		"a rule that denies": {rule(`effect: deny, longest: 1h, lapse: 1h, reason: optional, ticket: {pattern: x}, mfa: {within: 1m}, approvals: {count: 0}, break_glass: true, review: {within: 1h}, limits: {rows: 1}, ends: on-time, record: {}`),
			strings.Join(each("FILE:3: rules[0].", []string{"longest", "lapse", "reason", "ticket", "mfa", "approvals", "break_glass", "review", "limits", "ends", "record"}, ": a rule that denies gives nothing: remove it"), "\n")},
		"effect":                  {rule(`effect: forbid, longest: 1h, approvals: {count: 0}`), `FILE:3: rules[0].effect: "forbid" is unknown: allow or deny`},
		"ends":                    {rule(`ends: soon, longest: 1h, approvals: {count: 0}`), `FILE:3: rules[0].ends: "soon" is unknown: on-time or with-last-session`},
		"no values":               {rule(`record: {parameters: none, statements: none}, longest: 1h, approvals: {count: 0}`), "FILE:3: rules[0].record.statements: unknown key: known here: parameters\nFILE:3: rules[0].record.parameters: \"none\" is unknown: full, or types, which leaves their values out"},
		"no count":                {rule(`longest: 1h, approvals: {from: {anyone: true}}`), `FILE:3: rules[0].approvals.count: is missing`},
		"fewer than parties":      {rule(`longest: 1h, approvals: {count: 1, parties: [{groups: [a]}, {groups: [b]}]}`), `FILE:3: rules[0].approvals.count: 1 is fewer than there are parties: leave it out, or write 2 or more`},
		"no party":                {rule(`longest: 1h, approvals: {parties: []}`), `FILE:3: rules[0].approvals.parties: is empty: name a party, or remove the key`},
		"a party of nobody":       {rule(`longest: 1h, approvals: {parties: [{groups: []}]}`), `FILE:3: rules[0].approvals.parties[0]: selects nobody: name groups, emails, subjects or issuers, or write anyone: true`},
		"too many parties":        {rule(`longest: 1h, approvals: {parties: [` + strings.Repeat("{groups: [a]}, ", 9) + `]}`), `FILE:3: rules[0].approvals.parties: 9 parties: 8 at most`},
		"MFA that is none":        {rule(`longest: 1h, mfa: {acr: []}, approvals: {count: 1, from: {anyone: true}, mfa: {}}`), "FILE:3: rules[0].mfa: asks for nothing: name acr, amr or within\nFILE:3: rules[0].approvals.mfa: asks for nothing: name acr, amr or within"},
		"a pattern":               {rule(`longest: 1h, ticket: {pattern: '('}, approvals: {count: 0}`), "FILE:3: rules[0].ticket.pattern: is not a regular expression: missing closing ): `^(?:()$`"},
		"confirmed by whom":       {rule(`longest: 1h, ticket: {pattern: x, confirm: tickets}, approvals: {count: 0}`), `FILE:3: rules[0].ticket.confirm: must be an address like https://tickets.example.com/curfew`},
		"confirmed in clear":      {rule(`longest: 1h, ticket: {pattern: x, confirm: "http://tickets.test/"}, approvals: {count: 0}`), `FILE:3: rules[0].ticket.confirm: https:// is required off loopback`},
		"a password":              {rule(`longest: 1h, ticket: {pattern: x, confirm: "https://u:p@tickets.test/"}, approvals: {count: 0}`), `FILE:3: rules[0].ticket.confirm: a password does not belong in this file`},
		"limits":                  {rule(`longest: 1h, limits: {sessions: -1, idle: 1ms, rows: 0, bytes: 5 apples}, approvals: {count: 0}`), "FILE:3: rules[0].limits.rows: 0 would allow nothing: remove the key for no limit\nFILE:3: rules[0].limits.bytes: must be a number of bytes like 64MiB or 1GB, not \"5 apples\"\nFILE:3: rules[0].limits.sessions: must not be negative\nFILE:3: rules[0].limits.idle: 1ms is too short: a second at least"},
		"more than can be":        {rule(`longest: 1h, limits: {bytes: 9999999TiB}, approvals: {count: 0}`), `FILE:3: rules[0].limits.bytes: 9999999TiB is more than can be counted`},
		"glass":                   {rule(`longest: 1h, break_glass: true, reason: optional, approvals: {count: 1, from: {anyone: true}}`), "FILE:3: rules[0].approvals: breaking the glass waits for nobody: write count: 0\nFILE:3: rules[0].reason: breaking the glass takes a reason: remove it\nFILE:3: rules[0].mfa: is missing: what must the login of somebody who breaks the glass show?\nFILE:3: rules[0].review: is missing: until when must somebody else have looked at it?"},
		"reviewers":               {rule(`longest: 1h, review: {within: 1h, by: {}}, approvals: {count: 0}`), `FILE:3: rules[0].review.by: selects nobody: name groups, emails, subjects or issuers, or write anyone: true`},
		"every level":             {sinks + "rules:\n  - {name: a, who: {anyone: true}, targets: [orders], levels: ['*'], longest: 1h, approvals: {count: 0}}\n", `FILE:3: rules[0].levels[0]: target "orders" has no level "*": known here: reader, writer`},
		"freezes":                 {sinks + "rules: []\nlockdown: true\nfreezes:\n  - {name: a, from: 2026-01-01, to: 2026-01-02 UTC}\n  - {name: b, from: 2026-01-02 UTC, to: 2026-01-02T00:00:00Z}\n  - {name: b, from: 2026-01-02 Local, to: tomorrow}\n", "FILE:5: freezes[0].from: \"2026-01-01\" is not a time: write it like 2026-03-01 14:00 Europe/Berlin or 2026-03-01T14:00:00+01:00\nFILE:6: freezes[1].to: is not after from\nFILE:7: freezes[2].from: \"2026-01-02 Local\" is not a time: write it like 2026-03-01 14:00 Europe/Berlin or 2026-03-01T14:00:00+01:00\nFILE:7: freezes[2].to: \"tomorrow\" is not a time: write it like 2026-03-01 14:00 Europe/Berlin or 2026-03-01T14:00:00+01:00\nFILE:7: freezes[2].name: a freeze named \"b\" is there already"},
		"no rules, and not meant": {sinks + "rules: []\n", `FILE:2: rules: is empty: without a rule nobody gets access`},
		"cases": {rule(`longest: 1h, approvals: {count: 0}`) + `people: {alice: {auth_age: 1m, claims: {a: 1, b: [x, true], c: {d: 1.5}}}}
cases:
  - {case: a, who: alcie, asks: {target: orders, level: reader}, expect: {allowed: b}}
  - {case: a, who: alice, asks: {target: orders, level: reader}, approve: [bob], deny: [carol], expect: {allowed: a, denied: a}}
  - {case: c, who: alice, asks: {target: orders}, expect: {refused: x, then: granted}}
`, `FILE:6: cases[0].who: nobody of this name under people: did you mean "alice"?
FILE:6: cases[0].expect.allowed: no rule "b" that could: known here: a
FILE:7: cases[1].case: a case of this name is there already
FILE:7: cases[1].expect: say one of allowed: RULE, denied: RULE, refused: WORDS, step_up: WORDS, failed: RULE
FILE:7: cases[1].expect.denied: no rule "a" that could
FILE:7: cases[1].approve[0]: nobody of this name under people: known here: alice
FILE:7: cases[1].deny[0]: nobody of this name under people: known here: alice
FILE:8: cases[2].asks.level: is missing
FILE:8: cases[2].expect: approvals, from and then go with allowed
FILE:8: cases[2].expect.then: "granted" is unknown: open, approved or denied`},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "policy.yaml", c.file)
			_, err := LoadPolicy(path, nil)
			if err == nil {
				t.Fatal("nothing is wrong")
			}
			if got := strings.ReplaceAll(err.Error(), path, "FILE"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func each(before string, names []string, after string) (all []string) {
	for _, n := range names {
		all = append(all, before+n+after)
	}
	return all
}

// A mistake in a condition is told where it stands, however the condition is written in the file.
func TestConditionMistakesHaveTheirPlace(t *testing.T) {
	for name, c := range map[string]struct{ when, want string }{
		"plain":                           {`    when: level == nope`, "FILE:4: rules[0].when: column 20: undeclared reference to 'nope'"},
		"on several lines":                {"    when: level ==\n      nope", "FILE:5: rules[0].when: column 7: undeclared reference to 'nope'"},
		"in quotes":                       {`    when: 'level == "a" || level == nope'`, "FILE:4: rules[0].when: column 37: undeclared reference to 'nope'"},
		"quotes in quotes":                {`    when: 'level == ''a'' || level == nope'`, "FILE:4: rules[0].when: column 39: undeclared reference to 'nope'"},
		"escapes":                         {`    when: "level == \"a\" || level == nope"`, "FILE:4: rules[0].when: column 39: undeclared reference to 'nope'"},
		"hidden":                          {`    when: "\x6cevel == nope"`, "FILE:4: rules[0].when: column 11: undeclared reference to 'nope'"},
		"block":                           {"    when: |\n      level == 'a' ||\n        level == nope", "FILE:6: rules[0].when: column 18: undeclared reference to 'nope'"},
		"block with blanks and a comment": {"    when: |2-   # at night\n\n      level == 'a' ||\n\n      level == nope", "FILE:8: rules[0].when: column 16: undeclared reference to 'nope'"},
		"folded":                          {"    when: >\n      level == 'a' ||\n      level ==\n      nope", "FILE:7: rules[0].when: column 7: undeclared reference to 'nope'"},
		"letters of two bytes":            {"    when: |\n      'ä' == level || 'ö' == nope", "FILE:5: rules[0].when: column 30: undeclared reference to 'nope'"},
		"two mistakes":                    {"    when: |\n      nope ||\n      identity.grups == []", "FILE:5: rules[0].when: column 7: undeclared reference to 'nope'\nFILE:6: rules[0].when: column 15: identity has no field \"grups\"; it has issuer, subject, email, name, groups, acr, amr, mfa, claims, auth_age"},
		"at its end":                      {"    when: |\n      level ==\n", "FILE:5: rules[0].when: column 15: Syntax error: mismatched input '<EOF>'"},
		"not a truth":                     {"    when: level", "FILE:4: rules[0].when: column 11: must be true or false, and is string"},
		"of any kind":                     {"    when: identity.claims.x", "FILE:4: rules[0].when: column 11: must be true or false, and is of any kind, as far as one can know; compare it with something"},
		"types":                           {"    when: level == 3", "FILE:4: rules[0].when: column 17: == can't be applied to (string, int)"},
		"an hour":                         {`    when: now - duration("1 hour") > now`, "FILE:4: rules[0].when: column 26: invalid duration argument"},
		"a pattern":                       {`    when: level.matches("(")`, "FILE:4: rules[0].when: column 25: invalid matches argument"},
		"a zone":                          {`    when: now.getHours("Berlin") < 3`, `FILE:4: rules[0].when: column 24: there is no time zone "Berlin": write it like Europe/Berlin or +02:00`},
		"too long":                        {`    when: "` + strings.Repeat("true && ", 600) + `true"`, "FILE:4: rules[0].when: column 12: is longer than 4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "policy.yaml", sinks+"rules:\n  - name: a\n"+c.when+
				"\n    effect: deny\n    who: {anyone: true}\n    targets: [orders]\n    levels: [reader]\n")
			_, err := LoadPolicy(path, nil)
			if err == nil {
				t.Fatal("nothing is wrong")
			}
			if got := strings.ReplaceAll(err.Error(), path, "FILE"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// Cases beside the policy know its people and rules, and may say labels where no configuration does.
func TestCasesBeside(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("policy.yaml", sinks+`rules: [{name: a, who: {emails: [al@corp.test]}, labels: {env: prod}, levels: [reader], longest: 1h, reason: optional, approvals: {count: 0}}]
people: {alice: {email: al@corp.test, auth_age: 5m}}
`)
	put("policy.cases.yaml", `labels: {orders: {env: prod}}
people: {bob: {}}
cases:
  - {case: a, who: alice, at: 2026-05-01 10:00 UTC, asks: {target: orders, level: reader, for: 1h}, expect: {allowed: a},
     history: {open_reviews: 2, debt: true, grants: [{target: orders, level: writer, ago: 2h, break_glass: true}]}}
  - {case: b, who: bob, asks: {target: orders, level: reader}, expect: {refused: no rule}}
`)
	book, err := LoadBook(filepath.Join(dir, "policy.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range book.Cases {
		if wrong := book.Policy.Try(c); wrong != nil {
			t.Errorf("%s: %v", c.Name, wrong)
		}
	}
	at := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	a := book.Cases[0]
	want := policy.Facts{OpenReviews: 2, Debt: true, Grants: []policy.Past{{Target: "orders", Level: "writer", Start: at.Add(-2 * time.Hour), BreakGlass: true}}}
	if !a.At.Equal(at) || !reflect.DeepEqual(a.Facts, want) || !a.Who.AuthTime.Equal(at.Add(-5*time.Minute)) || a.Ask.Duration != time.Hour ||
		!strings.HasSuffix(a.Place, "policy.cases.yaml:4") {
		t.Errorf("%+v", a)
	}
	if b := book.Cases[1]; b.Ask.Duration != 30*time.Minute || !b.At.Equal(caseTime) || b.Who.Email != "bob@example.com" || b.Who.Issuer == "" {
		t.Errorf("%+v", b)
	}
	if id, known := book.Person("bob", at); !known || id.Subject != "bob" {
		t.Errorf("%+v", id)
	}
	put("policy.cases.yaml", "people: {alice: {}}\ncases: [{case: a, who: carol, asks: {target: x, level: y}, expect: {allowed: z}}]\n")
	_, err = LoadBook(filepath.Join(dir, "policy.yaml"), nil)
	for _, want := range []string{"policy.cases.yaml:1: people.alice: is in ", "cases.yaml:2: cases[0].who: nobody", `no rule "z" that could`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: not %q", err, want)
		}
	}
}
