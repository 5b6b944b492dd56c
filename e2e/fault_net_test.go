package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/protocol"
)

// A network that is slow, or cuts everything into single bytes, changes nothing but the time that it takes: not
// results, not records, not how a grant ends.
func TestASlowNetworkChangesNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		w := s.wire(t)
		for name, fault := range map[string]map[string]any{
			"latency":   {"latency": 15, "jitter": 5},
			"slicer":    {"average_size": 1, "size_variation": 0, "delay": 0},
			"bandwidth": {"rate": 200},
		} {
			for side, l := range map[string]*leg{"client": w.front, "database": w.back} {
				t.Run(name+"/"+side, func(t *testing.T) {
					l.ail(t, name, fault)
					defer l.heal(t)
					w.worksAsEver(t)
				})
			}
		}
	})
}

// worksAsEver is a session with some of everything, whose grant ends amid a statement.
func (w *wired) worksAsEver(t *testing.T) {
	t.Helper()
	word := word(t)
	g, _, c := w.joined(t, "writer")
	insert := "INSERT INTO orders (item) VALUES ('" + word + "-0')"
	exec1(t, c, insert)
	wide := "SELECT REPEAT(item, 200) FROM orders WHERE item IN ('anvil', 'bell', 'candle') ORDER BY item"
	want := []string{strings.Repeat("anvil", 200), strings.Repeat("bell", 200), strings.Repeat("candle", 200)}
	if got, err := c.column(t.Context(), wide); err != nil || !slices.Equal(got, want) {
		t.Errorf("rows: %d, %v", len(got), err)
	}
	wrong := "SELECT nonsense FROM orders"
	if err := c.run(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("an error reads %v", err)
	}
	for _, sql := range []string{"BEGIN", "INSERT INTO orders (item) VALUES ('" + word + "-1')", "ROLLBACK"} {
		exec1(t, c, sql)
	}
	done := goExec(t.Context(), c, w.slowly(word+"-2"))
	w.underway(t, word+"-2")
	w.revoke(t, g)
	w.told(t, ends(t, done), "revoked")
	r := w.receipt(t, g.ID, "revoked")
	for i, n := range []string{"1", "0", "0"} {
		if got := w.committed(t, fmt.Sprint(word, "-", i)); got != n {
			t.Errorf("%s rows of %d were committed, want %s", got, i, n)
		}
	}
	cutOff(t, r)
	w.oneSession(t, g, "revoked")
	w.onRecord(t, g, insert, wrong, "BEGIN", word+"-1", "ROLLBACK", word+"-2")
}

// cutOff: the only backend was cut off in a statement, which may not have written anything by then.
func cutOff(t *testing.T, r receipt) {
	t.Helper()
	if len(r.Cut.Outcomes) != 1 || r.Cut.Outcomes[0].InFlight == 0 || r.Cut.Outcomes[0].Fate == protocol.FateCommitted || r.Cut.Outcomes[0].Foreign {
		t.Errorf("outcomes: %+v", r.Cut.Outcomes)
	}
}

// onRecord checks that statements with these words in them are on record, in this order, and that all but the
// last have a result.
func (s *town) onRecord(t *testing.T, g api.Grant, words ...string) {
	t.Helper()
	recs := s.recordings(t, g.ID)
	if len(recs) != 1 {
		t.Fatalf("%d recordings", len(recs))
	}
	at := 0
	for i, word := range words {
		n := slices.IndexFunc(recs[0].list[at:], func(x *statement) bool { return strings.Contains(string(x.text), word) })
		if n < 0 {
			t.Errorf("not on record, or out of order: %s", word)
			continue
		}
		if x := recs[0].list[at+n]; len(x.results) == 0 && i < len(words)-1 {
			t.Errorf("no result on record: %s", word)
		}
		at += n + 1
	}
}

// breakage is a way for a connection to break in the middle of a statement.
type breakage struct {
	strike func(t *testing.T, w *wired)
	code   string   // how the session has ended
	heard  []string // what the client may read, each in its own database's words; none: its connection is just gone
}

func breakages() map[string]breakage {
	return map[string]breakage{
		"client resets":         {func(_ *testing.T, w *wired) { w.front.reset() }, "vanished", nil},
		"client says no more":   {func(_ *testing.T, w *wired) { w.front.half(false) }, "vanished", nil},
		"database resets":       {func(_ *testing.T, w *wired) { w.back.reset() }, "server", nil},
		"database says no more": {func(_ *testing.T, w *wired) { w.back.half(true) }, "server", nil},
		"reset peer in the statement": {func(t *testing.T, w *wired) {
			w.back.ail(t, "reset_peer", map[string]any{"timeout": 0})
			w.back.reset()
			w.back.heal(t)
		}, "server", nil},
	}
}

// A connection that breaks in the middle of a statement, on either side: the session has ended and says how, its
// backend is terminated, nothing of the statement is committed, and the same grant goes on in the next session.
func TestABrokenConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		w := s.wire(t)
		for name, b := range breakages() {
			t.Run(name, func(t *testing.T) { w.breaks(t, b) })
		}
	})
}

func (w *wired) breaks(t *testing.T, b breakage) {
	t.Helper()
	word := word(t)
	g, creds, c := w.joined(t, "writer")
	exec1(t, c, "INSERT INTO orders (item) VALUES ('"+word+"-done')")
	done := goExec(t.Context(), c, w.slowly(word+"-long"))
	w.underway(t, word+"-long")
	b.strike(t, w)
	began := time.Now()
	if err := ends(t, done); err == nil {
		t.Error("the statement ended well")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the client was left waiting for %s", took)
	}
	w.gone(t, g.ID, 3*time.Second)
	if one := w.sealed(t, g.ID); one.EndCode != b.code || one.Interrupted {
		t.Errorf("the session ended as %q: %+v", one.EndCode, one)
	}
	if d, l := w.committed(t, word+"-done"), w.committed(t, word+"-long"); d != "1" || l != "0" {
		t.Errorf("%s and %s rows are committed, want 1 and 0", d, l)
	}
	w.onRecord(t, g, word+"-done", word+"-long")
	// The grant is as good as before.
	again := w.enter(t, creds)
	exec1(t, again, "SELECT 1")
	w.revoke(t, g)
	w.told(t, ends(t, goExec(t.Context(), again, "SELECT 1")), "revoked")
	w.receipt(t, g.ID, "revoked")
}

// A client that hears and says nothing any more, without a word, holds nothing up: its grant ends on time.
func TestAClientInABlackHole(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		w := s.wire(t)
		word := word(t)
		g, _, c := w.joined(t, "writer")
		_ = goExec(t.Context(), c, w.slowly(word))
		w.underway(t, word)
		w.front.hole(t)
		w.revoke(t, g)
		cutOff(t, w.receipt(t, g.ID, "revoked"))
		w.oneSession(t, g, "revoked")
		if n := w.committed(t, word); n != "0" {
			t.Errorf("%s rows were committed", n)
		}
		w.onRecord(t, g, word)
	})
}

// A database that can't be heard any more, without a word: who works there is told and cut at once when the
// grant ends, the account is ended as soon as the database is heard again, and that it takes long is an alert.
// Meanwhile nobody who works elsewhere notices anything, and who wants in is told why not.
func TestADatabaseInABlackHole(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		w := s.wire(t)
		word := word(t)
		g, _, c := w.joined(t, "writer")
		exec1(t, c, "INSERT INTO orders (item) VALUES ('"+word+"-done')")
		late, lateCreds := w.asked(t, "reader")
		done := goExec(t.Context(), c, w.slowly(word+"-long"))
		w.underway(t, word+"-long")
		w.back.hole(t)

		began := time.Now()
		w.revoke(t, g)
		w.told(t, ends(t, done), "revoked")
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the client was told after %s", took)
		}
		refusals := make(chan error, 1)
		go func() {
			_, err := w.login(t.Context(), lateCreds)
			refusals <- err
		}()
		for range 3 { // as often as the one in the hole is tried
			w.other.works(t)
		}
		select {
		case err := <-refusals:
			if err == nil || !strings.Contains(err.Error(), "try again") {
				t.Errorf("who wants in is told %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("who wants in is told nothing")
		}
		w.waitFor(t, 50*time.Second, func(context.Context) error {
			if len(w.ledger(t, "account.open", g.ID)) == 0 {
				return errors.New("no alert on the ledger")
			}
			return nil
		})
		w.back.heal(t)
		healed := time.Now()
		w.gone(t, g.ID, 15*time.Second)
		r := w.closedLate(t, g.ID, "revoked", 30*time.Second)
		if r.Cut.GoneAt.Sub(healed) > 12*time.Second {
			t.Errorf("cut %s after the database was back", r.Cut.GoneAt.Sub(healed))
		}
		if one := w.sealed(t, g.ID); one.EndCode != "revoked" {
			t.Errorf("session: %+v", one)
		}
		w.onRecord(t, g, word+"-done", word+"-long")
		c = w.enter(t, w.over(t, lateCreds))
		exec1(t, c, "SELECT 1")
		w.revoke(t, late)
		w.receipt(t, late.ID, "revoked")
	})
}

// works is a whole grant, and quick.
func (s *town) works(t *testing.T) {
	t.Helper()
	g, _, c := s.connected(t, "reader", 10*time.Minute)
	began := time.Now()
	exec1(t, c, "SELECT 1")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a statement took %s", took)
	}
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
}

// A node whose database is in a black hole still stops when it is told to.
func TestStoppingWithADatabaseInABlackHole(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		w := s.wire(t)
		word := word(t)
		g, _, c := w.joined(t, "writer")
		done := goExec(t.Context(), c, w.slowly(word))
		w.underway(t, word)
		w.back.hole(t)
		began := time.Now()
		if err := syscall.Kill(w.curfew.PID(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		w.told(t, ends(t, done), "stopped")
		select {
		case <-w.curfew.Exited():
			t.Logf("stopped after %s", time.Since(began).Round(time.Second))
		case <-time.After(50 * time.Second):
			t.Fatal("it does not stop")
		}
		w.back.heal(t)
		if err := w.curfew.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.logins(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.gone(t, g.ID, 20*time.Second)
		if one := w.sealed(t, g.ID); one.EndCode != "drained" {
			t.Errorf("session: %+v", one)
		}
		w.revoke(t, g)
		w.closedLate(t, g.ID, "revoked", 30*time.Second)
	})
}

// A login that meets a fault on the way to the database: the client reads why, and the next one gets in.
func TestALoginOverABrokenNetwork(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		w := s.wire(t)
		g, creds, c := w.joined(t, "reader")
		exec1(t, c, "SELECT 1")
		for name, fault := range map[string]func(){
			"reset": func() { w.back.ail(t, "reset_peer", map[string]any{"timeout": 0}) },
			"hole":  func() { w.back.hole(t) },
		} {
			fault()
			began := time.Now()
			_, err := w.login(t.Context(), creds)
			if err == nil || !strings.Contains(err.Error(), "can't be reached") {
				t.Errorf("%s: told %v", name, err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("%s: told after %s", name, took)
			}
			w.back.heal(t)
			if err := harness.Eventually(t.Context(), 10*time.Second, func(ctx context.Context) error {
				again, err := w.login(ctx, creds)
				if err == nil {
					err = again.close()
				}
				return err
			}); err != nil {
				t.Errorf("%s: after it: %v", name, err)
			}
		}
		w.revoke(t, g)
		w.receipt(t, g.ID, "revoked")
	})
}
