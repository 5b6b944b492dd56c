package policy_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

func when(t testing.TB, text string) *policy.Condition {
	t.Helper()
	l, err := policy.NewLanguage()
	if err != nil {
		t.Fatal(err)
	}
	c, wrong := l.Compile(text)
	if wrong != nil {
		t.Fatalf("%s: %+v", text, wrong)
	}
	return c
}

func ask(change ...func(*policy.Ask)) policy.Ask {
	a := policy.Ask{Target: "orders", Level: "writer", Duration: 30 * time.Minute, Reason: "fix"}
	for _, c := range change {
		c(&a)
	}
	return a
}

// one is the example with a single rule for writers, which change shapes.
func one(change func(*policy.Rule)) *policy.Policy {
	p := example()
	p.Rules = p.Rules[1:2]
	change(&p.Rules[0])
	return p
}

func TestConditionsDecide(t *testing.T) {
	thursday := time.Date(2026, 3, 5, 17, 30, 0, 0, time.UTC) // 18:30 in Berlin
	who := alice
	who.Claims = map[string]any{"dept": "shop", "rank": 3.0}
	who.AuthTime, who.AMR = thursday.Add(-10*time.Minute), []string{"pwd", "mfa"}
	facts := policy.Facts{OpenReviews: 1, Grants: []policy.Past{
		{Target: "orders", Level: "writer", Start: thursday.Add(-24 * time.Hour)},
		{Target: "orders", Level: "reader", Start: thursday.Add(-30 * 24 * time.Hour), BreakGlass: true},
	}}
	for text, want := range map[string]bool{
		`level == "writer" && target.name == "orders" && target.labels.env == "prod"`: true,
		`"leads" in identity.groups`: false,
		`identity.issuer == "` + issuer + `" && identity.subject == "alice" && identity.email.endsWith("@example.test")`:        true,
		`identity.claims.dept == "shop" && identity.claims.rank > 2`:                                                            true,
		`has(identity.claims.boss) && identity.claims.boss`:                                                                     false,
		`identity.mfa && identity.auth_age <= duration("10m") && "pwd" in identity.amr && identity.acr == ""`:                   true,
		`identity.auth_age < duration("10m")`:                                                                                   false,
		`request.duration <= duration("30m") && request.reason.matches("^fix") && request.ticket == "" && !request.break_glass`: true,
		`request.start == now`: true,
		`now.getHours("Europe/Berlin") == 18 && now.getMinutes("Europe/Berlin") == 30 && now.getHours() == 17`:                            true,
		`now.getDayOfWeek("Europe/Berlin") == 4 && now.getDate("Europe/Berlin") == 5 && now.getMonth("Europe/Berlin") == 2`:               true,
		`now.getFullYear("America/New_York") == 2026 && now.getHours("+02:00") == 19 && now.getHours("-03:30") == 14`:                     true,
		`now.getDayOfMonth("UTC") == 4 && now.getDayOfYear("UTC") == 63 && now.getSeconds("UTC") == 0 && now.getMilliseconds("UTC") == 0`: true,
		`history.grants.filter(g, now - g.start < duration("168h")).size() == 1 && history.open_reviews == 1`:                             true,
		`history.grants.exists(g, g.break_glass && g.target == "orders" && g.level == "reader")`:                                          true,
		`frozen == ["spring"]`: true,
	} {
		p := one(func(r *policy.Rule) { r.When = when(t, text) })
		p.Freezes = []policy.Freeze{
			{Name: "past", From: thursday.Add(-time.Hour), To: thursday},
			{Name: "spring", From: thursday.Add(29 * time.Minute), To: thursday.Add(time.Hour)},
			{Name: "later", From: thursday.Add(30 * time.Minute), To: thursday.Add(time.Hour)},
		}
		v := p.Judge(who, ask(), facts, thursday)
		if v.Allowed != want || v.Failed != nil || v.Denied != "" {
			t.Errorf("%s: allowed %v, failed %v", text, v.Allowed, v.Failed)
		}
		if !want && !strings.Contains(v.Public, "condition that does not hold; it is: "+text) {
			t.Errorf("%s: the asker reads %q", text, v.Public)
		}
	}
}

// A login of which nobody knows when it was is never recent.
func TestUnknownAuthTimeIsLongAgo(t *testing.T) {
	p := one(func(r *policy.Rule) { r.When = when(t, `identity.auth_age < duration("876000h")`) })
	if p.Judge(alice, ask(), policy.Facts{}, now).Allowed {
		t.Error("a login without a time counts as recent")
	}
	p.Rules = append(p.Rules, policy.Rule{Name: "stale", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"*"}, Levels: []string{"*"},
		When: when(t, `identity.auth_age > duration("1h")`)})
	if v := p.Judge(alice, ask(), policy.Facts{}, now); v.Denied != "stale" {
		t.Errorf("%+v", v)
	}
}

// What can't be evaluated denies, wherever it stands: before the rule that would allow, in a rule that
// denies, by an error, by its cost, and if nobody ever checked it. After the rule that decides it is not asked.
func TestFailedConditionsDeny(t *testing.T) {
	for name, c := range map[string]*policy.Condition{
		"a claim that is not there": when(t, `identity.claims.dept == "shop"`),
		"of a kind that differs":    when(t, `identity.claims.email.size() > 0 || identity.claims.no`),
		"endless": when(t, `[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c,
			[1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, [1,2,3,4,5,6,7,8,9].all(f, f > 0))))))`),
		"never checked": {Text: "true"},
	} {
		failing := example().Rules[1]
		failing.Name, failing.When = "failing", c
		denying := policy.Rule{Name: "failing", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"*"}, Levels: []string{"*"}, When: c}
		for where, rules := range map[string][]policy.Rule{
			"before": append([]policy.Rule{failing}, example().Rules...),
			"denies": append(example().Rules, denying),
		} {
			p := example()
			p.Rules = rules
			v := p.Judge(alice, ask(), policy.Facts{}, now)
			var failed *policy.FailedError
			if v.Allowed || v.Rule != nil || !errors.As(v.Failed, &failed) || failed.Rule != "failing" || !strings.Contains(v.Public, "can't be evaluated") {
				t.Errorf("%s, %s: %+v", name, where, v)
			}
			if p.Holds(alice, policy.Grant{Target: "orders", Level: "writer", Can: p.Targets["orders"].Levels["writer"]}) {
				t.Errorf("%s, %s: a grant holds", name, where)
			}
		}
		p := example()
		p.Rules = append(p.Rules, failing)
		if v := p.Judge(alice, ask(), policy.Facts{}, now); !v.Allowed {
			t.Errorf("%s: a rule after the one that decides is asked: %+v", name, v)
		}
		p.Rules = append([]policy.Rule{failing}, p.Rules...)
		if v := p.Judge(alice, ask(func(a *policy.Ask) { a.Level = "reader" }), policy.Facts{}, now); !v.Allowed {
			t.Errorf("%s: a rule about something else is evaluated: %+v", name, v)
		}
	}
}

func TestDenyWins(t *testing.T) {
	deny := func(change func(*policy.Rule)) *policy.Policy {
		p := example()
		r := policy.Rule{Name: "no", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"orders"}, Levels: []string{"writer"}}
		change(&r)
		p.Rules = append(p.Rules, r) // last in the file, first to be asked
		return p
	}
	for name, c := range map[string]struct {
		p      *policy.Policy
		denied bool
	}{
		"everybody":              {deny(func(*policy.Rule) {}), true},
		"every level":            {deny(func(r *policy.Rule) { r.Levels = []string{"*"} }), true},
		"by label":               {deny(func(r *policy.Rule) { r.Targets, r.Labels = nil, policy.Labels{"env": "prod"} }), true},
		"another level":          {deny(func(r *policy.Rule) { r.Levels = []string{"reader"} }), false},
		"another target":         {deny(func(r *policy.Rule) { r.Targets = []string{"staging"} }), false},
		"other people":           {deny(func(r *policy.Rule) { r.Who = policy.Who{Groups: []string{"leads"}} }), false},
		"a condition that holds": {deny(func(r *policy.Rule) { r.When = when(t, `request.duration > duration("10m")`) }), true},
		"one that does not":      {deny(func(r *policy.Rule) { r.When = when(t, `request.duration > duration("40m")`) }), false},
	} {
		v := c.p.Judge(alice, ask(), policy.Facts{}, now)
		if v.Allowed == c.denied || (v.Denied == "no") != c.denied {
			t.Errorf("%s: %+v", name, v)
		}
		if c.denied && !strings.Contains(v.Public, `the rule "no" forbids writer on orders`) {
			t.Errorf("%s: the asker reads %q", name, v.Public)
		}
	}
	// To whom nothing is offered, a rule that denies says nothing of what there is.
	p := deny(func(r *policy.Rule) { r.Levels = []string{"*"} })
	v := p.Judge(sam, ask(), policy.Facts{}, now)
	if nothing := p.Judge(sam, ask(func(a *policy.Ask) { a.Target = "payroll" }), policy.Facts{}, now); v.Denied != "no" ||
		strings.ReplaceAll(v.Public, "orders", "payroll") != nothing.Public {
		t.Errorf("%+v", v)
	}
	// Levels of a rule that allows are names.
	if one(func(r *policy.Rule) { r.Levels = []string{"*"} }).Judge(alice, ask(), policy.Facts{}, now).Allowed {
		t.Error("* allows every level")
	}
	// A freeze says how long.
	p = deny(func(r *policy.Rule) { r.When = when(t, `frozen.size() > 0`) })
	p.Freezes = []policy.Freeze{{Name: "release", From: now.Add(-time.Hour), To: now.Add(time.Hour)}}
	if v := p.Judge(alice, ask(), policy.Facts{}, now); !strings.Contains(v.Public, "release until 2026-03-01 13:00 UTC") {
		t.Errorf("the asker reads %q", v.Public)
	}
	if v := p.Judge(alice, ask(func(a *policy.Ask) { a.Start = now.Add(2 * time.Hour) }), policy.Facts{}, now); !v.Allowed {
		t.Errorf("what begins after the freeze: %+v", v)
	}
}

func TestTermsOfARule(t *testing.T) {
	mfa := &policy.MFA{AMR: []string{"otp"}, Within: 15 * time.Minute}
	fresh := alice
	fresh.AMR, fresh.AuthTime = []string{"pwd", "otp"}, now.Add(-15*time.Minute)
	ticket, err := policy.NewTicketRule(`SHOP-\d+|OPS-\d+`, "")
	if err != nil {
		t.Fatal(err)
	}
	glass := func(a *policy.Ask) { a.BreakGlass = true }
	for name, c := range map[string]struct {
		rule   func(*policy.Rule)
		who    auth.Identity
		ask    policy.Ask
		facts  policy.Facts
		public string // "" = allowed
	}{
		"MFA":                        {func(r *policy.Rule) { r.MFA = mfa }, fresh, ask(), policy.Facts{}, ""},
		"no MFA":                     {func(r *policy.Rule) { r.MFA = mfa }, alice, ask(), policy.Facts{}, "takes a login with amr otp, at most 15m old; log in again"},
		"a ticket":                   {func(r *policy.Rule) { r.Ticket = ticket }, alice, ask(func(a *policy.Ask) { a.Ticket = "SHOP-12" }), policy.Facts{}, ""},
		"no ticket":                  {func(r *policy.Rule) { r.Ticket = ticket }, alice, ask(), policy.Facts{}, `--ticket and a number that matches SHOP-\d+|OPS-\d+`},
		"a ticket and more":          {func(r *policy.Rule) { r.Ticket = ticket }, alice, ask(func(a *policy.Ask) { a.Ticket = "SHOP-12 OPS-x" }), policy.Facts{}, "--ticket"},
		"more, and a ticket":         {func(r *policy.Rule) { r.Ticket = ticket }, alice, ask(func(a *policy.Ask) { a.Ticket = "see SHOP-12" }), policy.Facts{}, "--ticket"},
		"a ticket on a second line":  {func(r *policy.Rule) { r.Ticket = ticket }, alice, ask(func(a *policy.Ask) { a.Ticket = "SHOP-12\nx" }), policy.Facts{}, "--ticket"},
		"a ticket by a stored rule":  {func(r *policy.Rule) { r.Ticket = &policy.TicketRule{Pattern: "A|B"} }, alice, ask(func(a *policy.Ask) { a.Ticket = "B" }), policy.Facts{}, ""},
		"a pattern that is none":     {func(r *policy.Rule) { r.Ticket = &policy.TicketRule{Pattern: "("} }, alice, ask(func(a *policy.Ask) { a.Ticket = "(" }), policy.Facts{}, "--ticket"},
		"a ticket nobody asked for":  {func(*policy.Rule) {}, alice, ask(func(a *policy.Ask) { a.Ticket = "x" }), policy.Facts{}, ""},
		"a ticket like a novel":      {func(*policy.Rule) {}, alice, ask(func(a *policy.Ask) { a.Ticket = strings.Repeat("x", policy.MaxTicket+1) }), policy.Facts{}, "200 bytes"},
		"breaking the glass":         {func(r *policy.Rule) { r.BreakGlass = true }, alice, ask(glass), policy.Facts{}, ""},
		"not breaking it":            {func(r *policy.Rule) { r.BreakGlass = true }, alice, ask(), policy.Facts{}, "ask with --break-glass"},
		"breaking where none is":     {func(*policy.Rule) {}, alice, ask(glass), policy.Facts{}, "ask without --break-glass"},
		"breaking it later":          {func(r *policy.Rule) { r.BreakGlass = true }, alice, ask(glass, func(a *policy.Ask) { a.Start = now.Add(time.Minute) }), policy.Facts{}, "for now"},
		"breaking it with a debt":    {func(r *policy.Rule) { r.BreakGlass = true }, alice, ask(glass), policy.Facts{Debt: true}, "curfew reviews"},
		"a debt, and nothing broken": {func(*policy.Rule) {}, alice, ask(), policy.Facts{Debt: true}, ""},
	} {
		v := one(c.rule).Judge(c.who, c.ask, c.facts, now)
		if v.Allowed != (c.public == "") || !strings.Contains(v.Public, c.public) {
			t.Errorf("%s: allowed %v, %q", name, v.Allowed, v.Public)
		}
	}
}

// A step-up is promised when it would do, and then it does.
func TestStepUp(t *testing.T) {
	p := one(func(r *policy.Rule) { r.MFA = &policy.MFA{ACR: []string{"gold"}, Within: time.Minute} })
	v := p.Judge(alice, ask(), policy.Facts{}, now)
	if v.Allowed || v.StepUp == nil || !slices.Equal(v.StepUp.ACR, []string{"gold"}) || v.StepUp.Within != time.Minute {
		t.Fatalf("%+v", v)
	}
	again := alice
	again.ACR, again.AuthTime = v.StepUp.ACR[0], now
	if v := p.Judge(again, ask(), policy.Facts{}, now); !v.Allowed || v.StepUp != nil {
		t.Errorf("after the step-up: %+v", v)
	}
	for name, a := range map[string]policy.Ask{
		"too long":  ask(func(a *policy.Ask) { a.Duration = 2 * time.Hour }),
		"no reason": ask(func(a *policy.Ask) { a.Reason = "" }),
		"no rule":   ask(func(a *policy.Ask) { a.Level = "reader" }),
	} {
		if v := p.Judge(alice, a, policy.Facts{}, now); v.StepUp != nil {
			t.Errorf("%s: a login that would not help is asked for", name)
		}
	}
}

func TestMFAMet(t *testing.T) {
	login := func(acr string, ago time.Duration, amr ...string) auth.Identity {
		return auth.Identity{ACR: acr, AMR: amr, AuthTime: now.Add(-ago)}
	}
	declared := auth.Identity{Declared: true}
	for name, c := range map[string]struct {
		m    policy.MFA
		who  auth.Identity
		want bool
	}{
		"nothing asked":            {policy.MFA{}, auth.Identity{}, true},
		"any of acr":               {policy.MFA{ACR: []string{"a", "b"}}, login("b", 0), true},
		"none of acr":              {policy.MFA{ACR: []string{"a", "b"}}, login("c", 0), false},
		"any of amr":               {policy.MFA{AMR: []string{"otp", "hwk"}}, login("", 0, "pwd", "hwk"), true},
		"none of amr":              {policy.MFA{AMR: []string{"otp", "hwk"}}, login("", 0, "pwd"), false},
		"acr or amr":               {policy.MFA{ACR: []string{"a"}, AMR: []string{"otp"}}, login("x", 0, "otp"), true},
		"an empty acr is none":     {policy.MFA{ACR: []string{""}}, login("", 0), false},
		"an empty amr is none":     {policy.MFA{AMR: []string{""}}, login("", 0, ""), false},
		"in time":                  {policy.MFA{Within: time.Minute}, login("", time.Minute), true},
		"too old":                  {policy.MFA{Within: time.Minute}, login("", time.Minute+1), false},
		"no time":                  {policy.MFA{Within: time.Minute}, auth.Identity{}, false},
		"strong and old":           {policy.MFA{AMR: []string{"otp"}, Within: time.Minute}, login("", time.Hour, "otp"), false},
		"new and weak":             {policy.MFA{AMR: []string{"otp"}, Within: time.Minute}, login("", 0, "pwd"), false},
		"declared":                 {policy.MFA{AMR: []string{"otp"}}, declared, true},
		"declared, of unknown age": {policy.MFA{AMR: []string{"otp"}, Within: time.Minute}, declared, false},
	} {
		if got := c.m.Met(c.who, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDecidingTakesMFA(t *testing.T) {
	r := request(1)
	r.Approvals.MFA = &policy.MFA{AMR: []string{"otp"}, Within: time.Minute}
	strong := bob
	strong.AMR, strong.AuthTime = []string{"otp"}, now
	var stepUp *policy.StepUpError
	if err := example().MayDecide(bob, r, true, now); !errors.As(err, &stepUp) || stepUp.StepUp.Within != time.Minute {
		t.Errorf("a weak login approves: %v", err)
	}
	if err := example().MayDecide(bob, r, false, now); err != nil {
		t.Errorf("a weak login may not deny: %v", err)
	}
	if err := example().MayDecide(strong, r, true, now); err != nil {
		t.Errorf("a strong login may not approve: %v", err)
	}
	if err := example().MayDecide(dana, r, true, now); !errors.Is(err, policy.ErrStranger) {
		t.Errorf("a stranger is asked to log in again: %v", err)
	}
}

// stoodFor tries every way to give each party a person of its own.
func stoodFor(parties []policy.Who, people []auth.Identity, taken []bool) int {
	if len(parties) == 0 {
		return 0
	}
	best := stoodFor(parties[1:], people, taken) // nobody stands for the first
	for i, who := range people {
		if !taken[i] && parties[0].Matches(who) {
			taken[i] = true
			best = max(best, 1+stoodFor(parties[1:], people, taken))
			taken[i] = false
		}
	}
	return best
}

// Every way in which four people can be in three parties, in every order of speaking, against trying
// everything: who stands for two parties counts for one, and the order makes no difference.
func TestPartiesAgainstBruteForce(t *testing.T) {
	groups := []string{"a", "b", "c"}
	var parties []policy.Who
	for _, g := range groups {
		parties = append(parties, policy.Who{Groups: []string{g}})
	}
	check := func(count int, parties []policy.Who, people []auth.Identity) {
		r := policy.Request{Identity: alice, Terms: policy.Terms{Approvals: policy.Approvals{Count: count, Parties: parties}}}
		for _, who := range people {
			r.Decisions = append(r.Decisions, yes(who), yes(who))
		}
		r.Decisions = append(r.Decisions, yes(alice))
		heard := stoodFor(parties, people, make([]bool, len(people)))
		want := max(count-len(people), len(parties)-heard, 0)
		status, needed := policy.Tally(r)
		lacking, unheard := policy.Lacking(r)
		if needed != want || (status == policy.Approved) != (want == 0) || lacking != needed || len(unheard) != len(parties)-heard {
			t.Fatalf("%d of %v by %v: %s, %d needed, unheard %v; want %d", count, parties, people, status, needed, unheard, want)
		}
	}
	for n := range 4 + 1 {
		for combination := range 1 << (3 * n) {
			var people []auth.Identity
			for i := range n {
				var in []string
				for j, g := range groups {
					if combination>>(3*i+j)&1 == 1 {
						in = append(in, g)
					}
				}
				people = append(people, person(string(rune('p'+i)), in...))
			}
			check(n%4, parties, people)
			check(3, parties[:2], people)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var many []policy.Who
		for range 1 + random.IntN(5) {
			many = append(many, policy.Who{Groups: []string{string(rune('a' + random.IntN(5)))}})
		}
		var people []auth.Identity
		for i := range random.IntN(7) {
			var in []string
			for j := range 5 {
				if random.IntN(3) == 0 {
					in = append(in, string(rune('a'+j)))
				}
			}
			people = append(people, person(string(rune('p'+i)), in...))
		}
		check(random.IntN(8), many, people)
	}
}

// Whoever is of a party may decide; the requester is of none, in whatever party they are.
func TestPartiesDecide(t *testing.T) {
	r := request(2)
	r.Approvals = policy.Approvals{Count: 2, Parties: []policy.Who{{Groups: []string{"leads"}}, {Groups: []string{"security"}}}}
	for _, who := range []auth.Identity{bob, carol, sam} {
		if err := example().MayDecide(who, r, true, now); err != nil {
			t.Errorf("%s: %v", who.Subject, err)
		}
	}
	if err := example().MayDecide(dana, r, true, now); !errors.Is(err, policy.ErrStranger) {
		t.Errorf("dana: %v", err)
	}
	self := alice
	self.Groups = []string{"leads", "security"}
	r.Decisions = []policy.Decision{yes(self), yes(bob)}
	if status, needed := policy.Tally(r); status != policy.Open || needed != 1 {
		t.Errorf("the requester stands for a party: %s, %d", status, needed)
	}
	if people, parties := policy.Lacking(r); people != 1 || len(parties) != 1 || parties[0].Groups[0] != "security" {
		t.Errorf("lacking %d of %v", people, parties)
	}
	r.Decisions = append(r.Decisions, yes(carol))
	if status, _ := policy.Tally(r); status != policy.Approved {
		t.Error(status)
	}
}
