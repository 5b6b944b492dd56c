package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/internal/provider"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// tickets is whoever keeps them: of OPS-1 it says that it is open and names whoever asks.
type tickets struct {
	*httptest.Server

	mu    sync.Mutex // guards asked
	asked []control.TicketQuestion
}

func newTickets(t *testing.T) *tickets {
	k := &tickets{}
	k.Server = httptest.NewServer(k)
	t.Cleanup(k.Close)
	return k
}

// ServeHTTP answers by the ticket's number.
func (k *tickets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q control.TicketQuestion
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	k.asked = append(k.asked, q)
	k.mu.Unlock()
	switch q.Ticket {
	case "OPS-1":
		fmt.Fprint(w, `{"ok": true}`)
	case "OPS-2":
		fmt.Fprint(w, `{"ok": false, "why": "it was closed yesterday"}`)
	case "OPS-3":
		fmt.Fprint(w, `{"ok": false, "why": "closed\u001b[2J\u202e"}`)
	case "OPS-4":
		fmt.Fprint(w, `{"ok": "true"}`)
	case "OPS-5":
		http.Redirect(w, r, "/?ok", http.StatusTemporaryRedirect)
	default:
		w.WriteHeader(http.StatusBadGateway)
	}
}

// bookOfRules is a policy in which each level is about one thing that a rule can say.
func bookOfRules(confirm string) string {
	now := time.Now().UTC()
	day := int(now.Weekday())
	deny := func(name, level, when string) string {
		return fmt.Sprintf("  - {name: %s, effect: deny, who: {groups: [developers]}, targets: ['*'], levels: [%s], when: '%s'}\n", name, level, when)
	}
	one := "approvals: {count: 1, from: {groups: [leads]}}"
	return leveled("writer", "claimed", "fresh", "hours", "off", "frozen", "often", "broken", "ticketed", "parties", "lapsing", "later", "idles") +
		fmt.Sprintf("freezes:\n  - {name: release, from: %s, to: %s}\n", now.Add(-time.Hour).Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339)) +
		"rules:\n" +
		ruled("claimed", "developers", `when: 'identity.claims.name == "Alice" && "developers" in identity.groups && "otp" in identity.amr && target.labels.story == target.name && level == "claimed"'`) +
		ruled("fresh", "developers", `when: 'identity.auth_age < duration("8s")'`) +
		ruled("hours", "developers", fmt.Sprintf(`when: 'now.getDayOfWeek("UTC") in [%d, %d] && request.start.getHours("Europe/Berlin") >= 0 && request.duration <= duration("10m")'`, day, (day+1)%7)) +
		ruled("off", "developers", fmt.Sprintf(`when: 'now.getDayOfWeek("UTC") == %d'`, (day+3)%7)) +
		ruled("frozen", "developers", "") + ruled("often", "developers", "") +
		ruled("broken", "developers", `when: 'identity.claims.badge > 3'`) +
		ruled("ticketed", "developers", fmt.Sprintf("ticket: {pattern: 'OPS-[0-9]+', confirm: '%s'}", confirm)) +
		ruled("parties", "developers", "approvals: {parties: [{groups: [leads]}, {groups: [security]}]}") +
		ruled("lapsing", "developers", "lapse: 2s, "+one) +
		ruled("later", "developers", "") +
		ruled("idles", "developers", "limits: {idle: 2s}") +
		deny("thaw", "frozen", `"release" in frozen`) +
		deny("enough", "often", `history.grants.filter(g, g.level == "often" && now - g.start < duration("1h")).size() >= 2`) +
		"readers:\n  - {who: {groups: [security]}, targets: ['*']}\n"
}

// Each thing that a rule can say does what it says, at a server, for somebody who connects to either database afterwards: conditions on
// who, what, when and what was before; tickets; independent parties; starts that are later; what lapses, is cancelled, talked about,
// released. Whoever is refused for a rule that denies, or because a condition can't be told, is on record; so is every policy.
func TestWhatARuleCanSay(t *testing.T) {
	t.Parallel()
	k := newTickets(t)
	text := bookOfRules(k.URL)
	partners := []provider.User{user("alice", "leads"), user("bob", "leads")}
	e := newEstate(t, text, "", partners, user("alice", "developers"), user("dana", "developers"), user("bob", "leads"), user("lee", "leads"), user("bea", "leads", "security"))
	alice, dana := e.as(t, "alice"), e.as(t, "dana")
	asked := time.Now()
	must(asks(t, alice, api.Ask{Target: "orders", Level: "fresh"}))(t)
	var idle []losing
	for _, s := range e.towns {
		r := must(asks(t, alice, api.Ask{Target: s.target, Level: "idles"}))(t)
		l := losing{town: s, grant: must(alice.Grant(t.Context(), r.Grant))(t), in: must(s.enters(t, alice, r.Grant))(t)}
		exec1(t, l.in, "SELECT 1")
		idle = append(idle, l)
	}
	for _, s := range e.towns {
		for _, level := range []string{"claimed", "hours", "often"} {
			r := must(asks(t, alice, api.Ask{Target: s.target, Level: level}))(t)
			if r.Status != "approved" || r.Rule != level || r.Policy == "" {
				t.Errorf("%+v", r)
			}
			exec1(t, must(s.enters(t, alice, r.Grant))(t), "SELECT 1")
			if g := must(alice.Release(t.Context(), r.Grant))(t); g.Policy != r.Policy {
				t.Errorf("judged by %s, granted by %s", r.Policy, g.Policy)
			}
			s.receipt(t, r.Grant, "released")
		}
		e.byParties(t, s)
		e.laterOn(t, s)
		e.undecided(t, s)
		r := must(asks(t, alice, api.Ask{Target: s.target, Level: "ticketed", Ticket: "OPS-1"}))(t)
		exec1(t, must(s.enters(t, alice, r.Grant))(t), "SELECT 1")
		k.mu.Lock()
		if q := k.asked[len(k.asked)-1]; q.Ticket != "OPS-1" || q.Email != "alice@example.test" || q.Subject != "alice" || q.Issuer != e.people.Issuer || q.Target != s.target || q.Level != "ticketed" {
			t.Errorf("asked about %+v", q)
		}
		k.mu.Unlock()
	}
	for _, c := range []struct {
		who  *api.Client
		ask  api.Ask
		code string
		says []string
	}{
		{dana, api.Ask{Level: "claimed"}, "policy", []string{`the rule "claimed"`, "a condition that does not hold"}},
		{alice, api.Ask{Level: "off"}, "policy", []string{"a condition that does not hold"}},
		{alice, api.Ask{Level: "hours", Duration: api.Duration(11 * time.Minute)}, "policy", []string{"a condition that does not hold"}},
		{alice, api.Ask{Level: "frozen"}, "policy", []string{`the rule "thaw" forbids`, "release until"}},
		{alice, api.Ask{Level: "frozen", Start: time.Now().Add(55 * time.Minute)}, "policy", []string{"release until"}},
		{alice, api.Ask{Level: "often"}, "policy", []string{`the rule "enough" forbids`}},
		{alice, api.Ask{Level: "broken"}, "policy", []string{"can't be evaluated", "nothing is given"}},
		{alice, api.Ask{Level: "claimed", Duration: api.Duration(time.Hour)}, "policy", []string{"30m at most"}},
		{alice, api.Ask{Level: "nothing"}, "policy", []string{"no rule gives you"}},
		{alice, api.Ask{Level: "ticketed"}, "policy", []string{"a ticket is required", "OPS-[0-9]+"}},
		{alice, api.Ask{Level: "ticketed", Ticket: "xOPS-1"}, "policy", []string{"a ticket is required"}},
		{alice, api.Ask{Level: "ticketed", Ticket: "OPS-1\nOPS-2"}, "invalid", nil},
		{alice, api.Ask{Level: "ticketed", Ticket: "OPS-2"}, "policy", []string{"ticket OPS-2 does not do: it was closed yesterday"}},
		{alice, api.Ask{Level: "ticketed", Ticket: "OPS-3"}, "policy", []string{"ticket OPS-3 does not do: it is not open, or does not name you"}},
		{alice, api.Ask{Level: "ticketed", Ticket: "OPS-4"}, "unavailable", []string{"could not be asked about OPS-4"}},
		{alice, api.Ask{Level: "ticketed", Ticket: "OPS-5"}, "unavailable", []string{"could not be asked about OPS-5"}},
		{alice, api.Ask{Level: "ticketed", Ticket: "OPS-6"}, "unavailable", []string{"could not be asked about OPS-6"}},
	} {
		c.ask.Target = "shop"
		r, err := asks(t, c.who, c.ask)
		if err == nil {
			t.Errorf("%+v: %+v", c.ask, r)
			continue
		}
		no(t, err, c.code, c.says...)
	}
	for _, l := range idle {
		l.backends(t, l.grant.ID, 0, 10*time.Second)
		l.told(t, ends(t, goExec(t.Context(), l.in, "SELECT 1")), "did nothing for 2s", "your grant goes on until")
	}
	// A login gets too old for a rule that says so; a new one does.
	if wait := time.Until(asked.Add(8 * time.Second)); wait > 0 {
		time.Sleep(wait)
	}
	_, err := asks(t, alice, api.Ask{Target: "orders", Level: "fresh"})
	no(t, err, "policy", "a condition that does not hold")
	must(asks(t, must(e.curfew.Sit(t.Context(), &e.people.Identities, "alice"))(t), api.Ask{Target: "orders", Level: "fresh"}))(t)
	e.onRecord(t, text)
}

// byParties: somebody of each party must agree, nobody stands for two, and nobody is two.
func (e *estate) byParties(t *testing.T, s *town) {
	t.Helper()
	alice, bob, sam := e.as(t, "alice"), e.as(t, "bob"), e.as(t, "sam")
	hers := must(e.curfew.Sit(t.Context(), &e.partners.Identities, "alice"))(t)
	his := must(e.curfew.Sit(t.Context(), &e.partners.Identities, "bob"))(t)
	r := must(asks(t, alice, api.Ask{Target: s.target, Level: "parties"}))(t)
	_, err := hers.Approve(t.Context(), r.ID, "") // at the partners' she is a lead
	no(t, err, "not_found")
	for _, c := range []*api.Client{bob, e.as(t, "lee")} {
		if r = must(c.Approve(t.Context(), r.ID, ""))(t); r.Status != "open" || r.Missing != 1 {
			t.Errorf("%s, %d are missing", r.Status, r.Missing)
		}
	}
	_, err = his.Approve(t.Context(), r.ID, "")
	no(t, err, "conflict", "you have approved this request already")
	if r = must(sam.Approve(t.Context(), r.ID, ""))(t); r.Status != "approved" {
		t.Fatalf("%+v", r)
	}
	in := must(s.enters(t, alice, r.Grant))(t)
	exec1(t, in, "SELECT 1")
	// An extension takes as many, of the same parties.
	more := must(alice.Extend(t.Context(), r.Grant, api.Extend{Duration: api.Duration(10 * time.Minute)}))(t)
	if more = must(e.as(t, "bea").Approve(t.Context(), more.ID, ""))(t); more.Status != "open" || more.Missing != 1 {
		t.Errorf("who is of both parties stands for both: %+v", more)
	}
	_, err = sam.Revoke(t.Context(), r.Grant, "enough")
	if err != nil {
		t.Error(err)
	}
	_, err = bob.Approve(t.Context(), more.ID, "")
	no(t, err, "conflict")
	if more = must(alice.Request(t.Context(), more.ID, 0))(t); more.Status != "denied" || more.EndReason != "its grant has ended" {
		t.Errorf("%+v", more)
	}
	s.told(t, ends(t, goExec(t.Context(), in, "SELECT 1")), "was revoked", "enough")
}

// laterOn: a grant for later lets nobody in before its start, and then for as long as was asked; in a freeze, for what begins after it.
func (e *estate) laterOn(t *testing.T, s *town) {
	t.Helper()
	alice := e.as(t, "alice")
	start := time.Now().Add(3 * time.Second).UTC().Truncate(time.Microsecond)
	r := must(asks(t, alice, api.Ask{Target: s.target, Level: "later", Start: start}))(t)
	g := must(alice.Grant(t.Context(), r.Grant))(t)
	if g.Status != api.GrantScheduled || !g.Start.Equal(start) || !g.End.Equal(start.Add(10*time.Minute)) {
		t.Errorf("asked for %s: %+v", start, g)
	}
	creds := harness.Credentials{Credentials: must(alice.Password(t.Context(), g.ID))(t)}
	_, err := s.stage.login(t.Context(), creds)
	saysAll(t, err, "begins at")
	err = harness.Eventually(t.Context(), 10*time.Second, func(ctx context.Context) error {
		c, err := s.stage.login(ctx, creds)
		if err != nil {
			return err
		}
		return errors.Join(c.run(ctx, "SELECT 1"), c.close())
	})
	if err != nil || time.Now().Before(start) {
		t.Errorf("in before %s: %v", start, err)
	}
	r = must(asks(t, alice, api.Ask{Target: s.target, Level: "frozen", Start: time.Now().Add(2 * time.Hour)}))(t)
	must(alice.Release(t.Context(), r.Grant))(t)
	_, err = s.stage.login(t.Context(), harness.Credentials{Credentials: api.Credentials{Host: creds.Host, Port: creds.Port, Database: creds.Database, User: r.Grant, Password: "guessed", SSLMode: creds.SSLMode}})
	saysAll(t, err)
}

// undecided: a request lapses, or is withdrawn; people talk about it; then nobody can approve it.
func (e *estate) undecided(t *testing.T, s *town) {
	t.Helper()
	alice, bob := e.as(t, "alice"), e.as(t, "bob")
	lapses := must(asks(t, alice, api.Ask{Target: s.target, Level: "lapsing"}))(t)
	r := must(asks(t, alice, api.Ask{Target: s.target, Level: "parties", SQL: "SELECT 1"}))(t)
	must(bob.Comment(t.Context(), r.ID, "which customer?"))(t)
	r = must(alice.Comment(t.Context(), r.ID, "4711"))(t)
	if len(r.Comments) != 2 || r.Comments[0].Person.Email != "bob@example.test" || r.Comments[1].Text != "4711" || r.SQL != "SELECT 1" {
		t.Errorf("%+v", r)
	}
	_, err := e.as(t, "dana").Comment(t.Context(), r.ID, "and me?")
	no(t, err, "not_found")
	_, err = bob.Cancel(t.Context(), r.ID)
	no(t, err, "forbidden", "only alice@example.test can cancel")
	must(alice.Cancel(t.Context(), r.ID))(t)
	_, err = bob.Approve(t.Context(), r.ID, "")
	no(t, err, "conflict", "cancelled")
	if lapses = must(alice.Request(t.Context(), lapses.ID, 20*time.Second))(t); lapses.Status != "lapsed" || lapses.Grant != "" {
		t.Errorf("%+v", lapses)
	}
	_, err = bob.Approve(t.Context(), lapses.ID, "")
	no(t, err, "conflict", "lapsed")
}

// onRecord checks what the ledger says of all this, and that somebody else can verify it.
func (e *estate) onRecord(t *testing.T, text string) {
	t.Helper()
	s := e.towns[0]
	bundle := s.exported(t)
	key := must(s.sam.VerifierKey(t.Context()))(t)
	must(s.sam.Run(t.Context(), "verify", bundle, "--key", key))(t)
	var policies []ledger.PolicyLoaded
	var refused []ledger.RequestRefused
	created := map[string]bool{}
	for line := range strings.Lines(string(must(os.ReadFile(filepath.Join(bundle, "ledger.jsonl")))(t))) {
		var entry struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		var err error
		switch entry.Type {
		case ledger.TypePolicyLoaded:
			policies = append(policies, ledger.PolicyLoaded{})
			err = json.Unmarshal(entry.Data, &policies[len(policies)-1])
		case ledger.TypeRequestRefused:
			refused = append(refused, ledger.RequestRefused{})
			err = json.Unmarshal(entry.Data, &refused[len(refused)-1])
		case ledger.TypeRequestCreated:
			var r ledger.RequestCreated
			err = json.Unmarshal(entry.Data, &r)
			created[r.Policy] = true
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(policies) != 1 || policies[0].Text != text || len(created) != 1 || !created[policies[0].Hash] {
		t.Errorf("%d policies; requests were judged by %v", len(policies), created)
	}
	by := map[string]int{}
	for _, r := range refused {
		by[r.Rule]++
		if (r.Level == "broken") != strings.Contains(r.Error, "badge") || r.Person.Email != "alice@example.test" || r.Policy == "" {
			t.Errorf("%+v", r)
		}
	}
	if by["thaw"] != 2 || by["enough"] != 1 || by[""] != 1 || len(refused) != 4 {
		t.Errorf("refused by rule: %v", by)
	}
}
