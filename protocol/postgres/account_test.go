package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
)

func TestNewNeedsNoDatabase(t *testing.T) {
	e, err := New(t.Context(), Config{Target: "orders", URL: "postgres://curfew_broker@127.0.0.1:1/orders?sslmode=disable", Installation: testInstallation})
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
}

func TestTargetURL(t *testing.T) {
	for raw, want := range map[string]string{
		"postgres://b@db/orders": "postgres://b@db/orders?max_protocol_version=latest&sslmode=verify-full",
		"postgres://b@db/orders?sslmode=require&max_protocol_version=3.0": "postgres://b@db/orders?max_protocol_version=3.0&sslmode=require",
		"postgres://b@db/orders?options=-c%20a%3Db+c":                     "postgres://b@db/orders?max_protocol_version=latest&options=-c%20a%3Db%2Bc&sslmode=verify-full",
		"postgres://b@db/orders?sslkey=/x":                                "",
		"postgres://b:hunter2@db/orders":                                  "",
		"postgres://b@db/orders?password=hunter2":                         "",
		"postgres://db/orders":                                            "",
		"host=db user=b password=hunter2":                                 "",
		"mysql://b@db/orders":                                             "",
		"postgres://b:hunter2@db:not-a-port/orders%":                      "",
	} {
		got, _, err := targetURL(raw)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", raw, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestProvision(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(0)
	a := provision(t, e, spec)
	c := login(t, a, "orders")
	exec(t, c, "INSERT INTO orders (what) VALUES ('x')", "DELETE FROM orders")

	var limit int
	var until time.Time
	var comment string
	err := c.QueryRow(t.Context(), `SELECT rolconnlimit, rolvaliduntil, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = current_user`).Scan(&limit, &until, &comment)
	if err != nil {
		t.Fatal(err)
	}
	if limit != 5 || until.Sub(spec.End).Abs() > time.Millisecond {
		t.Errorf("connection limit %d, valid until %s, want 5 and %s", limit, until, spec.End)
	}
	var n note
	if err := json.Unmarshal([]byte(comment), &n); err != nil || n.Requester != spec.Requester || n.Grant != spec.Grant || n.Since == 0 {
		t.Errorf("comment %q: %v", comment, err)
	}
	for name, want := range map[string]string{"client_connection_check_interval": "1s", "tcp_keepalives_idle": "30"} {
		var got string
		if err := c.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, want %q (%v)", name, got, want, err)
		}
	}
	for _, name := range []string{"idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"} {
		var ms, left int
		err := c.QueryRow(t.Context(), "SELECT setting::int FROM pg_settings WHERE name = $1", name).Scan(&ms)
		if errors.Is(err, pgx.ErrNoRows) && name == "transaction_timeout" { // before 17
			continue
		}
		if left = int(time.Until(spec.End).Milliseconds()); err != nil || ms < left+15_000 || ms > left+60_000 {
			t.Errorf("%s = %d ms: it must fire a while after the grant's end, in %d ms, and soon (%v)", name, ms, left, err)
		}
	}
	if verifier := super(t, "postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = $1", spec.Name); !strings.HasPrefix(verifier, "SCRAM-SHA-256$1:") {
		t.Errorf("verifier %s", verifier)
	}
	if strings.Contains(server.Log(), a.secret) {
		t.Error("the secret is in the server's log")
	}
	_, clean := finish(t, a)
	if len(clean.Residue) != 0 || !strings.HasSuffix(clean.Proof, "roles 0, backends 0, prepared_transactions 0") || clean.DroppedAt.IsZero() {
		t.Errorf("clean: %+v", clean)
	}
	if _, err := a.Join(&fakeSession{}); err == nil {
		t.Error("a session joined an account that is gone")
	}
}

// From PostgreSQL 16 on nobody becomes the group whose level does not say so, and it gets nothing from them.
func TestSetRoleOnlyByLevel(t *testing.T) {
	if version(t) < versionSetFalse {
		t.Skip("before PostgreSQL 16 every member can SET ROLE")
	}
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := login(t, a, "orders")
	exec(t, c, "CREATE TABLE mine (id int)", "INSERT INTO orders (what) VALUES ('inherited')", "DELETE FROM orders")
	for _, sql := range []string{"SET ROLE orders_writer", "ALTER TABLE mine OWNER TO orders_writer"} {
		if _, err := c.Exec(t.Context(), sql); !is(err, "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	finish(t, a)
	admin(t, "orders", "DROP TABLE mine")
}

func TestProvisionRefuses(t *testing.T) {
	e := newEngine(t, nil)
	for name, change := range map[string]func(*protocol.AccountSpec){
		"foreign name": func(s *protocol.AccountSpec) { s.Name = "postgres" },
		"quarantine":   func(s *protocol.AccountSpec) { s.Name = quarantine },
		"long name":    func(s *protocol.AccountSpec) { s.Name += strings.Repeat("x", 30) },
		"no group":     func(s *protocol.AccountSpec) { s.Level.Roles = nil },
		"no end":       func(s *protocol.AccountSpec) { s.End = time.Time{} },
		"quarantined":  func(s *protocol.AccountSpec) { s.Level.Roles = []string{quarantine} },
		"no such role": func(s *protocol.AccountSpec) { s.Level.Roles = []string{"nobody_there"} },
	} {
		spec := newSpec(0)
		change(&spec)
		if _, err := e.Provision(t.Context(), spec); err == nil {
			t.Errorf("%s: provisioned", name)
		}
		if spec.Name != "postgres" && spec.Name != quarantine && super(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = $1", spec.Name) != "0" {
			t.Errorf("%s: left a role behind", name)
		}
	}
}

func TestAdopt(t *testing.T) {
	before := newEngine(t, nil)
	spec := newSpec(0)
	a := provision(t, before, spec)
	c := login(t, a, "orders")
	exec(t, c, "CREATE TABLE mine (id int)", "ALTER ROLE "+spec.Name+" SET work_mem = '1GB'",
		"ALTER ROLE "+spec.Name+" IN DATABASE orders SET search_path = evil",
		"ALTER ROLE "+spec.Name+" PASSWORD 'known'")

	after := newEngine(t, nil)
	b := provision(t, after, spec)
	if c.Ping(t.Context()) == nil {
		t.Error("the old process' session lives on")
	}
	for _, password := range []string{"known", a.secret} {
		if old, err := dial(t.Context(), server.DSN(spec.Name, password, "orders")); err == nil {
			hangUp(t.Context(), old)
			t.Errorf("an old password still opens the account")
		}
	}
	d := login(t, b, "orders")
	exec(t, d, "INSERT INTO mine VALUES (1)")
	if s := super(t, "postgres", "SELECT string_agg(array_to_string(setconfig, ','), ',') FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = setrole WHERE rolname = $1", spec.Name); strings.Contains(s, "work_mem") || strings.Contains(s, "search_path") || !strings.Contains(s, "application_name") {
		t.Errorf("settings after adoption: %s", s)
	}
	_, clean := finish(t, b)
	if r := find(t, clean.Residue, "orders", "table public.mine"); r.Action != "quarantined" || r.Owner != spec.Name {
		t.Errorf("%+v", r)
	}
	admin(t, "orders", "DROP TABLE mine")
}

// Adoption that fails half-way leaves the account locked or adopted, and the next try succeeds.
func TestAdoptFailsOnce(t *testing.T) {
	for _, name := range []string{"cut.locked", "cut.terminated", "provision.emptied", "provision.adopted"} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec(0)
			before := login(t, provision(t, newEngine(t, nil), spec), "orders")
			fired := false
			e := newEngine(t, func(step string) error {
				if step == name && !fired {
					fired = true
					return errors.New("broken")
				}
				return nil
			})
			if _, err := e.Provision(t.Context(), spec); err == nil {
				t.Fatal("the step was never reached")
			}
			a := provision(t, e, spec)
			if before.Ping(t.Context()) == nil {
				t.Error("the old process' session lives on")
			}
			exec(t, login(t, a, "orders"), "SELECT 1")
			finish(t, a)
		})
	}
}

func TestAdoptRefusesSomebodyElses(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(0)
	admin(t, "orders", "CREATE ROLE "+spec.Name+" NOLOGIN",
		"COMMENT ON ROLE "+spec.Name+` IS '{"installation":"other1","grant":"gx"}'`)
	t.Cleanup(func() { remove(t, spec.Name) })
	if _, err := e.Provision(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "other1") {
		t.Fatalf("adopted another installation's account: %v", err)
	}
}

// A running INSERT … pg_sleep is the statement that every other way of ending access lets commit.
func TestCutInFlight(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := login(t, a, "orders")
	f := join(t, a, c)
	f.statement = 7
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "INSERT INTO orders (what) SELECT 'late' || pg_sleep(0.5)::text FROM generate_series(1, 8)")
		done <- err
	}()
	eventually(t, "it runs", func() bool {
		return super(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep' AND backend_xid IS NOT NULL", int32(f.Backend())) == "1"
	})
	cut, err := a.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
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
	if n := super(t, "orders", "SELECT count(*) FROM orders WHERE what = 'late'"); n != "0" {
		t.Error("the row was committed after the end")
	}
	again, err := a.Cut(t.Context())
	if err != nil || !again.LockedAt.Equal(cut.LockedAt) || !again.GoneAt.Equal(cut.GoneAt) || !slices.Equal(again.Outcomes, cut.Outcomes) {
		t.Errorf("cut again: %+v, %v", again, err)
	}
	finish(t, a)
}

func TestCutAfterSetRole(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, withSetRole(t, newSpec(0)))
	c := login(t, a, "orders")
	join(t, a, c)
	exec(t, c, "SET ROLE orders_writer", "BEGIN", "INSERT INTO orders (what) VALUES ('set role')")
	cut, _ := finish(t, a)
	if len(cut.Outcomes) != 1 || cut.Outcomes[0].Fate != protocol.FateAborted {
		t.Errorf("%+v", cut)
	}
	if err := c.Ping(t.Context()); err == nil {
		t.Error("the session lives on")
	}
	if n := super(t, "orders", "SELECT count(*) FROM orders WHERE what = 'set role'"); n != "0" {
		t.Error("committed")
	}
}

// A person who holds the lock on their own role's row makes a plain ALTER ROLE wait for ever.
func TestCutWhileTheRowIsHeld(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := login(t, a, "orders")
	exec(t, c, "BEGIN", "ALTER ROLE "+a.Name()+" PASSWORD 'mine'")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := a.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	finish(t, a)
}

// The same by a prepared transaction, which no termination ends.
func TestCutWhileAPreparedTransactionHoldsTheRow(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c := login(t, a, "orders")
	exec(t, c, "BEGIN", "ALTER ROLE "+a.Name()+" PASSWORD 'mine'", "PREPARE TRANSACTION 'hold'")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := a.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	_, clean := finish(t, a)
	if !slices.Equal(clean.RolledBack, []string{"hold"}) {
		t.Errorf("%+v", clean)
	}
}

// Anybody can make the server sleep between the login check and the moment the backend can be seen.
func TestCutWhileALoginSleepsPastTheCheck(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	type login struct {
		c   *pgx.Conn
		err error
	}
	done := make(chan login, 1)
	go func() {
		c, err := dial(t.Context(), server.DSN(a.Name(), a.secret, "orders")+"&options=-c%20post_auth_delay%3D20")
		done <- login{c, err}
	}()
	eventually(t, "it sleeps", func() bool {
		now, err := e.openings(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, inside := range now {
			if inside {
				return true
			}
		}
		return false
	})
	began := time.Now()
	cut, err := a.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if late := cut.GoneAt.Sub(cut.LockedAt); late > startingWait/2 {
		t.Errorf("the end counts as %s late, for one who never got in", late)
	}
	if n := super(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", a.Name()); n != "0" {
		t.Error("it is in")
	}
	got := <-done
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("cut took %s", took)
	}
	if got.err == nil && got.c.Ping(t.Context()) == nil {
		t.Error("it is in and works")
	}
	finish(t, a)
}

func TestKillOneSession(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	c, d := login(t, a, "orders"), login(t, a, "billing")
	f := join(t, a, c)
	join(t, a, d)
	exec(t, c, "BEGIN", "INSERT INTO orders (what) VALUES ('one')")
	o, err := a.kill(t.Context(), f)
	if err != nil || o.Fate != protocol.FateAborted || o.Foreign {
		t.Fatalf("%+v %v", o, err)
	}
	exec(t, d, "SELECT 1")
	a.Leave(f)
	cut, _ := finish(t, a)
	if len(cut.Outcomes) != 2 || cut.Outcomes[0].Backend != o.Backend || cut.Outcomes[0].TxID != o.TxID {
		t.Errorf("the receipt does not tell of the session that was killed at the same end: %+v", cut.Outcomes)
	}
}

func TestCutWhenTheRoleIsGone(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, withSetRole(t, newSpec(0)))
	c := login(t, a, "orders")
	exec(t, c, "SET ROLE orders_writer")
	admin(t, "orders", "DROP ROLE "+a.Name())
	exec(t, c, "SELECT count(*) FROM orders") // this is why
	finish(t, a)
	if c.Ping(t.Context()) == nil {
		t.Error("a session outlived its dropped role")
	}
}

func TestRecallAfterACrash(t *testing.T) {
	spec := newSpec(0)
	a := provision(t, newEngine(t, nil), spec)
	c := login(t, a, "orders")
	exec(t, c, "BEGIN", "INSERT INTO orders (what) VALUES ('crash')")
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
	for _, name := range []string{"provision.created", "cut.locked", "cut.terminated", "cut.gone",
		"clean.rolled_back", "clean.noted", "clean.unshared", "clean.quarantined", "clean.dropped", "clean.proved"} {
		t.Run(name, func(t *testing.T) {
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
				got = e.Recall(spec)
			} else {
				litter(t, got.(*account))
			}
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
			if n := super(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = $1", spec.Name); n != "0" {
				t.Error("the role is still there")
			}
			if strings.HasPrefix(name, "clean.q") && len(clean.Residue) == 0 {
				t.Error("what was noted before the crash is lost")
			}
			admin(t, "orders", "DROP TABLE IF EXISTS litter")
		})
	}
}

// litter leaves something behind for each step of cleaning.
func litter(t *testing.T, a *account) {
	t.Helper()
	c := login(t, a, "orders")
	admin(t, "orders", "GRANT "+a.Name()+" TO stranger")
	exec(t, c, "CREATE TABLE litter (id int)",
		"BEGIN", "INSERT INTO orders (what) VALUES ('litter')", "PREPARE TRANSACTION 'litter'")
	hangUp(t.Context(), c)
}

func TestPreparedTransactions(t *testing.T) {
	e := newEngine(t, nil)
	spec := withSetRole(t, newSpec(0))
	a := provision(t, e, spec)
	other := provision(t, e, withSetRole(t, newSpec(0)))
	prepare := func(c *pgx.Conn, gid, role string) {
		exec(t, c, "SET ROLE "+role, "BEGIN", "INSERT INTO orders (what) VALUES ('"+gid+"')", "PREPARE TRANSACTION '"+gid+"'")
	}
	c, d, x := login(t, a, "orders"), login(t, a, "billing"), login(t, other, "orders")
	f := join(t, a, c)
	prepare(c, "own", "none")
	prepare(d, "own elsewhere", "none")
	prepare(c, "as group", "orders_writer")
	f.gids = []string{"as group"}
	prepare(x, "another grant, same group", "orders_writer")
	a.Leave(f)
	_, clean := finish(t, a)
	slices.Sort(clean.RolledBack)
	if !slices.Equal(clean.RolledBack, []string{"as group", "own", "own elsewhere"}) {
		t.Errorf("rolled back %q", clean.RolledBack)
	}
	if left := super(t, "postgres", "SELECT string_agg(gid, ',') FROM pg_prepared_xacts"); left != "another grant, same group" {
		t.Errorf("left: %s", left)
	}
	// After a crash the global id comes from the recordings.
	hangUp(t.Context(), x)
	recalled := other.spec
	recalled.Prepared = []string{"another grant, same group"}
	_, clean = finish(t, newEngine(t, nil).Recall(recalled))
	if len(clean.RolledBack) != 1 {
		t.Errorf("%+v", clean)
	}
}
