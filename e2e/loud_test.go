package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/internal/provider"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// nasty is what somebody writes who hopes that it is taken for more than text.
const nasty = "4711\nBcc: all@example.test\n{\"time\":\"now\",\"msg\":\"forged\"}\n<script>alert(1)</script><img src=x onerror=alert(1)> <!channel> [Approve](https://evil.example) \"'`${7*7}{{.}} https://evil.example"

// mallory is somebody whose provider lets them choose what they are called.
func mallory() provider.User {
	u := user("mallory", "developers")
	u.Email = "mal\x1b]0;root\x07\x1b[2J\u202elory<b>\r\nBcc: all@example.test"
	u.FullName = "\x1b[31mMallory <script>alert(2)</script>\u202e\n"
	return u
}

// harmless checks that a text moves no terminal.
func harmless(t *testing.T, where, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsGraphic(r) {
			t.Errorf("%s shows %U:\n%q", where, r, text)
			return
		}
	}
}

// Who breaks the glass is in at once, on either database, and everybody hears of it: the channel, those who have to review it, the log, the
// numbers, the ledger. What could not be told when it happened is told after kill -9, once; so is that nobody has looked in time. Whatever
// the person is called, and whatever they write, is text: in mails, in messages, on the page, at the command line, in the log, in the
// client of a database. Under none of their identities do they do it again, or review it themselves.
func TestTheGlassIsLoud(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hook, mail := harness.Hook(dir), must(harness.OpenMailbox())(t)
	t.Cleanup(func() {
		if err := errors.Join(hook.Close(), mail.Close()); err != nil {
			t.Error(err)
		}
	})
	secrets := errors.Join(os.WriteFile(filepath.Join(dir, "webhook.secret"), []byte("a secret that is long enough"), 0o600),
		os.WriteFile(filepath.Join(dir, "mail"), []byte("smtp://"+mail.Addr+"/?from=curfew@example.test"), 0o600))
	if secrets != nil {
		t.Fatal(secrets)
	}
	notify := fmt.Sprintf("notify:\n  - {name: hook, webhook: %q, secret: 'file:%s/webhook.secret', to: channel}\n  - {name: mail, url: 'file:%[2]s/mail', to: approvers}\n", hook.URL, dir)
	policy := leveled("writer", "glass", "plain") + "rules:\n" +
		"  - {name: glass, who: {groups: [developers]}, targets: ['*'], levels: [glass], longest: 10m, break_glass: true, mfa: {acr: ['" + shows + "']}, approvals: {count: 0}, review: {within: 3s}}\n" +
		ruled("plain", "developers", "approvals: {count: 1, from: {groups: [leads]}}") + "readers:\n  - {who: {groups: [security]}, targets: ['*']}\n"
	e := newEstate(t, policy, notify, []provider.User{user("alice", "developers", "security")}, mallory(), user("alice", "developers"), user("bob", "leads"))
	smash := api.Ask{Level: "glass", Target: "orders", Reason: nasty, BreakGlass: true, Duration: api.Duration(5 * time.Minute)}

	weak := must(e.curfew.Sit(t.Context(), &e.people.Identities, "mallory"))(t)
	_, err := asks(t, weak, smash)
	no(t, err, "step_up", "log in again")
	for _, c := range []struct {
		change func(*api.Ask)
		code   string
		says   string
	}{
		{func(a *api.Ask) { a.Reason = "" }, "policy", "a reason is required"},
		{func(a *api.Ask) { a.Reason = "\x1b[2J" }, "invalid", "control characters"},
		{func(a *api.Ask) { a.Duration = api.Duration(11 * time.Minute) }, "policy", "10m at most"},
		{func(a *api.Ask) { a.Start = time.Now().Add(time.Hour) }, "invalid", "not for a later start"},
		{func(a *api.Ask) { a.BreakGlass = false }, "policy", "for emergencies alone"},
		{func(a *api.Ask) { a.Level = "plain" }, "policy", "no rule lets you break the glass"},
	} {
		ask := smash
		c.change(&ask)
		_, err := asks(t, e.as(t, "mallory"), ask)
		no(t, err, c.code, c.says)
	}

	hook.Refuse(true)
	double := must(e.curfew.Sit(t.Context(), &e.partners.Identities, "alice", shows))(t)
	holders := map[*town]*api.Client{e.towns[0]: e.as(t, "mallory"), e.towns[1]: e.as(t, "alice")}
	broken := map[*town]api.Request{}
	for s, who := range holders {
		smash.Target = s.target
		r := must(asks(t, who, smash))(t)
		if r.Status != "approved" || !r.BreakGlass || r.Person.ACR != shows || len(r.Decisions) > 0 {
			t.Fatalf("%+v", r)
		}
		broken[s] = r
		in := must(s.enters(t, who, r.Grant))(t)
		exec1(t, in, "SELECT 1")
		_, err = asks(t, who, smash)
		no(t, err, "policy", "has not been reviewed yet")
		_, err = who.Extend(t.Context(), r.Grant, api.Extend{Duration: api.Duration(time.Minute), Reason: "more"})
		no(t, err, "policy", "is not extended")
		// What a client of a database shows is shown as it comes.
		session := s.newestSessionOf(t, r.Grant)
		must(who.Kill(t.Context(), session.ID, api.Kill{Reason: "a story"}))(t)
		told := ends(t, goExec(t.Context(), in, "SELECT 1"))
		s.told(t, told, "was ended by", "a story")
		harmless(t, "the client of "+s.kind, told.Error())
	}
	_, err = asks(t, double, smash)
	no(t, err, "policy", "has not been reviewed yet")
	// Nobody has looked in time, nobody could be told, and then Curfew was away.
	soon(t, 10*time.Second, func(context.Context) error {
		if hook.Refused() == 0 {
			return errors.New("nobody tells the channel")
		}
		return nil
	})
	if err := e.curfew.Kill(); err != nil {
		t.Fatal(err)
	}
	hook.Refuse(false)
	for _, r := range broken {
		time.Sleep(time.Until(r.Created.Add(3 * time.Second)))
	}
	if err := e.curfew.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for s, r := range broken {
		must(hook.Await(t.Context(), "break_glass", r.ID))(t)
		must(hook.Await(t.Context(), "review.overdue", r.ID))(t)
		must(mail.Await(t.Context(), "OVERDUE", r.Grant))(t)
		exec1(t, must(s.enters(t, holders[s], r.Grant))(t), "SELECT 1")
	}
	if err := e.curfew.Logged(t.Context(), "ALERT a review is overdue"); err != nil {
		t.Error(err)
	}
	e.counts(t, "curfew_reviews_overdue", 2)
	e.heard(t, mail, broken)
	e.eyes(t)
	e.pages(t)
	told := map[string]int{}
	for _, n := range hook.All() {
		if n.Type == "break_glass" {
			told[n.Data.Request]++
		}
	}
	if len(told) != 2 {
		t.Errorf("told of %v", told)
	}
	e.reviewed(t, holders, broken, double)
}

// counts waits until a number is what it should be.
func (e *estate) counts(t *testing.T, series string, want float64) {
	t.Helper()
	soon(t, 10*time.Second, func(ctx context.Context) error {
		all, err := e.curfew.Metrics(ctx)
		if err == nil && all[series] != want {
			err = fmt.Errorf("%s is %v, want %v", series, all[series], want)
		}
		return err
	})
}

// heard: those who have to review it have a mail each, the numbers and the log say it; the ledger knows it from its first entry on.
func (e *estate) heard(t *testing.T, mail *harness.Mailbox, broken map[*town]api.Request) {
	t.Helper()
	for s, r := range broken {
		m := must(mail.Await(t.Context(), "BREAK-GLASS", r.Grant))(t)
		head, body, _ := strings.Cut(m.Text, "\n\n")
		if strings.Contains(head, "Bcc") || strings.Contains(head, "4711") || strings.Contains(body, "\nBcc") || strings.Contains(body, "https://evil") {
			t.Errorf("a mail to %s:\n%s", m.To, m.Text)
		}
		harmless(t, "a mail", m.Text)
		entries := s.ledger(t, ledger.TypeGrantCreated, r.Grant)
		var g ledger.GrantCreated
		if len(entries) != 1 || json.Unmarshal([]byte(entries[0]), &g) != nil || !g.BreakGlass || g.Person.ACR != shows {
			t.Errorf("on the ledger: %q", entries)
		}
	}
	for _, m := range mail.All() { // the partners' alice may look at what mallory did, and at nothing of her own
		if m.To != "sam@example.test" && (m.To != "alice@example.test" || strings.Contains(m.Text, broken[e.towns[1]].ID)) {
			t.Errorf("a mail to %s:\n%s", m.To, m.Text)
		}
	}
	e.counts(t, "curfew_grants_break_glass", 2)
	e.counts(t, "curfew_reviews_due", 2)
	if err := e.curfew.Logged(t.Context(), "ALERT the glass was broken"); err != nil {
		t.Error(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(e.curfew.Log()), "\n") {
		if i > 0 && !json.Valid([]byte(line)) { // the first may begin in its middle
			t.Errorf("a line of the log is none: %q", line)
		}
	}
}

// eyes: what security reads at a terminal.
func (e *estate) eyes(t *testing.T) {
	t.Helper()
	sam := e.towns[0].sam
	for _, args := range [][]string{{"requests"}, {"grants"}, {"sessions"}, {"reviews", "--due"}} {
		out, err := sam.Run(t.Context(), args...)
		if err != nil || out == "" {
			t.Errorf("%v: %v", args, err)
		}
		harmless(t, strings.Join(args, " "), out)
	}
}

// pages: what a lead's browser shows of what mallory asks, and what other sites can't make it do.
func (e *estate) pages(t *testing.T) {
	t.Helper()
	r := must(asks(t, e.as(t, "mallory"), api.Ask{Target: "orders", Level: "plain", Reason: nasty, Ticket: `"><script>alert(3)</script>`, SQL: "</pre><script>alert(4)</script>"}))(t)
	must(e.as(t, "mallory").Comment(t.Context(), r.ID, "<script>alert(5)</script>"))(t)
	bob := must(e.curfew.Browser("bob"))(t)
	bob.At = e.people.Issuer
	at := "/web/requests/" + r.ID
	page := must(bob.Open(t.Context(), at))(t)
	contains(t, page, "4711", "&lt;script&gt;alert(1)", "alert(3)", "alert(4)")
	for _, bad := range []string{"<script", "<img", "<b>", "href=\"https://evil", "\x1b", "\u202e"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q:\n%s", bad, page)
		}
	}
	yes := url.Values{"form": {harness.Form(page)}, "decision": {"approve"}}
	for name, headers := range map[string][]string{
		"another site": {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, "a sister": {"Sec-Fetch-Site", "same-site"},
		"an old browser": {"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
	} {
		res, body, err := bob.Try(t.Context(), http.MethodPost, at, yes, headers...)
		if err != nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("a form from %s: %v\n%s", name, err, body)
		}
		res, body, err = bob.Try(t.Context(), http.MethodPost, "/web/logout", url.Values{"form": {""}}, headers...)
		if err != nil || res.StatusCode != http.StatusForbidden || len(res.Cookies()) > 0 {
			t.Errorf("a logout from %s: %v, %v\n%s", name, err, res.Cookies(), body)
		}
	}
	if _, body, err := bob.Try(t.Context(), http.MethodPost, at, url.Values{"form": {"guessed"}, "decision": {"approve"}}); err != nil || !strings.Contains(body, "not made for you") {
		t.Errorf("a form with a token that was guessed: %v\n%s", err, body)
	}
	stranger := must(e.curfew.Browser("nobody"))(t)
	for _, to := range []string{
		"/web/login?request=" + url.QueryEscape("//evil.example"), "/web/login?link=" + url.QueryEscape("https://evil.example/"), "/web/login?issuer=https%3A%2F%2Fevil.example",
		"/web/login?issuer=x%0d%0aSet-Cookie:%20evil=1", "/web/links/..%2f..%2f%2fevil.example", "/web/callback?code=x&state=x&iss=https%3A%2F%2Fevil.example", "/web//evil.example", "/web/requests/%2f%2fevil.example",
	} {
		res, body, err := stranger.Try(t.Context(), http.MethodGet, to, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		where := res.Header.Get("Location")
		if where != "" && !strings.HasPrefix(where, e.people.Issuer) && !strings.HasPrefix(where, "/web/") || strings.Contains(body, "//evil") {
			t.Errorf("%s leads to %q:\n%s", to, where, body)
		}
		for _, c := range res.Cookies() {
			if c.Name == "evil" || !c.HttpOnly {
				t.Errorf("%s sets %v", to, c)
			}
		}
		for _, h := range []string{"Content-Security-Policy", "X-Content-Type-Options"} {
			if where == "" && res.Header.Get(h) == "" {
				t.Errorf("%s has no %s", to, h)
			}
		}
	}
	if got := must(e.as(t, "mallory").Request(t.Context(), r.ID, 0))(t); got.Status != "open" || len(got.Decisions) > 0 {
		t.Errorf("decided: %+v", got)
	}
	page = must(bob.Open(t.Context(), at))(t) // his login has lived through all of it
	must(bob.Decide(t.Context(), page, r.ID, false, "<b>no</b>"))(t)
	if got := must(e.as(t, "mallory").Request(t.Context(), r.ID, 0))(t); got.Status != "denied" {
		t.Errorf("%+v", got)
	}
}

// reviewed: somebody else has to look, when it is over; then the glass may be broken again.
func (e *estate) reviewed(t *testing.T, holders map[*town]*api.Client, broken map[*town]api.Request, double *api.Client) {
	t.Helper()
	sam := e.as(t, "sam")
	for s, r := range broken {
		_, err := sam.Review(t.Context(), r.Grant, api.Reviewed{OK: true})
		no(t, err, "conflict", "goes on")
		_, err = holders[s].Review(t.Context(), r.Grant, api.Reviewed{OK: true})
		no(t, err, "forbidden", "what they did themselves")
		if s.kind == "mysql" { // it is alice's, who is security at the partners'
			_, err = double.Review(t.Context(), r.Grant, api.Reviewed{OK: true})
			no(t, err, "forbidden", "what they did themselves")
		}
		must(holders[s].Release(t.Context(), r.Grant))(t)
		s.receipt(t, r.Grant, "released")
		soon(t, 10*time.Second, func(ctx context.Context) error {
			_, err := sam.Review(ctx, r.Grant, api.Reviewed{Finding: "nothing was down"})
			return err
		})
		again := must(asks(t, holders[s], api.Ask{Target: s.target, Level: "glass", Reason: "again", BreakGlass: true}))(t)
		must(holders[s].Release(t.Context(), again.Grant))(t)
	}
	contains(t, must(e.towns[0].sam.Run(t.Context(), "reviews"))(t), "finding", "due")
	e.counts(t, "curfew_grants_break_glass", 0)
}
