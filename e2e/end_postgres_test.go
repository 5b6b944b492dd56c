package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func postgresDeeds() map[string]deed {
	deeds := everybodysDeeds()
	deeds["copy in"] = deed{level: "writer", check: aborted, begin: func(t *testing.T, s *town, c conn, word string) func(*testing.T) error {
		r, w := io.Pipe()
		t.Cleanup(func() { _ = w.Close() })
		done := make(chan error, 1)
		go func() {
			_, err := c.(pgConn).PgConn().CopyFrom(t.Context(), r, "COPY orders (item) FROM STDIN -- "+word)
			_ = r.CloseWithError(io.ErrClosedPipe) // the writer below must not wait for a reader that is gone
			done <- err
		}()
		go func() { // enough for the server to have begun writing rows; then silence
			for range 2000 {
				if _, err := fmt.Fprintf(w, "%s%s\n", word, strings.Repeat("x", 60)); err != nil {
					return
				}
			}
		}()
		s.underway(t, word)
		return atOnce(done)
	}}
	deeds["after set role"] = deed{level: "owner", check: aborted, begin: func(t *testing.T, s *town, c conn, word string) func(*testing.T) error {
		exec1(t, c, "SET ROLE orders_owner")
		done := goExec(t.Context(), c, s.slowly(word))
		s.underway(t, word)
		return atOnce(done)
	}}
	deeds["prepared transaction"] = deed{level: "migrator", begin: func(t *testing.T, s *town, c conn, word string) func(*testing.T) error {
		exec1(t, c, "BEGIN")
		exec1(t, c, "INSERT INTO orders (item) VALUES ('"+word+"')")
		exec1(t, c, "PREPARE TRANSACTION 'story-"+word+"'")
		if got := s.ask(t, "orders", "SELECT gid FROM pg_prepared_xacts WHERE gid = $1", "story-"+word); len(got) != 1 {
			t.Fatalf("it was not prepared: %v", got)
		}
		return atTheNextWord(c)
	}, check: func(t *testing.T, s *town, word string, r receipt) {
		if fmt.Sprint(r.Clean.RolledBack) != "[story-"+word+"]" {
			t.Errorf("rolled back: %v", r.Clean.RolledBack)
		}
		if got := s.ask(t, "orders", "SELECT gid FROM pg_prepared_xacts WHERE gid = $1", "story-"+word); len(got) != 0 {
			t.Errorf("still prepared: %v", got)
		}
	}}
	return deeds
}

func TestPreparingIsRefusedUnlessTheLevelAllowsIt(t *testing.T) {
	t.Parallel()
	s, w := shared, word(t)
	_, _, c := s.connected(t, "writer", time.Minute)
	exec1(t, c, "BEGIN")
	exec1(t, c, "INSERT INTO orders (item) VALUES ('"+w+"')")
	err := c.run(t.Context(), "PREPARE TRANSACTION 'story-"+w+"'")
	if err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("got %v", err)
	}
	if got := c.(pgConn).PgConn().TxStatus(); got != 'E' {
		t.Errorf("the transaction is %q afterwards, not failed", got)
	}
	exec1(t, c, "ROLLBACK")
	exec1(t, c, "SELECT 1") // the session goes on
}
