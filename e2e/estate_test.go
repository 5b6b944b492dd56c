package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/internal/provider"
)

// estate is a `curfew serve` with a policy of the story's own, both engines, and two identity providers: the people's,
// and one of partners, at which some people have a second identity.
type estate struct {
	curfew           *harness.Curfew
	people, partners *harness.Provider
	towns            []*town // both stages, with this Curfew
	all              map[string]*api.Client
}

// shows is a login with both factors, as the people's provider asserts it.
const shows = provider.ACR

// user is somebody at a provider.
func user(name string, groups ...string) provider.User {
	return provider.User{Name: name, Email: name + "@example.test", FullName: strings.ToUpper(name[:1]) + name[1:], Groups: groups,
		ACR: provider.ACR, AMR: []string{"pwd", "otp"}}
}

// newEstate starts one. more is configuration beside the issuers; others are known at the partners' provider.
func newEstate(t *testing.T, policy, more string, others []provider.User, users ...provider.User) *estate {
	t.Helper()
	dir := t.TempDir()
	e := &estate{all: map[string]*api.Client{}}
	key := filepath.Join(dir, "key")
	e.people = must(harness.StartProvider(t.Context(), key, append(users, user("sam", "security"))...))(t)
	t.Cleanup(func() { _ = e.people.Away() })
	e.partners = must(harness.StartProvider(t.Context(), key, append(others, user("nobody"))...))(t)
	t.Cleanup(func() { _ = e.partners.Away() })
	config := fmt.Sprintf("refresh: 1s\nissuers:\n  - {url: %q, client_id: curfew-cli, claims: [name]}\n  - {url: %q, client_id: curfew-cli}\n%s",
		e.people.Issuer, e.partners.Issuer, more)
	e.curfew = must(harness.Serving(shared.bin, filepath.Join(dir, "data"), policy, config, e.people, shared.url, shop.url))(t)
	if err := e.curfew.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("curfew's log:\n%s", e.curfew.Log())
		}
		if err := e.curfew.Kill(); err != nil {
			t.Error(err)
		}
	})
	base := &town{dir: dir, bin: shared.bin, curfew: e.curfew}
	base.sam = must(e.curfew.Login(t.Context(), "sam", filepath.Join(dir, "homes")))(t)
	e.towns = []*town{base.on(shared.stage), base.on(shop.stage)}
	return e
}

// as is somebody at their own terminal, at the people's provider.
func (e *estate) as(t *testing.T, name string) *api.Client {
	t.Helper()
	if e.all[name] == nil {
		e.all[name] = must(e.curfew.Sit(t.Context(), &e.people.Identities, name, shows))(t)
	}
	return e.all[name]
}

// put writes a policy and has it read.
func (e *estate) put(t *testing.T, policy string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(e.curfew.Dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.curfew.Reload(); err != nil {
		t.Fatal(err)
	}
}

// leveled writes the targets of a policy: both, with these levels, all with one role each.
func leveled(role string, levels ...string) string {
	var y strings.Builder
	y.WriteString("targets:\n")
	for _, target := range []string{harness.Orders, harness.Shop} {
		fmt.Fprintf(&y, "  %s:\n    levels:\n", target)
		for _, l := range levels {
			fmt.Fprintf(&y, "      %s: {roles: [%s_%s]}\n", l, target, role)
		}
	}
	return y.String()
}

// ruled writes a rule that gives a level to a group: its other terms are YAML, comma by comma.
func ruled(level, who, terms string) string {
	if terms != "" {
		terms = ", " + terms
	}
	if !strings.Contains(terms, "approvals:") {
		terms += ", approvals: {count: 0}"
	}
	return fmt.Sprintf("  - {name: %s, who: {groups: [%s]}, targets: [orders, shop], levels: [%s], longest: 30m, reason: optional%s}\n", level, who, level, terms)
}

// asks is an ask of somebody's.
func asks(t *testing.T, c *api.Client, ask api.Ask) (api.Request, error) {
	t.Helper()
	ask.Duration = cmp.Or(ask.Duration, api.Duration(10*time.Minute))
	return c.Ask(t.Context(), ask)
}

// enters connects under a grant, as its holder.
func (s *town) enters(t *testing.T, c *api.Client, grant string) (conn, error) {
	t.Helper()
	creds := must(c.Password(t.Context(), grant))(t)
	in, err := s.stage.login(t.Context(), s.trusting(t, creds))
	if err == nil {
		t.Cleanup(func() { _ = in.close() }) // Curfew may have hung up on it
	}
	return in, err
}

// trusting is credentials with the file that they want their CA in.
func (s *town) trusting(t *testing.T, creds api.Credentials) harness.Credentials {
	t.Helper()
	c := harness.Credentials{Credentials: creds}
	if creds.CA != "" {
		c.CAFile = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(c.CAFile, []byte(creds.CA), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// no checks that an error is a problem of this kind, with these words in it.
func no(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	p, ok := api.AsProblem(err)
	if !ok || p.Code != code {
		t.Errorf("want %s, got %v", code, err)
		return
	}
	for _, w := range words {
		if !strings.Contains(p.Detail+"; "+p.Next, w) {
			t.Errorf("%s; %s\nlacks %q", p.Detail, p.Next, w)
		}
	}
}

// losing is a grant with somebody in it, and what is to become of both.
type losing struct {
	*town
	level string
	grant api.Grant
	in    conn
}

func (e *estate) losing(t *testing.T, who, level string) (all []losing) {
	t.Helper()
	for _, s := range e.towns {
		r := must(asks(t, e.as(t, who), api.Ask{Target: s.target, Level: level}))(t)
		l := losing{town: s, level: level, grant: must(e.as(t, who).Grant(t.Context(), r.Grant))(t)}
		l.in = must(s.enters(t, e.as(t, who), r.Grant))(t)
		exec1(t, l.in, "SELECT 1")
		all = append(all, l)
	}
	return all
}

// hasLost waits for the end of what somebody has lost, on every stage, and checks that it came within a second or so of what ended it.
func hasLost(t *testing.T, began time.Time, all []losing, words ...string) {
	t.Helper()
	for _, l := range all {
		r := l.receipt(t, l.grant.ID, "revoked")
		if took := r.Cut.GoneAt.Sub(began); took > 3*time.Second {
			t.Errorf("%s on %s: the last backend was gone after %s", l.level, l.target, took)
		}
		l.told(t, ends(t, goExec(t.Context(), l.in, "SELECT 1")), words...)
	}
}

// still checks that nobody has lost anything.
func still(t *testing.T, all ...losing) {
	t.Helper()
	for _, l := range all {
		if err := l.in.run(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("%s on %s: %v", l.level, l.target, err)
		}
	}
}

// Who has lost what a policy gave is cut off by its reload, in all the ways in which that can be: nothing gives it any more, to
// them or at all, a rule denies it, a condition on who or what it is for fails, the level means something else, its limits are
// narrower, the target is gone. The time, the request and the past stay as they were judged. So it is with what the
// provider says of somebody: in other groups, or disabled.
func TestWhoLosesWhat(t *testing.T) {
	t.Parallel()
	levels := []string{"kept", "ruled", "whom", "limited", "timed", "denied", "placed", "means"}
	v1 := map[string]string{"ruled": "", "whom": "", "limited": "limits: {sessions: 5, idle: 10m, rows: 1000, bytes: 10MB}", "denied": "", "placed": "", "means": "",
		"kept": "", "timed": `when: 'now < timestamp("2100-01-01T00:00:00Z") && request.duration <= duration("10m")'`}
	write := func(targets string, terms map[string]string, more string) string {
		y := targets + "rules:\n"
		for _, level := range slices.Sorted(maps.Keys(terms)) {
			who := "developers"
			if level == "whom" && terms[level] == "leads" {
				who, terms[level] = "leads", ""
			}
			y += ruled(level, who, terms[level])
		}
		return y + more + "readers:\n  - {who: {groups: [security]}, targets: ['*']}\n"
	}
	first := write(leveled("writer", levels...), v1, "")
	e := newEstate(t, first, "", nil, user("alice", "developers"), user("dana", "developers"), user("erin", "developers"))
	has := map[string][]losing{}
	for _, level := range levels {
		has[level] = e.losing(t, "alice", level)
	}
	danas, erins := e.losing(t, "dana", "kept"), e.losing(t, "erin", "kept")

	// What is wrong with a policy is said by file, line and column, and the one before it stays.
	e.put(t, strings.Replace(first, "now < timestamp", "now < time", 1))
	if err := e.curfew.Logged(t.Context(), "policy.yaml:"); err != nil {
		t.Error(err)
	}
	contains(t, e.curfew.Log(), "rules[6].when", "the old one stays in force")
	// So does it where the new one would leave nobody with anything.
	e.put(t, strings.ReplaceAll(first, "[developers]", "[astronauts]"))
	if err := e.curfew.Logged(t.Context(), "would lock everybody out"); err != nil {
		t.Error(err)
	}
	for _, some := range has {
		still(t, some...)
	}

	second := write(strings.NewReplacer("means: {roles: [orders_writer", "means: {roles: [orders_reader", "means: {roles: [shop_writer", "means: {roles: [shop_reader").
		Replace(leveled("writer", levels...)),
		map[string]string{"kept": "approvals: {count: 1, from: {groups: [leads]}}", "whom": "leads", "limited": "limits: {sessions: 5, idle: 10m, rows: 10, bytes: 10MB}",
			"timed": `when: 'now > timestamp("2100-01-01T00:00:00Z") && request.duration <= duration("1m") && size(history.grants) == 0'`, "denied": "",
			"placed": `when: 'target.labels.story == "orders" && "developers" in identity.groups'`, "means": ""},
		"  - {name: never, effect: deny, who: {groups: [developers]}, targets: ['*'], levels: [denied]}\n")
	began := time.Now()
	e.put(t, second)
	for _, level := range []string{"ruled", "whom", "limited", "denied", "means"} {
		hasLost(t, began, has[level], "the policy gives "+level)
	}
	hasLost(t, began, has["placed"][1:], "the policy gives placed on shop")
	still(t, append(append(has["kept"], has["timed"]...), has["placed"][0])...)
	_, err := asks(t, e.as(t, "alice"), api.Ask{Target: "orders", Level: "timed"})
	no(t, err, "policy", "under a condition that does not hold")
	_, err = asks(t, e.as(t, "alice"), api.Ask{Target: "shop", Level: "denied"})
	no(t, err, "policy", `the rule "never" forbids denied on shop`)

	began = time.Now()
	if err := e.people.Change(t.Context(), "erin", map[string]any{"groups": []string{"gardeners"}}); err != nil {
		t.Fatal(err)
	}
	hasLost(t, began, erins, "your groups at the identity provider no longer give you this")
	began = time.Now()
	if err := e.people.Change(t.Context(), "dana", map[string]any{"disabled": true}); err != nil {
		t.Fatal(err)
	}
	hasLost(t, began, danas, "your identity is disabled at the provider")
	_, err = e.as(t, "dana").Whoami(t.Context())
	no(t, err, api.CodeUnauthenticated)

	// A target is taken out; and then everything, because the policy says that this is meant.
	began = time.Now()
	e.put(t, strings.ReplaceAll(second[:strings.Index(second, "  shop:")]+second[strings.Index(second, "rules:"):], "[orders, shop]", "[orders]"))
	hasLost(t, began, []losing{has["kept"][1], has["timed"][1]}, "on shop to alice@example.test no more")
	still(t, has["kept"][0], has["timed"][0], has["placed"][0])
	_, err = asks(t, e.as(t, "alice"), api.Ask{Target: "shop", Level: "kept"})
	no(t, err, "policy", "no rule gives you kept on shop")
	began = time.Now()
	e.put(t, strings.ReplaceAll(second, "[developers]", "[astronauts]")+"lockdown: true\n")
	hasLost(t, began, []losing{has["kept"][0], has["timed"][0], has["placed"][0]}, "the policy gives")
	if err := harness.Eventually(t.Context(), 5*time.Second, func(ctx context.Context) error {
		if all, err := e.as(t, "alice").Targets(ctx); err != nil || len(all) > 0 {
			return fmt.Errorf("%v, %w", all, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
