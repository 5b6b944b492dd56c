package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// myTyped are the columns of the drivers' table in a MariaDB.
var myTyped = []column{
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

// onShop is where the drivers for MySQL and MariaDB are tried.
func onShop() *ground {
	return &ground{
		town: shop, level: "loader", typed: myTyped, with: "execute", row: " WHERE id = ?",
		created: func(_ *town, table string) []string {
			var columns []string
			for _, c := range myTyped {
				columns = append(columns, c.name+" "+c.sql)
			}
			return []string{"CREATE TABLE " + table + " (" + strings.Join(columns, ", ") + ")"}
		},
		kept: keptByMySQL, recorded: recordedOnMySQL,
	}
}

// keptByMySQL checks that the typed values arrived, and the transaction that was committed, and only that.
func keptByMySQL(t *testing.T, s *town, table string) {
	t.Helper()
	var all []string
	for _, c := range myTyped {
		all = append(all, "COALESCE(HEX("+c.name+"), 'NULL')")
	}
	list := "SELECT CONCAT_WS(' ', " + strings.Join(all, ", ") + ") FROM "
	got := s.ask(t, "shop", list+table+" WHERE id = -42")
	// The same values, by the server's own hand.
	same := table + "_same"
	sql := "CREATE TABLE " + same + " LIKE " + table + "; INSERT INTO " + same + " VALUES ("
	for i, c := range myTyped {
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

// recordedOnMySQL checks what is on record of what every driver does.
func recordedOnMySQL(t *testing.T, recs []*record) {
	t.Helper()
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
	returned(t, recs, map[string]int{"SELECT seq FROM seq_1_to_1000": 1000, "REPEAT('x', 1000)": 5000})
	if n := len(find(recs, "simple", "rolled back")) + len(find(recs, "execute", "id, name) VALUES")); n == 0 {
		t.Error("the transaction that was rolled back is not on record")
	}
}
