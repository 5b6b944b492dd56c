package mysql

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
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
	need(t)
	broker := user(testBroker, brokerHost(t))
	type broken struct{ breakIt, say string }
	list := map[string]broken{
		"create user":  {"REVOKE CREATE USER ON *.* FROM " + broker, "can't make accounts"},
		"process":      {"REVOKE PROCESS ON *.* FROM " + broker, "can't see sessions"},
		"show view":    {"REVOKE SHOW VIEW ON *.* FROM " + broker, "lacks SHOW VIEW"},
		"trigger":      {"REVOKE TRIGGER ON *.* FROM " + broker, "lacks TRIGGER"},
		"event":        {"REVOKE EVENT ON *.* FROM " + broker, "lacks EVENT"},
		"drop":         {"REVOKE DROP ON *.* FROM " + broker, "lacks DROP"},
		"file":         {"GRANT FILE ON *.* TO " + broker, "more than it needs: FILE"},
		"admin option": {"REVOKE ADMIN OPTION FOR orders_reader FROM " + broker, "lacks the admin option"},
		"no role":      {"DROP ROLE orders_more", "the role orders_more (level writer) does not exist"},
		"role rights":  {"GRANT FILE, PROCESS ON *.* TO orders_writer", "can escape Curfew"},
		"role gives":   {"GRANT SELECT ON orders.* TO orders_more WITH GRANT OPTION", "GRANT OPTION on `orders`.*"},
		"role mysql":   {"GRANT UPDATE ON mysql.* TO orders_more", "has UPDATE on `mysql`.*"},
		"quarantine":   {"GRANT SELECT ON orders.* TO curfew_quarantine@localhost", "has rights, or is open"},
		"quarantined":  {"DROP USER curfew_quarantine@localhost", "does not exist"},
	}
	if testServer.IsMariaDB() {
		list["connection admin"] = broken{"REVOKE CONNECTION ADMIN ON *.* FROM " + broker, "can't end sessions"}
		list["set user"] = broken{"REVOKE SET USER ON *.* FROM " + broker, "lacks SET USER"}
		list["proc"] = broken{"REVOKE SELECT ON mysql.proc FROM " + broker, "lacks SELECT ON mysql.proc"}
		list["definer"] = broken{"REVOKE UPDATE (definer, created) ON mysql.proc FROM " + broker, "lacks UPDATE (definer, created) ON mysql.proc"}
		list["user columns"] = broken{"REVOKE SELECT (x509_subject) ON mysql.user FROM " + broker, "ON mysql.user"}
		list["tables_priv"] = broken{"REVOKE SELECT ON mysql.tables_priv FROM " + broker, "lacks SELECT ON mysql.tables_priv"}
	} else {
		delete(list, "admin option") // MySQL takes it back with the role only
		list["connection admin"] = broken{"REVOKE CONNECTION_ADMIN ON *.* FROM " + broker, "can't end sessions"}
		list["xa"] = broken{"REVOKE XA_RECOVER_ADMIN ON *.* FROM " + broker, "lacks XA_RECOVER_ADMIN"}
		list["routine"] = broken{"REVOKE SHOW_ROUTINE ON *.* FROM " + broker, "lacks SHOW_ROUTINE"}
	}
	for name, c := range list {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, nil)
			setup := e.Setup(testLevels)
			admin(t, "", c.breakIt)
			t.Cleanup(func() {
				if err := Apply(context.WithoutCancel(t.Context()), adminURL(), setup, testBroker, brokerPassword); err != nil {
					t.Error(err)
				}
				admin(t, "", "GRANT SELECT ON orders.* TO orders_more")
			})
			f := found(t, newEngine(t, nil), c.say) // rights are read at login
			if f.What == "" {
				t.Fatal("not found")
			}
			for text := range strings.SplitSeq(f.Fix, "; ") {
				admin(t, "", strings.TrimSuffix(text, ";"))
			}
			if f := found(t, newEngine(t, nil), c.say); f.What != "" {
				t.Errorf("the fix does not mend it: %+v", f)
			}
		})
	}
}

// adminURL is the URL of the administrator, with the password.
func adminURL() string {
	return strings.Replace(testServer.URL("x", "orders"), "x@", mysqltest.Admin+":"+mysqltest.Password+"@", 1)
}

func found(t *testing.T, e *Engine, say string) protocol.Finding {
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

func TestCheckOfAnAdministrator(t *testing.T) {
	s := need(t)
	e, err := New(t.Context(), Config{Target: "orders", URL: s.URL(mysqltest.Admin, "orders"), Password: mysqltest.Password, Installation: testInstallation})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if f := found(t, e, "is an administrator"); f.Severity != severityError {
		t.Errorf("%+v", f)
	}
}

// An account that may come from anywhere is warned of, the more so where a user without a name stands before it.
func TestCheckOfTheHost(t *testing.T) {
	s := need(t)
	e, err := New(t.Context(), Config{Target: "orders", URL: s.URL(testBroker, "orders") + "&account_host=%25", Password: brokerPassword, Installation: testInstallation})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	admin(t, "", "CREATE USER ''@'127.0.0.2'")
	t.Cleanup(func() { admin(t, "", "DROP USER IF EXISTS ''@'127.0.0.2'") })
	if f := found(t, e, `accounts may log in from "%"`); f.Severity != severityWarning {
		t.Errorf("%+v", f)
	}
	f := found(t, e, "a user without a name")
	if f.Severity != severityError {
		t.Fatalf("%+v", f)
	}
	admin(t, "", strings.TrimSuffix(f.Fix, ";"))
	if f := found(t, e, "a user without a name"); f.What != "" {
		t.Errorf("%+v", f)
	}
}

func TestCheckOfAReadOnlyServer(t *testing.T) {
	e := newEngine(t, nil)
	admin(t, "", "SET GLOBAL read_only = ON")
	t.Cleanup(func() { admin(t, "", "SET GLOBAL read_only = OFF") })
	if f := found(t, e, "read-only"); f.Severity != severityError {
		t.Errorf("%+v", f)
	}
	if _, err := e.Provision(t.Context(), newSpec(0)); err == nil || !strings.Contains(err.Error(), "primary") {
		t.Errorf("provisioned on a replica: %v", err)
	}
}

func TestCheckNamesMissingRoles(t *testing.T) {
	e := newEngine(t, nil)
	findings, err := e.Check(t.Context(), []protocol.Level{{Name: "odd", Roles: []string{"o`dd"}}})
	if err != nil || !slices.ContainsFunc(findings, func(f protocol.Finding) bool {
		return f.Severity == severityError && strings.Contains(f.Fix, "CREATE ROLE `o``dd`")
	}) {
		t.Errorf("%+v %v", findings, err)
	}
}

func TestEscapes(t *testing.T) {
	for line, want := range map[string]string{
		"GRANT USAGE ON *.* TO `r`":                                   "",
		"GRANT SELECT, INSERT ON `orders`.* TO `r`":                   "",
		"GRANT SELECT, FILE, SUPER ON *.* TO `r`":                     "FILE SUPER",
		"GRANT ALL PRIVILEGES ON *.* TO `r`@`%` WITH GRANT OPTION":    "GRANT OPTION ALL PRIVILEGES",
		"GRANT SELECT ON `orders`.* TO `r` WITH GRANT OPTION":         "GRANT OPTION",
		"GRANT SELECT, UPDATE ON `mysql`.`user` TO `r`":               "UPDATE",
		"GRANT SELECT (a), UPDATE (definer) ON `mysql`.`proc` TO `r`": "UPDATE (definer)",
		"GRANT `other` TO `r`":                                        "",
		"GRANT SYSTEM_VARIABLES_ADMIN,ROLE_ADMIN ON *.* TO `r`@`%`":   "SYSTEM_VARIABLES_ADMIN ROLE_ADMIN",
	} {
		got, _, _ := escapes(line)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q", line, got)
		}
	}
}

func TestFill(t *testing.T) {
	got, err := fill("ALTER USER :account REQUIRE SUBJECT :'b' LIMIT :n; DROP ROLE :\"a\"", vars{"account": user("we`ird", "%"), "a": "we`ird", "b": `it's :n`, "n": "3"})
	want := "ALTER USER `we``ird`@`%` REQUIRE SUBJECT 'it''s :n' LIMIT 3; DROP ROLE `we``ird`"
	if err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := fill(":missing", nil); err == nil {
		t.Error("a missing variable went unnoticed")
	}
	need(t)
	for _, mode := range []string{"", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"} {
		for _, s := range []string{`a'b`, `\'; DROP TABLE x; -- `, `\`, `''`, "ä\x00b", `"`} {
			c, err := open(t, "app", "app", "orders")
			if err != nil {
				t.Fatal(err)
			}
			do(t, c, "SET NAMES utf8mb4", "SET sql_mode = '"+mode+"'")
			var got string
			if err := c.QueryRowContext(t.Context(), "SELECT "+literal(s)).Scan(&got); err != nil || got != s {
				t.Errorf("mode %q: %q comes back as %q (%v)", mode, s, got, err)
			}
		}
	}
}

func TestStarter(t *testing.T) {
	need(t)
	yes, err := Admin(t.Context(), adminURL())
	if err != nil || !yes {
		t.Errorf("the administrator: %v %v", yes, err)
	}
	no, err := Admin(t.Context(), strings.Replace(adminURL(), mysqltest.Admin+":"+mysqltest.Password, testBroker+":"+brokerPassword, 1))
	if err != nil || no {
		t.Errorf("the broker: %v %v", no, err)
	}
	url, err := BrokerURL("mysql://root:hunter2@localhost:3306/shop?password=hunter2", "curfew_broker")
	if err != nil || url != "mysql://curfew_broker@localhost:3306/shop?sslmode=prefer" {
		t.Errorf("%s %v", url, err)
	}
	if _, err := Starter("mysql://root@localhost", "r", "w"); err == nil {
		t.Error("a trial without a database")
	}
	text, err := Starter(adminURL(), "trial_reader", "trial_writer")
	if err != nil {
		t.Fatal(err)
	}
	levels := []protocol.Level{{Name: "reader", Roles: []string{"trial_reader"}}, {Name: "writer", Roles: []string{"trial_writer"}}}
	e := newEngine(t, nil)
	if err := Apply(t.Context(), adminURL(), e.Setup(levels)+"\n"+text, testBroker, brokerPassword); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin(t, "", "DROP ROLE trial_reader", "DROP ROLE trial_writer") })
	spec := newSpec(0)
	spec.Level = levels[1]
	a := provision(t, newEngine(t, nil), spec)
	do(t, direct(t, a, "orders"), "INSERT INTO orders (what) VALUES ('trial')", "DELETE FROM orders WHERE what = 'trial'")
	finish(t, a)
}
