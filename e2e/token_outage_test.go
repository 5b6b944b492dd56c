package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// bereft is what somebody has on a stage when the providers die.
type bereft struct {
	*town
	word              string
	hers, its, short  api.Grant
	her, job, brief   conn
	herEnd, jobEnd    <-chan error
	open              api.Request
	tokens            harness.Tokens // alice's, never shown
	known, never, new string         // a job's: shown before, and with keys that are known, or not yet
}

// The providers die, and hang, and come back. What is granted goes on to its end, in the middle of a statement and with new
// sessions by password; nobody gets anything new, and reads why at the command line, the API and the wire; refusing, releasing
// and reading go on. When they are back, with other keys, everything is as before.
func TestProvidersDown(t *testing.T) {
	t.Parallel()
	w := newWorks(t, "", "")
	all := map[*town]*bereft{}
	for _, s := range w.towns {
		all[s] = &bereft{town: s}
	}
	pid := w.towns[0].curfew.PID()
	each := func(name string, play func(*testing.T, *works, *bereft)) {
		w.both(t, name, func(t *testing.T, s *town) { play(t, w, all[s]) })
	}
	each("before", before)
	// Of keys that Curfew has not seen.
	if err := w.jobs.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		b.new = w.token(t, mainJob, "staging")
		b.herEnd, b.jobEnd = goExec(t.Context(), b.her, b.slowly(b.word+"-hers")), goExec(t.Context(), b.job, b.slowly(b.word+"-jobs"))
		b.underway(t, b.word+"-hers")
		b.underway(t, b.word+"-jobs")
	}
	if err := errors.Join(w.people.Kill(), w.jobs.Kill()); err != nil {
		t.Fatal(err)
	}
	each("down", down)
	if err := errors.Join(w.people.Start(t.Context()), w.jobs.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	each("back", back)
	for _, b := range all {
		b.tokens = must(w.people.Device(t.Context(), "alice", everyScope))(t)
	}
	if err := w.people.Hang(); err != nil {
		t.Fatal(err)
	}
	each("hung", hung)
	// What it was asked it answers now, to nobody: it has replaced refresh tokens, and takes the old ones for stolen. That
	// costs people a login, and no grant.
	if err := w.people.GoOn(); err != nil {
		t.Fatal(err)
	}
	base := *w.towns[0]
	if err := base.logins(t.Context()); err != nil {
		t.Fatal(err)
	}
	each("going on", func(t *testing.T, w *works, b *bereft) {
		b.alice, b.dana, b.bob, b.sam = base.alice, base.dana, base.bob, base.sam
		back(t, w, b)
	})
	if now := w.towns[0].curfew.PID(); now != pid {
		t.Errorf("it was started again: %d, %d", pid, now)
	}
}

func before(t *testing.T, w *works, b *bereft) {
	b.word = word(t)
	grant := func(level, d string) api.Grant {
		var r api.Request
		if err := b.alice.JSON(t.Context(), &r, "request", b.target, "--level", level, "--for", d, "--reason", "x"); err != nil {
			t.Fatal(err)
		}
		return must(b.alice.Grant(t.Context(), r.Grant))(t)
	}
	b.hers, b.short = grant("human", "10m"), grant("human", "12s")
	b.open = must(b.alice.Ask(t.Context(), b.target, "asked", time.Minute))(t)
	b.her = must(b.stage.login(t.Context(), must(b.alice.Credentials(t.Context(), b.hers.ID))(t)))(t)
	b.brief = must(b.stage.login(t.Context(), must(b.alice.Credentials(t.Context(), b.short.ID))(t)))(t)
	b.tokens = must(w.people.Device(t.Context(), "alice", everyScope))(t)
	b.known, b.never = w.token(t, mainJob, "staging"), w.token(t, mainJob, "staging")
	r := must(b.asksFor(t, b.known, "deploy"))(t)
	b.its = must(b.sam.Grant(t.Context(), r.Grant))(t)
	b.job = must(b.byToken(t.Context(), b.where(t), "token:"+r.Grant, b.known))(t)
}

func down(t *testing.T, w *works, b *bereft) {
	const gone = "the identity provider can't be reached"
	t.Run("told", func(t *testing.T) {
		// Within a second of the last answer what is not among its keys is nobody's.
		err := harness.Eventually(t.Context(), 20*time.Second, func(context.Context) error {
			if _, err := b.asksFor(t, b.new, "deploy"); err == nil || !strings.Contains(err.Error(), gone) {
				return fmt.Errorf("told %w", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for user, token := range map[string]string{"token:alice@example.test": b.tokens.Access, "alice@example.test": b.tokens.Access, "token:" + b.its.ID: b.new} {
			_, err := b.byToken(t.Context(), b.where(t), user, token)
			saysAll(t, err, gone+", so nobody can be let in with a token", "log in with your grant's id and password")
		}
		if b.kind == "postgres" {
			_, err := b.byToken(t.Context(), b.where(t), "oauth:"+b.its.ID, b.new)
			saysAll(t, err, gone)
		}
		_, err = b.asksFor(t, b.new, "deploy")
		refused(t, err, gone, "try again in a minute")
		_, err = b.alice.Run(t.Context(), "login", "--device", "--server", "http://"+b.curfew.API)
		refused(t, err, gone)
	})
	// Curfew takes nobody's word for longer than refresh, a second here.
	nothingNew(t, func() error { _, err := b.alice.Ask(t.Context(), b.target, "human", time.Minute); return err })
	nothingNew(t, func() error {
		_, err := b.alice.Run(t.Context(), "extend", b.hers.ID, "--for", "1m", "--reason", "x")
		return err
	})
	nothingNew(t, func() error { _, err := b.bob.Approve(t.Context(), b.open.ID); return err })
	_, err := b.alice.Run(t.Context(), "request", b.target, "--level", "human", "--for", "1m", "-o", "json")
	refused(t, err, `"code": "unavailable"`, `"status": 503`)
	if must(b.bob.Run(t.Context(), "deny", b.open.ID, "--comment", "not now"))(t); err == nil {
		t.Error("asked for anew")
	}
	for whose, done := range map[string]<-chan error{"hers": b.herEnd, "jobs": b.jobEnd} {
		if err := ends(t, done); err != nil {
			t.Errorf("the statement under way, %s: %v", whose, err)
		}
		if n := b.committed(t, b.word+"-"+whose); n != "40" {
			t.Errorf("%s: %s rows", whose, n)
		}
	}
	b.goesOn(t)
	c := must(b.stage.login(t.Context(), must(b.alice.Credentials(t.Context(), b.hers.ID))(t)))(t)
	exec1(t, c, insert(b.word+"-new-session"))
	if err := c.close(); err != nil {
		t.Error(err)
	}
	// What was verified a moment ago, or can be by keys that were fetched a moment ago, needs nobody to be asked.
	c = must(b.byToken(t.Context(), b.where(t), "token:"+b.its.ID, b.never))(t)
	exec1(t, c, insert(b.word+"-known-keys"))
	if err := c.close(); err != nil {
		t.Error(err)
	}
	b.receipt(t, b.short.ID, "expired")
	if b.brief.run(t.Context(), "SELECT 1") == nil {
		t.Error("a session outlives its grant")
	}
}

func (b *bereft) goesOn(t *testing.T) {
	t.Helper()
	exec1(t, b.her, insert(b.word+"-on"))
	exec1(t, b.job, insert(b.word+"-on"))
}

// nothingNew waits until somebody is refused because the provider can't be asked.
func nothingNew(t *testing.T, try func() error) {
	t.Helper()
	var last error
	err := harness.Eventually(t.Context(), 20*time.Second, func(context.Context) error {
		var ce *harness.CommandError
		if last = try(); errors.As(last, &ce) && strings.Contains(ce.Stderr, "the identity provider can't be asked about you") {
			return nil
		}
		return fmt.Errorf("not refused: %w", last)
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, last, "nobody gets new access by your word", "what is granted already goes on to its end")
}

// back: everything is as it was.
func back(t *testing.T, w *works, b *bereft) {
	err := harness.Eventually(t.Context(), 60*time.Second, func(ctx context.Context) error {
		_, err := b.alice.Ask(ctx, b.target, "human", time.Minute)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tokens := must(w.people.Device(t.Context(), "dana", everyScope))(t)
	dana := must(b.curfew.Login(t.Context(), "dana", filepath.Join(t.TempDir(), "homes")))(t)
	r := must(dana.Ask(t.Context(), b.target, "human", 5*time.Minute))(t)
	for _, token := range []string{tokens.Access, tokens.ID} {
		c := must(b.byToken(t.Context(), b.where(t), "dana@example.test/"+r.Grant, token))(t)
		exec1(t, c, "SELECT 1")
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}
	token := w.token(t, mainJob, "staging")
	c := must(b.byToken(t.Context(), b.where(t), "token:"+b.its.ID, token))(t)
	if err := c.close(); err != nil {
		t.Error(err)
	}
	j := must(b.asksFor(t, token, "deploy"))(t)
	must(b.run(t, token, "release", j.Grant))(t)
	must(dana.Run(t.Context(), "release", r.Grant))(t)
	b.goesOn(t)
}

// hung: whoever waits for a provider that says nothing is told so while they still listen.
func hung(t *testing.T, w *works, b *bereft) {
	began := time.Now()
	_, err := b.byToken(t.Context(), b.where(t), "token:alice@example.test", b.tokens.Access)
	saysAll(t, err, "the identity provider can't be reached")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("told after %s", took)
	}
	b.goesOn(t)
}

// A provider's new keys are known with the first token that they sign, and what the old ones signed is not good any more;
// what is under way does not notice. How far its clock is off is measured, and beyond a minute nothing is forgiven:
// whoever is refused for that reads how far.
func TestKeysAndClocks(t *testing.T) {
	t.Parallel()
	w := newWorks(t, "", "")
	s := w.towns[0]
	first := w.token(t, mainJob, "staging")
	grants, conns := map[*town]string{}, map[*town]conn{}
	for _, s := range w.towns {
		r := must(s.asksFor(t, first, "deploy"))(t)
		grants[s], conns[s] = r.Grant, must(s.byToken(t.Context(), s.where(t), "token:"+r.Grant, first))(t)
		t.Cleanup(func() { _ = conns[s].close() })
	}
	shows := func(token string, words ...string) {
		t.Helper()
		for _, s := range w.towns {
			c, err := s.byToken(t.Context(), s.where(t), "token:"+grants[s], token)
			if len(words) > 0 {
				saysAll(t, err, words...)
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", s.kind, err)
				continue
			}
			exec1(t, c, "SELECT 1")
			if err := c.close(); err != nil {
				t.Error(err)
			}
			exec1(t, conns[s], "SELECT 1")
		}
		_, err := s.run(t, token, "whoami")
		if len(words) > 0 {
			refused(t, err, words...)
		} else if err != nil {
			t.Error(err)
		}
	}
	old := w.token(t, mainJob, "staging")
	rotated := func() string {
		t.Helper()
		if err := w.jobs.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w.token(t, mainJob, "staging")
	}
	// Within a second of the last answer what is not among its keys is nobody's.
	fresh := rotated()
	err := harness.Eventually(t.Context(), 20*time.Second, func(context.Context) error { _, err := s.run(t, fresh, "whoami"); return err })
	if err != nil {
		t.Fatal(err)
	}
	shows(fresh)
	shows(old, "its signature is not by a key that "+w.jobs.Issuer+" publishes")

	for _, c := range []struct {
		ahead time.Duration
		words []string
	}{
		{45 * time.Second, nil},
		{90 * time.Second, []string{"the identity provider's clock is 1m", "ahead of this server's, and 1m0s is forgiven"}},
		{-40 * time.Second, nil},
		{-10 * time.Minute, []string{"it expired at", "behind this server's, and 1m0s is forgiven"}},
		{0, nil},
	} {
		// The clock is read when the keys are fetched, which is not done twice a second.
		err := harness.Eventually(t.Context(), 20*time.Second, func(ctx context.Context) error {
			if err := w.jobs.Ahead(ctx, c.ahead); err != nil {
				return err
			}
			_, _ = s.run(t, rotated(), "whoami")
			metrics, err := s.curfew.Metrics(ctx)
			if err != nil {
				return err
			}
			name := fmt.Sprintf("curfew_issuer_clock_skew_seconds{issuer=%q}", w.jobs.Issuer)
			if by, ok := metrics[name]; !ok || by < c.ahead.Seconds()-3 || by > c.ahead.Seconds()+3 {
				return fmt.Errorf("%s is %v, want %s", name, by, c.ahead)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		shows(w.token(t, mainJob, "staging"), c.words...)
	}
	if err := s.curfew.Logged(t.Context(), "ALERT the issuer's clock and this server's differ"); err != nil {
		t.Error(err)
	}
}
