package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// SIGHUP puts a changed policy in force at once, for live grants too; one that is wrong changes nothing
// and is said to be.
func TestReload(t *testing.T) {
	t.Parallel()
	st := newLifetime(t, shared.stage, "")
	write := func(policy string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(st.curfew.Dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := st.curfew.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	logged := func(want string) {
		t.Helper()
		st.eventually(t, 10*time.Second, func(context.Context) error {
			if log := st.curfew.Log(); !strings.Contains(log, want) {
				return fmt.Errorf("%q is not in the log:\n%s", want, log)
			}
			return nil
		})
	}
	targets := func() string { return must(st.alice.Run(t.Context(), "targets"))(t) }

	g, _, c := st.connected(t, "writer", 10*time.Minute)
	exec1(t, c, "SELECT 1")

	write(strings.Replace(st.curfew.Policy(), "longest: 1h", "longest: soon", 1))
	logged("the old one stays in force")
	logged("rules[0].longest")
	if got := targets(); !strings.Contains(got, "1h") {
		t.Errorf("the old policy is not in force: %s", got)
	}
	exec1(t, c, "SELECT 1")

	done := goExec(t.Context(), c, st.slowly(st.word+"-long"))
	st.underway(t, st.word+"-long")
	write(strings.Replace(st.curfew.Policy(), "levels: [reader, writer, migrator]", "levels: [reader, migrator]", 1))
	st.told(t, ends(t, done), "revoked")
	st.grant = g
	st.nothingIsLeftOver(t)
	if got := targets(); strings.Contains(got, "writer") {
		t.Errorf("the new policy is not in force: %s", got)
	}
}

// ownServer is a database that a story may stop and start.
type ownServer struct {
	on          *stage
	stop, start func() error
	secret      string // asks what the server keeps of an account's password
}

func ownPostgres(t *testing.T) ownServer {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pg := must(harness.StartPostgres(t.Context(), filepath.Join(dir, "db")))(t)
	t.Cleanup(func() { _ = pg.Close() }) // it may be closed already
	return ownServer{onPostgres(pg), pg.Close, pg.Restart, "SELECT rolpassword FROM pg_authid WHERE rolname = "}
}

func ownMariaDB(t *testing.T) ownServer {
	t.Helper()
	my := startMariaDB(t)
	return ownServer{onMariaDB(my), my.Kill, my.Restart, "SELECT authentication_string FROM mysql.user WHERE Host <> '' AND User = "}
}

// A database that is down when Curfew comes back gets its account taken over as soon as it is there
// again, without anybody having connected.
func TestADatabaseThatIsDownAtTheStart(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) ownServer{"postgres": ownPostgres, "mysql": ownMariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			downAtTheStart(t, start(t))
		})
	}
}

func downAtTheStart(t *testing.T, own ownServer) {
	t.Helper()
	st := newLifetime(t, own.on, "")
	_, _, c := st.connected(t, "writer", 10*time.Minute)
	account := st.current(t, c)
	if err := st.curfew.Kill(); err != nil {
		t.Fatal(err)
	}
	secret := own.secret + "'" + account + "'"
	was := st.ask(t, st.target, secret)
	if err := own.stop(); err != nil {
		t.Fatal(err)
	}
	st.curfew.Targets = nil // it remembers them, and asks none of them before it starts
	st.restart(t)
	if err := own.start(); err != nil {
		t.Fatal(err)
	}
	st.eventually(t, 30*time.Second, func(ctx context.Context) error {
		now, err := st.server.Ask(ctx, st.target, secret)
		if err == nil && (len(now) != 1 || now[0] == was[0]) {
			err = fmt.Errorf("the account %s still has its old secret", account)
		}
		return err
	})
}
