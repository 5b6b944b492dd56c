package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// driver is a client library and what is on record of its prepared statements.
type driver struct {
	name    string
	command []string // run in testdata/driver; without one play
	play    func(ctx context.Context, creds harness.Credentials, table string) error
	// types are what its prepared INSERT of typed values sends, place by place: see typed.
	types []string
	// texts says where the recording has another text for a value than typed has.
	texts map[int]string
	check func(t *testing.T, recs []*record)
}

// column of the table that every driver works on, and the text of the value that every driver writes there.
type column struct{ name, sql, text string }

// typed are the columns of that table. NULL stands for itself.
var typed = []column{
	{"id", "INT", "-42"},
	{"big", "BIGINT UNSIGNED", "18446744073709551615"},
	{"price", "DECIMAL(20,6)", "12345678901234.567890"},
	{"ratio", "DOUBLE", "0.1"},
	{"name", "VARCHAR(100)", "Grüße, 世界 🎈"},
	{"data", "LONGBLOB", "\x00\xff'\"\\\n"},
	{"nothing", "VARCHAR(10)", "NULL"},
	{"moment", "DATETIME(6)", "2026-02-28 23:59:58.123456"},
	{"day", "DATE", "2026-02-28"},
	{"clock", "TIME", "12:34:56"},
}

// runs plays a driver with TLS and without, and checks what is in the database and on record.
func (d driver) runs(t *testing.T) {
	t.Parallel()
	for _, tls := range []bool{true, false} {
		t.Run(map[bool]string{true: "tls", false: "plain"}[tls], func(t *testing.T) {
			t.Parallel()
			s := shop
			table := fmt.Sprintf("driver_%d", time.Now().UnixNano())
			d.table(t, s, table)
			g := must(s.alice.Granted(t.Context(), s.target, "loader", 10*time.Minute, s.bob))(t)
			creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
			if !tls {
				creds.CAFile = ""
			}
			if d.play == nil {
				d.play = d.program
			}
			if err := d.play(t.Context(), creds, table); err != nil {
				t.Fatal(err)
			}
			d.kept(t, s, table)
			must(s.alice.Run(t.Context(), "release", g.ID))(t)
			s.receipt(t, g.ID, "released")
			recs := s.recordings(t, g.ID)
			for _, rec := range recs {
				if (rec.header.TLS != "") != tls {
					t.Errorf("session %s: TLS is %q", rec.name, rec.header.TLS)
				}
			}
			d.recorded(t, recs, table)
			d.check(t, recs)
		})
	}
}

func (d driver) table(t *testing.T, s *town, table string) {
	t.Helper()
	var columns []string
	for _, c := range typed {
		columns = append(columns, c.name+" "+c.sql)
	}
	if err := s.my.Exec(t.Context(), "shop", "CREATE TABLE "+table+" ("+strings.Join(columns, ", ")+")"); err != nil {
		t.Fatal(err)
	}
}

// program runs a driver's program with the credentials in its environment.
func (d driver) program(ctx context.Context, creds harness.Credentials, table string) error {
	cmd := exec.CommandContext(ctx, d.command[0], d.command[1:]...)
	cmd.Dir = filepath.Join("testdata", "driver")
	cmd.Env = append(os.Environ(), "DB_HOST="+creds.Host, "DB_PORT="+strconv.Itoa(creds.Port), "DB_USER="+creds.User,
		"DB_PASSWORD="+creds.Password, "DB_NAME="+creds.Database, "DB_CA="+creds.CAFile, "DB_TABLE="+table)
	out, err := harness.Run(cmd)
	if err == nil && !strings.HasSuffix(out, "ok\n") {
		err = fmt.Errorf("%s did not come to its end:\n%s", d.name, out)
	}
	return err
}

// kept checks that the typed values arrived, and the transaction that was committed, and only that.
func (d driver) kept(t *testing.T, s *town, table string) {
	t.Helper()
	var all []string
	for _, c := range typed {
		all = append(all, "COALESCE(HEX("+c.name+"), 'NULL')")
	}
	list := "SELECT CONCAT_WS(' ', " + strings.Join(all, ", ") + ") FROM "
	got := s.ask(t, "shop", list+table+" WHERE id = -42")
	// The same values, by the server's own hand.
	same := table + "_same"
	sql := "CREATE TABLE " + same + " LIKE " + table + "; INSERT INTO " + same + " VALUES ("
	for i, c := range typed {
		if i > 0 {
			sql += ", "
		}
		switch {
		case c.text == "NULL":
			sql += "NULL"
		default:
			sql += "CONVERT(X'" + fmt.Sprintf("%x", c.text) + "' USING " + map[bool]string{true: "binary", false: "utf8mb4"}[c.name == "data"] + ")"
		}
	}
	if err := s.my.Exec(t.Context(), "shop", sql+")"); err != nil {
		t.Fatal(err)
	}
	if want := s.ask(t, "shop", list+same); !slices.Equal(got, want) {
		t.Errorf("the table has %q, want %q", got, want)
	}
	if got := s.ask(t, "shop", "SELECT name FROM "+table+" WHERE id IN (1, 2) AND name IS NOT NULL"); !slices.Equal(got, []string{"committed"}) {
		t.Errorf("of two transactions there is %q", got)
	}
}

// recorded checks what is on record of what every driver does.
func (d driver) recorded(t *testing.T, recs []*record, table string) {
	t.Helper()
	if d.types != nil {
		d.values(t, recs, table)
	}
	failed := 0
	for _, rec := range recs {
		for _, st := range rec.list {
			for _, o := range st.results {
				if o.Errno == 1146 && o.Code == "42S02" && strings.Contains(o.Message, "there_is_no_such_table") {
					failed++
				}
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d statements failed with 1146", failed)
	}
	for words, rows := range map[string]int{"SELECT seq FROM seq_1_to_1000": 1000, "REPEAT('x', 1000)": 5000} {
		found := find(recs, "simple", words)
		if len(found) == 0 {
			found = find(recs, "execute", words)
		}
		if len(found) != 1 || len(found[0].results) != 1 || found[0].results[0].Rows != rows {
			t.Errorf("%s: not once on record with %d rows: %d statements", words, rows, len(found))
			continue
		}
		if r := found[0].results[0]; rows == 5000 && r.Bytes < 5_000_000 {
			t.Errorf("%s: %d bytes", words, r.Bytes)
		}
	}
	if n := len(find(recs, "simple", "rolled back")) + len(find(recs, "execute", "id, name) VALUES")); n == 0 {
		t.Error("the transaction that was rolled back is not on record")
	}
}

// values checks the parameters of the prepared INSERT, by type and by value.
func (d driver) values(t *testing.T, recs []*record, table string) {
	t.Helper()
	found := find(recs, "execute", "INSERT INTO "+table+" (id, big, price")
	if len(found) != 1 || len(found[0].params) != len(typed) {
		t.Fatalf("the INSERT of typed values is on record %d times", len(found))
	}
	for i, p := range found[0].params {
		want := typed[i].text
		if other, ok := d.texts[i]; ok {
			want = other
		}
		if p.null != (want == "NULL") || !p.null && string(p.data) != want || p.typ != d.types[i] {
			t.Errorf("%s is on record as %s %q (null: %v), want %s %q", typed[i].name, p.typ, p.data, p.null, d.types[i], want)
		}
	}
	selects := find(recs, "execute", "SELECT * FROM "+table+" WHERE id = ?")
	if len(selects) != 3 {
		t.Fatalf("the prepared SELECT is on record %d times", len(selects))
	}
	for _, st := range selects {
		if len(st.params) != 1 || string(st.params[0].data) != "-42" || len(st.results) != 1 || st.results[0].Rows != 1 {
			t.Errorf("a run of the prepared SELECT is on record with %+v and %+v", st.params, st.results)
		}
	}
}

func find(recs []*record, kind, words string) (found []*statement) {
	for _, rec := range recs {
		found = append(found, rec.find(kind, words)...)
	}
	return found
}
