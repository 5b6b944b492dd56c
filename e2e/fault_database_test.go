package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// own is a stage with a server that a story may do anything to.
func (s *town) own(t *testing.T) *stage {
	t.Helper()
	if s.my != nil {
		return onMariaDB(startMariaDB(t, "max-connections=20"))
	}
	pg := must(harness.StartPostgres(t.Context(), filepath.Join(t.TempDir(), "pg")))(t)
	t.Cleanup(func() {
		if err := pg.Close(); err != nil {
			t.Error(err)
		}
	})
	st := onPostgres(pg)
	st.dba(t, "ALTER SYSTEM SET max_connections = 20")
	st.down(t)
	st.up(t)
	return st
}

// dba does something on the server by its administrator's hand.
func (s *stage) dba(t *testing.T, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if err := s.server.Exec(t.Context(), s.target, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func (s *stage) down(t *testing.T) {
	t.Helper()
	var err error
	if s.my != nil {
		err = s.my.Kill()
	} else {
		err = s.pg.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stage) up(t *testing.T) {
	t.Helper()
	var err error
	if s.my != nil {
		err = s.my.Restart()
	} else {
		err = s.pg.Restart()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.answers(t)
}

// answers waits until the administrator gets in.
func (s *stage) answers(t *testing.T) {
	t.Helper()
	err := harness.Eventually(t.Context(), 20*time.Second, func(ctx context.Context) error {
		return s.server.Exec(ctx, s.target, "SELECT 1")
	})
	if err != nil {
		t.Fatal(err)
	}
}

// onOwn is a Curfew with a database that nobody else uses.
func (s *town) onOwn(t *testing.T) *lifetime { t.Helper(); return newLifetime(t, s.own(t), "") }

// asked is a grant and what it takes to log in under it; nobody has yet.
func (s *town) asked(t *testing.T, level string) (api.Grant, harness.Credentials) {
	t.Helper()
	g := must(s.alice.Granted(t.Context(), s.target, level, 10*time.Minute, s.bob))(t)
	return g, must(s.alice.Credentials(t.Context(), g.ID))(t)
}

func (s *town) revoke(t *testing.T, g api.Grant) {
	t.Helper()
	must(s.bob.Run(t.Context(), "revoke", g.ID, "--reason", "the story says so"))(t)
}

// keptOut checks that a login is refused, quickly, in these words.
func (s *town) keptOut(t *testing.T, creds harness.Credentials, words ...string) {
	t.Helper()
	began := time.Now()
	c, err := s.login(t.Context(), creds)
	if err == nil {
		t.Errorf("let in: %v", c.close())
		return
	}
	contains(t, err.Error(), words...)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("refused after %s", took)
	}
}

// outage is a way for a database to be of no use to the broker.
type outage struct {
	begin, end []string
	word       string // in the sentence that a person reads who wants in
	ends       bool   // accounts can be ended all the same
	stuck      bool   // a backend can't be killed: what it does goes on until it is done
	reads      bool   // it begins when nobody writes any more
}

func (s *stage) outages() map[string]outage {
	if s.my != nil && s.my.IsMySQL() {
		return mysqlOutages()
	}
	if s.my != nil {
		const broker = "curfew_broker@127.0.0.1"
		const again = "KILL USER curfew_broker" // who is in keeps the rights of the moment when they came in
		return map[string]outage{
			"read-only": {[]string{"SET GLOBAL read_only = 1"}, []string{"SET GLOBAL read_only = 0"}, "read-only", false, false, true},
			"without CREATE USER": {[]string{"REVOKE CREATE USER ON *.* FROM " + broker, again}, []string{"GRANT CREATE USER ON *.* TO " + broker, again},
				"curfew check", false, false, false},
			"without CONNECTION ADMIN": {[]string{"REVOKE CONNECTION ADMIN ON *.* FROM " + broker, again}, []string{"GRANT CONNECTION ADMIN ON *.* TO " + broker, again},
				"", false, true, false},
			"without the role": {[]string{"REVOKE ADMIN OPTION FOR shop_writer FROM " + broker}, []string{"GRANT shop_writer TO " + broker + " WITH ADMIN OPTION"},
				"curfew check", true, false, false},
			"password changed": {[]string{"ALTER USER " + broker + " IDENTIFIED BY 'another'"}, []string{"ALTER USER " + broker + " IDENTIFIED BY '" + harness.BrokerPassword + "'"},
				"", true, false, false},
		}
	}
	readOnly := func(on string) []string {
		return []string{"ALTER SYSTEM SET default_transaction_read_only = " + on, "SELECT pg_reload_conf()"}
	}
	return map[string]outage{
		"read-only": {readOnly("on"), []string{"ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"}, "read-only", false, false, false},
		"without CREATEROLE": {[]string{"ALTER ROLE curfew_broker NOCREATEROLE"}, []string{"ALTER ROLE curfew_broker CREATEROLE"},
			"curfew check", false, false, false},
		"without pg_signal_backend": {[]string{"REVOKE pg_signal_backend FROM curfew_broker"}, []string{"GRANT pg_signal_backend TO curfew_broker"},
			"", true, false, false},
		"without the role": {[]string{"REVOKE ADMIN OPTION FOR orders_writer FROM curfew_broker CASCADE"}, []string{"GRANT orders_writer TO curfew_broker WITH ADMIN OPTION"},
			"", true, false, false},
		"password changed": {[]string{"ALTER ROLE curfew_broker PASSWORD 'another'"}, []string{"ALTER ROLE curfew_broker PASSWORD '" + harness.BrokerPassword + "'"},
			"", true, false, false},
	}
}

// A database on which the broker can't do its work any more: whose grant ends is told and cut at once, and
// nothing of the statement in flight is committed; who wants in is told why not. What could not be done is
// done when the broker can, and not forgotten: the intent is kept.
func TestABrokerThatCantWork(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		st := s.onOwn(t)
		for name, o := range st.outages() {
			t.Run(name, func(t *testing.T) { st.cantWork(t, o) })
		}
	})
}

func (st *lifetime) cantWork(t *testing.T, o outage) {
	t.Helper()
	word := word(t)
	g, _, c := st.connected(t, "writer", 10*time.Minute)
	exec1(t, c, "INSERT INTO orders (item) VALUES ('"+word+"-done')")
	late, creds := st.asked(t, "writer")
	long := st.slowly(word + "-long")
	if o.reads {
		long = "SELECT SLEEP(30) /* " + word + "-long */"
	}
	done := goExec(t.Context(), c, long)
	st.underway(t, word+"-long")
	st.dba(t, o.begin...)
	st.revoke(t, g)
	st.told(t, ends(t, done), "revoked")
	st.gone(t, g.ID, 20*time.Second)
	if o.word != "" {
		st.keptOut(t, creds, o.word, "administrator")
	}
	if one := st.sealed(t, g.ID); one.EndCode != "revoked" {
		t.Errorf("session: %+v", one)
	}
	if r := must(st.sam.Grant(t.Context(), g.ID))(t).Receipt; !o.ends && r != nil && len(r.Clean) > 0 {
		t.Errorf("the receipt is whole although the account can't have been ended: %+v", r)
	}
	st.dba(t, o.end...)
	st.closedLate(t, g.ID, "revoked", 70*time.Second)
	if d, l := st.committed(t, word+"-done"), st.committed(t, word+"-long"); d != "1" || l != "0" && !o.stuck {
		t.Errorf("%s and %s rows are committed, want 1 and 0", d, l)
	}
	st.onRecord(t, g, word+"-done", word+"-long")
	exec1(t, st.enter(t, creds), "SELECT 1")
	st.revoke(t, late)
	st.receipt(t, late.ID, "revoked")
}

// Every connection that the database allows is taken, by the grant's own sessions and by others who take each
// one that becomes free: the cut is on time, for the broker has kept one connection for it. Who wants in is
// told the database's own reason.
func TestEveryConnectionIsTaken(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		st := s.onOwn(t)
		word := word(t)
		g, creds, c := st.connected(t, "writer", 10*time.Minute)
		for range 5 {
			st.enter(t, creds)
		}
		greedy, stop := context.WithCancel(t.Context())
		defer stop()
		taken, full := make(chan conn, 1000), make(chan struct{}, 1)
		for range 2 {
			go func() {
				for greedy.Err() == nil {
					c, err := st.direct(greedy, "stranger", "stranger")
					if err == nil {
						taken <- c
						continue
					}
					select {
					case full <- struct{}{}:
					default:
					}
					time.Sleep(2 * time.Millisecond) // somebody else's program, that is how it is
				}
			}()
		}
		<-full
		if _, err := st.login(t.Context(), creds); err == nil || !strings.Contains(strings.ToLower(err.Error()), "too many") && !strings.Contains(err.Error(), "remaining connection slots") {
			t.Errorf("who wants in is told %v", err)
		}
		done := goExec(t.Context(), c, st.slowly(word))
		st.underway(t, word)
		st.revoke(t, g)
		st.told(t, ends(t, done), "revoked")
		st.waitFor(t, 10*time.Second, func(ctx context.Context) error {
			now, err := st.sam.Grant(ctx, g.ID)
			if err == nil && (now.Receipt == nil || len(now.Receipt.Cut) == 0) {
				err = fmt.Errorf("not cut: %+v", now.Receipt)
			}
			if err == nil && now.Receipt.LateMS > 2000 {
				t.Errorf("%.0f ms late", now.Receipt.LateMS)
			}
			return err
		})
		stop()
		for len(taken) > 0 {
			_ = (<-taken).close()
		}
		st.answers(t)
		if n := st.committed(t, word); n != "0" {
			t.Errorf("%s rows were committed", n)
		}
		st.closedLate(t, g.ID, "revoked", 30*time.Second)
	})
}

// A database that goes away in the middle of a statement, and comes back: the session has ended for that reason,
// the record is whole, new logins are refused with the reason until it is back, and the grant goes on then. One
// whose grant ended meanwhile has its account ended then.
func TestADatabaseThatGoesAndComesBack(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		st := s.onOwn(t)
		word := word(t)
		g, creds, c := st.connected(t, "writer", 10*time.Minute)
		exec1(t, c, "INSERT INTO orders (item) VALUES ('"+word+"-done')")
		over, _, d := st.connected(t, "writer", 10*time.Minute)
		exec1(t, d, "BEGIN")
		exec1(t, d, "INSERT INTO orders (item) VALUES ('"+word+"-open')")
		done := goExec(t.Context(), c, st.slowly(word+"-long"))
		st.underway(t, word+"-long")
		st.stage.down(t)
		if err := ends(t, done); err == nil {
			t.Error("the statement ended well")
		}
		for _, id := range []string{g.ID, over.ID} {
			if one := st.sealed(t, id); one.EndCode != "server" || one.Interrupted {
				t.Errorf("the session ended as %q", one.EndCode)
			}
		}
		st.keptOut(t, creds, "can't be reached", "administrator")
		late, lateCreds := st.asked(t, "reader")
		st.keptOut(t, lateCreds, "can't be reached", "administrator")
		st.revoke(t, over)
		st.stage.up(t)
		st.closedLate(t, over.ID, "revoked", 30*time.Second)
		exec1(t, st.enter(t, creds), "SELECT 1")
		exec1(t, st.enter(t, lateCreds), "SELECT 1")
		for w, want := range map[string]string{"-done": "1", "-open": "0", "-long": "0"} {
			if n := st.committed(t, word+w); n != want {
				t.Errorf("%s rows of %s are committed, want %s", n, w, want)
			}
		}
		for _, x := range []api.Grant{g, late} {
			st.revoke(t, x)
			st.receipt(t, x.ID, "revoked")
		}
		st.waitFor(t, 5*time.Second, func(context.Context) error {
			if len(find(st.recordings(t, g.ID), "simple", word+"-long")) != 1 {
				return errors.New("the statement is not on record")
			}
			return nil
		})
	})
}

// A Curfew whose database is not there starts all the same, says so to those who come, and works when it is.
func TestADatabaseThatIsNotThereAtTheStart(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		st := s.onOwn(t)
		word := word(t)
		g, creds, c := st.connected(t, "writer", 10*time.Minute)
		over, _, _ := st.connected(t, "reader", 10*time.Minute)
		done := goExec(t.Context(), c, st.slowly(word))
		st.underway(t, word)
		if err := st.curfew.Kill(); err != nil {
			t.Fatal(err)
		}
		<-done
		st.stage.down(t)
		st.curfew.Targets, st.curfew.Listen = nil, nil // it remembers them, and does not look at them
		if err := st.curfew.Launch(); err != nil {
			t.Fatal(err)
		}
		st.waitFor(t, 30*time.Second, func(ctx context.Context) error { _, err := st.sam.Grant(ctx, g.ID); return err })
		st.keptOut(t, creds, "can't be reached", "administrator")
		st.revoke(t, over)
		st.stage.up(t)
		st.closedLate(t, over.ID, "revoked", 30*time.Second)
		exec1(t, st.enter(t, creds), "SELECT 1")
		if n := st.committed(t, word); n != "0" {
			t.Errorf("%s rows were committed", n)
		}
		st.revoke(t, g)
		st.receipt(t, g.ID, "revoked")
	})
}
