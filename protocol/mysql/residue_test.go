package mysql

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// reads reports whether a stranger's login gets anything out of a query.
func reads(t *testing.T, text string) bool {
	t.Helper()
	c, err := open(t, "stranger", "stranger", "orders")
	if err != nil {
		t.Fatal(err)
	}
	defer c.hangUp()
	var word string
	return c.QueryRowContext(t.Context(), text).Scan(&word) == nil
}

// planter is whom a plant runs as: on MariaDB only a role's rights count there, on MySQL there is no such thing.
func planter() string {
	if testServer.IsMariaDB() {
		return " DEFINER = CURRENT_ROLE"
	}
	return ""
}

// plain is a definer's rights themselves, for a server on which rights that come by a role count for nothing there.
func plain(t *testing.T, a *account) {
	t.Helper()
	admin(t, "", "GRANT SELECT, INSERT, EXECUTE, TRIGGER, EVENT ON orders.* TO "+user(a.Name(), "127.0.0.1"))
}

// body is what a routine, event or view says, with everything that its making depended on.
func body(t *testing.T, kind, name string) string {
	t.Helper()
	switch kind {
	case "view":
		return super(t, "", "SELECT CONCAT_WS('|', VIEW_DEFINITION, CHECK_OPTION, SECURITY_TYPE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION) FROM information_schema.VIEWS WHERE TABLE_NAME = ?", name)
	case "event":
		return super(t, "", "SELECT CONCAT_WS('|', EVENT_DEFINITION, SQL_MODE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, EVENT_COMMENT, INTERVAL_VALUE, ON_COMPLETION) FROM information_schema.EVENTS WHERE EVENT_NAME = ?", name)
	}
	return super(t, "", "SELECT CONCAT_WS('|', ROUTINE_DEFINITION, SQL_MODE, SECURITY_TYPE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, ROUTINE_COMMENT, CREATED) FROM information_schema.ROUTINES WHERE ROUTINE_NAME = ?", name)
}

// Views, routines and events are nobody's afterwards: a stranger reads nothing through them, and what they say
// is what it was.
func TestResidueIsReowned(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	plain(t, a)
	c := direct(t, a, "orders")
	do(t, c,
		"CREATE"+planter()+" VIEW left_view AS SELECT *, 'it''s \\\\ \"so\"' AS x FROM secret WHERE word > '' WITH CASCADED CHECK OPTION",
		"CREATE SQL SECURITY INVOKER VIEW left_invoker AS SELECT 1 AS one",
		"SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'", "SET NAMES latin1",
		"CREATE"+planter()+" EVENT left_event ON SCHEDULE EVERY 1 HOUR COMMENT 'c' DO INSERT INTO \"orders\" (what) VALUES ('a' || 'b')",
		"SET NAMES utf8mb4",
		"CREATE VIEW left_ümlaut AS SELECT 'ä' AS ä FROM \"orders\"")
	if testServer.IsMariaDB() {
		do(t, c, "CREATE DEFINER = CURRENT_ROLE FUNCTION left_fn() RETURNS TEXT COMMENT 'it''s' READS SQL DATA RETURN (SELECT word || '' FROM \"secret\")",
			"CREATE PROCEDURE left_proc() SQL SECURITY INVOKER SELECT 'ä'")
		if !reads(t, "SELECT left_fn()") {
			t.Fatal("the plant doesn't work: a stranger gets nothing from the function")
		}
	}
	if !reads(t, "SELECT word FROM left_view") {
		t.Fatal("the plant doesn't work: a stranger gets nothing from the view")
	}
	things := []struct{ kind, name string }{{"view", "left_view"}, {"view", "left_invoker"}, {"view", "left_ümlaut"}, {"event", "left_event"}}
	if testServer.IsMariaDB() {
		things = append(things, struct{ kind, name string }{"function", "left_fn"}, struct{ kind, name string }{"procedure", "left_proc"})
	}
	was := map[string]string{}
	for _, o := range things {
		was[o.name] = body(t, o.kind, o.name)
	}
	t.Cleanup(func() {
		for _, o := range things {
			admin(t, "orders", "DROP "+o.kind+" IF EXISTS "+identifier(o.name))
		}
	})
	_, clean := finish(t, newEngine(t, nil).Recall(a.spec)) // nothing may depend on one process' memory
	for _, o := range things {
		r := find(t, clean.Residue, "orders", o.kind+" orders."+o.name)
		alert := o.name != "left_invoker" && o.name != "left_proc"
		if r.Action != "quarantined" || r.Owner != a.Name() || r.Alert != alert {
			t.Errorf("%+v", r)
		}
		now := body(t, o.kind, o.name)
		if o.name == "left_ümlaut" { // in which character set it was made is lost, what it says is not
			now, _, _ = strings.Cut(now, "|")
			was[o.name], _, _ = strings.Cut(was[o.name], "|")
		}
		if now != was[o.name] {
			t.Errorf("%s was changed:\n%s\n%s", o.name, was[o.name], now)
		}
	}
	if n := super(t, "", `SELECT (SELECT COUNT(*) FROM information_schema.VIEWS WHERE DEFINER = 'curfew_quarantine@localhost')
		+ (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE DEFINER = 'curfew_quarantine@localhost')
		+ (SELECT COUNT(*) FROM information_schema.EVENTS WHERE DEFINER = 'curfew_quarantine@localhost' AND STATUS = 'DISABLED')`); n != map[bool]string{true: "6", false: "4"}[testServer.IsMariaDB()] {
		t.Errorf("%s things are curfew_quarantine's", n)
	}
	for _, text := range []string{"SELECT word FROM left_view", "SELECT left_fn()"} {
		if reads(t, text) {
			t.Errorf("a stranger reads by %s", text)
		}
	}
	if len(clean.Residue) != len(things) {
		t.Errorf("%d things, %+v", len(things), clean.Residue)
	}
}

// A trigger can't be re-owned without harm: the application goes on, the account stays there, locked, and
// the DBA reads what to do; then cleaning is finished.
func TestTriggerKeepsTheAccount(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	plain(t, a)
	c := direct(t, a, "orders")
	do(t, c, "CREATE"+planter()+" TRIGGER planted BEFORE INSERT ON orders FOR EACH ROW SET NEW.what = CONCAT(NEW.what, '!')",
		"CREATE"+planter()+" VIEW beside_trigger AS SELECT * FROM orders")
	t.Cleanup(func() {
		admin(t, "orders", "DROP TRIGGER IF EXISTS planted", "DROP VIEW IF EXISTS beside_trigger", "DELETE FROM orders WHERE what LIKE 'app%'")
	})
	if _, err := a.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean, err := a.Clean(t.Context())
	if err == nil || !strings.Contains(err.Error(), "DROP TRIGGER `orders`.`planted`") {
		t.Fatalf("clean: %v", err)
	}
	if r := find(t, clean.Residue, "orders", "trigger orders.planted on orders"); r.Action != "reported" || !r.Alert {
		t.Errorf("%+v", r)
	}
	app, err := open(t, "app", "app", "orders")
	if err != nil {
		t.Fatal(err)
	}
	do(t, app, "INSERT INTO orders (what) VALUES ('app')")
	if _, err := open(t, a.Name(), a.secret, "orders"); err == nil {
		t.Error("the account is open")
	}
	if definer := super(t, "", "SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_NAME = 'beside_trigger'"); definer != "curfew_quarantine@localhost" {
		t.Errorf("the trigger kept the rest from being re-owned: %s", definer)
	}
	if clean, err = newEngine(t, nil).Recall(a.spec).Clean(t.Context()); err == nil {
		t.Fatal("cleaned although the trigger is there")
	}
	admin(t, "orders", "DROP TRIGGER `orders`.`planted`")
	if clean, err = newEngine(t, nil).Recall(a.spec).Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	find(t, clean.Residue, "orders", "trigger orders.planted on orders")
	find(t, clean.Residue, "orders", "view orders.beside_trigger")
	do(t, app, "INSERT INTO orders (what) VALUES ('app')")
	if n := super(t, "", "SELECT COUNT(*) FROM mysql.user WHERE User LIKE CONCAT(?, '%')", a.Name()); n != "0" {
		t.Error("it is still there")
	}
}

// MySQL can't re-own a routine either.
func TestRoutineKeepsTheAccountOnMySQL(t *testing.T) {
	if need(t).IsMariaDB() {
		t.Skip("MySQL only")
	}
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	do(t, direct(t, a, "orders"), "CREATE PROCEDURE kept_proc() SELECT 1")
	t.Cleanup(func() { admin(t, "orders", "DROP PROCEDURE IF EXISTS kept_proc") })
	if _, err := a.Clean(t.Context()); err == nil || !strings.Contains(err.Error(), "DROP PROCEDURE `orders`.`kept_proc`") {
		t.Fatalf("clean: %v", err)
	}
	admin(t, "orders", "DROP PROCEDURE kept_proc")
	finish(t, a)
}

// A level with set_role makes things in its role's name; those are the application's: reported, and left.
func TestThingsOfARole(t *testing.T) {
	onMariaDB(t)
	e := newEngine(t, nil)
	admin(t, "orders", "SET ROLE orders_owner", "CREATE DEFINER = orders_owner FUNCTION old_fn() RETURNS INT RETURN 1")
	t.Cleanup(func() { admin(t, "orders", "DROP FUNCTION old_fn", "DROP FUNCTION IF EXISTS new_fn") })
	eventually(t, "a second has passed", func() bool {
		return super(t, "", "SELECT NOW() > MAX(created) FROM mysql.proc WHERE name = 'old_fn'") == "1"
	})
	a := provision(t, e, newSpec(1))
	do(t, direct(t, a, "orders"), "SET ROLE orders_owner", "CREATE DEFINER = CURRENT_ROLE FUNCTION new_fn() RETURNS INT RETURN 1")
	_, clean := finish(t, a)
	if r := find(t, clean.Residue, "orders", "function orders.new_fn"); r.Action != "reported" || !r.Alert || r.Owner != "orders_owner" || len(clean.Residue) != 1 {
		t.Errorf("%+v", clean.Residue)
	}
	if definer := super(t, "", "SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_NAME = 'new_fn'"); !strings.HasPrefix(definer, "orders_owner") {
		t.Errorf("it belongs to %s", definer)
	}
}

// What the account gave to others is told.
func TestGivenRights(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	admin(t, "", "GRANT SELECT ON orders.secret TO "+user(a.Name(), "127.0.0.1")+" WITH GRANT OPTION")
	do(t, direct(t, a, "orders"), "GRANT SELECT ON orders.secret TO stranger@'%'")
	t.Cleanup(func() { admin(t, "", "REVOKE SELECT ON orders.secret FROM stranger@'%'") })
	_, clean := finish(t, a)
	if r := find(t, clean.Residue, "orders", "stranger@% was given Select on table orders.secret"); r.Action != "reported" || !r.Alert || r.Owner != a.Name() {
		t.Errorf("%+v", r)
	}
}

// A broker that lacks the rights to re-own leaves the account locked, and check says what is missing.
func TestBrokerWithoutRights(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	do(t, direct(t, a, "orders"), "CREATE"+planter()+" VIEW stays AS SELECT * FROM secret")
	t.Cleanup(func() { admin(t, "orders", "DROP VIEW IF EXISTS stays") })
	var s server
	err := e.here(t.Context(), func(_ context.Context, c *conn) error { s = c.server; return nil })
	if err != nil {
		t.Fatal(err)
	}
	right := definerRight(s)
	admin(t, "", "REVOKE "+right+" ON *.* FROM "+user(testBroker, brokerHost(t)))
	t.Cleanup(func() { admin(t, "", "GRANT "+right+" ON *.* TO "+user(testBroker, brokerHost(t))) })
	e = newEngine(t, nil) // rights are read at login
	if _, err := a.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Recall(a.spec).Clean(t.Context()); err == nil || !strings.Contains(err.Error(), "curfew check") {
		t.Fatalf("cleaned without the right to: %v", err)
	}
	if _, err := open(t, a.Name(), a.secret, "orders"); err == nil {
		t.Fatal("the account is open")
	}
	f := found(t, e, right)
	if f.Severity != severityWarning {
		t.Fatalf("check does not say what is missing: %+v", f)
	}
	admin(t, "", f.Fix)
	clean, err := newEngine(t, nil).Recall(a.spec).Clean(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := find(t, clean.Residue, "orders", "view orders.stays"); r.Action != "quarantined" {
		t.Errorf("%+v", r)
	}
}

// brokerHost is the host part of the broker's user.
func brokerHost(t *testing.T) string {
	t.Helper()
	return super(t, "", "SELECT MAX(Host) FROM mysql.user WHERE User = ?", testBroker)
}

func TestCutDefiner(t *testing.T) {
	for text, want := range map[string]string{
		"CREATE ALGORITHM=UNDEFINED DEFINER=`a`@`h` SQL SECURITY DEFINER VIEW `v` AS select 'DEFINER=`x`@`y`'": "ALTER ALGORITHM=UNDEFINED | SQL SECURITY DEFINER VIEW `v` AS select 'DEFINER=`x`@`y`'",
		"CREATE ALGORITHM=MERGE DEFINER=`a``@``b`@`h` SQL SECURITY INVOKER VIEW `v` AS select 1":               "ALTER ALGORITHM=MERGE | SQL SECURITY INVOKER VIEW `v` AS select 1",
		"CREATE ALGORITHM=UNDEFINED DEFINER=`role`@`` SQL SECURITY DEFINER VIEW `v` AS select 1":               "ALTER ALGORITHM=UNDEFINED | SQL SECURITY DEFINER VIEW `v` AS select 1",
		"CREATE ALGORITHM=UNDEFINED DEFINER=`role` SQL SECURITY DEFINER VIEW `v` AS select 1":                  "ALTER ALGORITHM=UNDEFINED | SQL SECURITY DEFINER VIEW `v` AS select 1",
		"CREATE ALGORITHM=UNDEFINED DEFINER=`a":                                                                "",
		"CREATE VIEW v AS SELECT 'DEFINER=`x`@`y` SQL SECURITY '":                                              "",
		"SELECT 1": "",
		"CREATE ALGORITHM=UNDEFINED DEFINER=`a`@`h` VIEW `v` AS se": "",
	} {
		head, rest, ok := cutDefiner(text)
		if got := head + "|" + rest; ok != (want != "") || ok && got != want {
			t.Errorf("%s:\n%s %v", text, got, ok)
		}
	}
}

// An event that the account left ends with it: what it is doing at the cut, and what has begun since.
func TestEventsEnd(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := direct(t, a, "orders")
	admin(t, "orders", "DROP TABLE IF EXISTS ticks", "CREATE TABLE ticks (what VARCHAR(20))")
	t.Cleanup(func() { admin(t, "orders", "DROP EVENT IF EXISTS ticking", "DROP TABLE ticks") })
	do(t, c, "CREATE"+planter()+" EVENT ticking ON SCHEDULE EVERY 1 SECOND DO BEGIN "+
		"INSERT INTO orders.ticks VALUES ('begun'); DO SLEEP(60); INSERT INTO orders.ticks VALUES ('outlived'); END")
	const running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'DO SLEEP(60)' AND id NOT IN (%s)"
	eventually(t, "it runs", func() bool { return super(t, "", fmt.Sprintf(running, "0")) != "0" })
	old := super(t, "", "SELECT GROUP_CONCAT(id) FROM information_schema.processlist WHERE info = 'DO SLEEP(60)'")
	cut, err := a.Cut(t.Context())
	if err != nil || len(cut.Outcomes) < 2 {
		t.Errorf("the cut has not seen the event: %+v %v", cut, err)
	}
	if n := super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE id IN ("+old+")"); n != "0" {
		t.Errorf("%s that ran at the cut still run", n)
	}
	eventually(t, "it has begun again", func() bool { return super(t, "", fmt.Sprintf(running, old)) != "0" })
	if _, err := a.Clean(t.Context()); err != nil {
		t.Error(err)
	}
	if n := super(t, "", fmt.Sprintf(running, "0")); n != "0" {
		t.Errorf("%s still run when the account is gone", n)
	}
}
