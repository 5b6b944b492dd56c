package postgres

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
)

// reads reports whether a stranger's login gets anything out of a query.
func reads(t *testing.T, database, sql string) bool {
	t.Helper()
	c, err := pgx.Connect(t.Context(), server.DSN("stranger", "stranger", database))
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), c)
	rows, err := c.Query(t.Context(), sql)
	if err != nil {
		return false
	}
	defer rows.Close()
	return rows.Next()
}

// plant leaves a view, a copy and a definer function over the secret, all open to everybody.
func plant(name string) []string {
	return []string{
		"CREATE VIEW " + name + "_view AS SELECT * FROM secret",
		"GRANT SELECT ON " + name + "_view TO PUBLIC",
		"CREATE MATERIALIZED VIEW " + name + "_copy AS SELECT * FROM secret",
		"GRANT SELECT ON " + name + "_copy TO stranger",
		"CREATE FUNCTION " + name + "_fn() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT word FROM secret'",
	}
}

func strangersGet(t *testing.T, database, name string) []string {
	t.Helper()
	var got []string
	for _, sql := range []string{"SELECT * FROM " + name + "_view", "SELECT * FROM " + name + "_copy", "SELECT " + name + "_fn()"} {
		if reads(t, database, sql) {
			got = append(got, sql)
		}
	}
	return got
}

func drop(t *testing.T, name string, databases ...string) {
	t.Helper()
	for _, d := range databases {
		admin(t, d, "DROP VIEW IF EXISTS "+name+"_view", "DROP MATERIALIZED VIEW IF EXISTS "+name+"_copy", "DROP FUNCTION IF EXISTS "+name+"_fn()")
	}
}

func TestResidueInTwoDatabases(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	for _, database := range []string{"orders", "billing"} {
		c := login(t, a, database)
		exec(t, c, plant("left")...)
		exec(t, c, "CREATE TABLE left_table AS SELECT * FROM secret", "GRANT SELECT (word) ON left_table TO stranger",
			"CREATE SCHEMA left_schema", "CREATE FUNCTION left_schema.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
			"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC")
		if got := strangersGet(t, database, "left"); len(got) != 3 {
			t.Fatalf("the plant doesn't work, a stranger gets only %q", got)
		}
	}
	admin(t, "orders", "GRANT SELECT ON owned TO "+a.Name())
	_, clean := finish(t, a)
	for _, database := range []string{"orders", "billing"} {
		for text, alert := range map[string]bool{"view public.left_view": true, "materialized view public.left_copy": true,
			"function public.left_fn()": true, "table public.left_table": false, "schema left_schema": false} {
			r := find(t, clean.Residue, database, text)
			if r.Action != "quarantined" || r.Alert != alert || r.Owner != a.Name() || len(r.Shared) != 0 {
				t.Errorf("%s: %+v", text, r)
			}
		}
		if r := find(t, clean.Residue, database, "default privileges"); r.Action != "revoked" || r.Kind != "default privileges" {
			t.Errorf("%+v", r)
		}
		if got := strangersGet(t, database, "left"); len(got) != 0 {
			t.Errorf("%s: a stranger reads %q", database, got)
		}
		if reads(t, database, "SELECT word FROM left_table") {
			t.Errorf("%s: a stranger reads the copy", database)
		}
		owners := super(t, database, "SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ',') FROM pg_class WHERE relname LIKE 'left%'")
		if owners != quarantine {
			t.Errorf("%s: owners are %s", database, owners)
		}
		if n := super(t, database, "SELECT count(*) FROM pg_default_acl"); n != "0" {
			t.Errorf("%s: default privileges are left", database)
		}
		drop(t, "left", database)
		admin(t, database, "DROP TABLE left_table", "DROP SCHEMA left_schema CASCADE")
	}
	if r := find(t, clean.Residue, "orders", "table public.owned"); r.Kind != "grant" || r.Action != "revoked" {
		t.Errorf("%+v", r)
	}
}

func TestResidueInAGroup(t *testing.T) {
	e := newEngine(t, nil)
	spec := withSetRole(t, newSpec(0))
	a := provision(t, e, spec)
	other := provision(t, e, withSetRole(t, newSpec(0)))
	c := login(t, a, "orders")
	exec(t, c, "SET ROLE orders_writer")
	exec(t, c, plant("group")...)
	exec(t, c, "CREATE TABLE group_table (id int)",
		"CREATE FUNCTION group_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
		"CREATE TRIGGER planted BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION group_trigger()",
		"CREATE RULE planted_rule AS ON INSERT TO group_table DO ALSO NOTHING")
	if n := super(t, "orders", "SELECT count(*) FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid WHERE rolname = $1", spec.Name); n != "0" {
		t.Fatalf("the account owns something itself, this is not the trap")
	}
	if got := strangersGet(t, "orders", "group"); len(got) != 3 {
		t.Fatalf("the plant doesn't work, a stranger gets only %q", got)
	}
	// Another process ends it: nothing may depend on this one's memory.
	_, clean := finish(t, newEngine(t, nil).Recall(spec))
	for text, want := range map[string]protocol.Residue{
		"view public.group_view":              {Action: "quarantined", Alert: true},
		"materialized view public.group_copy": {Action: "quarantined", Alert: true},
		"function public.group_fn()":          {Action: "quarantined", Alert: true},
		"table public.group_table":            {Action: "reported"},
		"function public.group_trigger()":     {Action: "reported"},
		"rule planted_rule":                   {Action: "reported", Alert: true},
	} {
		r := find(t, clean.Residue, "orders", text)
		if r.Action != want.Action || r.Alert != want.Alert || r.Owner != "orders_writer" || len(r.Shared) != 1 || r.Shared[0] != other.Name() {
			t.Errorf("%s: %+v", text, r)
		}
	}
	if r := find(t, clean.Residue, "orders", "trigger planted"); !r.Alert || r.Action != "reported" || r.Owner != "app" {
		t.Errorf("%+v", r)
	}
	for _, r := range clean.Residue {
		if strings.Contains(r.Object, "owned") || strings.Contains(r.Object, "secret") {
			t.Errorf("what was there before is called residue: %+v", r)
		}
	}
	if got := strangersGet(t, "orders", "group"); len(got) != 0 {
		t.Errorf("a stranger reads %q", got)
	}
	finish(t, other)
	drop(t, "group", "orders")
	admin(t, "orders", "DROP TRIGGER planted ON orders", "DROP FUNCTION group_trigger()", "DROP TABLE group_table")
}

// What the group had before and the person changed is the application's: reported, with an alert, and left.
func TestChangedThingsOfAGroup(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(1))
	c := login(t, a, "orders")
	exec(t, c, "SET ROLE orders_owner",
		"CREATE OR REPLACE VIEW owned_view AS SELECT id FROM owned WHERE id > 0",
		"CREATE OR REPLACE FUNCTION owned_fn() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 2'",
		"GRANT SELECT ON owned TO PUBLIC",
		// the level is meant for making things in the group's name: harmless ones stay, open ones don't
		"CREATE VIEW for_the_group AS SELECT * FROM owned",
		"CREATE VIEW for_all AS SELECT * FROM owned", "GRANT SELECT ON for_all TO PUBLIC")
	_, clean := finish(t, a)
	for text, action := range map[string]string{"view public.owned_view": "reported", "function public.owned_fn()": "reported",
		"table public.owned": "reported", "view public.for_the_group": "reported", "view public.for_all": "quarantined"} {
		if r := find(t, clean.Residue, "orders", text); r.Action != action || !r.Alert {
			t.Errorf("%s: %+v", text, r)
		}
	}
	if owner := super(t, "orders", "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'for_the_group'"); owner != "orders_owner" {
		t.Errorf("for_the_group belongs to %s", owner)
	}
	admin(t, "orders", "DROP VIEW for_all, for_the_group", "REVOKE SELECT ON owned FROM PUBLIC")
	// A new grant does not find the old one's doings.
	_, clean = finish(t, provision(t, e, newSpec(1)))
	if len(clean.Residue) != 0 {
		t.Errorf("%+v", clean.Residue)
	}
}

func TestSharedAccountIsTakenBack(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	admin(t, "orders", "GRANT "+a.Name()+" TO stranger")
	_, clean := finish(t, a)
	if r := find(t, clean.Residue, "", "role stranger was given"); !r.Alert || r.Action != "revoked" {
		t.Errorf("%+v", r)
	}
}

// Rights that a DBA gave the account itself, on what no group owns, are not the broker's to take.
func TestAForeignGrantIsNamedAndRetried(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	admin(t, "billing", "GRANT SELECT ON secret TO "+a.Name())
	if _, err := a.Clean(t.Context()); !is(err, "2BP01") || !strings.Contains(err.Error(), "database billing") {
		t.Fatalf("%v", err)
	}
	admin(t, "billing", "REVOKE SELECT ON secret FROM "+a.Name())
	clean, err := a.Clean(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := find(t, clean.Residue, "billing", "table public.secret"); r.Kind != "grant" || r.Action != "revoked" {
		t.Errorf("%+v", r)
	}
}

func TestLockedTableIsRetried(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := login(t, a, "billing")
	exec(t, c, "CREATE TABLE busy (id int)", "GRANT SELECT ON busy TO app")
	hold, err := pgx.Connect(t.Context(), server.DSN("app", "app", "billing"))
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), hold)
	exec(t, hold, "BEGIN", "SELECT * FROM busy")
	if _, err := a.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	clean, err := a.Clean(t.Context())
	if !is(err, "55P03") || time.Since(began) > 5*time.Second {
		t.Fatalf("after %s: %v", time.Since(began), err)
	}
	find(t, clean.Residue, "billing", "table public.busy")
	if can := super(t, "postgres", "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", a.Name()); can != "false" {
		t.Error("the account is open while it waits")
	}
	exec(t, hold, "ROLLBACK")
	if clean, err = a.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	find(t, clean.Residue, "billing", "table public.busy")
	admin(t, "billing", "DROP TABLE busy")
}

func TestBrokerWithoutRights(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := login(t, a, "orders")
	exec(t, c, "CREATE TABLE stays (id int)")
	take, give := "REVOKE curfew_quarantine FROM curfew_broker", e.Setup(testLevels)
	admin(t, "orders", take)
	t.Cleanup(func() {
		if err := server.SQL(context.WithoutCancel(t.Context()), "orders", give); err != nil {
			t.Error(err)
		}
	})
	if _, err := a.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Clean(t.Context()); err == nil {
		t.Fatal("cleaned without the right to")
	}
	if _, err := pgx.Connect(t.Context(), server.DSN(a.Name(), a.secret, "orders")); err == nil {
		t.Fatal("the account is open")
	}
	findings, err := e.Check(t.Context(), testLevels)
	if err != nil || len(findings) == 0 || !strings.Contains(findings[0].Fix+findings[len(findings)-1].Fix, quarantine) {
		t.Errorf("check does not say what is missing: %+v %v", findings, err)
	}
	admin(t, "orders", give)
	clean, err := a.Clean(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	find(t, clean.Residue, "orders", "table public.stays")
	admin(t, "orders", "DROP TABLE stays")
}
