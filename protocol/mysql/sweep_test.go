package mysql

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

func TestSweep(t *testing.T) {
	crashed := newEngine(t, nil)
	lost, kept := provision(t, crashed, newSpec(0)), provision(t, crashed, newSpec(0))
	c := direct(t, lost, "orders")
	do(t, c, "CREATE"+planter()+" VIEW lost_view AS SELECT * FROM secret", "BEGIN", "INSERT INTO orders (what) VALUES ('lost')")
	t.Cleanup(func() { admin(t, "orders", "DROP VIEW IF EXISTS lost_view") })
	admin(t, "", "CREATE USER curfew_other1_g0000000001@'127.0.0.1' ACCOUNT LOCK")
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
	for _, want := range []string{"warning " + lost.Name(), "note curfew_other1_g0000000001", "warning " + lost.Name() + " left behind in database orders: view orders.lost_view (quarantined)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no finding %q in\n%s", want, text)
		}
	}
	users := super(t, "", "SELECT GROUP_CONCAT(User ORDER BY User) FROM mysql.user WHERE User REGEXP '^curfew_.*_g' AND Host <> ''")
	if want := "curfew_other1_g0000000001," + kept.Name(); users != want {
		t.Errorf("users left: %s, want %s", users, want)
	}
	if c.alive(t) {
		t.Error("the leftover's session lives on")
	}
	if n := super(t, "orders", "SELECT COUNT(*) FROM orders WHERE what = 'lost'"); n != "0" {
		t.Error("what it was doing was committed")
	}
}

func TestWatch(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	mine, past := direct(t, a, "orders"), direct(t, a, "orders")
	f := join(t, a, mine)
	g := join(t, a, past)
	changePassword(t, mine, "known-to-me")
	theirs, err := open(t, a.Name(), "known-to-me", "orders")
	if err != nil {
		t.Fatal(err)
	}
	a.Leave(g) // said goodbye; its backend lingers
	stranger := beginLogin(t, a.Name())
	stranger.proceed(t) // anybody can name an account: no reason to end a grant
	found, err := e.Watch(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v %v", found, err)
	}
	want := protocol.Foreign{Account: a.Name(), Backend: strconv.Itoa(int(theirs.id)), Address: found[0].Address, Killed: true}
	if found[0] != want || !strings.HasPrefix(want.Address, "127.0.0.1:") {
		t.Errorf("found %+v, want %+v", found[0], want)
	}
	if theirs.alive(t) {
		t.Error("the foreign backend lives on")
	}
	do(t, mine, "SELECT 1")
	do(t, past, "SELECT 1")
	a.Forget(func(uint32) bool { return true }) // as if it had lingered too long
	if found, err = e.Watch(t.Context()); err != nil || len(found) != 1 || found[0].Backend != strconv.Itoa(int(g.Backend())) {
		t.Errorf("a backend that outlives its session: %+v %v", found, err)
	}
	cut, _ := finish(t, a)
	ours := slices.IndexFunc(cut.Outcomes, func(o protocol.Outcome) bool { return o.Backend == strconv.Itoa(int(f.Backend())) })
	foreign := slices.IndexFunc(cut.Outcomes, func(o protocol.Outcome) bool { return o.Backend == want.Backend })
	if ours < 0 || cut.Outcomes[ours].Foreign || foreign < 0 || !cut.Outcomes[foreign].Foreign {
		t.Errorf("%+v", cut.Outcomes)
	}
}

// changePassword sets the account's own password, as its holder can.
func changePassword(t *testing.T, c *directSession, password string) {
	t.Helper()
	if testServer.IsMariaDB() {
		do(t, c, "SET PASSWORD = PASSWORD("+literal(password)+")")
	} else {
		do(t, c, "SET PASSWORD = "+literal(password))
	}
}

// A login of our own that is under way answers for one backend, but not for two, and not for an old one.
func TestWatchWhileOpening(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	opening := &fakeSession{}
	if _, err := a.add(opening); err != nil {
		t.Fatal(err)
	}
	first := direct(t, a, "orders")
	if found, err := e.Watch(t.Context()); err != nil || len(found) != 0 {
		t.Fatalf("our own login is called foreign: %+v %v", found, err)
	}
	second := direct(t, a, "orders")
	found, err := e.Watch(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("two backends, one login under way: %+v %v", found, err)
	}
	opening.backend.Store(second.id)
	if found[0].Backend != strconv.Itoa(int(first.id)) {
		t.Errorf("the younger one was killed")
	}
	opening.backend.Store(0)
	a.noticed[1<<20] = time.Now().Add(-openingMost)
	if left := a.unknown([]seen{{pid: 1 << 20}}, nil); len(left) != 1 {
		t.Error("a login under way answers for an old backend")
	}
}

// With every connection taken by others, cutting still works: its connection is open already.
func TestCutOnAFullServer(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := direct(t, a, "orders")
	if err := e.closing.do(t.Context(), func(ctx context.Context, c *conn) error { return c.PingContext(ctx) }); err != nil {
		t.Fatal(err)
	}
	e.pool.SetMaxIdleConns(0)
	full := false
	var others []*directSession
	for range 80 {
		x, err := open(t, "app", "app", "orders")
		if err != nil {
			full = is(err, 1040)
			break
		}
		others = append(others, x)
	}
	if !full {
		t.Fatal("the server is not full")
	}
	cut, err := a.Cut(t.Context())
	if err != nil || len(cut.Outcomes) != 1 {
		t.Fatalf("%+v %v", cut, err)
	}
	if c.alive(t) {
		t.Error("the session lives on")
	}
	for _, x := range others {
		x.hangUp()
	}
	eventually(t, "the server has room", func() bool { return testServer.SQL(t.Context(), "", "DO 1") == nil })
	finish(t, a)
}

// A broken closing line is made anew by whoever needs it, and what it was at may not happen later.
func TestLineIsMadeAnew(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := direct(t, a, "orders")
	var id uint32
	err := e.closing.do(t.Context(), func(_ context.Context, c *conn) error { id = c.id; return nil })
	if err != nil {
		t.Fatal(err)
	}
	admin(t, "", "KILL "+strconv.Itoa(int(id)))
	cut, err := a.Cut(t.Context())
	if err != nil || len(cut.Outcomes) != 1 || c.alive(t) {
		t.Fatalf("%+v %v", cut, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err = e.closing.do(ctx, func(ctx context.Context, c *conn) error {
		id = c.id
		_, err := c.ExecContext(ctx, "DO SLEEP(30)")
		return err
	})
	if err == nil {
		t.Fatal("nothing was given up")
	}
	if err := e.closing.do(t.Context(), func(ctx context.Context, c *conn) error { return c.PingContext(ctx) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lost connection is gone", func() bool {
		return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?", id) == "0"
	})
	finish(t, a)
}
