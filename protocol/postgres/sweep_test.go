package postgres

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

func TestSweep(t *testing.T) {
	crashed := newEngine(t, nil)
	lost, kept := provision(t, crashed, withSetRole(t, newSpec(0))), provision(t, crashed, withSetRole(t, newSpec(0)))
	c := login(t, lost, "orders")
	exec(t, c, "SET ROLE orders_writer", "CREATE VIEW lost_view AS SELECT * FROM secret", "GRANT SELECT ON lost_view TO PUBLIC", "RESET ROLE", "BEGIN", "INSERT INTO orders (what) VALUES ('lost')")
	admin(t, "postgres", "CREATE ROLE curfew_other1_g0000000001")
	t.Cleanup(func() { remove(t, "curfew_other1_g0000000001") })

	e := newEngine(t, nil)
	findings, err := e.Sweep(t.Context(), func(name string) bool { return name == kept.Name() })
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, f := range findings {
		text += f.Severity + " " + f.What + "\n"
	}
	for _, want := range []string{"warning " + lost.Name(), "note curfew_other1_g0000000001", "view public.lost_view (quarantined)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no finding %q in\n%s", want, text)
		}
	}
	roles := super(t, "postgres", "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles WHERE rolname ~ '^curfew_.*_g'")
	if want := "curfew_other1_g0000000001," + kept.Name(); roles != want {
		t.Errorf("roles left: %s, want %s", roles, want)
	}
	if c.Ping(t.Context()) == nil {
		t.Error("the leftover's session lives on")
	}
	admin(t, "orders", "DROP VIEW lost_view")
}

func TestWatch(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	mine, past := login(t, a, "orders"), login(t, a, "orders")
	f := join(t, a, mine)
	g := join(t, a, past)
	exec(t, mine, "ALTER ROLE "+a.Name()+" PASSWORD 'known-to-me'")
	direct, err := dial(t.Context(), server.DSN(a.Name(), "known-to-me", "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), direct)
	a.Leave(g) // said goodbye; its backend lingers
	found, err := e.Watch(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v %v", found, err)
	}
	want := protocol.Foreign{Account: a.Name(), Backend: strconv.Itoa(int(direct.PgConn().PID())), Address: found[0].Address, Killed: true}
	if found[0] != want || !strings.HasPrefix(want.Address, "127.0.0.1:") {
		t.Errorf("found %+v, want %+v", found[0], want)
	}
	if direct.Ping(t.Context()) == nil {
		t.Error("the foreign backend lives on")
	}
	exec(t, mine, "SELECT 1")
	exec(t, past, "SELECT 1")
	a.Forget(func(uint32) bool { return true }) // as if it had lingered too long
	if found, err = e.Watch(t.Context()); err != nil || len(found) != 1 || found[0].Backend != strconv.Itoa(int(g.Backend())) {
		t.Errorf("a backend that outlives its session: %+v %v", found, err)
	}
	cut, _ := finish(t, a)
	ours := slices.IndexFunc(cut.Outcomes, func(o protocol.Outcome) bool { return o.Backend == strconv.Itoa(int(f.Backend())) })
	theirs := slices.IndexFunc(cut.Outcomes, func(o protocol.Outcome) bool { return o.Backend == want.Backend })
	if ours < 0 || cut.Outcomes[ours].Foreign || theirs < 0 || !cut.Outcomes[theirs].Foreign {
		t.Errorf("%+v", cut.Outcomes)
	}
}

// A login of our own that is under way answers for one backend, but not for two, and not for an old one.
func TestWatchWhileOpening(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	opening := &fakeSession{}
	if _, err := a.Join(opening); err != nil {
		t.Fatal(err)
	}
	first := login(t, a, "orders")
	if found, err := e.Watch(t.Context()); err != nil || len(found) != 0 {
		t.Fatalf("our own login is called foreign: %+v %v", found, err)
	}
	second := login(t, a, "orders")
	found, err := e.Watch(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("two backends, one login under way: %+v %v", found, err)
	}
	opening.backend.Store(second.PgConn().PID())
	if found[0].Backend != strconv.Itoa(int(first.PgConn().PID())) {
		t.Errorf("the younger one was killed")
	}
	old := []seen{{backend: backend{pid: 1 << 20, start: time.Now()}, age: openingMost}}
	opening.backend.Store(0)
	if left := a.unknown(old, nil); len(left) != 1 {
		t.Error("a login under way answers for an old backend")
	}
}

// With every connection taken by others, cutting still works: its connection is open already.
func TestCutOnAFullServer(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := login(t, a, "orders")
	eventually(t, "the closing line is open", func() bool {
		return super(t, "postgres", "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = $1", "curfew "+testInstallation+" closing") == "true"
	})
	e.pool.Reset()
	full := false
	for range 60 {
		x, err := dial(t.Context(), server.DSN("app", "app", "orders"))
		if err != nil {
			full = is(err, "53300")
			break
		}
		defer hangUp(t.Context(), x)
	}
	if !full {
		t.Fatal("the server is not full")
	}
	cut, err := a.Cut(t.Context())
	if err != nil || len(cut.Outcomes) != 1 {
		t.Fatalf("%+v %v", cut, err)
	}
	if c.Ping(t.Context()) == nil {
		t.Error("the session lives on")
	}
}
