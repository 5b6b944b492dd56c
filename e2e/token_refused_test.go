package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// What was good once, or was made for somebody else, lets nobody in: links that were used, tokens for others, the answer to
// another login, a session that was ended, a sign-out that was told before. Each of them is on the ledger.
func TestWhatIsRefusedIsOnTheLedger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	liar := must(harness.StartOutside(t.Context(), harness.Jobs, dir))(t)
	t.Cleanup(func() { _ = liar.Kill() })
	hook := harness.Hook(dir)
	if err := os.WriteFile(filepath.Join(dir, "webhook.secret"), []byte("a secret that is long enough"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorks(t, "", fmt.Sprintf("  - {url: %q, client_id: curfew}\nnotify:\n  - {name: hook, webhook: %q, secret: 'file:%s/webhook.secret', to: approvers}\n",
		liar.Issuer, hook.URL, dir))
	s := w.towns[0]
	want := map[string]int{}

	t.Run("links", func(t *testing.T) { want["link"] = s.linksTwice(t, hook, w.people.Issuer) })
	t.Run("another login's answer", func(t *testing.T) { want["api"] += s.oldNonce(t, liar) })
	t.Run("an ended session", func(t *testing.T) {
		dana := must(s.curfew.Login(t.Context(), "dana", t.TempDir()))(t)
		stolen := token(t, dana)
		if status := whoami(t, s.curfew, stolen); status != http.StatusOK {
			t.Fatalf("%d", status)
		}
		must(dana.Run(t.Context(), "logout"))(t)
		for range 2 {
			if status := whoami(t, s.curfew, stolen); status != http.StatusUnauthorized {
				t.Errorf("answered %d", status)
			}
			want["api"]++
		}
	})
	t.Run("tokens for others", func(t *testing.T) {
		foreign := must(w.jobs.Token(t.Context(), mainJob, "another", map[string]any{"environment": "staging"}))(t)
		if status := whoami(t, s.curfew, foreign); status != http.StatusUnauthorized {
			t.Errorf("answered %d", status)
		}
		want["token"]++
		for _, s := range w.towns {
			_, err := s.byToken(t.Context(), s.where(t), "token:"+s.target, foreign)
			saysAll(t, err, "it was made for", "another", "not for Curfew")
			want["token"]++
		}
	})
	t.Run("a sign-out again", func(t *testing.T) {
		want["logout"], want["api"], want["token"] = 2, want["api"]+1, want["token"]+len(w.towns)
		w.signedOutTwice(t)
	})

	if err := s.curfew.Stop(); err != nil { // what was counted is on the ledger when the minute is over, or now
		t.Fatal(err)
	}
	if err := s.curfew.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := s.turnedAway(t)
	for where, n := range want {
		if got[where] != n {
			t.Errorf("refused at %s: %d are on the ledger, %d were", where, got[where], n)
		}
	}
	if err := hook.Close(); err != nil {
		t.Error(err)
	}
}

// linksTwice: a link leads its approver once.
func (s *town) linksTwice(t *testing.T, hook *harness.Notices, issuer string) (refused int) {
	browser := func(name string) *harness.Browser {
		b := must(s.curfew.Browser(name))(t)
		b.At = issuer
		return b
	}
	r := must(s.alice.Ask(t.Context(), s.target, "asked", time.Minute))(t)
	link := must(hook.Await(t.Context(), "request.created", r.ID))(t).Data.Link
	for _, name := range []string{"dana", "alice"} {
		b := browser(name)
		if page, err := b.Open(t.Context(), link); err == nil {
			t.Errorf("%s came in:\n%s", name, page)
		}
		refused++
	}
	bob := browser("bob")
	contains(t, must(bob.Open(t.Context(), link))(t), "alice@example.test")
	for _, b := range []*harness.Browser{bob, browser("bob")} {
		page, err := b.Open(t.Context(), link)
		if err == nil {
			t.Error("the link is good twice")
		}
		contains(t, page, "not good, or not any more")
		refused++
	}
	return refused
}

// oldNonce: a provider that answers a login with the token of an earlier one logs nobody in; nor does an answer that
// belongs to another login, or that was taken.
func (s *town) oldNonce(t *testing.T, liar *harness.Outside) (refused int) {
	c := &api.Client{Server: "http://" + s.curfew.API, HTTP: http.DefaultClient}
	begin := func() (api.LoginStarted, string) {
		started := must(c.StartLogin(t.Context(), api.LoginStart{Issuer: liar.Issuer, Flow: "code", RedirectURI: "http://127.0.0.1:1/callback"}))(t)
		return started, must(url.Parse(started.AuthURL))(t).Query().Get("nonce")
	}
	started, nonce := begin()
	says := map[string]any{"sub": "mallory", "aud": "curfew", "nonce": nonce, "email": "mallory@example.test", "email_verified": true, "groups": []string{}}
	if err := liar.Answers(t.Context(), says); err != nil {
		t.Fatal(err)
	}
	finish := func(started api.LoginStarted, state string) error {
		_, err := c.FinishLogin(t.Context(), api.LoginFinish{Login: started.Login, Code: "any", State: state})
		return err
	}
	if err := finish(started, started.State); err != nil {
		t.Fatalf("an honest answer: %v", err)
	}
	no(t, finish(started, started.State), api.CodeUnauthenticated, "finished already")
	second, _ := begin()
	no(t, finish(second, second.State), api.CodeUnauthenticated, "answer was not accepted")
	if err := s.curfew.Logged(t.Context(), "its nonce is not that of this login"); err != nil {
		t.Error(err)
	}
	third, _ := begin()
	no(t, finish(third, started.State), api.CodeUnauthenticated, "belongs to another login")
	return 3
}

// signedOutTwice: the provider's word that somebody has signed out is taken once, and from then on what they had is good no
// more.
func (w *works) signedOutTwice(t *testing.T) {
	var told string
	ear := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told = r.PostFormValue("logout_token") }))
	defer ear.Close()
	s := w.towns[0]
	tokens := must(w.people.Device(t.Context(), "alice", everyScope))(t)
	if err := w.people.Admin(t.Context(), "/admin/users/alice/signout", map[string]string{"tell": ear.URL}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		token  string
		status int
	}{{told, http.StatusOK}, {told, http.StatusBadRequest}, {tokens.ID, http.StatusBadRequest}} {
		res := must(http.PostForm("http://"+s.curfew.API+"/v1/logout/backchannel", url.Values{"logout_token": {c.token}}))(t)
		said := must(io.ReadAll(res.Body))(t)
		res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("answered %s: %s", res.Status, said)
		}
	}
	_, err := s.alice.Run(t.Context(), "whoami")
	refused(t, err, "not, or no longer, good")
	for _, s := range w.towns {
		_, err := s.byToken(t.Context(), s.where(t), "token:alice@example.test", tokens.ID)
		saysAll(t, err, "you signed out at the identity provider after it was made")
	}
}

// turnedAway counts by place whom the ledger has as refused.
func (s *town) turnedAway(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{}
	for line := range strings.Lines(string(must(os.ReadFile(filepath.Join(s.exported(t), "ledger.jsonl")))(t))) {
		var e struct {
			Type string
			Data struct {
				From, Where string
				Count       int
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == "logins.failed" && e.Data.From == "127.0.0.1" {
			all[e.Data.Where] += e.Data.Count
		}
	}
	return all
}
