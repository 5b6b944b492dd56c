package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// A trigger whose definer is dropped makes every INSERT into its table fail. So the account stays, locked
// and known to everybody, until somebody has decided what becomes of the trigger.
func TestATriggerThatIsLeftBehindBreaksNoApplication(t *testing.T) {
	t.Parallel()
	s := shop
	g, _, c := s.connected(t, "writer", 10*time.Minute)
	account := s.current(t, c)
	table := "trigger_" + g.ID
	create := "CREATE TABLE " + table + " (item TEXT)"
	if !s.my.IsMySQL() { // a MariaDB's definer has no roles: what they may do, everybody may
		create += "; GRANT SELECT, INSERT, UPDATE, TRIGGER ON " + table + " TO PUBLIC"
	}
	if err := s.my.Exec(t.Context(), "shop", create); err != nil {
		t.Fatal(err)
	}
	exec1(t, c, "CREATE TRIGGER on_"+table+" BEFORE INSERT ON "+table+" FOR EACH ROW SET NEW.item = UPPER(NEW.item)")
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.staysOpen(t, g.ID)
	app := must(s.my.Login(t.Context(), "app", "app", "shop"))(t)
	defer app.Close()
	if err := app.Run(t.Context(), "INSERT INTO "+table+" VALUES ('still works')"); err != nil {
		t.Errorf("the application: %v", err)
	}
	if got := s.ask(t, "shop", "SELECT item FROM "+table); fmt.Sprint(got) != "[STILL WORKS]" {
		t.Errorf("the trigger did not run: %q", got)
	}
	locked := "SELECT JSON_VALUE(Priv, '$.account_locked') FROM global_priv WHERE User = ? AND Host <> ''"
	if s.my.IsMySQL() {
		locked = "SELECT account_locked = 'Y' FROM user WHERE User = ?"
	}
	if got := s.ask(t, "mysql", locked, account); fmt.Sprint(got) != "[1]" && fmt.Sprint(got) != "[true]" {
		t.Errorf("the account is not there and locked: %q", got)
	}
	// Once the trigger is gone, so is the account.
	if err := s.my.Exec(t.Context(), "shop", "DROP TABLE "+table); err != nil {
		t.Fatal(err)
	}
	r := s.receipt(t, g.ID, "released")
	if res := s.hasResidue(t, r.Clean.Residue, "shop", table); !res.Alert {
		t.Errorf("no alert for the trigger: %+v", res)
	}
}

// staysOpen waits for the alert that says that a grant's account is still there.
func (s *town) staysOpen(t *testing.T, grant string) {
	t.Helper()
	err := harness.Eventually(t.Context(), 30*time.Second, func(context.Context) error {
		if len(s.ledger(t, "account.open", grant)) == 0 {
			return errors.New("no alert says that the account is still there")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// What shows something to others in its definer's name shows it no more. MySQL has no way to give a routine
// another definer: there it keeps the account on the server, until a DBA has looked.
func TestAViewThatIsLeftBehindShowsAStrangerNothing(t *testing.T) {
	t.Parallel()
	s := shop
	g, _, c := s.connected(t, "owner", 10*time.Minute, s.bob, s.sam)
	account := s.current(t, c)
	view, peek := "view_"+g.ID, "peek_"+g.ID
	exec1(t, c, "CREATE VIEW "+view+" AS SELECT pan FROM vault.secret")
	shows := "FUNCTION " + peek + "() RETURNS TEXT READS SQL DATA RETURN (SELECT pan FROM vault.secret LIMIT 1)"
	exec1(t, c, "CREATE "+shows)
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	action := map[string]string{view: "quarantined", peek: "quarantined"}
	if s.my.IsMySQL() {
		s.staysOpen(t, g.ID)
		if err := s.my.Exec(t.Context(), "shop", "DROP FUNCTION "+peek+"; CREATE DEFINER = curfew_quarantine@localhost "+shows); err != nil {
			t.Fatal(err)
		}
		action[peek] = "reported"
	}
	r := s.receipt(t, g.ID, "released")
	for name, want := range action {
		if res := s.hasResidue(t, r.Clean.Residue, "shop", name); !res.Alert || res.Action != want {
			t.Errorf("residue: %+v", res)
		}
	}
	definers := s.ask(t, "shop", "SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_NAME = ? UNION ALL SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_NAME = ?", view, peek)
	for _, d := range definers {
		if len(definers) != 2 || strings.HasPrefix(d, account) {
			t.Errorf("definers: %q", definers)
		}
	}
	// Whoever may look at it sees nothing, because its new definer doesn't.
	if err := s.my.Exec(t.Context(), "shop", "GRANT SELECT ON "+view+" TO stranger@127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	stranger := must(s.my.Login(t.Context(), "stranger", "stranger", "shop"))(t)
	defer stranger.Close()
	for _, q := range []string{"SELECT pan FROM " + view, "SELECT " + peek + "()"} {
		if got, err := stranger.Column(t.Context(), q); err == nil {
			t.Errorf("%s shows a stranger %q", q, got)
		}
	}
}
