package e2e

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/protocol"
)

// deed is something that is under way when a grant ends.
type deed struct {
	level string
	// begin starts it on c and gives a channel that tells how it ended for the client.
	begin func(t *testing.T, s *town, c *pgx.Conn, word string) <-chan error
	idle  bool // nothing is running: the client hears the reason at its next word
	check func(t *testing.T, word string, r receipt)
}

// slowly inserts a row every tenth of a second for 4 s, so that the transaction has an id early on.
func slowly(word string) string {
	return fmt.Sprintf("INSERT INTO orders (item) SELECT '%s' || coalesce(pg_sleep(0.1)::text, '') FROM generate_series(1, 40)", word)
}

func goExec(ctx context.Context, c *pgx.Conn, sql string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.PgConn().Exec(ctx, sql).ReadAll()
		done <- err
	}()
	return done
}

func aborted(t *testing.T, _ string, r receipt) {
	t.Helper()
	if len(r.Cut.Outcomes) != 1 {
		t.Fatalf("outcomes: %+v", r.Cut.Outcomes)
	}
	o := r.Cut.Outcomes[0]
	if o.Fate != protocol.FateAborted || o.TxID == "" || o.Foreign {
		t.Errorf("outcome of what was in flight: %+v", o)
	}
}

func deeds() map[string]deed {
	return map[string]deed{
		"long insert": {level: "writer", check: func(t *testing.T, word string, r receipt) {
			aborted(t, word, r)
			if r.Cut.Outcomes[0].InFlight == 0 {
				t.Error("the receipt does not name the statement in flight")
			}
		}, begin: func(t *testing.T, s *town, c *pgx.Conn, word string) <-chan error {
			done := goExec(t.Context(), c, slowly(word))
			s.underway(t, word)
			return done
		}},
		"copy in": {level: "writer", check: aborted, begin: func(t *testing.T, s *town, c *pgx.Conn, word string) <-chan error {
			r, w := io.Pipe()
			t.Cleanup(func() { _ = w.Close() })
			done := make(chan error, 1)
			go func() {
				_, err := c.PgConn().CopyFrom(t.Context(), r, "COPY orders (item) FROM STDIN -- "+word)
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
			return done
		}},
		"open transaction": {level: "writer", idle: true, check: aborted, begin: func(t *testing.T, _ *town, c *pgx.Conn, word string) <-chan error {
			exec1(t, c, "BEGIN")
			exec1(t, c, "INSERT INTO orders (item) VALUES ('"+word+"')")
			return nil
		}},
		"after set role": {level: "owner", check: aborted, begin: func(t *testing.T, s *town, c *pgx.Conn, word string) <-chan error {
			exec1(t, c, "SET ROLE orders_owner")
			done := goExec(t.Context(), c, slowly(word))
			s.underway(t, word)
			return done
		}},
		"prepared transaction": {level: "migrator", idle: true, begin: func(t *testing.T, s *town, c *pgx.Conn, word string) <-chan error {
			exec1(t, c, "BEGIN")
			exec1(t, c, "INSERT INTO orders (item) VALUES ('"+word+"')")
			exec1(t, c, "PREPARE TRANSACTION 'story-"+word+"'")
			if got := s.ask(t, "orders", "SELECT gid FROM pg_prepared_xacts WHERE gid = $1", "story-"+word); len(got) != 1 {
				t.Fatalf("it was not prepared: %v", got)
			}
			return nil
		}, check: func(t *testing.T, word string, r receipt) {
			if fmt.Sprint(r.Clean.RolledBack) != "[story-"+word+"]" {
				t.Errorf("rolled back: %v", r.Clean.RolledBack)
			}
			if got := shared.ask(t, "orders", "SELECT gid FROM pg_prepared_xacts WHERE gid = $1", "story-"+word); len(got) != 0 {
				t.Errorf("still prepared: %v", got)
			}
		}},
	}
}

// ending is a way for a grant to end while something is under way.
type ending struct {
	duration time.Duration
	words    []string
	// ready waits for the moment to begin; end makes the grant end, at least a second later.
	ready func(t *testing.T, g api.Grant)
	end   func(t *testing.T, s *town, g api.Grant)
}

func endings() map[string]ending {
	return map[string]ending{
		"expired": {duration: 5 * time.Second, words: []string{"ended", "curfew request orders"},
			ready: func(_ *testing.T, g api.Grant) { time.Sleep(time.Until(g.End.Add(-1500 * time.Millisecond))) },
			end:   func(*testing.T, *town, api.Grant) {}},
		"revoked": {duration: 10 * time.Minute, words: []string{"revoked"},
			ready: func(*testing.T, api.Grant) {},
			end: func(t *testing.T, s *town, g api.Grant) {
				time.Sleep(time.Second) // the story is "one second into": nothing to observe
				must(s.bob.Run(t.Context(), "revoke", g.ID, "--reason", "the story says so"))(t)
			}},
	}
}

func TestNothingCommitsWhenAGrantEnds(t *testing.T) {
	for code, e := range endings() {
		for name, d := range deeds() {
			t.Run(code+"/"+name, func(t *testing.T) {
				t.Parallel()
				s, w := shared, word(t)
				approvers := []*harness.Person{s.bob}
				if d.level == "owner" {
					approvers = append(approvers, s.sam)
				}
				g, _, c := s.connected(t, d.level, e.duration, approvers...)
				e.ready(t, g)
				done := d.begin(t, s, c, w)
				e.end(t, s, g)
				r := s.receipt(t, g.ID, code)
				if d.idle {
					done = goExec(t.Context(), c, "SELECT 1")
				}
				told(t, ends(t, done), e.words...)
				if n := s.committed(t, w); n != "0" {
					t.Errorf("%s rows were committed", n)
				}
				d.check(t, w, r)
				s.oneSession(t, g, code)
			})
		}
	}
}

// oneSession checks what is on record of the only session of a grant that was cut off.
func (s *town) oneSession(t *testing.T, g api.Grant, code string) {
	t.Helper()
	sessions := must(s.sam.Sessions(t.Context(), g.ID))(t)
	if len(sessions) != 1 {
		t.Fatalf("sessions: %+v", sessions)
	}
	if got := sessions[0]; got.EndCode != code || got.Ended.IsZero() || got.Root == "" || got.Statements == 0 || got.Interrupted {
		t.Errorf("session: %+v", got)
	}
}

func TestPreparingIsRefusedUnlessTheLevelAllowsIt(t *testing.T) {
	t.Parallel()
	s, w := shared, word(t)
	_, _, c := s.connected(t, "writer", time.Minute)
	exec1(t, c, "BEGIN")
	exec1(t, c, "INSERT INTO orders (item) VALUES ('"+w+"')")
	_, err := c.PgConn().Exec(t.Context(), "PREPARE TRANSACTION 'story-"+w+"'").ReadAll()
	if err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("got %v", err)
	}
	if got := c.PgConn().TxStatus(); got != 'E' {
		t.Errorf("the transaction is %q afterwards, not failed", got)
	}
	exec1(t, c, "ROLLBACK")
	exec1(t, c, "SELECT 1") // the session goes on
}
