package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// crash is a moment at which kill -9 strikes.
type crash struct {
	at   string                           // step at which the process ends itself; docs/ARCHITECTURE.md lists them
	kill func(t *testing.T, st *lifetime) // or: what the story waits for before it is killed from outside
	then string                           // step of the restart at which the process ends itself again
}

func (s *stage) crashes() map[string]crash {
	all := map[string]crash{
		"in a statement": {kill: func(t *testing.T, st *lifetime) { st.town.underway(t, st.word+"-long") }},
		"after the revocation": {kill: func(t *testing.T, st *lifetime) {
			st.town.underway(t, st.word+"-long")
			must(st.bob.Run(t.Context(), "revoke", st.grant.ID, "--reason", "the story says so"))(t)
		}},
	}
	for _, step := range []string{"provision.emptied", "provision.adopted"} {
		c := all["in a statement"]
		c.then = step
		all["again at "+step] = c
	}
	for _, step := range append([]string{
		"session.recording", "session.opened", "account.intended", "provision.created",
		"session.sealed",
		"cut.locked", "cut.terminated", "cut.gone", "account.cut", "receipt.cut",
		"clean.noted", "clean.rolled_back", "clean.unshared", "clean.quarantined", "clean.dropped", "clean.proved", "account.cleaned",
	}, s.steps...) {
		all["at "+step] = crash{at: step}
	}
	for _, step := range s.never {
		delete(all, "at "+step)
	}
	return all
}

// lifetime is the life of one grant, played on a Curfew of its own until that dies.
type lifetime struct {
	*town
	word  string
	grant api.Grant
	done  []string // statements that the client saw finished
}

var crashBinary = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(shared.dir, "curfew-crash")
	return bin, harness.Build(context.Background(), bin, "crash")
})

func newLifetime(t *testing.T, on *stage, at string, policy ...func(string) string) *lifetime {
	t.Helper()
	bin := must(crashBinary())(t)
	dir := t.TempDir()
	st := &lifetime{town: &town{dir: dir, bin: bin, stage: on}, word: word(t)}
	st.curfew = must(harness.NewCurfew(bin, filepath.Join(dir, "data"), on.url))(t)
	st.curfew.Env = []string{"CURFEW_CRASH_AT=" + at}
	for _, change := range policy {
		if err := os.WriteFile(filepath.Join(dir, "data", "policy.yaml"), []byte(change(st.curfew.Policy())), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.curfew.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("curfew's log:\n%s", st.curfew.Log())
		}
		if err := st.curfew.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := st.logins(t.Context()); err != nil {
		t.Fatal(err)
	}
	return st
}

// play plays until something fails, which is when the process has died.
func (st *lifetime) play(ctx context.Context, long func()) error {
	g, err := st.alice.Granted(ctx, st.target, "migrator", time.Hour, st.bob)
	if err != nil {
		return err
	}
	st.grant = g
	creds, err := st.alice.Credentials(ctx, g.ID)
	if err != nil {
		return err
	}
	left, stays := st.crash(st.word, g.ID)
	passing, err := st.stage.login(ctx, creds)
	if err != nil {
		return err
	}
	if err := st.finish(ctx, passing, left...); err != nil {
		return err
	}
	if err := passing.close(); err != nil {
		return err
	}
	c, err := st.stage.login(ctx, creds)
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }() // the server has hung up on most paths
	account, err := c.column(ctx, st.account)
	if err != nil {
		return err
	}
	if err := st.share(ctx, account[0]); err != nil {
		return err
	}
	if err := st.finish(ctx, c, stays...); err != nil {
		return err
	}
	done := goExec(ctx, c, st.slowly(st.word+"-long"))
	long()
	if _, err := st.bob.Run(ctx, "revoke", g.ID, "--reason", "the story says so"); err != nil {
		return err
	}
	return <-done
}

// finish runs statements to their end, one by one.
func (st *lifetime) finish(ctx context.Context, c conn, statements ...string) error {
	for _, sql := range statements {
		if err := c.run(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
		st.done = append(st.done, sql)
	}
	return nil
}

func TestNothingIsLeftOverAfterKill9(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		for name, cr := range s.crashes() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s.dies(t, cr)
			})
		}
	})
}

func (s *town) dies(t *testing.T, cr crash) {
	st := newLifetime(t, s.stage, cr.at)
	err := st.play(t.Context(), func() {
		if cr.kill == nil {
			st.underway(t, st.word+"-long")
			return
		}
		cr.kill(t, st)
		if err := st.curfew.Kill(); err != nil {
			t.Fatal(err)
		}
	})
	select {
	case <-st.curfew.Exited():
	case <-time.After(40 * time.Second):
		t.Fatalf("the process is alive; the story ended with %v", err)
	}
	if cr.then != "" {
		st.dieAgain(t, cr.then)
	}
	st.restart(t)
	st.nothingIsLeftOver(t)
}

// dieAgain starts Curfew, which dies while it takes up what was left.
func (st *lifetime) dieAgain(t *testing.T, at string) {
	t.Helper()
	st.curfew.Env = []string{"CURFEW_CRASH_AT=" + at}
	if err := st.curfew.Launch(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-st.curfew.Exited():
	case <-time.After(20 * time.Second):
		t.Fatalf("it never came to %s", at)
	}
}

func (st *lifetime) restart(t *testing.T) {
	t.Helper()
	st.curfew.Env = nil
	if err := st.curfew.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := st.logins(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (st *lifetime) nothingIsLeftOver(t *testing.T) {
	t.Helper()
	if st.grant.ID == "" {
		t.Fatal("it died before there was a grant")
	}
	// No backend of a client that is gone outlives one sweep, whether the grant lives or not.
	st.eventually(t, 20*time.Second, func(ctx context.Context) error {
		left, err := st.server.Ask(ctx, st.target, st.open(st.grant.ID))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("backends without a session: %q", left)
		}
		return err
	})
	if g := must(st.sam.Grant(t.Context(), st.grant.ID))(t); g.Ended.IsZero() {
		must(st.bob.Run(t.Context(), "revoke", st.grant.ID, "--reason", "the end of the story"))(t)
	}
	st.eventually(t, 30*time.Second, func(ctx context.Context) error {
		left, err := st.server.Leftovers(ctx, `curfew\_%\_`+st.grant.ID)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left in the database: %q", left)
		}
		return err
	})
	if got := must(st.prepared(t.Context()))(t); slices.ContainsFunc(got, func(id string) bool { return strings.Contains(id, st.word) || id == xid(st.word) }) {
		t.Errorf("still prepared: %v", got)
	}
	for _, suffix := range []string{"-long", "-prepared"} {
		if n := st.committed(t, st.word+suffix); n != "0" {
			t.Errorf("%s rows of %s were committed", n, suffix)
		}
	}
	st.recordingsAreWhole(t)
	st.receiptIsWhole(t)
}

// receiptIsWhole: an account that was ever intended has both parts of its receipt, each once.
func (st *lifetime) receiptIsWhole(t *testing.T) {
	t.Helper()
	st.eventually(t, 20*time.Second, func(context.Context) error {
		ledger, err := os.ReadFile(filepath.Join(st.exported(t, "--grant", st.grant.ID), "ledger.jsonl"))
		if err != nil {
			return err
		}
		count := func(typ string) int { return strings.Count(string(ledger), `"type":"`+typ+`"`) }
		if count("account.intended") > 0 && (count("account.cut") != 1 || count("account.cleaned") != 1) {
			return fmt.Errorf("an account was intended; %d cuts and %d cleanings are on the ledger", count("account.cut"), count("account.cleaned"))
		}
		return nil
	})
}

// recordingsAreWhole: every session is sealed, the bundle verifies, and what the client saw finished is
// on record.
func (st *lifetime) recordingsAreWhole(t *testing.T) {
	t.Helper()
	st.eventually(t, 20*time.Second, func(ctx context.Context) error {
		sessions, err := st.sam.Sessions(ctx, st.grant.ID)
		for _, x := range sessions {
			if x.Ended.IsZero() || x.Root == "" {
				err = errors.Join(err, fmt.Errorf("session %s is not sealed: %+v", x.ID, x))
			}
		}
		return err
	})
	key := must(st.sam.VerifierKey(t.Context()))(t)
	dir := st.exported(t, "--grant", st.grant.ID)
	must(st.sam.Run(t.Context(), "verify", dir, "--key", key))(t)
	all := strings.Join(st.recorded(t, st.grant.ID), "")
	for _, sql := range st.done {
		if !strings.Contains(all, sql) {
			t.Errorf("was run and is not on record: %s", sql)
		}
	}
}

func (st *lifetime) eventually(t *testing.T, patience time.Duration, check func(context.Context) error) {
	t.Helper()
	if err := harness.Eventually(t.Context(), patience, check); err != nil {
		t.Fatal(err)
	}
}

// A grant whose end passes while nobody is there ends at the next start, before anybody can connect.
func TestAGrantThatEndsWhileCurfewIsDown(t *testing.T) {
	everywhere(t, endsWhileDown)
}

func endsWhileDown(t *testing.T, s *town) {
	st := newLifetime(t, s.stage, "")
	g, _, c := st.connected(t, "writer", 3*time.Second) // the statement, which nobody ends meanwhile, takes four
	st.grant = g
	done := goExec(t.Context(), c, st.slowly(st.word+"-long"))
	st.underway(t, st.word+"-long")
	if err := st.curfew.Kill(); err != nil {
		t.Fatal(err)
	}
	<-done
	time.Sleep(time.Until(g.End))
	st.restart(t)
	st.nothingIsLeftOver(t)
	if g := must(st.sam.Grant(t.Context(), g.ID))(t); g.EndCode != "expired" || !g.Ended.Equal(g.End) && g.Ended.Before(g.End) {
		t.Errorf("grant: %+v", g)
	}
}
