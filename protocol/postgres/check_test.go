package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

func TestCheckIsContent(t *testing.T) {
	findings, err := newEngine(t, nil).Check(t.Context(), testLevels)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if f.Severity != severityNote && !strings.Contains(f.What, "connections are free") {
			t.Errorf("%+v", f)
		}
	}
}

// Each thing that can be missing is found, in words and with SQL that mends it.
func TestCheckFindsAndMends(t *testing.T) {
	e := newEngine(t, nil)
	for name, c := range map[string]struct {
		database, breakIt, say string
		mendBySetup            bool // the fix is Setup as a whole
	}{
		"createrole":     {"orders", "ALTER ROLE curfew_broker NOCREATEROLE", "CREATEROLE", false},
		"signal":         {"orders", "REVOKE pg_signal_backend FROM curfew_broker", "can't end sessions", false},
		"createdb":       {"orders", "ALTER ROLE curfew_broker CREATEDB", "more than it needs", false},
		"admin option":   {"orders", "REVOKE ADMIN OPTION FOR orders_writer FROM curfew_broker", "admin option", false},
		"group login":    {"orders", "ALTER ROLE orders_writer LOGIN", "can log in by itself", false},
		"group attr":     {"orders", "ALTER ROLE orders_writer BYPASSRLS", "BYPASSRLS", false},
		"group rights":   {"orders", "GRANT pg_execute_server_program TO orders_writer", "pg_execute_server_program", false},
		"quarantine":     {"orders", "GRANT pg_read_all_data TO curfew_quarantine", "has the rights of pg_read_all_data", false},
		"quarantined by": {"orders", "GRANT curfew_quarantine TO app", "may use what is in quarantine", false},
		"schema":         {"billing", "CREATE SCHEMA unseen; GRANT CREATE ON SCHEMA unseen TO orders_writer", "schema unseen of database billing", false},
		"superuser":      {"orders", "ALTER ROLE curfew_broker SUPERUSER", "is a superuser", true},
	} {
		t.Run(name, func(t *testing.T) {
			admin(t, c.database, c.breakIt)
			t.Cleanup(func() {
				err := server.SQL(context.WithoutCancel(t.Context()), c.database, "ALTER ROLE curfew_broker NOSUPERUSER",
					"ALTER ROLE orders_writer NOLOGIN", "DROP SCHEMA IF EXISTS unseen", e.Setup(testLevels))
				if err != nil {
					t.Error(err)
				}
			})
			f := finding(t, e, c.say)
			if f.What == "" {
				t.Fatal("not found")
			}
			if c.mendBySetup {
				return
			}
			admin(t, c.database, strings.Split(f.Fix, " -- ")[0])
			if f := finding(t, e, c.say); f.What != "" {
				t.Errorf("the fix does not mend it: %+v", f)
			}
		})
	}
}

func finding(t *testing.T, e *Engine, say string) protocol.Finding {
	t.Helper()
	findings, err := e.Check(t.Context(), testLevels)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if strings.Contains(f.What, say) {
			return f
		}
	}
	return protocol.Finding{}
}

func TestCheckNamesMissingGroups(t *testing.T) {
	e := newEngine(t, nil)
	findings, err := e.Check(t.Context(), []protocol.Level{{Name: "odd", Roles: []string{`o"dd`}}})
	if err != nil || !slices.ContainsFunc(findings, func(f protocol.Finding) bool {
		return f.Severity == severityError && strings.Contains(f.Fix, `CREATE ROLE "o""dd" NOLOGIN`)
	}) {
		t.Errorf("%+v %v", findings, err)
	}
}

func TestSetupNeverDemotesASuperuser(t *testing.T) {
	s := need(t)
	e, err := New(t.Context(), Config{Target: "orders", URL: s.URL("postgres", "orders"), Installation: testInstallation})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := s.SQL(t.Context(), "orders", e.Setup(testLevels)); err == nil || !strings.Contains(err.Error(), "superuser") {
		t.Errorf("set-up with a superuser as broker: %v", err)
	}
	if super(t, "orders", "SELECT rolsuper FROM pg_roles WHERE rolname = 'postgres'") != "true" {
		t.Error("demoted")
	}
}

func TestFill(t *testing.T) {
	got, err := fill(`ALTER ROLE :"a" SET x = :'b' LIMIT :n; SELECT 1::text, :'b'::text`, vars{"a": `we"ird`, "b": `it's \ :n`, "n": "3"})
	want := `ALTER ROLE "we""ird" SET x = E'it''s \\ :n' LIMIT 3; SELECT 1::text, E'it''s \\ :n'::text`
	if err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := fill(":missing", nil); err == nil {
		t.Error("a missing variable went unnoticed")
	}
}

func TestEnrol(t *testing.T) {
	v, err := new(Engine).Enrol("abc")
	if err != nil || !strings.HasPrefix(string(v), "SCRAM-SHA-256$4096:") {
		t.Errorf("%s %v", v, err)
	}
}
