package postgres

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// stuck makes a connection's backend one that hears no signal, as one that waits for a dead disk, until
// the test ends.
func stuck(t *testing.T, c *pgx.Conn) (wake func()) {
	t.Helper()
	pid := int(c.PgConn().PID())
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Skip("the server's processes are somebody else's: ", err)
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
