package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// crowd is how many clients come at once.
const crowd = 200

// startPostgres is one of a story's own.
func startPostgres(t *testing.T, settings ...string) *harness.Postgres {
	t.Helper()
	pg := must(harness.StartPostgres(t.Context(), filepath.Join(t.TempDir(), "postgres"), settings...))(t)
	t.Cleanup(func() {
		if err := pg.Close(); err != nil {
			t.Error(err)
		}
	})
	return pg
}

// sessions lets a level have more of them.
func sessions(level string) func(string) string {
	return func(policy string) string {
		i := strings.Index(policy, level+": {")
		return policy[:i] + strings.Replace(policy[i:], "}", fmt.Sprintf(", sessions: %d}", crowd+50), 1)
	}
}

// pgbench, made for servers and not for proxies: in all its protocols, with two hundred clients at once, in
// pipelines and with a new session for each transaction. No error, and every transaction on record. It
// runs by itself: it takes both cores.
func TestPgbench(t *testing.T) {
	pg := startPostgres(t, "max_connections=500", "synchronous_commit=off")
	st := newLifetime(t, onPostgres(pg), "", sessions("owner"))
	bench := func(creds harness.Credentials, args ...string) string {
		t.Helper()
		cmd := creds.PSQL(t.Context())
		cmd.Path = must(exec.LookPath("pgbench"))(t)
		cmd.Args = append([]string{"pgbench"}, args...)
		cmd.Env = append(cmd.Env, "PGOPTIONS=-c role=orders_owner")
		out := must(harness.Run(cmd))(t)
		if strings.Contains(out, "number of failed transactions") && !strings.Contains(out, "number of failed transactions: 0 ") {
			t.Errorf("pgbench %s: %s", strings.Join(args, " "), out)
		}
		return out
	}
	granted := func() (api.Grant, harness.Credentials) {
		t.Helper()
		g := must(st.alice.Granted(t.Context(), st.target, "owner", 20*time.Minute, st.bob, st.sam))(t)
		return g, must(st.alice.Credentials(t.Context(), g.ID))(t)
	}
	// What is made belongs to the group role, so that another grant's account may work on it.
	g, creds := granted()
	bench(creds, "-i", "-q", "-s", "2", "--foreign-keys")
	must(st.alice.Run(t.Context(), "release", g.ID))(t)
	st.receipt(t, g.ID, "released")

	script := filepath.Join(t.TempDir(), "pipeline.sql")
	if err := os.WriteFile(script, []byte(pipelineScript), 0o600); err != nil {
		t.Fatal(err)
	}
	g, creds = granted()
	const each = 2
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		out := bench(creds, "-n", "-M", protocol, "-c", strconv.Itoa(crowd), "-j", "4", "-t", strconv.Itoa(each))
		contains(t, out, fmt.Sprintf("number of transactions actually processed: %d/%d", crowd*each, crowd*each))
	}
	contains(t, bench(creds, "-n", "-M", "prepared", "-f", script, "-c", "8", "-j", "2", "-t", "20"), "actually processed: 160/160")
	out := bench(creds, "-n", "-S", "-C", "-c", "8", "-j", "2", "-t", "20")
	contains(t, out, "actually processed: 160/160")
	t.Logf("a session for each transaction: %s", regexp.MustCompile(`tps = .*`).FindString(out))
	if got := st.ask(t, st.target, "SELECT count(*) FROM pgbench_history"); got[0] != strconv.Itoa(3*crowd*each) {
		t.Errorf("%s transactions in the history, want %d", got[0], 3*crowd*each)
	}
	must(st.alice.Run(t.Context(), "release", g.ID))(t)
	st.receipt(t, g.ID, "released")

	recs := st.recordings(t, g.ID)
	committed, looked := 0, 0
	for _, rec := range recs {
		for _, s := range rec.list {
			if len(s.results) == 0 && (s.Kind == "simple" || s.Kind == "execute") {
				t.Errorf("session %s: no result for %q", rec.name, rec.sql(s))
			}
		}
		for _, kind := range []string{"simple", "execute"} {
			committed += len(rec.find(kind, "INSERT INTO pgbench_history"))
			looked += len(rec.find(kind, "SELECT abalance FROM pgbench_accounts WHERE aid ="))
		}
	}
	if want := 3 * crowd * each; committed != want || looked < want+3*160+160 {
		t.Errorf("%d transactions and %d queries on record, want %d and %d", committed, looked, want, want+3*160+160)
	}
	if len(recs) < 3*crowd+160 {
		t.Errorf("%d sessions on record", len(recs))
	}
}

// pipelineScript sends three queries before it reads an answer.
const pipelineScript = `\set aid random(1, 100000)
\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid + 1;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid + 2;
\endpipeline
`

// mariadb-slap with as many, each with statements of its own.
func TestMariaDBSlap(t *testing.T) {
	st := newLifetime(t, onMariaDB(startMariaDB(t)), "", func(policy string) string {
		return strings.Replace(policy, "sessions: 40", fmt.Sprintf("sessions: %d", crowd+50), 1)
	})
	g := must(st.alice.Granted(t.Context(), st.target, "writer", 10*time.Minute, st.bob))(t)
	creds := must(st.alice.Credentials(t.Context(), g.ID))(t)
	out := must(harness.Run(creds.MariaDB(t.Context(), "mariadb-slap", "--create-schema=shop", "--no-drop", "--delimiter=;", "--concurrency="+strconv.Itoa(crowd),
		"--number-of-queries="+strconv.Itoa(6*crowd), "--query=INSERT INTO orders (item) VALUES ('slap'); SELECT COUNT(*) FROM orders WHERE id < 10; DO 1")))(t)
	contains(t, out, fmt.Sprintf("Number of clients running queries: %d", crowd))
	must(st.alice.Run(t.Context(), "release", g.ID))(t)
	st.receipt(t, g.ID, "released")
	kept := st.ask(t, st.target, "SELECT COUNT(*) FROM orders WHERE item = 'slap'")[0]
	recs := st.recordings(t, g.ID)
	if got := len(find(recs, "simple", "INSERT INTO orders")); strconv.Itoa(got) != kept || got < crowd {
		t.Errorf("%d rows on record, %s in the table, of %d clients", got, kept, crowd)
	}
	if len(recs) < crowd {
		t.Errorf("%d sessions on record", len(recs))
	}
}
