package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

func TestNewNeedsNoDatabase(t *testing.T) {
	e, err := New(t.Context(), Config{Target: "orders", URL: "mysql://curfew_broker@127.0.0.1:1/orders?sslmode=disable", Installation: testInstallation})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Provision(t.Context(), newSpec(0)); err == nil {
		t.Fatal("provisioned on a server that is not there")
	}
	findings, err := e.Check(t.Context(), testLevels)
	if err != nil || len(findings) != 1 || findings[0].Severity != severityError {
		t.Fatalf("check: %+v %v", findings, err)
	}
	if text := e.Setup(testLevels); !strings.Contains(text, "If the server is MariaDB") || !strings.Contains(text, "SET_ANY_DEFINER") || !strings.Contains(text, "SET USER") {
		t.Errorf("setup for a server that was never seen:\n%s", text)
	}
}

func TestProvision(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(0)
	admin(t, "", "SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = ON")
	t.Cleanup(func() { admin(t, "", "SET GLOBAL general_log = OFF") })
	a := provision(t, e, spec)
	c := direct(t, a, "orders")
	do(t, c, "INSERT INTO orders (what) VALUES ('x')", "DELETE FROM orders WHERE what = 'x'")
	admin(t, "", "SET GLOBAL general_log = OFF") // or the questions would answer themselves
	if n := super(t, "", "SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE ?", "%"+spec.Name+"%"); n == "0" {
		t.Fatal("the server's log shows nothing, so it proves nothing")
	}
	if n := super(t, "", "SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE ?", "%"+a.secret+"%"); n != "0" {
		t.Error("the secret is in the server's log")
	}
	made := super(t, "", "SHOW CREATE USER "+user(spec.Name, "127.0.0.1"))
	for _, want := range []string{"MAX_USER_CONNECTIONS 6", "PASSWORD EXPIRE NEVER"} {
		if !strings.Contains(made, want) {
			t.Errorf("the user lacks %s: %s", want, made)
		}
	}
	if testServer.IsMariaDB() {
		if !strings.Contains(made, "VIA ed25519") || !strings.Contains(made, "MAX_STATEMENT_TIME 3600.") && !strings.Contains(made, "MAX_STATEMENT_TIME 3599.") {
			t.Errorf("%s", made)
		}
	}
	if hosts := super(t, "", "SELECT GROUP_CONCAT(Host) FROM mysql.user WHERE User = ? AND Host <> ''", spec.Name); hosts != "127.0.0.1" {
		t.Errorf("it may log in from %s", hosts)
	}
	_, clean := finish(t, a)
	if len(clean.Residue) != 0 || !strings.HasSuffix(clean.Proof, "users 0, backends 0, prepared_transactions 0") || clean.DroppedAt.IsZero() {
		t.Errorf("clean: %+v", clean)
	}
	if _, err := a.add(&fakeSession{}); err == nil {
		t.Error("a session joined an account that is gone")
	}
}

// Rights come at login, through every role of the level, and no role beyond them can be taken on.
func TestRolesAreActive(t *testing.T) {
	onMariaDB(t)
	e := newEngine(t, nil)
	a, owner := provision(t, e, newSpec(0)), provision(t, e, newSpec(1))
	admin(t, "", "GRANT SELECT ON billing.secret TO orders_more")
	t.Cleanup(func() { admin(t, "", "REVOKE SELECT ON billing.secret FROM orders_more") })
	c := direct(t, a, "")
	do(t, c, "INSERT INTO orders.orders (what) VALUES ('r')", "DELETE FROM orders.orders WHERE what = 'r'", "SELECT * FROM billing.secret")
	for _, role := range []string{"orders_writer", "orders_owner"} {
		if _, err := c.ExecContext(t.Context(), "SET ROLE "+role); !is(err, 1959) {
			t.Errorf("SET ROLE %s: %v", role, err)
		}
	}
	d := direct(t, owner, "")
	do(t, d, "INSERT INTO orders.orders (what) VALUES ('r')", "DELETE FROM orders.orders WHERE what = 'r'", "SET ROLE orders_owner")
	finish(t, a)
	finish(t, owner)
}

func TestProvisionRefuses(t *testing.T) {
	e := newEngine(t, nil)
	for name, change := range map[string]func(*protocol.AccountSpec){
		"foreign name": func(s *protocol.AccountSpec) { s.Name = "root" },
		"quarantine":   func(s *protocol.AccountSpec) { s.Name = quarantine },
		"long name":    func(s *protocol.AccountSpec) { s.Name += strings.Repeat("x", 30) },
		"no role":      func(s *protocol.AccountSpec) { s.Level.Roles = nil },
		"no end":       func(s *protocol.AccountSpec) { s.End = time.Time{} },
		"quarantined":  func(s *protocol.AccountSpec) { s.Level.Roles = []string{quarantine} },
		"no such role": func(s *protocol.AccountSpec) { s.Level.Roles = []string{"orders_writer", "nobody_there"} },
	} {
		spec := newSpec(0)
		change(&spec)
		if _, err := e.Provision(t.Context(), spec); err == nil {
			t.Errorf("%s: provisioned", name)
		}
		if spec.Name != "root" && spec.Name != quarantine && super(t, "", "SELECT COUNT(*) FROM mysql.user WHERE User LIKE CONCAT(?, '%')", spec.Name) != "0" {
			t.Errorf("%s: left a user behind", name)
		}
	}
}

func TestAdopt(t *testing.T) {
	before := newEngine(t, nil)
	spec := newSpec(0)
	a := provision(t, before, spec)
	c := direct(t, a, "orders")
	do(t, c, "CREATE"+planter()+" VIEW adopted_view AS SELECT * FROM orders")
	if testServer.IsMariaDB() {
		do(t, c, "SET DEFAULT ROLE NONE")
	} else {
		do(t, c, "SET DEFAULT ROLE NONE TO "+user(spec.Name, "127.0.0.1"))
	}
	changePassword(t, c, "known")
	t.Cleanup(func() { admin(t, "orders", "DROP VIEW IF EXISTS adopted_view") })

	after := newEngine(t, nil)
	b := provision(t, after, spec)
	if c.alive(t) {
		t.Error("the old process' session lives on")
	}
	for _, password := range []string{"known", a.secret} {
		if _, err := open(t, spec.Name, password, "orders"); !is(err, 1045) {
			t.Errorf("an old password still opens the account: %v", err)
		}
	}
	d := direct(t, b, "orders")
	do(t, d, "INSERT INTO orders (what) VALUES ('adopted')", "DELETE FROM orders WHERE what = 'adopted'", "SELECT * FROM adopted_view")
	_, clean := finish(t, b)
	if r := find(t, clean.Residue, "orders", "view orders.adopted_view"); r.Action != "quarantined" || r.Owner != spec.Name {
		t.Errorf("%+v", r)
	}
}

// A process that dies between two steps of making or adopting an account leaves what the next one adopts, or
// what a sweep ends.
func TestAdoptAtEveryStep(t *testing.T) {
	died := errors.New("died")
	for _, name := range []string{"provision.made", "provision.granted", "provision.unlocked", "provision.emptied", "provision.adopted"} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec(0)
			t.Cleanup(func() { remove(t, spec.Name) })
			crash := newEngine(t, nil)
			if name == "provision.emptied" || name == "provision.adopted" {
				provision(t, crash, spec)
			}
			crash.cfg.Step = func(step string) error {
				if step != name {
					return nil
				}
				crash.pool.Close() // from here on it can't undo
				return died
			}
			if _, err := crash.Provision(t.Context(), spec); !errors.Is(err, died) {
				t.Fatal(err)
			}
			if n := super(t, "", "SELECT COUNT(*) FROM mysql.user WHERE User = ? AND Host <> ''", spec.Name); n != "1" {
				t.Fatalf("%s users are there", n)
			}
			e := newEngine(t, nil)
			b := provision(t, e, spec)
			do(t, direct(t, b, "orders"), "INSERT INTO orders (what) VALUES ('adopted')", "DELETE FROM orders WHERE what = 'adopted'")
			finish(t, b)
		})
	}
}

// Without anybody to adopt it, the same is ended by a sweep.
func TestSweepAtEveryStep(t *testing.T) {
	died := errors.New("died")
	for _, name := range []string{"provision.made", "provision.granted", "provision.unlocked", "provision.created",
		"cut.locked", "cut.terminated", "cut.gone", "clean.noted", "clean.quarantined", "clean.dropped"} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec(0)
			t.Cleanup(func() { remove(t, spec.Name) })
			crash := newEngine(t, nil)
			crash.cfg.Step = func(step string) error {
				if step != name {
					return nil
				}
				crash.pool.Close()
				return died
			}
			got, err := crash.Provision(t.Context(), spec)
			if err == nil {
				litter(t, got.(*account))
				if _, err = got.Cut(t.Context()); err == nil {
					_, err = got.Clean(t.Context())
				}
			}
			if !errors.Is(err, died) {
				t.Fatal(err)
			}
			findings, err := newEngine(t, nil).Sweep(t.Context(), func(string) bool { return false })
			if err != nil || slices.ContainsFunc(findings, func(f protocol.Finding) bool { return f.Severity == severityError }) {
				t.Fatalf("%+v %v", findings, err)
			}
			if n := super(t, "", "SELECT COUNT(*) FROM mysql.user WHERE User LIKE CONCAT(?, '%')", spec.Name); n != "0" {
				t.Error("the user or its role is still there")
			}
			clearLitter(t)
		})
	}
}

func TestAdoptRefusesSomebodyElses(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(0)
	note := (&account{spec: protocol.AccountSpec{Installation: "other1", Grant: "gx"}}).newNote(time.Time{}).text()
	if testServer.IsMariaDB() {
		admin(t, "", "CREATE USER "+user(spec.Name, "127.0.0.1")+" REQUIRE SUBJECT "+literal(note)+" ACCOUNT LOCK")
	} else {
		admin(t, "", "CREATE USER "+user(spec.Name, "127.0.0.1")+" ACCOUNT LOCK ATTRIBUTE "+literal(note))
	}
	t.Cleanup(func() { remove(t, spec.Name) })
	if _, err := e.Provision(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "other1") {
		t.Fatalf("adopted another installation's account: %v", err)
	}
}

// Curfew has moved to another host: the account moves with it.
func TestAdoptFromAnotherHost(t *testing.T) {
	spec := newSpec(0)
	t.Cleanup(func() { admin(t, "", "DROP USER IF EXISTS "+user(spec.Name, "10.9.8.7")) })
	provision(t, newEngine(t, nil), spec)
	moved := newEngine(t, nil)
	moved.host = "10.9.8.7"
	if _, err := moved.Provision(t.Context(), spec); err == nil && testServer.IsMariaDB() {
		t.Error("an account for another host can't be signed in to from here") // it is where it was told to be, though
	}
	if hosts := super(t, "", "SELECT GROUP_CONCAT(Host) FROM mysql.user WHERE User = ? AND Host <> ''", spec.Name); hosts != "10.9.8.7" {
		t.Errorf("hosts %s", hosts)
	}
	b := provision(t, newEngine(t, nil), spec)
	do(t, direct(t, b, "orders"), "SELECT * FROM orders")
	finish(t, b)
}

// running waits until the session runs what contains text, and has written at least so many rows (-1: has
// no transaction). The list of transactions is renewed only when nobody has asked for it for 100 ms.
func running(t *testing.T, f *fakeSession, text string, rows int) {
	t.Helper()
	eventually(t, "the server runs "+text, func() bool {
		return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ? AND COALESCE(info, '') LIKE ?", f.Backend(), "%"+text+"%") == "1"
	})
	eventually(t, "the server shows its transaction", func() bool {
		if rows < 0 {
			return true
		}
		time.Sleep(110 * time.Millisecond)
		return super(t, "", "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = ? AND trx_rows_modified >= ?", f.Backend(), rows) == "1"
	})
}

// A running INSERT … SLEEP is the statement that every other way of ending access lets commit.
func TestCutInFlight(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := direct(t, a, "orders")
	f := join(t, a, c)
	f.statement = 7
	done := make(chan error, 1)
	go func() {
		_, err := c.ExecContext(t.Context(), "INSERT INTO orders (what) SELECT CONCAT('late', SLEEP(IF(n = 1, 0, 5))) FROM seven")
		done <- err
	}()
	running(t, f, "SLEEP(IF", 1)
	began := time.Now()
	cut, err := a.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second { // the statement would take 30
		t.Errorf("it took %s", took)
	}
	if err := <-done; err == nil {
		t.Error("the statement succeeded")
	}
	if len(cut.Outcomes) != 1 || cut.Left != 0 || cut.GoneAt.Before(cut.LockedAt) || cut.LockedAt.IsZero() {
		t.Fatalf("%+v", cut)
	}
	if o := cut.Outcomes[0]; o.Fate != protocol.FateAborted || o.TxID == "" || o.InFlight != 7 || o.Foreign {
		t.Errorf("%+v", o)
	}
	o, err := a.kill(t.Context(), f)
	if err != nil || o != cut.Outcomes[0] {
		t.Errorf("the session learns %+v, %v", o, err)
	}
	if made := super(t, "", "SHOW CREATE USER "+user(a.Name(), "127.0.0.1")); !strings.Contains(made, "ACCOUNT LOCK") {
		t.Errorf("the account is not locked: %s", made)
	}
	if n := super(t, "orders", "SELECT COUNT(*) FROM orders WHERE what LIKE 'late%'"); n != "0" {
		t.Error("rows were committed after the end")
	}
	again, err := a.Cut(t.Context())
	if err != nil || !again.LockedAt.Equal(cut.LockedAt) || !again.GoneAt.Equal(cut.GoneAt) || !slices.Equal(again.Outcomes, cut.Outcomes) {
		t.Errorf("cut again: %+v, %v", again, err)
	}
	finish(t, a)
}

// What can be told of each kind of work that a session was cut off from.
func TestFates(t *testing.T) {
	e := newEngine(t, nil)
	for name, c := range map[string]struct {
		before  []string
		run     string // and is in flight
		trx     int
		foreign bool
		want    string
		written bool
	}{
		"idle":             {want: protocol.FateNone},
		"read":             {run: "SELECT SLEEP(10)", trx: -1, want: protocol.FateNone},
		"nothing yet":      {run: "INSERT INTO orders (what) SELECT SLEEP(10) FROM seven", want: protocol.FateNone},
		"open":             {before: []string{"BEGIN", "INSERT INTO orders (what) VALUES ('open')"}, want: protocol.FateAborted, written: true},
		"open, read":       {before: []string{"BEGIN", "INSERT INTO orders (what) VALUES ('open')"}, run: "SELECT SLEEP(10)", want: protocol.FateAborted, written: true},
		"committed before": {before: []string{"BEGIN", "INSERT INTO orders (what) VALUES ('kept')", "COMMIT"}, want: protocol.FateNone},
		"no transactions":  {before: []string{"CREATE TABLE plain (a INT) ENGINE = MyISAM"}, run: "INSERT INTO plain VALUES (SLEEP(10))", trx: -1, want: protocol.FateUnknown},
		"somebody else's":  {before: []string{"BEGIN", "INSERT INTO orders (what) VALUES ('open')"}, foreign: true, want: protocol.FateAborted, written: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := provision(t, e, newSpec(0))
			s := direct(t, a, "orders")
			f := &fakeSession{}
			f.backend.Store(s.id)
			if !c.foreign {
				f = join(t, a, s)
			}
			do(t, s, c.before...)
			done := make(chan error, 1)
			if c.run != "" {
				f.statement = 3
				go func() { _, err := s.ExecContext(t.Context(), c.run); done <- err }()
				running(t, f, "SLEEP(10)", c.trx)
			}
			if c.written {
				running(t, f, "", 1)
			}
			time.Sleep(110 * time.Millisecond) // nobody else asks for the list of transactions
			cut, err := a.Cut(t.Context())
			if err != nil || len(cut.Outcomes) != 1 {
				t.Fatalf("%+v %v", cut, err)
			}
			if o := cut.Outcomes[0]; o.Fate != c.want || (o.TxID != "") != c.written || o.Foreign != c.foreign {
				t.Errorf("%+v", o)
			}
			if c.run != "" {
				<-done
			}
			finish(t, a)
			admin(t, "orders", "DROP TABLE IF EXISTS plain", "DELETE FROM orders WHERE what = 'kept'")
			if n := super(t, "orders", "SELECT COUNT(*) FROM orders WHERE what IN ('open', '0')"); n != "0" {
				t.Errorf("%s rows are left", n)
			}
		})
	}
}

// tellingSession is a session that knows whether it has a transaction.
type tellingSession struct {
	fakeSession
	open bool
}

func (s *tellingSession) transaction() bool { return s.open }

// Only evidence makes a transaction aborted: on a server where somebody else commits meanwhile nothing can
// be told of a statement that was running.
func TestFateWithoutEvidence(t *testing.T) {
	for _, c := range []struct {
		e    end
		want string
	}{
		{end{idle: true}, protocol.FateNone},
		{end{idle: true, inFlight: 1}, protocol.FateUnknown},
		{end{idle: true, stale: true}, protocol.FateUnknown},
		{end{idle: true, stale: true, link: &fakeSession{}}, protocol.FateUnknown},
		{end{idle: true, stale: true, link: &tellingSession{}}, protocol.FateNone},
		{end{idle: true, stale: true, link: &tellingSession{open: true}}, protocol.FateUnknown},
		{end{reads: true, inFlight: 1}, protocol.FateNone},
		{end{trx: "0", inFlight: 1}, protocol.FateUnknown},
		{end{trx: "0", inFlight: 1, quiet: true}, protocol.FateNone},
		{end{inFlight: 1, quiet: true}, protocol.FateUnknown},
		{end{trx: "9", modified: 1, inFlight: 1}, protocol.FateUnknown},
		{end{trx: "9", modified: 1, inFlight: 1, quiet: true}, protocol.FateAborted},
		{end{trx: "9", modified: 1, inFlight: 1, rolled: true}, protocol.FateAborted},
		{end{trx: "9", modified: 1, idle: true}, protocol.FateUnknown},
		{end{trx: "9", modified: 1, idle: true, link: &fakeSession{}}, protocol.FateAborted},
		{end{trx: "9", modified: 1, idle: true, link: &fakeSession{}, inFlight: 1}, protocol.FateUnknown},
	} {
		if got := c.e.fate(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.e, got, c.want)
		}
	}
	one := commits{known: true, scope: "server", count: 5}
	if one.without(end{}, commits{known: true, scope: "server", count: 5}) != one || one.without(end{}, commits{}).known {
		t.Error("a backend that came after the count was taken for one that was there")
	}
}

// After USE, a session works with what it knew of its rights, whatever is revoked; after the end it doesn't.
func TestCutASessionThatOutlivesRevocation(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := direct(t, a, "")
	do(t, c, "USE orders", "INSERT INTO orders (what) VALUES ('before')")
	admin(t, "", "ALTER USER "+user(a.Name(), "127.0.0.1")+" ACCOUNT LOCK")
	do(t, c, "INSERT INTO orders (what) VALUES ('after the lock')") // this is why
	admin(t, "", "DROP USER "+user(a.Name(), "127.0.0.1"))
	if testServer.IsMariaDB() {
		do(t, c, "USE billing", "USE orders")
	}
	do(t, c, "INSERT INTO orders (what) VALUES ('after the drop')") // and this
	finish(t, a)
	if c.alive(t) {
		t.Error("a session outlived its dropped user")
	}
	admin(t, "orders", "DELETE FROM orders")
}

// A password that somebody set for themselves opens nothing after the end, and neither does a login that
// was begun before the lock.
func TestCutWhileALoginIsUnderWay(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := direct(t, a, "orders")
	changePassword(t, c, "known-to-me")
	l := beginLogin(t, a.Name())
	l.proceed(t)
	if _, err := a.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.finish("known-to-me") {
		t.Error("a login that was begun before the lock succeeded after it")
	}
	if _, err := open(t, a.Name(), "known-to-me", "orders"); err == nil {
		t.Error("the account is open")
	}
	admin(t, "", "ALTER USER "+user(a.Name(), "127.0.0.1")+" ACCOUNT UNLOCK")
	if _, err := open(t, a.Name(), "known-to-me", "orders"); !is(err, 1045) {
		t.Errorf("the password that its holder had set still fits: %v", err)
	}
	eventually(t, "nobody is in", func() bool {
		return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE user = ?", a.Name()) == "0"
	})
	finish(t, a)
}

// The trap itself: without the kill, such a login gets in.
func TestALoginUnderWayOutlivesTheLock(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	changePassword(t, direct(t, a, "orders"), "known-to-me")
	l := beginLogin(t, a.Name())
	l.proceed(t)
	admin(t, "", "ALTER USER "+user(a.Name(), "127.0.0.1")+" ACCOUNT LOCK")
	if !l.finish("known-to-me") {
		t.Skip("this server checks the lock at the end of a login")
	}
	finish(t, a)
}

// A person who is in while somebody holds a lock on the server's tables of users must not stay.
func TestCutWhileUserTablesAreLocked(t *testing.T) {
	onMariaDB(t)
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := direct(t, a, "orders")
	holder, err := open(t, "dba", "mysqltest", "")
	if err != nil {
		t.Fatal(err)
	}
	do(t, holder, "LOCK TABLES mysql.global_priv READ, mysql.db READ")
	eventually(t, "the closing line is open", func() bool { <-e.closing.tried; return true })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { _, err := a.Cut(ctx); done <- err }()
	eventually(t, "the session is gone although the lock can't be had", func() bool {
		return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?", c.id) == "0"
	})
	do(t, holder, "UNLOCK TABLES")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	finish(t, a)
}

func TestKillOneSession(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c, d := direct(t, a, "orders"), direct(t, a, "billing")
	f := join(t, a, c)
	join(t, a, d)
	do(t, c, "BEGIN", "INSERT INTO orders (what) VALUES ('one')")
	running(t, f, "", 1)
	o, err := a.kill(t.Context(), f)
	if err != nil || o.Fate != protocol.FateAborted || o.Foreign {
		t.Fatalf("%+v %v", o, err)
	}
	do(t, d, "SELECT 1")
	a.Leave(f)
	cut, _ := finish(t, a)
	if len(cut.Outcomes) != 2 || cut.Outcomes[0].Backend != o.Backend || cut.Outcomes[0].TxID != o.TxID {
		t.Errorf("the receipt does not tell of the session that was killed at the same end: %+v", cut.Outcomes)
	}
}

func TestRecallAfterACrash(t *testing.T) {
	spec := newSpec(0)
	a := provision(t, newEngine(t, nil), spec)
	c := direct(t, a, "orders")
	do(t, c, "BEGIN", "INSERT INTO orders (what) VALUES ('crash')")
	f := &fakeSession{}
	f.backend.Store(c.id)
	running(t, f, "", 1)
	cut, clean := finish(t, newEngine(t, nil).Recall(spec))
	if len(cut.Outcomes) != 1 || cut.Outcomes[0].Foreign || cut.Outcomes[0].Fate != protocol.FateAborted {
		t.Errorf("%+v", cut)
	}
	again, err := newEngine(t, nil).Recall(spec).Clean(t.Context())
	if err != nil || again.Proof == "" || clean.Proof == "" {
		t.Errorf("recall of what is gone: %+v %v", again, err)
	}
}

// Every step fails once: the account is never left open, and the next try succeeds.
func TestEveryStepFailsOnce(t *testing.T) {
	broken := errors.New("broken")
	for _, name := range []string{"provision.made", "provision.granted", "provision.unlocked", "provision.created", "cut.locked", "cut.terminated",
		"cut.gone", "clean.rolled_back", "clean.noted", "clean.unshared", "clean.quarantined", "clean.dropped", "clean.proved"} {
		t.Run(name, func(t *testing.T) {
			if name == "clean.unshared" {
				onMariaDB(t)
			}
			fired := false
			e := newEngine(t, func(step string) error {
				if step == name && !fired {
					fired = true
					return broken
				}
				return nil
			})
			spec := newSpec(0)
			t.Cleanup(func() { remove(t, spec.Name) })
			got, err := e.Provision(t.Context(), spec)
			if err != nil {
				if n := super(t, "", "SELECT COUNT(*) FROM mysql.user WHERE User LIKE CONCAT(?, '%')", spec.Name); n != "0" {
					t.Errorf("%s users or roles are left after a provision that failed", n)
				}
				got = e.Recall(spec)
			} else {
				litter(t, got.(*account))
			}
			spec.Prepared = []string{"X'6c6974746572',X'',1"}
			cut, err := got.Cut(t.Context())
			if err != nil {
				cut, err = got.Cut(t.Context())
			}
			if err != nil || cut.Left != 0 {
				t.Fatalf("cut: %+v %v", cut, err)
			}
			clean, err := got.Clean(t.Context())
			if err != nil {
				// A crash here is the harder case: another process goes on.
				clean, err = newEngine(t, nil).Recall(spec).Clean(t.Context())
			}
			if err != nil || clean.Proof == "" {
				t.Fatalf("clean: %+v %v", clean, err)
			}
			if !fired {
				t.Fatal("the step was never reached")
			}
			if n := super(t, "", "SELECT COUNT(*) FROM mysql.user WHERE User LIKE CONCAT(?, '%')", spec.Name); n != "0" {
				t.Error("the user or its role is still there")
			}
			if strings.HasPrefix(name, "clean.q") && (len(clean.Residue) < 2 || clean.Residue[0].Object == "") {
				t.Errorf("what was noted before the crash is lost: %+v", clean.Residue)
			}
			clearLitter(t)
		})
	}
}

// litter leaves something behind for each step of cleaning.
func litter(t *testing.T, a *account) {
	t.Helper()
	c := direct(t, a, "orders")
	f := join(t, a, c)
	f.xids = []string{"X'6c6974746572',X'',1"}
	if testServer.IsMariaDB() {
		broker, err := open(t, testBroker, brokerPassword, "") // nobody else may give it
		if err != nil {
			t.Fatal(err)
		}
		do(t, broker, "GRANT "+identifier(a.role())+" TO stranger@'%'")
	} else {
		admin(t, "", "GRANT "+user(a.Name(), "127.0.0.1")+" TO stranger@'%'")
	}
	do(t, c, "CREATE VIEW litter AS SELECT 'we\\\\ird\"' AS x FROM orders", "XA START 'litter'", "INSERT INTO orders (what) VALUES ('litter')", "XA END 'litter'", "XA PREPARE 'litter'")
	c.hangUp()
	a.Leave(f)
	eventually(t, "the session is gone", func() bool {
		return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?", c.id) == "0"
	})
}

func clearLitter(t *testing.T) {
	t.Helper()
	admin(t, "orders", "DROP VIEW IF EXISTS litter")
	_ = testServer.SQL(t.Context(), "", "XA ROLLBACK 'litter'") // a sweep knows of none
}

func TestPreparedTransactions(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(0)
	admin(t, "orders", "XA START 'old','b',7", "INSERT INTO billing.orders (what) VALUES ('old')", "XA END 'old','b',7", "XA PREPARE 'old','b',7")
	t.Cleanup(func() { admin(t, "", "XA ROLLBACK 'old','b',7") })
	a := provision(t, e, spec)
	prepare := func(c *directSession, xid string) {
		do(t, c, "XA START "+xid, "INSERT INTO orders (what) VALUES ('xa')", "XA END "+xid, "XA PREPARE "+xid)
	}
	c := direct(t, a, "orders")
	f := join(t, a, c)
	prepare(c, "'own','branch',1")
	c.hangUp()
	f.xids = []string{"X'6f776e',X'6272616e6368',1"}
	a.Leave(f)
	odd := direct(t, a, "orders")
	f = join(t, a, odd)
	prepare(odd, "X'00ff27',X'',2147483647")
	f.xids = []string{"X'00ff27',X'',2147483647"}
	x, err := open(t, "app", "app", "orders")
	if err != nil {
		t.Fatal(err)
	}
	prepare(x, "'foreign'")
	x.hangUp()
	t.Cleanup(func() { _ = testServer.SQL(context.WithoutCancel(t.Context()), "", "XA ROLLBACK 'foreign'") })
	_, clean := finish(t, a)
	slices.Sort(clean.RolledBack)
	if !slices.Equal(clean.RolledBack, []string{"X'00ff27',X'',2147483647", "X'6f776e',X'6272616e6368',1"}) {
		t.Errorf("rolled back %q", clean.RolledBack)
	}
	if r := find(t, clean.Residue, "", "XA X'666f726569676e',X'',1"); r.Action != "reported" || !r.Alert {
		t.Errorf("%+v", r)
	}
	if len(clean.Residue) != 1 {
		t.Errorf("what was prepared before is called residue: %+v", clean.Residue)
	}
	err = e.here(t.Context(), func(ctx context.Context, c *conn) error {
		left, err := recovered(ctx, c)
		slices.Sort(left)
		if !slices.Equal(left, []string{"X'666f726569676e',X'',1", "X'6f6c64',X'62',7"}) {
			t.Errorf("left: %q", left)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// After a crash the ids come from the recordings.
	spec = newSpec(0)
	spec.Prepared = []string{"X'666f726569676e',X'',1"}
	_, clean = finish(t, newEngine(t, nil).Recall(spec))
	if len(clean.RolledBack) != 1 {
		t.Errorf("%+v", clean)
	}
}

// The account's own limit is full; Curfew needs no place in it.
func TestFullAccount(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(2))
	var last *directSession
	for i := range 3 { // two sessions, and one for KILL
		last = direct(t, a, "orders")
		var extra bool
		f := &fakeSession{}
		f.backend.Store(last.id)
		extra, err := a.add(f)
		if err != nil || extra != (i == 2) {
			t.Errorf("session %d: extra %v, %v", i, extra, err)
		}
	}
	if _, err := open(t, a.Name(), a.secret, "orders"); !is(err, 1226, 1203) {
		t.Errorf("one more: %v", err)
	}
	cut, _ := finish(t, a)
	if len(cut.Outcomes) != 3 || last.alive(t) {
		t.Errorf("%+v", cut)
	}
}

func TestSessionOf(t *testing.T) {
	a := newAccount(&Engine{}, newSpec(0))
	f, g := &fakeSession{}, &fakeSession{}
	f.backend.Store(1)
	g.backend.Store(2)
	for _, s := range []*fakeSession{f, g} {
		if _, err := a.add(s); err != nil {
			t.Fatal(err)
		}
	}
	if a.sessionOf(1<<31|2) != g || a.sessionOf(2) != nil {
		t.Error("a session is found by another id than its client was greeted with")
	}
}

func TestNoteNeedsNoBackslash(t *testing.T) {
	a := newAccount(&Engine{}, newSpec(0))
	n := a.newNote(a.spec.End)
	n.Residue = []protocol.Residue{{Database: `d"\b`, Object: "view `x\n%41\u2028\xff`", Owner: "o<&>'"}}
	text := n.text()
	if strings.Contains(text, `\`) {
		t.Errorf("%s", text)
	}
	got := parseNote(text)
	want := n.Residue[0]
	want.Object = strings.ToValidUTF8(want.Object, "?")
	if got.Requester != n.Requester || fmt.Sprint(got.Residue[0]) != fmt.Sprint(want) {
		t.Errorf("%+v", got)
	}
	if got := parseNote("somebody's"); got.Grant != "" {
		t.Errorf("%+v", got)
	}
}
