package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/internal/provider"
)

// A login that is too weak for a rule is made stronger in between, and the command goes on by itself: asking, and
// approving. What was shown is on record with each.
func TestStepUp(t *testing.T) {
	t.Parallel()
	s := shared
	home := t.TempDir()
	alice, bob := must(s.curfew.Login(t.Context(), "alice", home))(t), must(s.curfew.Login(t.Context(), "bob", home))(t)
	var me api.Person
	if err := alice.JSON(t.Context(), &me, "whoami"); err != nil || me.ACR != provider.Weak {
		t.Fatalf("%+v, %v", me, err)
	}
	before := token(t, alice)
	r := must(alice.Ask(t.Context(), "orders", "keeper", time.Minute))(t)
	if r.Person.ACR != provider.ACR || strings.Join(r.Person.AMR, " ") != "pwd otp" || time.Since(r.Person.AuthTime) > time.Minute {
		t.Errorf("asked as %+v", r.Person)
	}
	if err := alice.JSON(t.Context(), &me, "whoami"); err != nil || me.ACR != provider.ACR {
		t.Errorf("afterwards %+v, %v", me, err)
	}
	// The session before is over: whoever had a copy of it has nothing.
	if status := whoami(t, s.curfew, before); status != http.StatusUnauthorized {
		t.Errorf("the old token is answered with %d", status)
	}
	r = must(bob.Approve(t.Context(), r.ID))(t)
	if d := r.Decisions[0].Person; r.Status != "approved" || d.ACR != provider.ACR || d.Declared {
		t.Errorf("approved as %+v", d)
	}
	// A token that comes from the environment is nobody's to replace: the problem is the answer.
	weak := must(s.curfew.Login(t.Context(), "dana", home))(t)
	cmd := weak.Command(t.Context(), "request", "orders", "--level", "keeper", "--reason", "x", "-o", "json")
	cmd.Env = append(cmd.Env, "CURFEW_TOKEN="+token(t, weak))
	_, err := harness.Run(cmd)
	refused(t, err, `"code": "step_up"`, `"acr_values"`, provider.ACR, `"max_age"`)
}

// token is what a person's command line keeps.
func token(t *testing.T, p *harness.Person) string {
	t.Helper()
	var session struct{ Token string }
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(p.Home, "session.json")))(t), &session); err != nil {
		t.Fatal(err)
	}
	return session.Token
}

func whoami(t *testing.T, c *harness.Curfew, token string) int {
	t.Helper()
	r := must(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.API+"/v1/whoami", nil))(t)
	r.Header.Set("Authorization", "Bearer "+token)
	res := must(http.DefaultClient.Do(r))(t)
	res.Body.Close()
	return res.StatusCode
}

// The device flow has no way to ask for strength: the page's box is what makes the difference, and a login
// without it is held against what was asked.
func TestStepUpWithoutABrowser(t *testing.T) {
	t.Parallel()
	s := shared
	c := &api.Client{Server: "http://" + s.curfew.API, HTTP: http.DefaultClient}
	key := []byte(must(s.curfew.Passcode())(t))
	login := func(start api.LoginStart, second bool) (api.LoggedIn, error) {
		start.Flow = "device"
		started := must(c.StartLogin(t.Context(), start))(t)
		page := regexp.MustCompile(`\?.*`).ReplaceAllString(started.VerificationURI, "")
		if err := provider.ConfirmDevice(t.Context(), page, started.UserCode, key, "alice", second); err != nil {
			t.Fatal(err)
		}
		for {
			in, err := c.FinishLogin(t.Context(), api.LoginFinish{Login: started.Login})
			if err != nil || !in.Pending {
				return in, err
			}
			time.Sleep(time.Duration(started.Interval)) // what the provider demands
		}
	}
	in, err := login(api.LoginStart{}, false)
	if err != nil || in.Person.ACR != provider.Weak {
		t.Fatalf("%+v, %v", in, err)
	}
	c.Token = in.Token
	ask := api.Ask{Target: "orders", Level: "keeper", Duration: api.Duration(time.Minute), Reason: "a story"}
	_, err = c.Ask(t.Context(), ask)
	p, _ := api.AsProblem(err)
	if p == nil || p.Code != api.CodeStepUp || p.Status != http.StatusUnauthorized || p.MaxAge == nil || *p.MaxAge != 810 {
		t.Fatalf("%+v", err)
	}
	if _, err := login(p.StepUp(), false); err == nil || !strings.Contains(err.Error(), "as strongly") {
		t.Errorf("a weak answer to a step-up: %v", err)
	}
	if in, err = login(p.StepUp(), true); err != nil {
		t.Fatal(err)
	}
	c.Token = in.Token
	if _, err := c.Ask(t.Context(), ask); err != nil {
		t.Error(err)
	}
}

// A link comes to whoever may decide, leads through the login to the page, and the form there decides. The
// requester hears of it.
func TestDecisionByLink(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		r := must(s.alice.Ask(t.Context(), s.target, "keeper", time.Minute))(t)
		e := must(s.notices.Await(t.Context(), "request.created", r.ID))(t)
		if e.Data.Person.Email != "alice@example.test" || e.Data.Level != "keeper" || e.Data.Reason != "a story" || !strings.Contains(e.Data.Link, "/web/links/") {
			t.Errorf("told %+v", e.Data)
		}
		dana := must(s.curfew.Browser("dana"))(t)
		if page, err := dana.Open(t.Context(), e.Data.Link); err == nil || !strings.Contains(page, "not good, or not any more") {
			t.Errorf("dana came in: %v\n%s", err, page)
		}
		bob := must(s.curfew.Browser("bob"))(t)
		page := must(bob.Open(t.Context(), e.Data.Link))(t)
		contains(t, page, "alice@example.test", "a story", "class "+provider.ACR, "<dd class=\"text\">keepers</dd>")
		page = must(bob.Decide(t.Context(), page, r.ID, true, "by its page"))(t)
		contains(t, page, "You have approved this request.")
		if _, err := bob.Open(t.Context(), e.Data.Link); err == nil {
			t.Error("the link is good twice")
		}
		e = must(s.notices.Await(t.Context(), "request.ended", r.ID))(t)
		if e.Data.Status != "approved" || e.Data.By != "bob@example.test" || e.Data.Grant == "" {
			t.Errorf("told %+v", e.Data)
		}
		g := must(s.alice.Grant(t.Context(), e.Data.Grant))(t)
		creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
		if got := s.current(t, s.enter(t, creds)); got == "" {
			t.Error("the grant is of no use")
		}
		if r = s.request(t, r.ID); r.Decisions[0].Comment != "by its page" || r.Decisions[0].Person.ACR != provider.ACR {
			t.Errorf("decided as %+v", r.Decisions[0])
		}
	})
}
