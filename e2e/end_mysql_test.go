package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func mysqlDeeds() map[string]deed {
	deeds := everybodysDeeds()
	deeds["prepared insert"] = deed{level: "writer", check: inFlight, begin: func(t *testing.T, s *town, c conn, word string) func(*testing.T) error {
		stmt := must(c.(myConn).PrepareContext(t.Context(), "INSERT INTO orders (item) SELECT CONCAT(?, SLEEP(0.1)) FROM seq_1_to_40 /* "+word+" */"))(t)
		done := make(chan error, 1)
		go func() {
			_, err := stmt.ExecContext(t.Context(), word)
			done <- err
		}()
		s.underway(t, word)
		return atOnce(done)
	}}
	deeds["load data local"] = deed{level: "loader", check: aborted, begin: loadData}
	deeds["after use"] = deed{level: "writer", check: func(*testing.T, *town, string, receipt) {}, begin: func(t *testing.T, s *town, c conn, word string) func(*testing.T) error {
		exec1(t, c, "USE other")
		return func(t *testing.T) error {
			err := ends(t, goExec(t.Context(), c, "INSERT INTO orders (item) VALUES ('"+word+"')"))
			if n := s.ask(t, "other", s.commits(word))[0]; n != "0" {
				t.Errorf("%s rows were committed in the other database", n)
			}
			return err
		}
	}}
	deeds["xa transaction"] = deed{level: "migrator", begin: func(t *testing.T, s *town, c conn, word string) func(*testing.T) error {
		for _, sql := range xa(xid(word), "INSERT INTO orders (item) VALUES ('"+word+"')") {
			exec1(t, c, sql)
		}
		if got := must(s.prepared(t.Context()))(t); !slices.Contains(got, xid(word)) {
			t.Fatalf("it was not prepared: %v", got)
		}
		return atTheNextWord(c)
	}, check: func(t *testing.T, s *town, word string, r receipt) {
		if want := "[X'" + strings.ToUpper(hex.EncodeToString([]byte(xid(word)))) + "',X'',1]"; !strings.EqualFold(fmt.Sprint(r.Clean.RolledBack), want) {
			t.Errorf("rolled back: %v, want %s", r.Clean.RolledBack, want)
		}
		if got := must(s.prepared(t.Context()))(t); slices.Contains(got, xid(word)) {
			t.Errorf("still prepared: %v", got)
		}
	}}
	return deeds
}

// xid is an id for a transaction that carries the word: at most 64 bytes.
func xid(word string) string {
	sum := sha256.Sum256([]byte(word))
	return "story-" + hex.EncodeToString(sum[:8])
}

// xa prepares a transaction for two-phase commit.
func xa(id, sql string) []string {
	return []string{"XA START '" + id + "'", sql, "XA END '" + id + "'", "XA PREPARE '" + id + "'"}
}

// loadData sends enough of a file for the server to have begun writing rows; then silence. go-sql-driver
// reads no answer before the file's end.
func loadData(t *testing.T, s *town, c conn, word string) func(*testing.T) error {
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	mysql.RegisterReaderHandler(word, func() io.Reader { return r })
	t.Cleanup(func() { mysql.DeregisterReaderHandler(word) })
	done := goExec(t.Context(), c, "LOAD DATA LOCAL INFILE 'Reader::"+word+"' INTO TABLE orders (item)")
	line := word + strings.Repeat("x", 60) + "\n"
	for range 200 {
		if _, err := io.WriteString(w, strings.Repeat(line, 20)); err != nil {
			t.Fatal(err)
		}
	}
	s.underway(t, word)
	return func(t *testing.T) error {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		return ends(t, done)
	}
}

// A statement that prepares a transaction never reaches the server, and the statements around it run as
// they would have.
func TestXAIsRefusedUnlessTheLevelAllowsIt(t *testing.T) {
	t.Parallel()
	s, w := shop, word(t)
	g, _, c := s.connected(t, "writer", time.Minute)
	exec1(t, c, "BEGIN")
	exec1(t, c, "INSERT INTO orders (item) VALUES ('"+w+"')")
	err := c.run(t.Context(), "XA START '"+xid(w)+"'")
	if err == nil || !strings.Contains(err.Error(), "migrator") && !strings.Contains(err.Error(), "access level") {
		t.Errorf("got %v", err)
	}
	exec1(t, c, "COMMIT")
	if n := s.committed(t, w); n != "1" {
		t.Errorf("%s rows were committed", n)
	}
	if !s.my.IsMySQL() { // there it takes a right of its own
		exec1(t, c, "XA RECOVER") // looking is no harm
	}
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
	if !slices.ContainsFunc(s.recorded(t, g.ID), func(line string) bool { return strings.Contains(line, `"type":"blocked"`) }) {
		t.Error("the refusal is not on record")
	}
}

// The server asks a client for a file only under a level that says so; else it is not even told that the
// client would give it one.
func TestFilesStayWithTheClientUnlessTheLevelAllowsIt(t *testing.T) {
	t.Parallel()
	s, w := shop, word(t)
	_, _, c := s.connected(t, "writer", time.Minute)
	asked := false
	mysql.RegisterReaderHandler(w, func() io.Reader {
		asked = true
		return strings.NewReader(w + "\n")
	})
	t.Cleanup(func() { mysql.DeregisterReaderHandler(w) })
	err := c.run(t.Context(), "LOAD DATA LOCAL INFILE 'Reader::"+w+"' INTO TABLE orders (item)")
	var my *mysql.MySQLError
	if !errors.As(err, &my) || asked {
		t.Errorf("got %v, the file was asked for: %v", err, asked)
	}
	exec1(t, c, "SELECT 1") // the session goes on
	if n := s.committed(t, w); n != "0" {
		t.Errorf("%s rows of the file arrived", n)
	}
}

// XA RECOVER names no owner: only what the recording shows as prepared is rolled back.
func TestSomebodyElsesXATransactionIsLeftAlone(t *testing.T) {
	t.Parallel()
	s, w := shop, word(t)
	app := must(s.my.Login(t.Context(), "app", "app", "shop"))(t)
	for _, sql := range xa("app-"+xid(w), "INSERT INTO orders (item) VALUES ('"+w+"-app')") {
		if err := app.Run(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Close(); err != nil {
		t.Error(err)
	}
	g, _, c := s.connected(t, "migrator", 10*time.Minute)
	for _, sql := range xa(xid(w), "INSERT INTO orders (item) VALUES ('"+w+"-ours')") {
		exec1(t, c, sql)
	}
	must(s.bob.Run(t.Context(), "revoke", g.ID, "--reason", "amid two-phase commit"))(t)
	s.receipt(t, g.ID, "revoked")
	got := must(s.prepared(t.Context()))(t)
	if slices.Contains(got, xid(w)) || !slices.Contains(got, "app-"+xid(w)) {
		t.Errorf("prepared: %v", got)
	}
	if err := s.my.Exec(t.Context(), "shop", "XA COMMIT 'app-"+xid(w)+"'"); err != nil {
		t.Error(err)
	}
	if ours, theirs := s.committed(t, w+"-ours"), s.committed(t, w+"-app"); ours != "0" || theirs != "1" {
		t.Errorf("committed: %s of ours, %s of theirs", ours, theirs)
	}
}
