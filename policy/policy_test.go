package policy_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

const issuer = "https://id.example.test"

var (
	now   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	alice = person("alice", "developers")
	dana  = person("dana", "developers")
	bob   = person("bob", "leads")
	carol = person("carol", "leads", "security")
	sam   = person("sam", "security")
)

func person(name string, groups ...string) auth.Identity {
	return auth.Identity{Issuer: issuer, Subject: name, Email: name + "@example.test", Groups: groups}
}

func example() *policy.Policy {
	levels := map[string]policy.Level{"reader": {Roles: []string{"orders_reader"}}, "writer": {Roles: []string{"orders_writer"}}}
	return &policy.Policy{
		Targets: map[string]policy.Target{
			"orders":  {Labels: map[string]string{"env": "prod", "team": "shop"}, Levels: levels},
			"staging": {Labels: map[string]string{"env": "test"}, Levels: levels},
		},
		Rules: []policy.Rule{
			{Name: "look", Who: policy.Who{Groups: []string{"developers"}}, Targets: []string{"*"}, Levels: []string{"reader"}, Longest: time.Hour},
			{Name: "write", Who: policy.Who{Groups: []string{"developers"}}, Labels: policy.Labels{"env": "prod"}, Levels: []string{"writer"},
				Longest: time.Hour, Reason: true, Approvals: policy.Approvals{Count: 1, From: policy.Who{Groups: []string{"leads"}}}},
			{Name: "write long", Who: policy.Who{Groups: []string{"developers"}}, Targets: []string{"orders"}, Levels: []string{"writer"}, Longest: 90 * time.Minute,
				Reason: true, Lapse: time.Hour, Approvals: policy.Approvals{Count: 2, From: policy.Who{Groups: []string{"leads", "security"}}}},
		},
		Readers: []policy.Reader{{Who: policy.Who{Groups: []string{"security"}}, Targets: []string{"orders"}}},
	}
}

func TestWhoMatches(t *testing.T) {
	for name, c := range map[string]struct {
		who  policy.Who
		id   auth.Identity
		want bool
	}{
		"nothing selects nobody":              {policy.Who{}, alice, false},
		"anyone":                              {policy.Who{Anyone: true}, alice, true},
		"anyone is not nobody":                {policy.Who{Anyone: true}, auth.Identity{Email: "alice@example.test"}, false},
		"a subject without issuer is nobody":  {policy.Who{Anyone: true}, auth.Identity{Subject: "alice"}, false},
		"anyone of a group is that group":     {policy.Who{Anyone: true, Groups: []string{"leads"}}, alice, false},
		"one of the groups":                   {policy.Who{Groups: []string{"leads", "developers"}}, alice, true},
		"none of the groups":                  {policy.Who{Groups: []string{"leads"}}, alice, false},
		"groups are case sensitive":           {policy.Who{Groups: []string{"Developers"}}, alice, false},
		"an empty group is no group":          {policy.Who{Groups: []string{""}}, person("x", ""), false},
		"e-mail in any case":                  {policy.Who{Emails: []string{"Alice@Example.test"}}, alice, true},
		"e-mail without Unicode folding":      {policy.Who{Emails: []string{"\u212Aim@example.test"}}, person("kim"), false},
		"e-mail of the same length":           {policy.Who{Emails: []string{"Alicf@example.test"}}, alice, false},
		"an empty e-mail is no e-mail":        {policy.Who{Emails: []string{""}}, auth.Identity{Issuer: issuer, Subject: "x"}, false},
		"subject":                             {policy.Who{Subjects: []string{"alice"}}, alice, true},
		"fields of different names all match": {policy.Who{Groups: []string{"developers"}, Issuers: []string{issuer}}, alice, true},
		"one field that doesn't match":        {policy.Who{Groups: []string{"developers"}, Issuers: []string{"https://other.test"}}, alice, false},
	} {
		if got := c.who.Matches(c.id); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestJudge(t *testing.T) {
	ask := func(target, level string, d time.Duration, reason string) policy.Ask {
		return policy.Ask{Target: target, Level: level, Duration: d, Reason: reason}
	}
	for name, c := range map[string]struct {
		who    auth.Identity
		ask    policy.Ask
		rule   string // "" = refused
		public string // part of the sentence
	}{
		"by name":                      {alice, ask("staging", "reader", time.Hour, ""), "look", ""},
		"by label":                     {alice, ask("orders", "writer", time.Hour, "fix"), "write", ""},
		"the first that allows it":     {alice, ask("orders", "writer", 61*time.Minute, "fix"), "write long", ""},
		"no rule for the person":       {bob, ask("orders", "writer", time.Hour, "fix"), "", "no rule gives you writer on orders; see what you may ask for: curfew targets"},
		"no rule for the target":       {alice, ask("staging", "writer", time.Hour, "fix"), "", "no rule gives you writer on staging"},
		"an unknown target says as m.": {alice, ask("payroll", "writer", time.Hour, "fix"), "", "no rule gives you writer on payroll; see"},
		"an unknown level":             {alice, ask("orders", "owner", time.Hour, "fix"), "", "no rule gives you owner on orders; see"},
		"too long":                     {alice, ask("orders", "writer", 2*time.Hour, "fix"), "", "1h30m at most; ask again with --for 1h30m"},
		"no reason":                    {alice, ask("orders", "writer", time.Hour, " \n"), "", `--reason "…"`},
		"longer than any, no reason":   {alice, ask("orders", "writer", 2*time.Hour, ""), "", "at most"},
		"no time":                      {alice, ask("orders", "reader", 0, ""), "", "for how long"},
		"negative time":                {alice, ask("orders", "reader", -time.Hour, ""), "", "for how long"},
		"no target":                    {alice, ask("", "reader", time.Hour, ""), "", "target"},
		"nobody":                       {auth.Identity{Groups: []string{"developers"}}, ask("orders", "reader", time.Hour, ""), "", "no rule gives you"},
	} {
		v := example().Judge(c.who, c.ask, policy.Facts{}, now)
		got := ""
		if v.Allowed {
			got = v.Rule.Name
		}
		if got != c.rule || v.Allowed != (c.rule != "") || !strings.Contains(v.Public, c.public) || (v.Public == "") != v.Allowed {
			t.Errorf("%s: allowed %v by %q, %q", name, v.Allowed, got, v.Public)
		}
	}
}

func TestJudgeStart(t *testing.T) {
	p := example()
	ask := policy.Ask{Target: "orders", Level: "reader", Duration: time.Hour, Start: now.Add(policy.Ahead)}
	if v := p.Judge(alice, ask, policy.Facts{}, now); !v.Allowed {
		t.Error(v.Public)
	}
	ask.Start = ask.Start.Add(1)
	if v := p.Judge(alice, ask, policy.Facts{}, now); v.Allowed || !v.Invalid {
		t.Error("a start beyond the limit is allowed")
	}
}

// A refusal tells the asker of rules for other people as little as of targets that don't exist, and the
// log all of it.
func TestJudgeTellsNothingOfOthers(t *testing.T) {
	p := example()
	with := p.Judge(bob, policy.Ask{Target: "orders", Level: "writer", Duration: 9 * time.Hour}, policy.Facts{}, now)
	delete(p.Targets, "orders")
	without := p.Judge(bob, policy.Ask{Target: "orders", Level: "writer", Duration: 9 * time.Hour}, policy.Facts{}, now)
	if with.Public != without.Public {
		t.Errorf("%q and %q differ", with.Public, without.Public)
	}
	v := example().Judge(alice, policy.Ask{Target: "orders", Level: "writer", Duration: 9 * time.Hour, Reason: "fix"}, policy.Facts{}, now)
	want := []policy.RuleMiss{{"look", "it is for other levels"}, {"write", "it gives 1h at most"}, {"write long", "it gives 1h30m at most"}}
	if !reflect.DeepEqual(v.Why, want) {
		t.Errorf("why: %v", v.Why)
	}
}

func request(approvals int, decisions ...policy.Decision) policy.Request {
	return policy.Request{
		ID: "r1", Identity: alice, Target: "orders", Level: "writer", Duration: time.Hour, Status: policy.Open, Reason: "fix", Lapses: now.Add(1),
		Terms:     policy.Terms{Approvals: policy.Approvals{Count: approvals, From: policy.Who{Groups: []string{"leads", "security"}}}},
		Decisions: decisions,
	}
}

func yes(who auth.Identity) policy.Decision { return policy.Decision{Identity: who, Approve: true} }
func no(who auth.Identity) policy.Decision  { return policy.Decision{Identity: who} }

func TestTally(t *testing.T) {
	again := carol
	again.Email, again.Groups = "carol@elsewhere.test", []string{"security"}
	elsewhere := carol // her account at another issuer
	elsewhere.Issuer, elsewhere.Subject, elsewhere.Email = "https://other.test", "4711", "Carol@Example.test"
	namesake := carol
	namesake.Issuer, namesake.Email = "https://other.test", "carol@other.test"
	hers := alice
	hers.Issuer, hers.Groups = "https://other.test", []string{"leads"}
	for name, c := range map[string]struct {
		r      policy.Request
		status policy.Status
		needed int
	}{
		"none needed":                         {request(0), policy.Approved, 0},
		"none yet":                            {request(1), policy.Open, 1},
		"one of one":                          {request(1, yes(bob)), policy.Approved, 0},
		"one of two":                          {request(2, yes(bob)), policy.Open, 1},
		"two of two":                          {request(2, yes(bob), yes(sam)), policy.Approved, 0},
		"more than needed":                    {request(1, yes(bob), yes(sam)), policy.Approved, 0},
		"the same person twice":               {request(2, yes(carol), yes(carol)), policy.Open, 1},
		"the same person in two groups":       {request(2, yes(carol), yes(again)), policy.Open, 1},
		"one subject at two issuers is two":   {request(2, yes(carol), yes(namesake)), policy.Approved, 0},
		"one human at two issuers is one":     {request(2, yes(carol), yes(elsewhere)), policy.Open, 1},
		"no e-mail is nobody's":               {request(2, yes(auth.Identity{Issuer: issuer, Subject: "x"}), yes(auth.Identity{Issuer: issuer, Subject: "y"})), policy.Approved, 0},
		"the requester":                       {request(1, yes(alice)), policy.Open, 1},
		"the requester at another issuer":     {request(1, yes(hers)), policy.Open, 1},
		"nobody":                              {request(1, yes(auth.Identity{Issuer: issuer})), policy.Open, 1},
		"one deny ends it":                    {request(2, yes(bob), no(sam)), policy.Denied, 0},
		"a deny after one's own approval":     {request(2, yes(bob), no(bob)), policy.Denied, 0},
		"a deny that came with the last vote": {request(1, no(sam), yes(bob)), policy.Denied, 0},
	} {
		if status, needed := policy.Tally(c.r); status != c.status || needed != c.needed {
			t.Errorf("%s: %s, %d needed", name, status, needed)
		}
	}
}

func TestMayDecide(t *testing.T) {
	p := example()
	lead := alice // the requester got into the group that decides
	lead.Groups = []string{"leads", "security"}
	hers, his := lead, bob // their accounts at another issuer
	hers.Issuer, his.Issuer, his.Email = "https://other.test", "https://other.test", "Bob@Example.test"
	ended := request(1)
	ended.Status = policy.Lapsed
	late := request(1)
	late.Lapses = now
	gone := request(1)
	gone.Target = "gone"
	for name, c := range map[string]struct {
		who     auth.Identity
		r       policy.Request
		approve bool
		want    error
	}{
		"a lead approves":          {bob, request(1), true, nil},
		"a lead denies":            {bob, request(1), false, nil},
		"the requester":            {lead, request(1), true, policy.ErrSelf},
		"the requester denies":     {lead, request(1), false, policy.ErrSelf},
		"under another identity":   {hers, request(1), true, policy.ErrSelf},
		"twice as two":             {his, request(2, yes(bob)), true, policy.ErrTwice},
		"a stranger":               {dana, request(1), true, policy.ErrStranger},
		"a stranger denies":        {dana, request(1), false, policy.ErrStranger},
		"twice":                    {bob, request(2, yes(bob)), true, policy.ErrTwice},
		"a change of mind":         {bob, request(2, yes(bob)), false, nil},
		"ended":                    {bob, ended, true, policy.ErrEnded},
		"a target that is no more": {bob, gone, true, policy.ErrStranger},
	} {
		if err := p.MayDecide(c.who, c.r, c.approve, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if counts := !errors.Is(c.want, policy.ErrSelf) && !errors.Is(c.want, policy.ErrStranger); p.Decider(c.who, c.r) != counts {
			t.Errorf("%s: decider %v", name, !counts)
		}
	}
}

func TestMayReadSeeRevoke(t *testing.T) {
	p, r := example(), request(1)
	r.Approvals.From = policy.Who{Groups: []string{"leads"}}
	for who, want := range map[string]struct {
		id            auth.Identity
		read, see, on bool // on: recordings of a target that nobody reads
	}{
		"holder":   {alice, false, true, false},
		"approver": {bob, false, true, false},
		"security": {sam, true, true, false},
		"other":    {dana, false, false, false},
	} {
		if got := p.MayRead(want.id, "orders"); got != want.read {
			t.Errorf("%s reads: %v", who, got)
		}
		if got := p.MayRead(want.id, "staging"); got != want.on {
			t.Errorf("%s reads another target: %v", who, got)
		}
		if got := p.MaySee(want.id, r); got != want.see {
			t.Errorf("%s sees: %v", who, got)
		}
		if got := p.MayRevoke(want.id, r); got != want.see {
			t.Errorf("%s revokes: %v", who, got)
		}
	}
}

func TestStandsAndHolds(t *testing.T) {
	r := request(1)
	r.Approvals.From = policy.Who{Groups: []string{"leads"}}
	r.Can = example().Targets["orders"].Levels["writer"]
	holding := policy.Grant{Target: "orders", Level: "writer", Can: r.Can}
	for name, c := range map[string]struct {
		change        func(*policy.Policy)
		stands, holds bool
	}{
		"nothing changed":  {func(*policy.Policy) {}, true, true},
		"more approvals":   {func(p *policy.Policy) { p.Rules[1].Approvals.Count = 2 }, false, true},
		"fewer approvals":  {func(p *policy.Policy) { p.Rules[1].Approvals.Count = 0 }, false, true},
		"other approvers":  {func(p *policy.Policy) { p.Rules[1].Approvals.From.Groups[0] = "owners" }, false, true},
		"shorter":          {func(p *policy.Policy) { p.Rules[1].Longest, p.Rules[2].Longest = time.Minute, time.Minute }, false, true},
		"rules gone":       {func(p *policy.Policy) { p.Rules = p.Rules[:1] }, false, false},
		"for other people": {func(p *policy.Policy) { p.Rules[1].Who.Groups[0], p.Rules[2].Who.Groups[0] = "x", "x" }, false, false},
		"level changed": {func(p *policy.Policy) {
			p.Targets["orders"].Levels["writer"] = policy.Level{Roles: []string{"orders_owner"}}
		}, false, false},
		"other idling": {func(p *policy.Policy) {
			l := p.Targets["orders"].Levels["writer"]
			l.Idle = time.Minute
			p.Targets["orders"].Levels["writer"] = l
		}, true, true},
		"level gone":         {func(p *policy.Policy) { delete(p.Targets["orders"].Levels, "writer") }, false, false},
		"target gone":        {func(p *policy.Policy) { delete(p.Targets, "orders") }, false, false},
		"other labels":       {func(p *policy.Policy) { p.Targets["orders"].Labels["env"] = "test" }, false, true},
		"an unrelated rule":  {func(p *policy.Policy) { p.Rules[0].Longest = 0 }, true, true},
		"a rule for nothing": {func(p *policy.Policy) { p.Rules[1].Approvals.Count = -1 }, false, true},
	} {
		p := example()
		c.change(p)
		if got := p.Stands(alice, r); got != c.stands {
			t.Errorf("%s: stands %v", name, got)
		}
		if got := p.Holds(alice, holding); got != c.holds {
			t.Errorf("%s: holds %v", name, got)
		}
	}
	demoted := alice
	demoted.Groups = nil
	if example().Stands(demoted, r) || example().Holds(demoted, holding) {
		t.Error("a person who lost the group keeps it")
	}
}

func TestBecomes(t *testing.T) {
	approved := now.Add(10 * time.Minute)
	for name, c := range map[string]struct{ asked, start time.Time }{
		"at once":                        {time.Time{}, approved},
		"asked before the last approval": {now.Add(time.Minute), approved},
		"asked after the last approval":  {now.Add(time.Hour), now.Add(time.Hour)},
	} {
		r := request(2, yes(bob), yes(carol), yes(bob))
		r.Start, r.Can = c.asked, policy.Level{Roles: []string{"orders_writer"}}
		g := r.Becomes("g1", approved)
		if !g.Start.Equal(c.start) || !g.End.Equal(c.start.Add(time.Hour)) {
			t.Errorf("%s: %v to %v", name, g.Start, g.End)
		}
		if !reflect.DeepEqual(g.Can, r.Can) {
			t.Errorf("%s: the grant is for something else than what was approved: %+v", name, g.Can)
		}
		if want := []string{bob.Email, carol.Email}; !reflect.DeepEqual(g.Approvers, want) {
			t.Errorf("%s: approvers %v", name, g.Approvers)
		}
		if g.Active(g.Start.Add(-1)) || !g.Active(g.Start) || !g.Active(g.End.Add(-1)) || g.Active(g.End) {
			t.Errorf("%s: active outside of [start, end)", name)
		}
	}
}

func TestOffers(t *testing.T) {
	type offer struct {
		target, level, rule string
		longest             time.Duration
		approvals           int
		reason              bool
	}
	brief := func(offers []policy.Offer) (all []offer) {
		for _, o := range offers {
			all = append(all, offer{o.Target, o.Level, o.Rule, o.Longest, o.Approvals, o.Reason})
		}
		return all
	}
	want := []offer{
		{"orders", "reader", "look", time.Hour, 0, false},
		{"orders", "writer", "write", time.Hour, 1, true},
		{"orders", "writer", "write long", 90 * time.Minute, 2, true},
		{"staging", "reader", "look", time.Hour, 0, false},
	}
	if got := brief(example().Offers(alice)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if got := example().Offers(sam); got != nil {
		t.Errorf("offers to somebody without rules: %v", got)
	}
	p := example()
	p.Rules = append(p.Rules, policy.Rule{Name: "shadowed", Who: policy.Who{Anyone: true}, Targets: []string{"orders"}, Levels: []string{"reader", "none"}, Longest: time.Minute})
	if got := brief(p.Offers(alice)); !reflect.DeepEqual(got, want) {
		t.Errorf("a rule that never comes to bear is offered: %v", got)
	}
}

// Whatever is offered is allowed as it is offered, and by that rule.
func TestOffersAreAllowed(t *testing.T) {
	p := example()
	for _, o := range p.Offers(alice) {
		v := p.Judge(alice, policy.Ask{Target: o.Target, Level: o.Level, Duration: o.Longest, Reason: "fix"}, policy.Facts{}, now)
		if !v.Allowed || v.Rule.Name != o.Rule {
			t.Errorf("%v: %v", o, v)
		}
	}
}

// large is a policy of the size of a company: 200 rules over 100 targets; only the last fits.
func large() *policy.Policy {
	p := &policy.Policy{Targets: map[string]policy.Target{}}
	for i := range 100 {
		p.Targets[fmt.Sprint("t", i)] = policy.Target{
			Labels: map[string]string{"env": "prod", "team": fmt.Sprint("team", i%10)},
			Levels: map[string]policy.Level{"reader": {}, "writer": {}},
		}
	}
	for i := range 200 {
		p.Rules = append(p.Rules, policy.Rule{
			Name: fmt.Sprint("rule", i), Who: policy.Who{Groups: []string{fmt.Sprint("group", i), "everybody"}, Issuers: []string{issuer}},
			Labels: policy.Labels{"env": "prod", "team": fmt.Sprint("team", i%10)}, Levels: []string{"writer"}, Longest: time.Hour,
		})
	}
	return p
}

// office is the same with rules as they are written for an office: hours, freezes, claims, the past.
func office(t testing.TB) *policy.Policy {
	p := large()
	l, err := policy.NewLanguage()
	if err != nil {
		t.Fatal(err)
	}
	compile := func(text string) *policy.Condition {
		c, wrong := l.Compile(text)
		if wrong != nil {
			t.Fatal(wrong)
		}
		return c
	}
	p.Freezes = []policy.Freeze{{Name: "tax", From: now.Add(24 * time.Hour), To: now.Add(48 * time.Hour)}}
	p.Rules[0] = policy.Rule{Name: "freeze", Deny: true, Who: policy.Who{Anyone: true}, Targets: []string{"*"}, Levels: []string{"writer"},
		When: compile(`frozen.size() > 0`)}
	p.Rules[5].When = compile(`now.getHours("Europe/Berlin") in [8, 9, 10] && identity.claims.dept == "shop"`)
	p.Rules[15].When = compile(`history.grants.filter(g, now - g.start < duration("24h")).size() > 5`)
	p.Rules[195].MFA = &policy.MFA{AMR: []string{"otp"}, Within: time.Hour}
	for i := range p.Rules {
		if i != 5 && i != 15 && i != 195 {
			p.Rules[i].Who.Groups = slices.DeleteFunc(slices.Clone(p.Rules[i].Who.Groups), func(g string) bool { return g == "everybody" })
		}
	}
	return p
}

// employee asks for something that the last but four rules of the office give, after three conditions.
func employee() (auth.Identity, policy.Ask, policy.Facts) {
	who := person("x", "everybody", "a", "b", "c", "d")
	who.AMR, who.AuthTime, who.Claims = []string{"pwd", "otp"}, now.Add(-time.Minute), map[string]any{"dept": "shop"}
	facts := policy.Facts{Grants: []policy.Past{{Target: "t1", Level: "writer", Start: now.Add(-time.Hour)}, {Target: "t1", Level: "writer", Start: now.Add(-99 * time.Hour)}}}
	return who, policy.Ask{Target: "t5", Level: "writer", Duration: time.Hour, Reason: "fix"}, facts
}

// TestJudgeIsFast keeps a verdict for which every rule was asked under 20 µs. The fastest of many counts,
// because machines that run tests are busy.
func TestJudgeIsFast(t *testing.T) {
	who, ask, facts := employee()
	for name, c := range map[string]struct {
		p   *policy.Policy
		who auth.Identity
	}{"every rule": {large(), person("x", "group199", "a", "b", "c", "d")}, "conditions": {office(t), who}} {
		best := time.Hour
		for range 2000 {
			began := time.Now()
			c.p.Judge(c.who, ask, facts, now)
			best = min(best, time.Since(began))
		}
		if limit := 20 * time.Microsecond; best > limit && !raceEnabled {
			t.Errorf("%s: a verdict takes %v, more than %v", name, best, limit)
		}
		t.Logf("%s: %v", name, best)
	}
}

// TestJudgeAllocatesLittle: what a verdict costs the collector, with three conditions on the way.
func TestJudgeAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p := office(t)
	who, ask, facts := employee()
	if v := p.Judge(who, ask, facts, now); !v.Allowed || v.Rule.Name != "rule195" {
		t.Fatalf("%+v", v)
	}
	if n := testing.AllocsPerRun(100, func() { p.Judge(who, ask, facts, now) }); n > 50 {
		t.Errorf("%v allocations", n)
	} else {
		t.Logf("%v allocations", n)
	}
}

func BenchmarkJudge(b *testing.B) {
	who, ask, facts := employee()
	for name, c := range map[string]struct {
		p     *policy.Policy
		who   auth.Identity
		allow bool
	}{"every-rule": {large(), person("x", "group199", "a", "b", "c", "d"), false}, "conditions": {office(b), who, true}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if c.p.Judge(c.who, ask, facts, now).Allowed != c.allow {
					b.Fatal("judged otherwise")
				}
			}
		})
	}
}
