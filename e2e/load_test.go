package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/e2e/harness"
)

// startMariaDB is one of a story's own.
func startMariaDB(t *testing.T, settings ...string) *harness.MariaDB {
	t.Helper()
	my := must(harness.StartMariaDB(t.Context(), filepath.Join(t.TempDir(), "mariadb"), settings...))(t)
	t.Cleanup(func() {
		if err := my.Close(); err != nil {
			t.Error(err)
		}
	})
	return my
}

// alone is a Curfew and a MariaDB that nobody else uses.
func alone(t *testing.T, settings ...string) *lifetime {
	t.Helper()
	return newLifetime(t, onMariaDB(startMariaDB(t, settings...)), "")
}

// Thirty-two clients at once, half of them with text and half with prepared statements: no error, and every
// statement that the server says it ran is on record, in its order. It runs by itself: it takes both cores.
func TestLoadIsOnRecord(t *testing.T) {
	const clients = 32
	st := alone(t, "general-log=1", "log-output=TABLE")
	g := must(st.alice.Granted(t.Context(), st.target, "writer", 10*time.Minute, st.bob))(t)
	creds := must(st.alice.Credentials(t.Context(), g.ID))(t)
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var side sync.WaitGroup
	for i := range clients {
		side.Go(func() {
			if err := load(ctx, creds, i); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	side.Wait()
	must(st.alice.Run(t.Context(), "release", g.ID))(t)
	r := st.receipt(t, g.ID, "released")

	ran, total := st.generalLog(t, r.Account), 0
	recs := st.recordings(t, g.ID)
	for _, rec := range recs {
		log := ran[rec.backend]
		if st.my.IsMySQL() { // it prepares once more, by itself, when it sees the parameters' types
			log["Prepare"] = slices.Compact(log["Prepare"])
		}
		var simple, prepared []string
		executed := 0
		for _, s := range rec.list {
			switch s.Kind {
			case "simple":
				simple = append(simple, string(s.text))
			case "prepare":
				prepared = append(prepared, string(s.text))
			case "execute":
				executed++
			}
			if len(s.results) == 0 && (s.Kind == "simple" || s.Kind == "execute") {
				t.Errorf("session %s: no result for %q", rec.name, s.text)
			}
		}
		if !slices.Equal(simple, log["Query"]) || !slices.Equal(prepared, log["Prepare"]) || executed != len(log["Execute"]) {
			t.Errorf("session %s: %d simple, %d prepared and %d executed statements on record; the server has %d, %d and %d, or others",
				rec.name, len(simple), len(prepared), executed, len(log["Query"]), len(log["Prepare"]), len(log["Execute"]))
		}
		total += len(simple) + len(prepared) + executed
		delete(ran, rec.backend)
	}
	for backend, log := range ran { // Curfew's own, as the account, before its first session
		if len(log["Query"]) != 1 || !strings.HasPrefix(log["Query"][0], "SET DEFAULT ROLE") || len(log["Prepare"])+len(log["Execute"]) > 0 {
			t.Errorf("connection %s of the account is in no recording: %q", backend, log)
		}
	}
	if len(recs) != clients || total < 50*clients {
		t.Errorf("%d sessions with %d statements on record", len(recs), total)
	}
	t.Logf("%d statements", total)
}

// load is one client's: the odd ones prepare.
func load(ctx context.Context, creds harness.Credentials, i int) error {
	c, err := creds.MySQL(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	run := context.WithoutCancel(ctx) // a statement that has begun is finished
	insert, err := c.PrepareContext(run, "INSERT INTO orders (item) VALUES (CONCAT(?, '-', ?))")
	if err != nil {
		return err
	}
	for n := 0; ctx.Err() == nil; n++ {
		if i%2 == 0 {
			err = c.Run(run, fmt.Sprintf("INSERT INTO orders (item) VALUES ('load-%d-%d')", i, n))
		} else {
			_, err = insert.ExecContext(run, i, n)
		}
		if err != nil {
			return err
		}
		rows, err := c.Column(run, fmt.Sprintf("SELECT REPEAT('x', 50 + seq) FROM seq_1_to_100 WHERE seq <= %d", 1+n%50))
		if err != nil || len(rows) != 1+n%50 {
			return fmt.Errorf("%d rows, %w", len(rows), err)
		}
	}
	return nil
}

// generalLog is what the server says an account's connections did: texts by connection and command.
func (st *lifetime) generalLog(t *testing.T, account string) map[string]map[string][]string {
	t.Helper()
	c := must(st.my.Connect(t.Context(), "mysql"))(t)
	defer c.Close()
	rows := must(c.QueryContext(t.Context(), "SELECT thread_id, command_type, argument FROM general_log WHERE user_host LIKE ?", account+"[%"))(t)
	defer rows.Close()
	ran := map[string]map[string][]string{}
	for rows.Next() {
		var backend, command, text string
		if err := rows.Scan(&backend, &command, &text); err != nil {
			t.Fatal(err)
		}
		if ran[backend] == nil {
			ran[backend] = map[string][]string{}
		}
		ran[backend][command] = append(ran[backend][command], text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return ran
}

// A statement of three frames, a parameter as long, and a row as long: whole on both sides and on record,
// and Curfew does not hold them in its memory.
func TestFortyMebibytesAtOnce(t *testing.T) {
	t.Parallel()
	const size = 40 << 20
	st := alone(t)
	if err := st.my.Exec(t.Context(), "shop", "CREATE TABLE big (id INT PRIMARY KEY, body LONGTEXT) ENGINE=MyISAM"); err != nil {
		t.Fatal(err)
	}
	random := make([]byte, size/2)
	_, _ = rand.Read(random) // never fails
	body := hex.EncodeToString(random)
	sum := digest(body)

	g := must(st.alice.Granted(t.Context(), st.target, "writer", 10*time.Minute, st.bob))(t)
	creds := must(st.alice.Credentials(t.Context(), g.ID))(t)
	c := must(creds.MySQL(t.Context(), func(cfg *mysql.Config) { cfg.MaxAllowedPacket = 128 << 20 }))(t)
	defer c.Close()
	if err := c.Run(t.Context(), "INSERT INTO big VALUES (1, '"+body+"')"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(t.Context(), "INSERT INTO big VALUES (?, ?)", 2, body); err != nil {
		t.Fatal(err)
	}
	for id := range 2 {
		got := must(c.Column(t.Context(), fmt.Sprintf("SELECT body FROM big WHERE id = %d", id+1)))(t)
		if len(got) != 1 || digest(got[0]) != sum {
			t.Errorf("row %d came back otherwise", id+1)
		}
	}
	if got := st.ask(t, "shop", "SELECT SHA2(body, 256) FROM big"); !slices.Equal(got, []string{sum, sum}) {
		t.Errorf("in the table: %v, want twice %s", got, sum)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if peak := must(st.curfew.PeakMemory())(t); peak > 160<<20 {
		t.Errorf("curfew's memory reached %d MiB", peak>>20)
	} else {
		t.Logf("curfew's memory reached %d MiB", peak>>20)
	}
	must(st.alice.Run(t.Context(), "release", g.ID))(t)
	st.receipt(t, g.ID, "released")

	recs := st.recordings(t, g.ID)
	text := find(recs, "simple", "INSERT INTO big")
	if len(text) != 1 || digest(string(text[0].text)) != digest("INSERT INTO big VALUES (1, '"+body+"')") {
		t.Errorf("the statement is on record %d times, or otherwise", len(text))
	}
	run := find(recs, "execute", "INSERT INTO big")
	if len(run) != 1 || len(run[0].params) != 2 || digest(string(run[0].params[1].data)) != sum {
		t.Errorf("the parameter is on record %d times, or otherwise", len(run))
	}
	for _, s := range find(recs, "simple", "SELECT body") {
		if len(s.results) != 1 || s.results[0].Rows != 1 || s.results[0].Bytes < size {
			t.Errorf("the row is on record as %+v", s.results)
		}
	}
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
