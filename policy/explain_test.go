package policy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// Each rule tells all that keeps it from deciding, with what it looked at.
func TestExplainTellsEverything(t *testing.T) {
	p := example()
	p.Rules[1].MFA, p.Rules[1].Ticket = &policy.MFA{ACR: []string{"gold"}, Within: 5 * time.Minute}, &policy.TicketRule{Pattern: `T-\d+`}
	p.Rules[1].When = when(t, `level == "writer" && (now.getHours("Europe/Berlin") < 8 || history.open_reviews > 2) && identity.auth_age < duration("1h")`)
	p.Rules[2].BreakGlass = true
	p.Rules = append(p.Rules, policy.Rule{Name: "no", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"*"}, Levels: []string{"*"}, When: when(t, `frozen.size() > 0`)},
		policy.Rule{Name: "others", Who: policy.Who{Groups: []string{"leads"}}, Labels: policy.Labels{"env": "test"}, Levels: []string{"reader"}})
	e := p.Explain(alice, ask(func(a *policy.Ask) { a.Duration, a.Reason = 2*time.Hour, "" }), policy.Facts{OpenReviews: 1}, now)
	stories := map[string][]string{}
	for _, r := range e.Rules {
		stories[r.Rule] = r.Because
	}
	for rule, want := range map[string][]string{
		"no":   {"its condition does not hold: frozen.size() > 0; frozen.size() is 0"},
		"look": {"it is for reader, not for writer"},
		"write": {
			`its condition does not hold: now.getHours("Europe/Berlin") < 8; now.getHours("Europe/Berlin") is 13`,
			`its condition does not hold: history.open_reviews > 2; history.open_reviews is 1`,
			`its condition does not hold: identity.auth_age < duration("1h"); identity.auth_age is unknown; duration("1h") is 1h`,
			"it gives 1h at most, and 2h is asked for",
			"it requires a reason, and none is given: --reason",
			`it requires a ticket that matches T-\d+, and it is "": --ticket`,
			"it takes a login with acr gold, at most 5m old, and this one shows neither acr nor amr, of unknown age",
		},
		"write long": {"it is for breaking the glass"},
		"others": {
			"it is for group leads, and alice@example.test is in developers",
			"it is for targets with env=test, and orders has env=prod, team=shop",
			"it is for reader, not for writer",
		},
	} {
		if got := stories[rule]; !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", rule, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if e.Outcome != policy.OutcomeRefused || e.Rule != "" || e.Rules[0].Rule != "no" {
		t.Errorf("%+v", e)
	}
}

func TestExplainSaysWhatComes(t *testing.T) {
	p := one(func(r *policy.Rule) {
		r.Ticket = &policy.TicketRule{Pattern: "T", Confirm: "https://tickets.test"}
		r.Approvals = policy.Approvals{Count: 3, From: policy.Who{Groups: []string{"owners"}}, Parties: []policy.Who{{Groups: []string{"leads"}}, {Groups: []string{"security"}}},
			MFA: &policy.MFA{AMR: []string{"otp"}}}
		r.Limits, r.WithLastSession, r.Review = policy.Limits{Sessions: 1, Idle: time.Minute, Rows: 2, Bytes: 3}, true, &policy.Review{Within: 72 * time.Hour}
	})
	e := p.Explain(alice, ask(func(a *policy.Ask) { a.Ticket, a.Start = "T", now.Add(time.Hour) }), policy.Facts{}, now)
	want := []string{
		"https://tickets.test is asked whether T is open and names alice@example.test",
		"it waits for 1 of group leads and 1 of group security and 1 more of any of them or of group owners; alice@example.test does not count",
		"whoever approves needs a login with amr otp",
		"undecided, it lapses after 24h",
		"access begins at 2026-03-01T13:00:00Z, or with the last approval if that is later and lasts 30m; extended, it ends 1h from then on at the latest",
		"it ends earlier, when the last session does",
		"limits of its sessions: 1 at once, 1m idle, 2 rows, 3 bytes",
		"somebody else reviews it within 72h: whoever may read its recordings",
	}
	if e.Outcome != policy.OutcomeAllowed || e.Rule != "write" || !e.Rules[0].Decides || !slices.Equal(e.Next, want) {
		t.Errorf("%s", strings.Join(e.Next, "\n"))
	}
	if _, err := json.Marshal(e); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		ask  policy.Ask
		want string
	}{
		"target": {ask(func(a *policy.Ask) { a.Target = "stock" }), `the policy has no target "stock"; it has orders, staging`},
		"level":  {ask(func(a *policy.Ask) { a.Level = "owner" }), `orders has no level "owner"; it has reader, writer`},
	} {
		if e := p.Explain(alice, c.ask, policy.Facts{}, now); len(e.Next) != 1 || e.Next[0] != c.want || e.Outcome != policy.OutcomeRefused {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if e := p.Explain(alice, policy.Ask{}, policy.Facts{}, now); e.Outcome != policy.OutcomeInvalid {
		t.Errorf("%+v", e)
	}
}

// random makes a policy of rules that may fit alice and may not.
func random(t *testing.T, r *rand.Rand) *policy.Policy {
	p := example()
	p.Rules = nil
	pick := func(values ...string) string { return values[r.IntN(len(values))] }
	conditions := []*policy.Condition{
		nil, nil, nil, when(t, `"developers" in identity.groups`), when(t, `now.getHours() < 12`), when(t, `level == "reader"`),
		when(t, `identity.claims.dept == "shop"`), when(t, `request.duration < duration("1h") && target.labels.env == "prod"`),
	}
	for i := range 1 + r.IntN(6) {
		rule := policy.Rule{
			Name: fmt.Sprint("rule ", i), Deny: r.IntN(5) == 0, Who: policy.Who{Groups: []string{pick("developers", "developers", "leads")}},
			Targets: []string{pick("orders", "*", "staging")}, Levels: []string{pick("reader", "writer")}, When: conditions[r.IntN(len(conditions))],
			Longest: time.Duration(1+r.IntN(3)) * time.Hour, Reason: r.IntN(2) == 0, BreakGlass: r.IntN(6) == 0,
		}
		if r.IntN(4) == 0 {
			rule.MFA = &policy.MFA{AMR: []string{"otp"}}
		}
		if rule.Deny {
			rule = policy.Rule{Name: rule.Name, Deny: true, Who: rule.Who, Targets: rule.Targets, Levels: rule.Levels, When: rule.When}
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

// Over policies at random: what is explained is what is judged; a rule that decides has nothing against it,
// and every other one does; what is allowed is offered and holds; a rule that denies never gives anything.
func TestExplainAgreesWithJudge(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	outcomes := map[policy.Outcome]int{}
	for range 400 {
		p := random(t, r)
		who := alice
		if r.IntN(2) == 0 {
			who.Claims = map[string]any{"dept": []string{"shop", "till"}[r.IntN(2)]}
		}
		a := policy.Ask{Target: []string{"orders", "staging"}[r.IntN(2)], Level: []string{"reader", "writer"}[r.IntN(2)],
			Duration: time.Duration(1+r.IntN(8)) * 30 * time.Minute, Reason: []string{"", "fix"}[r.IntN(2)], BreakGlass: r.IntN(6) == 0}
		at := now.Add(time.Duration(r.IntN(2)-1) * time.Hour)
		v, e := p.Judge(who, a, policy.Facts{}, at), p.Explain(who, a, policy.Facts{}, at)
		outcomes[e.Outcome]++
		if e.Outcome != v.Outcome() || (v.Allowed && e.Rule != v.Rule.Name) || e.Rule == "" && e.Outcome != policy.OutcomeRefused && e.Outcome != policy.OutcomeStepUp {
			t.Fatalf("explained as %s by %q, judged %+v", e.Outcome, e.Rule, v)
		}
		for _, s := range e.Rules {
			if decides := s.Rule == e.Rule; s.Decides != decides || (len(s.Because) == 0) != (decides && e.Outcome != policy.OutcomeFailed) {
				t.Fatalf("%+v of %+v", s, e)
			}
		}
		if v.StepUp != nil {
			strong := who
			strong.AMR = []string{"otp"}
			if !p.Judge(strong, a, policy.Facts{}, at).Allowed {
				t.Fatalf("a step-up that brings nothing: %+v", e)
			}
		}
		if !v.Allowed {
			continue
		}
		if !slices.ContainsFunc(p.Offers(who), func(o policy.Offer) bool { return o.Target == a.Target && o.Level == a.Level }) {
			t.Fatalf("allowed and not offered: %+v", e)
		}
		if !p.Holds(who, policy.Grant{Target: a.Target, Level: a.Level, Can: p.Targets[a.Target].Levels[a.Level], BreakGlass: a.BreakGlass}) {
			t.Fatalf("allowed, and does not hold: %+v", e)
		}
		p.Rules = append(p.Rules, policy.Rule{Name: "no", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"*"}, Levels: []string{"*"}})
		if v := p.Judge(who, a, policy.Facts{}, at); v.Allowed || v.Denied == "" {
			t.Fatalf("denied, and allowed: %+v", v)
		}
	}
	for _, o := range []policy.Outcome{policy.OutcomeAllowed, policy.OutcomeStepUp, policy.OutcomeDenied, policy.OutcomeRefused, policy.OutcomeFailed} {
		if outcomes[o] < 5 {
			t.Errorf("only %d are %s", outcomes[o], o)
		}
	}
}

func TestDiff(t *testing.T) {
	after := example()
	after.Rules[1].Longest, after.Rules[0].Who.Groups = 2*time.Hour, []string{"leads"}
	after.Readers[0].Targets = []string{"*"}
	brief := func(changes []policy.Change) (all []string) {
		for _, c := range changes {
			all = append(all, strings.Join([]string{c.Who, c.Change, c.Target, c.Level}, " "))
		}
		return all
	}
	want := []string{
		"group developers loses orders reader", "group developers changes orders writer", "group developers loses staging reader",
		"group security gains staging ",
		"group leads gains orders reader", "group leads gains staging reader",
	}
	if got := brief(policy.Diff(example(), after)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
	if got := brief(policy.Diff(example(), after, bob)); !reflect.DeepEqual(got, []string{"bob@example.test (leads) gains orders reader", "bob@example.test (leads) gains staging reader"}) {
		t.Errorf("got %q", got)
	}
	if got := policy.Diff(after, after); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
	if got := policy.Diff(example(), after, []auth.Identity{}...); len(got) != len(want) {
		t.Errorf("got %+v", got)
	}
	// Whatever a rule says of a grant is a change.
	for name, change := range map[string]func(*policy.Rule){
		"longest": func(r *policy.Rule) { r.Longest++ }, "reason": func(r *policy.Rule) { r.Reason = false }, "approvals": func(r *policy.Rule) { r.Approvals.Count++ },
		"from": func(r *policy.Rule) { r.Approvals.From.Anyone = true }, "parties": func(r *policy.Rule) { r.Approvals.Parties = []policy.Who{{Groups: []string{"x"}}} },
		"decision MFA": func(r *policy.Rule) { r.Approvals.MFA = &policy.MFA{Within: 1} }, "MFA": func(r *policy.Rule) { r.MFA = &policy.MFA{Within: 1} },
		"ticket": func(r *policy.Rule) { r.Ticket = &policy.TicketRule{Pattern: "x"} }, "glass": func(r *policy.Rule) { r.BreakGlass = true },
		"confirm": func(r *policy.Rule) { r.Ticket = &policy.TicketRule{Pattern: "", Confirm: "x"} },
		"review":  func(r *policy.Rule) { r.Review = &policy.Review{Within: 1} }, "limits": func(r *policy.Rule) { r.Limits.Rows = 1 },
		"ends": func(r *policy.Rule) { r.WithLastSession = true }, "when": func(r *policy.Rule) { r.When = when(t, "frozen.size() == 0") },
	} {
		if got := policy.Diff(one(func(*policy.Rule) {}), one(change)); len(got) != 1 || got[0].Change != policy.Changes {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A case that comes otherwise than expected is told, whatever it expects.
func TestCases(t *testing.T) {
	p := example()
	p.Rules = append(p.Rules, policy.Rule{Name: "no", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"staging"}, Levels: []string{"*"}})
	p.Rules[1].Approvals.Parties = []policy.Who{{Groups: []string{"leads"}}, {Groups: []string{"security"}}}
	two := 2
	good := policy.Case{Who: alice, Ask: ask(), At: now, Approve: []auth.Identity{bob, carol}, Expect: policy.Expect{Allowed: "write", Approvals: &two, From: "group security", Then: policy.Approved}}
	if wrong := p.Try(good); wrong != nil {
		t.Fatal(wrong)
	}
	one := 1
	staging := ask(func(a *policy.Ask) { a.Target = "staging" })
	for name, c := range map[string]struct {
		change func(*policy.Case)
		want   string // "" = as expected
	}{
		"another rule":            {func(c *policy.Case) { c.Expect.Allowed = "look" }, `expected allowed by "look", and it is allowed by "write"`},
		"denied":                  {func(c *policy.Case) { c.Expect = policy.Expect{Denied: "no"} }, `expected denied by "no", and it is allowed`},
		"refused":                 {func(c *policy.Case) { c.Expect = policy.Expect{Refused: "x"} }, `expected refused with "x", and it is allowed`},
		"a step-up":               {func(c *policy.Case) { c.Expect = policy.Expect{StepUp: "x"} }, `expected a step-up to "x", and it is allowed`},
		"a failure":               {func(c *policy.Case) { c.Expect = policy.Expect{Failed: "x"} }, `expected a failed condition of "x", and it is allowed`},
		"it is denied":            {func(c *policy.Case) { c.Ask, c.Expect = staging, policy.Expect{Denied: "no"} }, ""},
		"it is denied, not so":    {func(c *policy.Case) { c.Ask = staging }, `and it is denied by "no"`},
		"denied is not refused":   {func(c *policy.Case) { c.Ask, c.Expect = staging, policy.Expect{Refused: "no rule"} }, `and it is denied by "no"`},
		"it is refused":           {func(c *policy.Case) { c.Who, c.Expect = sam, policy.Expect{Refused: "no rule gives"} }, ""},
		"in other words":          {func(c *policy.Case) { c.Who, c.Expect = sam, policy.Expect{Refused: "too long"} }, "and it is refused: no rule gives"},
		"fewer approvals":         {func(c *policy.Case) { c.Expect.Approvals = &one }, "expected 1 approvals, and it takes 2"},
		"from others":             {func(c *policy.Case) { c.Expect.From = "owners" }, `expected approvals from "owners"`},
		"open":                    {func(c *policy.Case) { c.Expect.Then = policy.Open }, "expected it to be open then, and it is approved"},
		"one is missing":          {func(c *policy.Case) { c.Approve = c.Approve[:1] }, "and it is open: 1 more must agree, one of group security"},
		"the requester approves":  {func(c *policy.Case) { c.Approve, c.Expect.Then = []auth.Identity{alice}, policy.Open }, ""},
		"somebody who may not":    {func(c *policy.Case) { c.Approve = append([]auth.Identity{dana}, c.Approve...) }, "dana@example.test can't decide"},
		"denied by a person":      {func(c *policy.Case) { c.Approve, c.Deny, c.Expect.Then = nil, []auth.Identity{bob}, policy.Denied }, ""},
		"denied by one, expected": {func(c *policy.Case) { c.Approve, c.Deny = nil, []auth.Identity{bob} }, "expected it to be approved then, and it is denied"},
	} {
		one := good
		c.change(&one)
		got := strings.Join(p.Try(one), "; ")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	p.Rules = p.Rules[:2]
	p.Rules[1].MFA = &policy.MFA{AMR: []string{"otp"}}
	if wrong := p.Try(policy.Case{Who: alice, Ask: ask(), At: now, Expect: policy.Expect{StepUp: "otp"}}); wrong != nil {
		t.Error(wrong)
	}
	p.Rules[1].When = when(t, "identity.claims.x == 1")
	if wrong := p.Try(policy.Case{Who: alice, Ask: ask(), At: now, Expect: policy.Expect{Failed: "write"}}); wrong != nil {
		t.Error(wrong)
	}
}
