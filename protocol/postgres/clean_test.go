package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// What was not seen when the account was looked at keeps its role from being dropped: then it is looked at again.
func TestWhatIsLeftAfterTheLook(t *testing.T) {
	right := "GRANT CREATE ON DATABASE orders TO orders_writer WITH GRANT OPTION; SET ROLE orders_writer; GRANT CREATE ON DATABASE orders TO "
	for name, c := range map[string]struct {
		sql, kind, object, action string
		looks                     int
	}{
		"a view":        {"CREATE VIEW late AS SELECT 1 AS one; GRANT SELECT ON late TO PUBLIC; ALTER VIEW late OWNER TO ", "view", "view public.late", "quarantined", 2},
		"a right":       {right, "grant", "database orders", "revoked", 2},
		"a right, seen": {right, "grant", "database orders", "revoked", 1},
	} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec(0)
			left := func() error { return server.SQL(t.Context(), "orders", c.sql+spec.Name) }
			looks := 0
			e := newEngine(t, func(step string) error {
				if step == "clean.noted" {
					if looks++; looks == 1 && c.looks == 2 {
						return left()
					}
				}
				return nil
			})
			t.Cleanup(func() {
				ctx := context.WithoutCancel(t.Context())
				if err := server.SQL(ctx, "orders", "DROP VIEW IF EXISTS late", "REVOKE CREATE ON DATABASE orders FROM orders_writer CASCADE",
					"GRANT CREATE ON DATABASE orders TO orders_writer"); err != nil {
					t.Error(err)
				}
			})
			a := provision(t, e, spec)
			if c.looks == 1 {
				if err := left(); err != nil {
					t.Fatal(err)
				}
			}
			_, clean := finish(t, a)
			if r := find(t, clean.Residue, "orders", c.object); r.Kind != c.kind || r.Action != c.action || r.Owner != spec.Name || looks != c.looks {
				t.Errorf("looked %d times: %+v", looks, r)
			}
			if c.kind == "view" {
				if acl := super(t, "orders", "SELECT relowner::regrole::text || relacl::text FROM pg_class WHERE relname = 'late'"); !strings.HasPrefix(acl, quarantine) || strings.Contains(acl, "{=") || strings.Contains(acl, ",=") {
					t.Errorf("the view is %s", acl)
				}
			}
		})
	}
}

// An account that can't be made whole is not made at all, and what it was tried on makes the next one.
func TestAnAccountIsMadeWholeOrNotAtAll(t *testing.T) {
	e := newEngine(t, nil)
	bad := newSpec(0)
	bad.Level.Roles = append(slices.Clone(bad.Level.Roles), "no_such_group")
	if _, err := e.Provision(t.Context(), bad); err == nil || !is(err, "42704") {
		t.Errorf("made with a group that there is not: %v", err)
	}
	if n := super(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = $1", bad.Name); n != "0" {
		t.Error("half of it was made")
	}
	spec := newSpec(0)
	a := provision(t, e, spec)
	made := super(t, "postgres", "SELECT oid || ' ' || shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1", spec.Name)
	since := super(t, "postgres", "SELECT xmin::text FROM pg_authid WHERE rolname = $1", spec.Name)
	if oid, err := a.role(t.Context()); err != nil || !strings.HasPrefix(made, super(t, "postgres", "SELECT $1::bigint::text", int64(oid))+" ") || !strings.Contains(made, `"since":`+since) {
		t.Errorf("it is %s, made in transaction %s: %v", made, since, err)
	}
	if _, err := e.Provision(t.Context(), spec); err != nil {
		t.Errorf("taken over: %v", err)
	}
	finish(t, e.Recall(spec))
}
