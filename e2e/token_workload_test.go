package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// works is a `curfew serve` for a CI system's jobs and for people, each with a provider that is a process of its own.
type works struct {
	people, jobs *harness.Outside
	towns        []*town
}

const (
	forCurfew = "curfew-ci"                          // what jobs' tokens are made for
	mainJob   = "repo:acme/shop:ref:refs/heads/main" // who a job is
	otherJob  = "repo:acme/blog:ref:refs/heads/main"
)

// worksPolicy: jobs deploy on their own word to what is called staging, and migrate on a lead's; people have levels of
// their own.
const worksPolicy = `rules:
  - {name: staging, who: {issuers: [%[1]q]}, when: 'identity.claims.environment == "staging"', targets: [orders, shop], levels: [deploy], longest: 10m, reason: required, approvals: {count: 0}}
  - {name: production, who: {issuers: [%[1]q], subjects: [%[2]q]}, targets: [orders, shop], levels: [migrate], longest: 10m, reason: required, approvals: {count: 1, from: {groups: [leads, developers]}}}
  - {name: people, who: {groups: [developers]}, targets: [orders, shop], levels: [human], longest: 30m, reason: optional, approvals: {count: 0}}
  - {name: asked, who: {groups: [developers]}, targets: [orders, shop], levels: [asked], longest: 30m, reason: optional, approvals: {count: 1, from: {groups: [leads]}}}
readers:
  - {who: {groups: [security]}, targets: ["*"]}
`

// newWorks starts one. Other issuers may stand before its own in the configuration; whatever stands behind them, ends it.
func newWorks(t *testing.T, before, behind string) *works {
	t.Helper()
	dir := t.TempDir()
	w := &works{}
	for kind, p := range map[string]**harness.Outside{harness.People: &w.people, harness.Jobs: &w.jobs} {
		*p = must(harness.StartOutside(t.Context(), kind, dir))(t)
		t.Cleanup(func() { _ = (*p).Kill() }) // it may be dead
	}
	config := fmt.Sprintf("refresh: 1s\nissuers:\n%s  - {url: %q, workloads: true, audiences: [%s], claims: [environment]}\n"+
		"  - {url: %q, client_id: curfew-cli, audiences: [curfew-cli], opaque: userinfo}\n%s", before, w.jobs.Issuer, forCurfew, w.people.Issuer, behind)
	policy := leveled("writer", "deploy", "migrate", "human", "asked") + fmt.Sprintf(worksPolicy, w.jobs.Issuer, mainJob)
	c := must(harness.ServingTLS(shared.bin, filepath.Join(dir, "data"), policy, config, &w.people.Identities, shared.url, shop.url))(t)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("curfew's log:\n%s", c.Log())
		}
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
	})
	base := &town{dir: dir, bin: shared.bin, curfew: c}
	if err := base.logins(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.towns = []*town{base.on(shared.stage), base.on(shop.stage)}
	return w
}

// both plays on both stages at once.
func (w *works) both(t *testing.T, name string, play func(*testing.T, *town)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		for _, s := range w.towns {
			t.Run(s.kind, func(t *testing.T) { t.Parallel(); play(t, s) })
		}
	})
}

// token is what a job of that name gets, which says that it works for an environment; and, as jobs may, that it
// is somebody with an e-mail and in a group.
func (w *works) token(t *testing.T, job, environment string) string {
	t.Helper()
	return must(w.jobs.Token(t.Context(), job, forCurfew, map[string]any{"environment": environment,
		"email": "alice@example.test", "email_verified": true, "groups": []string{"developers", "leads", "security"}}))(t)
}

// run runs curfew as a job does: with the server's address, and a file that its CI system has written.
func (s *town) run(t *testing.T, token string, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	file := filepath.Join(home, "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), s.bin, append([]string{"--server", "http://" + s.curfew.API, "--token-file", file}, args...)...)
	cmd.Env = append(os.Environ(), "CURFEW_HOME="+home, "CURFEW_TOKEN=")
	return harness.Run(cmd)
}

// asksFor has a job ask for a level.
func (s *town) asksFor(t *testing.T, token, level string) (r api.Request, err error) {
	t.Helper()
	text, err := s.run(t, token, "request", s.target, "--level", level, "--for", "5m", "--reason", "release 7", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &r)
	}
	return r, err
}

// where is what a client needs beside a name and a token.
func (s *town) where(t *testing.T) (c harness.Credentials) {
	t.Helper()
	var all map[string]string
	var dev struct{ Listeners map[string]string }
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(s.curfew.Dir, "dev.json")))(t), &dev); err != nil {
		t.Fatal(err)
	}
	all = dev.Listeners
	c.Host, c.Database, c.SSLMode, c.CAFile = "127.0.0.1", s.target, "verify-full", filepath.Join(s.curfew.Dir, "tls.crt")
	if _, err := fmt.Sscanf(all[s.target], "127.0.0.1:%d", &c.Port); err != nil {
		t.Fatal(err)
	}
	return c
}

// stock runs a statement with the database's own client, the token where the password goes.
func (s *town) stock(ctx context.Context, c harness.Credentials, user, token, sql string) (string, error) {
	c.User, c.Password = user, token
	if s.kind == "postgres" {
		return harness.Run(c.PSQL(ctx, "-At", "-c", sql))
	}
	args := []string{"--batch", "--skip-column-names", "--database=" + c.Database, "--execute=" + sql}
	if harness.StockMySQL() {
		args = append(args, "--enable-cleartext-plugin")
	}
	return harness.Run(c.MariaDB(ctx, "mariadb", args...))
}

// A CI system's job needs nothing but the token that it has: with it the job asks, by a rule of its own or on somebody's
// word, connects, and is on record as what it is. What is written for people is not for it, whatever it calls itself, and
// what is written for it is not for people.
func TestAJobsWholeWay(t *testing.T) {
	t.Parallel()
	w := newWorks(t, "", "")
	w.both(t, "by itself", w.byItself)
	w.both(t, "on a word", w.onAWord)
}

func (w *works) byItself(t *testing.T, s *town) {
	token, where := w.token(t, mainJob, "staging"), s.where(t)
	_, err := s.byToken(t.Context(), where, "token:", token)
	saysAll(t, err, mainJob+" has no active grant here", "curfew request TARGET --level LEVEL")
	for _, level := range []string{"human", "asked"} {
		_, err = s.asksFor(t, token, level)
		refused(t, err, "no rule")
	}
	_, err = s.alice.Ask(t.Context(), s.target, "deploy", time.Minute)
	refused(t, err, "no rule")
	_, err = s.asksFor(t, w.token(t, mainJob, "production"), "deploy")
	refused(t, err, "under a condition that does not hold")
	r := must(s.asksFor(t, token, "deploy"))(t)
	if r.Status != "approved" || !r.Person.Workload || r.Person.Subject != mainJob || r.Person.Email != "" {
		t.Fatalf("%+v", r)
	}
	g := r.Grant
	word := word(t)
	ways := []string{"token:" + g, "token:" + s.target, "token:"}
	if s.kind == "postgres" {
		ways = append(ways, "oauth:"+g, "oauth:"+s.target)
	}
	for i, user := range ways {
		c, err := s.byToken(t.Context(), where, user, token)
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		exec1(t, c, insert(fmt.Sprintf("%s-%d", word, i)))
		if account := s.current(t, c); !strings.Contains(account, g) {
			t.Errorf("%s works as %s", user, account)
		}
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.stock(t.Context(), where, "token:"+g, token, insert(word+"-stock")); err != nil {
		t.Error(err)
	}
	many := len(ways) + 1
	if s.kind == "mysql" && harness.StockMySQL() {
		s.byFile(t, where, "oauth:"+g, token, insert(word+"-file"))
		many++
	}
	if got := s.committed(t, word); got != fmt.Sprint(many) {
		t.Errorf("%s rows arrived of %d", got, many)
	}
	s.notForOthers(t, w, g)
	if _, err := s.run(t, token, "release", g); err != nil {
		t.Error(err)
	}
	s.receipt(t, g, "released")
	_, err = s.byToken(t.Context(), where, "token:"+g, token)
	saysAll(t, err, "no active grant")
	s.jobIsOnRecord(t, g, word, many)
}

// byFile runs a statement with MySQL's own client and its plugin for tokens.
func (s *town) byFile(t *testing.T, where harness.Credentials, user, token, sql string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	where.User = user
	must(harness.Run(where.MariaDB(t.Context(), "mariadb", "--authentication-openid-connect-client-id-token-file="+file,
		"--database="+where.Database, "--execute="+sql)))(t)
}

// notForOthers: a job's grant is its own. Whoever shows another token than its holder learns nothing of it.
func (s *town) notForOthers(t *testing.T, w *works, grant string) {
	t.Helper()
	where := s.where(t)
	_, err := s.byToken(t.Context(), where, "token:"+grant, w.token(t, otherJob, "staging"))
	saysAll(t, err, otherJob+" has no active grant here")
	alices := must(w.people.Device(t.Context(), "alice", everyScope))(t)
	_, err = s.byToken(t.Context(), where, "token:"+grant, alices.ID)
	saysAll(t, err, "alice@example.test has no active grant here")
	_, err = s.byToken(t.Context(), where, "token:alice@example.test", w.token(t, mainJob, "staging"))
	saysAll(t, err, "vouches for programs, and this is for people")
	foreign := must(w.jobs.Token(t.Context(), mainJob, "another", map[string]any{"environment": "staging"}))(t)
	_, err = s.byToken(t.Context(), where, "token:"+grant, foreign)
	saysAll(t, err, "it was made for", "not for Curfew")
	_, err = s.asksFor(t, foreign, "deploy")
	refused(t, err, "it was made for")
}

// jobIsOnRecord checks what a program's sessions and their grant are on record as.
func (s *town) jobIsOnRecord(t *testing.T, grant, word string, sessions int) {
	t.Helper()
	found := 0
	all := s.recordings(t, grant)
	for _, rec := range all {
		if id := rec.header.Identity; !id.Workload || id.Subject != mainJob || id.Email != "" {
			t.Errorf("the recording is of %+v", id)
		}
		for _, st := range rec.list {
			if strings.Contains(string(st.text), word) {
				found++
			}
		}
	}
	if len(all) != sessions || found != sessions {
		t.Errorf("%d recordings, %d statements, want %d", len(all), found, sessions)
	}
	entries := s.ledger(t, "grant.created", grant)
	if len(entries) != 1 || !strings.Contains(entries[0], `"workload":true`) || !strings.Contains(entries[0], mainJob) {
		t.Errorf("on the ledger: %s", entries)
	}
}

// onAWord: no program decides, about itself or another; a person does, who then may not use what the program got.
// A job's tokens are short-lived: each serves what its holder has.
func (w *works) onAWord(t *testing.T, s *town) {
	_, err := s.asksFor(t, w.token(t, otherJob, "production"), "migrate")
	refused(t, err, "no rule")
	r := must(s.asksFor(t, w.token(t, mainJob, "production"), "migrate"))(t)
	if r.Status != "open" {
		t.Fatalf("%+v", r)
	}
	for _, job := range []string{mainJob, otherJob} {
		if _, err := s.run(t, w.token(t, job, "production"), "approve", r.ID); err == nil {
			t.Errorf("%s has approved", job)
		}
	}
	r = must(s.bob.Approve(t.Context(), r.ID))(t)
	token := w.token(t, mainJob, "production")
	c := must(s.byToken(t.Context(), s.where(t), "token:"+r.Grant, token))(t)
	t.Cleanup(func() { _ = c.close() }) // Curfew hangs up on it
	exec1(t, c, insert(word(t)))
	bobs := must(w.people.Device(t.Context(), "bob", everyScope))(t)
	_, err = s.byToken(t.Context(), s.where(t), "token:"+r.Grant, bobs.ID)
	saysAll(t, err, "bob@example.test has no active grant here")
	must(s.bob.Run(t.Context(), "revoke", r.Grant, "--reason", "a story"))(t)
	s.told(t, ends(t, goExec(t.Context(), c, "SELECT 1")), "revoked")
	s.receipt(t, r.Grant, "revoked")
	_, err = s.asksFor(t, token, "deploy")
	refused(t, err, "under a condition that does not hold")
}
