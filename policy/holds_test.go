package policy_test

import (
	"errors"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// What is judged again of a live grant, and what stays as it was judged.
func TestHoldsJudgesAgain(t *testing.T) {
	who := alice
	who.Claims = map[string]any{"dept": "shop"}
	deny := func(text string) func(*policy.Policy) {
		return func(p *policy.Policy) {
			p.Rules = append(p.Rules, policy.Rule{Name: "no", Deny: true, Who: policy.Who{Groups: []string{"developers"}}, Labels: policy.Labels{"env": "prod"},
				Levels: []string{"*"}, When: when(t, text)})
		}
	}
	given := func(text string) func(*policy.Policy) {
		return func(p *policy.Policy) { p.Rules[0].When = when(t, text) }
	}
	grant := policy.Grant{Identity: who, Target: "orders", Level: "writer", Can: example().Targets["orders"].Levels["writer"]}
	limited := grant
	limited.Limits = policy.Limits{Sessions: 2, Idle: time.Minute, Rows: 10, Bytes: 20}
	withheld := grant
	withheld.Record.Parameters = policy.ParametersTypes
	broken := grant
	broken.BreakGlass = true
	for name, c := range map[string]struct {
		g      policy.Grant
		change func(*policy.Policy)
		want   bool
	}{
		"as it was":                          {grant, func(*policy.Policy) {}, true},
		"a condition on who, and it holds":   {grant, given(`identity.claims.dept == "shop"`), true},
		"a condition on who, and it doesn't": {grant, given(`identity.claims.dept == "till"`), false},
		"a claim that is gone":               {grant, given(`identity.claims.boss == "x"`), false},
		"a condition on the target":          {grant, given(`target.labels.env == "test"`), false},
		"a condition on the level":           {grant, given(`level == "reader"`), false},
		"the hour has passed":                {grant, given(`now.getHours("Europe/Berlin") == 25`), true},
		"the request":                        {grant, given(`request.duration < duration("0s")`), true},
		"the past":                           {grant, given(`history.grants.size() > 10`), true},
		"a freeze":                           {grant, given(`frozen == ["x"]`), true},
		"what the login showed":              {grant, given(`identity.mfa && identity.acr == "x" && "x" in identity.amr && identity.auth_age < duration("0s")`), true},
		"who, beside the hour":               {grant, given(`now.getHours() == 25 && "leads" in identity.groups`), false},
		"who, or the hour":                   {grant, given(`now.getHours() == 25 || "leads" in identity.groups`), true},
		"denied":                             {grant, deny(`true`), false},
		"denied for who they are":            {grant, deny(`identity.claims.dept == "shop"`), false},
		"denied for who others are":          {grant, deny(`identity.claims.dept == "till"`), true},
		"denied for an hour":                 {grant, deny(`now.getHours() < 24`), true},
		"denied in a freeze":                 {grant, deny(`frozen.size() >= 0`), true},
		"limits as they were":                {limited, func(p *policy.Policy) { p.Rules[0].Limits = limited.Limits }, true},
		"no limits any more":                 {limited, func(*policy.Policy) {}, true},
		"limits that there were not":         {grant, func(p *policy.Policy) { p.Rules[0].Limits.Rows = 1 }, false},
		"fewer sessions":                     {limited, func(p *policy.Policy) { p.Rules[0].Limits.Sessions = 1 }, false},
		"less idling":                        {limited, func(p *policy.Policy) { p.Rules[0].Limits.Idle = time.Second }, false},
		"fewer rows":                         {limited, func(p *policy.Policy) { p.Rules[0].Limits.Rows = 9 }, false},
		"fewer bytes":                        {limited, func(p *policy.Policy) { p.Rules[0].Limits.Bytes = 19 }, false},
		"more bytes":                         {limited, func(p *policy.Policy) { p.Rules[0].Limits.Bytes = 21 }, true},
		"less on record":                     {withheld, func(p *policy.Policy) { p.Rules[0].Record = withheld.Record }, true},
		"less than must be on record":        {withheld, func(*policy.Policy) {}, false},
		"more than must be on record":        {grant, func(p *policy.Policy) { p.Rules[0].Record = withheld.Record }, true},
		"now for breaking the glass":         {grant, func(p *policy.Policy) { p.Rules[0].BreakGlass = true }, false},
		"the glass is broken":                {broken, func(p *policy.Policy) { p.Rules[0].BreakGlass = true }, true},
		"no breaking of glass any more":      {broken, func(*policy.Policy) {}, false},
		"shorter, with MFA and with a ticket": {grant, func(p *policy.Policy) {
			r := &p.Rules[0]
			r.Longest, r.MFA, r.Ticket = 1, &policy.MFA{Within: 1}, &policy.TicketRule{Pattern: "x"}
		}, true},
	} {
		p := one(func(*policy.Rule) {})
		c.change(p)
		if got := p.Holds(who, c.g); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// An open request stands while it would be allowed on the same terms: at the time, with the past and by the
// login of its asking.
func TestStandsByTheMomentOfAsking(t *testing.T) {
	who := alice
	who.AMR, who.AuthTime = []string{"otp"}, now.Add(-time.Minute)
	r := request(1)
	r.Identity, r.Created, r.Facts, r.Ticket = who, now, policy.Facts{OpenReviews: 1}, "T-1"
	rule := func(r *policy.Rule) {
		r.MFA, r.Ticket = &policy.MFA{AMR: []string{"otp"}, Within: 2 * time.Minute}, &policy.TicketRule{Pattern: "T-1"}
		r.When = when(t, `now.getHours() == 12 && history.open_reviews == 1 && identity.mfa == false`)
		r.Review, r.Limits, r.WithLastSession = &policy.Review{Within: time.Hour}, policy.Limits{Rows: 1}, true
	}
	p := one(rule)
	r.Terms, r.Can = p.Rules[0].Terms(), p.Targets["orders"].Levels["writer"]
	refreshed := alice // a provider says nothing of MFA when it refreshes
	if !p.Stands(refreshed, r) {
		t.Fatal("it does not stand under its own policy")
	}
	for name, change := range map[string]func(*policy.Rule){
		"parties":         func(r *policy.Rule) { r.Approvals.Parties = []policy.Who{{Groups: []string{"x"}}} },
		"decision MFA":    func(r *policy.Rule) { r.Approvals.MFA = &policy.MFA{Within: 1} },
		"review":          func(r *policy.Rule) { r.Review = nil },
		"reviewers":       func(r *policy.Rule) { r.Review = &policy.Review{Within: time.Hour, By: policy.Who{Anyone: true}} },
		"limits":          func(r *policy.Rule) { r.Limits.Rows = 2 },
		"last session":    func(r *policy.Rule) { r.WithLastSession = false },
		"ticket":          func(r *policy.Rule) { r.Ticket = &policy.TicketRule{Pattern: "T-1", Confirm: "https://x"} },
		"another ticket":  func(r *policy.Rule) { r.Ticket = &policy.TicketRule{Pattern: "T-2"} },
		"a newer login":   func(r *policy.Rule) { r.MFA = &policy.MFA{Within: time.Second} },
		"other condition": func(r *policy.Rule) { r.When = when(t, "false") },
	} {
		if one(func(r *policy.Rule) { rule(r); change(r) }).Stands(refreshed, r) {
			t.Errorf("%s: it stands on other terms", name)
		}
	}
	if !one(func(r *policy.Rule) { rule(r); r.Longest *= 2 }).Stands(refreshed, r) {
		t.Error("longer: it does not stand")
	}
}

func TestGrantKeepsItsTerms(t *testing.T) {
	r := request(0)
	r.Terms.Limits, r.WithLastSession, r.BreakGlass = policy.Limits{Rows: 7}, true, true
	g := r.Becomes("g1", now)
	if g.Limits.Rows != 7 || !g.WithLastSession || !g.BreakGlass {
		t.Errorf("%+v", g)
	}
}

func TestOffersOfTheDesk(t *testing.T) {
	rules := func(p *policy.Policy) (names []string) {
		for _, o := range p.Offers(alice) {
			names = append(names, o.Rule)
		}
		return names
	}
	for name, c := range map[string]struct {
		change func(*policy.Rule)
		want   int
	}{
		"as it is":                    {func(*policy.Rule) {}, 1},
		"denied":                      {func(r *policy.Rule) { r.Deny = true }, 0},
		"a condition that may hold":   {func(r *policy.Rule) { r.When = when(t, "now.getHours() == 3") }, 1},
		"a condition that never does": {func(r *policy.Rule) { r.When = when(t, `level == "x" && now.getHours() == 3`) }, 0},
		"one that can't be evaluated": {func(r *policy.Rule) { r.When = when(t, `identity.claims.x == 1`) }, 0},
	} {
		if got := rules(one(c.change)); len(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	p := example()
	p.Rules = append(p.Rules, policy.Rule{Name: "no", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"*"}, Levels: []string{"*"}})
	if got := rules(p); got != nil {
		t.Errorf("offered and denied: %v", got)
	}
	p.Rules[3].When = when(t, "frozen.size() > 0")
	if got := rules(p); len(got) != 4 {
		t.Errorf("denied at times: %v", got)
	}
	// Whoever asks for writer comes to the first rule, which fails, and never to the second.
	p = one(func(r *policy.Rule) { r.When = when(t, `identity.claims.x == 1`) })
	p.Rules = append(p.Rules, example().Rules[1])
	if got := rules(p); got != nil {
		t.Errorf("offered after a rule that fails: %v", got)
	}
	// An earlier rule hides a later one only if it asks for no more.
	for name, change := range map[string]func(*policy.Rule){
		"condition": func(r *policy.Rule) { r.When = when(t, "now.getHours() == 3") },
		"MFA":       func(r *policy.Rule) { r.MFA = &policy.MFA{Within: time.Hour} },
		"ticket":    func(r *policy.Rule) { r.Ticket = &policy.TicketRule{Pattern: "x"} },
		"glass":     func(r *policy.Rule) { r.BreakGlass = true },
	} {
		p := one(change)
		later := example().Rules[1]
		later.Name = "later"
		p.Rules = append(p.Rules, later)
		if got := rules(p); len(got) != 2 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLocksOut(t *testing.T) {
	nobody := policy.Rule{Name: "no", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"*"}, Levels: []string{"*"}}
	engineers := func(p *policy.Policy) {
		for i := range p.Rules {
			p.Rules[i].Who = policy.Who{Groups: []string{"engineers"}}
		}
	}
	for name, c := range map[string]struct {
		change func(*policy.Policy)
		people []auth.Identity
		want   error
	}{
		"the same":             {func(*policy.Policy) {}, nil, nil},
		"no rules":             {func(p *policy.Policy) { p.Rules = nil }, nil, policy.ErrGivesNothing},
		"everything is denied": {func(p *policy.Policy) { p.Rules = append(p.Rules, nobody) }, nil, policy.ErrGivesNothing},
		"denied to the group": {func(p *policy.Policy) {
			n := nobody
			n.Who = policy.Who{Groups: []string{"developers"}}
			p.Rules = append(p.Rules, n)
		}, nil, policy.ErrGivesNothing},
		"denied at times": {func(p *policy.Policy) {
			n := nobody
			n.When = when(t, "frozen.size() > 0")
			p.Rules = append(p.Rules, n)
		}, nil, nil},
		"conditions that never hold": {func(p *policy.Policy) {
			for i := range p.Rules {
				p.Rules[i].When = when(t, `level == "none"`)
			}
		}, nil, policy.ErrGivesNothing},
		"conditions on who one is": {func(p *policy.Policy) {
			for i := range p.Rules {
				p.Rules[i].When = when(t, `identity.claims.dept == "shop"`)
			}
		}, nil, nil},
		"labels that no target has": {func(p *policy.Policy) {
			for i := range p.Rules {
				p.Rules[i].Targets, p.Rules[i].Labels = nil, policy.Labels{"x": "y"}
			}
		}, nil, policy.ErrGivesNothing},
		"for others":                   {engineers, nil, policy.ErrLocksOut},
		"for others, one of them is":   {engineers, []auth.Identity{person("alice", "developers", "engineers")}, nil},
		"for others, whom nobody knew": {engineers, []auth.Identity{person("eve", "engineers")}, policy.ErrLocksOut},
		"less for all":                 {func(p *policy.Policy) { p.Rules = p.Rules[:1] }, nil, nil},
	} {
		p := example()
		c.change(p)
		if err := p.LocksOut(example(), c.people...); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	first := example()
	if err := first.LocksOut(nil); err != nil {
		t.Errorf("the first policy: %v", err)
	}
}
