package postgres

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
)

// stuck makes a connection's backend one that hears no signal, as one that waits for a dead disk, until
// the test ends.
func stuck(t *testing.T, c *pgx.Conn) (wake func()) {
	t.Helper()
	pid := int(c.PgConn().PID())
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal("the server's processes are somebody else's: ", err)
	}
	wake = func() { syscall.Kill(pid, syscall.SIGCONT) }
	t.Cleanup(wake)
	return wake
}

// A foreign backend that can't be terminated is reported all the same: its grant ends, and neither that
// end nor the watch over other accounts waits for it.
func TestWatchOfABackendThatWontDie(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	direct := login(t, a, "orders")
	wake := stuck(t, direct)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	began := time.Now()
	found, err := e.Watch(ctx)
	if len(found) != 1 || found[0].Killed || err == nil {
		t.Errorf("found %+v, %v", found, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the watch over a target stood still for %s", took)
	}
	wake()
	finish(t, a)
}

// Nor does a leftover that can't be ended keep the sweep from the others.
func TestSweepOfALeftoverThatWontDie(t *testing.T) {
	e := newEngine(t, nil)
	first, second := provision(t, e, newSpec(0)), provision(t, e, newSpec(0))
	names := []string{first.Name(), second.Name()}
	slices.Sort(names) // the order of the sweep
	wake := stuck(t, login(t, map[string]*account{first.Name(): first, second.Name(): second}[names[0]], "orders"))
	e.forget(first)
	e.forget(second)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	found, err := e.Sweep(ctx, func(string) bool { return false })
	if err != nil {
		t.Error(err)
	}
	for i, severity := range []string{"error", "warning"} {
		if !slices.ContainsFunc(found, func(f protocol.Finding) bool {
			return f.Severity == severity && strings.HasPrefix(f.What, names[i])
		}) {
			t.Errorf("%s: no %s in %+v", names[i], severity, found)
		}
	}
	wake()
	if found, err = e.Sweep(t.Context(), func(string) bool { return false }); err != nil || len(found) == 0 || found[0].Severity != "warning" {
		t.Errorf("when it can be ended: %+v %v", found, err)
	}
}
