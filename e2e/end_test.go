package e2e

import (
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/protocol"
)

// deed is something that is under way when a grant ends.
type deed struct {
	level string
	// begin starts it on c. What it gives is called when the grant has ended: how the client learns of it.
	begin func(t *testing.T, s *town, c conn, word string) (learn func(t *testing.T) error)
	check func(t *testing.T, s *town, word string, r receipt)
}

// aborted: what was in flight was rolled back, says the database itself.
func aborted(t *testing.T, _ *town, _ string, r receipt) {
	t.Helper()
	if len(r.Cut.Outcomes) != 1 {
		t.Fatalf("outcomes: %+v", r.Cut.Outcomes)
	}
	o := r.Cut.Outcomes[0]
	if o.Fate != protocol.FateAborted || o.TxID == "" || o.Foreign {
		t.Errorf("outcome of what was in flight: %+v", o)
	}
}

// inFlight: the same, and the receipt names the statement.
func inFlight(t *testing.T, s *town, word string, r receipt) {
	t.Helper()
	aborted(t, s, word, r)
	if r.Cut.Outcomes[0].InFlight == 0 {
		t.Error("the receipt does not name the statement in flight")
	}
}

// atOnce: the client is waiting for an answer, and gets the reason.
func atOnce(done <-chan error) func(*testing.T) error {
	return func(t *testing.T) error { return ends(t, done) }
}

// atTheNextWord: nothing is running, and the client reads the reason when it says something.
func atTheNextWord(c conn) func(*testing.T) error {
	return func(t *testing.T) error { return ends(t, goExec(t.Context(), c, "SELECT 1")) }
}

// everybodysDeeds are the same in every database.
func everybodysDeeds() map[string]deed {
	return map[string]deed{
		"long insert": {level: "writer", check: inFlight, begin: func(t *testing.T, s *town, c conn, word string) func(*testing.T) error {
			done := goExec(t.Context(), c, s.slowly(word))
			s.underway(t, word)
			return atOnce(done)
		}},
		"open transaction": {level: "writer", check: aborted, begin: func(t *testing.T, _ *town, c conn, word string) func(*testing.T) error {
			exec1(t, c, "BEGIN")
			exec1(t, c, "INSERT INTO orders (item) VALUES ('"+word+"')")
			return atTheNextWord(c)
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
		"expired": {duration: 5 * time.Second, words: []string{"ended", "curfew request"},
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
	everywhere(t, func(t *testing.T, s *town) {
		for code, e := range endings() {
			for name, d := range s.deeds {
				t.Run(code+"/"+name, func(t *testing.T) {
					t.Parallel()
					s.endsAmid(t, code, e, d)
				})
			}
		}
	})
}

func (s *town) endsAmid(t *testing.T, code string, e ending, d deed) {
	t.Helper()
	w := word(t)
	approvers := []*harness.Person{s.bob}
	if d.level == "owner" {
		approvers = append(approvers, s.sam)
	}
	g, _, c := s.connected(t, d.level, e.duration, approvers...)
	e.ready(t, g)
	learn := d.begin(t, s, c, w)
	e.end(t, s, g)
	r := s.receipt(t, g.ID, code)
	s.told(t, learn(t), e.words...)
	if n := s.committed(t, w); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
	d.check(t, s, w, r)
	s.oneSession(t, g, code)
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
