package mysql

import (
	"context"
	"testing"
	"time"
)

// TestLookIsOfNow: whether the list of transactions is of now or an old copy is told by the look's own mark in it.
func TestLookIsOfNow(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	look := func() (fresh bool) {
		t.Helper()
		var pids []uint32
		c := direct(t, a, "orders")
		join(t, a, c)
		if _, err := c.ExecContext(t.Context(), "START TRANSACTION"); err != nil {
			t.Fatal(err)
		}
		err := e.closing.do(t.Context(), func(ctx context.Context, line *conn) error {
			mark := "/* " + newSecret() + " */"
			ends, n, err := a.lookFresh(ctx, line, nil, mark)
			if err != nil {
				return err
			}
			if !n.known || n.scope == "" {
				t.Errorf("commits: %+v", n)
			}
			for _, end := range ends {
				pids = append(pids, end.pid)
				if end.link == nil {
					t.Errorf("backend %d belongs to nobody", end.pid)
				}
			}
			fresh, err = shootFresh(ctx, line, ends, mark)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) != 1 || pids[0] != c.id {
			t.Errorf("it saw %d, and %d is there", pids, c.id)
		}
		eventually(t, "it is gone", func() bool {
			return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?", c.id) == "0"
		})
		if !testServer.IsMariaDB() { // which does not say whether a transaction is open
			return fresh
		}
		err = e.closing.do(t.Context(), func(ctx context.Context, line *conn) error {
			open := false
			err := line.QueryRowContext(ctx, "SELECT @@in_transaction").Scan(&open)
			if open {
				t.Error("the line's own transaction is open still")
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return fresh
	}
	eventually(t, "a look that nobody disturbs is of now", func() bool {
		time.Sleep(150 * time.Millisecond) // for 100 ms nobody may have asked
		return look()
	})

	// Who asks all the time has the copy stand still.
	asking, stop := context.WithCancel(t.Context())
	first, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; asking.Err() == nil; n++ {
			_, _ = testServer.Value(asking, "", "SELECT COUNT(*) FROM information_schema.innodb_trx")
			if n == 20 {
				close(first)
			}
		}
	}()
	<-first
	if look() {
		t.Error("an old copy was taken for one of now")
	}
	stop()
	<-done
}
