// Package e2e holds the stories that Curfew promises, played against a real PostgreSQL and a real MariaDB
// through the real binary with stock clients. One file a theme; the promises are numbered in docs/ARCHITECTURE.md.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/protocol"
)

// town is what the stories share: one Curfew, four people, and the stage that a story plays on. Each story
// has grants and words of its own, so that they run side by side.
type town struct {
	dir     string
	bin     string
	curfew  *harness.Curfew
	notices *harness.Notices // what it tells

	alice, dana, bob, sam *harness.Person

	*stage
}

// Set by TestMain, read only afterwards: two stages in one town.
var (
	shared *town // the stage with PostgreSQL
	shop   *town // the stage with MariaDB
	towns  []*town
)

func TestMain(m *testing.M) {
	harness.BeOutside()
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "curfew-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &town{dir: dir, bin: filepath.Join(dir, "curfew")}
	if err := harness.Build(ctx, s.bin, ""); err != nil {
		return 1, err
	}
	pg, err := harness.StartPostgres(ctx, filepath.Join(dir, "db"))
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, pg.Close()) }()
	my, err := harness.StartMariaDB(ctx, filepath.Join(dir, "mariadb"))
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, my.Close()) }()
	if s.curfew, err = harness.NewCurfew(s.bin, filepath.Join(dir, "curfew-data"), pg.Target(), my.Target()); err != nil {
		return 1, err
	}
	s.notices = s.curfew.Listening()
	defer func() { err = errors.Join(err, s.notices.Close()) }()
	if err := s.curfew.Start(ctx); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, s.curfew.Stop()) }()
	if err := s.logins(ctx); err != nil {
		return 1, err
	}
	shared, shop = s.on(onPostgres(pg)), s.on(onMariaDB(my))
	towns = []*town{shared, shop}
	if code = m.Run(); code != 0 {
		fmt.Fprintf(os.Stderr, "curfew's log:\n%s\n", s.curfew.Log())
	}
	return code, nil
}

// on gives the town with another stage.
func (s *town) on(stage *stage) *town {
	other := *s
	other.stage = stage
	return &other
}

// logins: everybody sits down at a terminal of their own.
func (s *town) logins(ctx context.Context) (err error) {
	for name, p := range map[string]**harness.Person{"alice": &s.alice, "dana": &s.dana, "bob": &s.bob, "sam": &s.sam} {
		if *p, err = s.curfew.Login(ctx, name, filepath.Join(s.dir, "homes")); err != nil {
			return err
		}
	}
	return nil
}

// must gives v, or ends the test.
func must[V any](v V, err error) func(testing.TB) V {
	return func(t testing.TB) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// word is a text that only this test writes into the database.
func word(t testing.TB) string {
	return strings.NewReplacer("/", "-", "_", "-", " ", "-").Replace(t.Name()) + fmt.Sprintf("-%d", time.Now().UnixNano()%1e9)
}

// connected is a grant and a connection under it.
func (s *town) connected(t *testing.T, level string, d time.Duration, approvers ...*harness.Person) (api.Grant, harness.Credentials, conn) {
	t.Helper()
	if len(approvers) == 0 {
		approvers = []*harness.Person{s.bob}
	}
	g := must(s.alice.Granted(t.Context(), s.target, level, d, approvers...))(t)
	creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
	return g, creds, s.enter(t, creds)
}

// enter logs in through Curfew.
func (s *town) enter(t *testing.T, creds harness.Credentials) conn {
	t.Helper()
	c := must(s.stage.login(t.Context(), creds))(t)
	t.Cleanup(func() { _ = c.close() }) // most stories end with the server hanging up
	return c
}

func exec1(t testing.TB, c conn, sql string) {
	t.Helper()
	if err := c.run(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// goExec runs statements beside the story, and says how they ended.
func goExec(ctx context.Context, c conn, sql string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- c.run(ctx, sql) }()
	return done
}

// current is the account that a session runs under.
func (s *town) current(t testing.TB, c conn) string {
	t.Helper()
	got := must(c.column(t.Context(), s.account))(t)
	if len(got) != 1 {
		t.Fatalf("accounts: %q", got)
	}
	return got[0]
}

// receipt is both parts of a grant's receipt.
type receipt struct {
	api.Receipt
	Cut   protocol.Cut
	Clean protocol.Clean
}

// receipt waits until the receipt is whole and checks what every receipt must say.
func (s *town) receipt(t testing.TB, grant, code string) receipt {
	t.Helper()
	var g api.Grant
	err := harness.Eventually(t.Context(), 30*time.Second, func(ctx context.Context) (err error) {
		if g, err = s.sam.Grant(ctx, grant); err != nil {
			return err
		}
		if g.Receipt == nil || len(g.Receipt.Clean) == 0 {
			return fmt.Errorf("grant %s is %s and its receipt is not whole: %+v", grant, g.Status, g.Receipt)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := receipt{Receipt: *g.Receipt}
	if err := errors.Join(json.Unmarshal(r.Receipt.Cut, &r.Cut), json.Unmarshal(r.Receipt.Clean, &r.Clean)); err != nil {
		t.Fatal(err)
	}
	if g.EndCode != code || r.Code != code {
		t.Errorf("the grant ended as %q, the receipt says %q, want %q", g.EndCode, r.Code, code)
	}
	if r.Cut.Left != 0 || r.LateMS < 0 || r.LateMS > 2000 {
		t.Errorf("%d backends left, %.1f ms late", r.Cut.Left, r.LateMS)
	}
	if r.Clean.DroppedAt.IsZero() || r.Clean.Proof == "" {
		t.Errorf("the receipt proves nothing: %+v", r.Clean)
	}
	if left := must(s.server.Leftovers(t.Context(), r.Account))(t); len(left) > 0 {
		t.Errorf("left in the database: %v", left)
	}
	return r
}

// contains checks that a text says all this.
func contains(t testing.TB, said string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("told %q, which does not say %q", said, w)
		}
	}
}

// refused checks that a command said no, with these words.
func refused(t testing.TB, err error, words ...string) {
	t.Helper()
	var ce *harness.CommandError
	if !errors.As(err, &ce) || ce.Code == 0 {
		t.Errorf("want a refusal, got %v", err)
		return
	}
	for _, w := range words {
		if !strings.Contains(strings.ToLower(ce.Stderr), strings.ToLower(w)) {
			t.Errorf("it does not say %q:\n%s", w, ce.Stderr)
		}
	}
}

// ends waits until a channel gives its error.
func ends(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the client was not told within 20 s")
		return nil
	}
}
