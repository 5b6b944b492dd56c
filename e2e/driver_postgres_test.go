package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pgTyped are the columns of the drivers' table in a PostgreSQL.
var pgTyped = []column{
	{"id", "int4", "-42"},
	{"big", "int8", "9223372036854775807"},
	{"price", "numeric(20,6)", "12345678901234.567890"},
	{"ratio", "float8", "0.1"},
	{"flag", "bool", "t"},
	{"name", "text", `Grüße, "O'Hara" \ 世界 🎈`},
	{"data", "bytea", "\x00\xff'\"\\\n"},
	{"nothing", "text", "NULL"},
	{"moment", "timestamptz", "2026-02-28 23:59:58.123456+00"},
	{"day", "date", "2026-02-28"},
	{"clock", "time", "12:34:56"},
	{"mark", "uuid", "6f1ed002-ab59-4f2c-9a2b-3d3d1b1b7c01"},
	{"doc", "jsonb", `{"a": [1, "ü"]}`},
	{"tags", "text[]", `{plain,"two words","quo\"te",NULL,"ü,"}`},
	{"numbers", "int4[]", "{1,-2,3}"},
}

// onOrders is where the drivers for PostgreSQL are tried.
func onOrders() *ground {
	return &ground{
		town: shared, level: "writer", typed: pgTyped, with: "bind", row: " WHERE id = $1",
		created: func(_ *town, table string) []string {
			var columns []string
			for _, c := range pgTyped {
				columns = append(columns, c.name+" "+c.sql)
			}
			return []string{"CREATE TABLE " + table + " (" + strings.Join(columns, ", ") + "); GRANT ALL ON " + table + " TO orders_writer"}
		},
		kept: keptByPostgres, recorded: recordedOnPostgres,
	}
}

// keptByPostgres checks that the typed values arrived, the transaction that was committed and only that, and
// every row of the batches and of what was copied in.
func keptByPostgres(t *testing.T, s *town, table string) {
	t.Helper()
	var same []string
	for _, c := range pgTyped {
		switch {
		case c.text == "NULL":
			same = append(same, "NULL")
		case c.sql == "bytea":
			same = append(same, fmt.Sprintf(`'\x%x'`, c.text))
		default:
			same = append(same, "'"+strings.ReplaceAll(c.text, "'", "''")+"'")
		}
	}
	got := s.ask(t, s.target, "SELECT d::text FROM "+table+" d WHERE id = -42")
	sql := "CREATE TEMPORARY TABLE same (LIKE " + table + ") ON COMMIT DROP; INSERT INTO same VALUES (" + strings.Join(same, ", ") +
		"); DO $$ BEGIN IF (SELECT s::text FROM same s) <> '" + strings.ReplaceAll(strings.Join(got, "|"), "'", "''") + "' THEN RAISE EXCEPTION '%', (SELECT s::text FROM same s); END IF; END $$"
	if err := s.pg.Exec(t.Context(), s.target, sql); err != nil {
		t.Errorf("the table has %q, want %v", got, err)
	}
	if got := s.ask(t, s.target, "SELECT name FROM "+table+" WHERE id IN (1, 2)"); !slices.Equal(got, []string{"committed"}) {
		t.Errorf("of two transactions there is %q", got)
	}
	if got := s.ask(t, s.target, "SELECT count(DISTINCT id) FROM "+table+" WHERE id BETWEEN 1000 AND 1099 AND name = 'batch ' || id"); got[0] != "100" {
		t.Errorf("of a batch of a hundred rows there are %s", got[0])
	}
}

// recordedOnPostgres checks what is on record of what every driver does.
func recordedOnPostgres(t *testing.T, recs []*record) {
	t.Helper()
	errors := map[string]int{}
	for _, rec := range recs {
		for _, st := range rec.list {
			for _, o := range st.results {
				if o.Code != "" {
					errors[o.Code]++
				}
			}
		}
	}
	if errors["42P01"] != 1 || errors["57014"] < 1 {
		t.Errorf("statements failed with %v, want 42P01 once, and 57014", errors)
	}
	returned(t, recs, map[string]int{"SELECT n FROM generate_series(1, 1000)": 1000, "repeat('x', 1000)": 5000})
	if n := len(find(recs, "simple", "rolled back")) + len(find(recs, "execute", "(id, name) VALUES")); n == 0 {
		t.Error("the transaction that was rolled back is not on record")
	}
	batched := map[string]bool{}
	for _, rec := range recs {
		for _, st := range rec.list {
			for _, p := range st.params {
				batched[string(p.data)] = true
			}
			for _, word := range strings.Split(string(st.text), "'") {
				batched[word] = true
			}
		}
	}
	for i := range 100 {
		if !batched["batch "+strconv.Itoa(1000+i)] {
			t.Errorf("row %d of a batch is not on record", i)
		}
	}
}

// inOrder: each run of a pipeline of thirty is on record with its own parameter and its own answer. A run of
// a statement that was not known to be prepared when it was run names the statement.
func inOrder(t *testing.T, recs []*record) {
	t.Helper()
	var runs, answers []*statement
	for _, rec := range recs {
		for _, st := range rec.list {
			switch of := rec.at(st.Of); {
			case st.Kind == "bind" && (st.name == "add" || strings.Contains(rec.sql(st), "SELECT $1::int4 + 0")):
				runs = append(runs, st)
			case st.Kind == "execute" && of != nil && slices.Contains(runs, of):
				answers = append(answers, st)
			}
		}
	}
	for i, st := range runs {
		if len(st.params) != 1 || string(st.params[0].data) != strconv.Itoa(i) {
			t.Errorf("run %d of a pipeline is on record with %s", i, show(st.params))
		}
	}
	for i, st := range answers {
		if len(st.results) != 1 || st.results[0].Rows != 1 {
			t.Errorf("run %d of a pipeline is on record with %+v", i, st.results)
		}
	}
	if len(runs) != 30 || len(answers) != 30 {
		t.Errorf("of a pipeline of thirty %d runs and %d answers are on record", len(runs), len(answers))
	}
}

func show(params []*value) string {
	var all []string
	for _, p := range params {
		all = append(all, fmt.Sprintf("%s %q", p.typ, p.data))
	}
	return strings.Join(all, ", ")
}

// canceled checks that so many cancel requests are on record.
func canceled(t *testing.T, recs []*record, want int) {
	t.Helper()
	got := 0
	for _, rec := range recs {
		got += rec.cancels
	}
	if got != want {
		t.Errorf("%d cancel requests are on record, want %d", got, want)
	}
}

// aCopy is the data of every bulk transfer: a thousand rows.
func aCopy() string {
	var b strings.Builder
	for id := 3000; id < 4000; id++ {
		fmt.Fprintf(&b, "%d\tcopied %d\n", id, id)
	}
	return b.String()
}

// copied checks that transfers of aCopy are on record, so many in and so many out. binary ones have other
// bytes; those that failed are not counted.
func copied(t *testing.T, recs []*record, in, out, binary int) {
	t.Helper()
	got := map[string]int{}
	for _, rec := range recs {
		for _, c := range rec.copies {
			if of := rec.at(c.Of); len(of.results) > 0 && of.results[0].Code != "" {
				continue
			}
			form := c.Direction
			if c.SHA256 != digest(aCopy()) || c.Bytes != len(aCopy()) {
				form = "other"
			}
			if got[form]++; c.Rows != 1000 || len(c.SHA256) != 64 {
				t.Errorf("a copy is on record as %+v", c)
			}
		}
	}
	if got["in"] != in || got["out"] != out || got["other"] != binary {
		t.Errorf("copies on record: %v, want %d in, %d out, %d of other bytes", got, in, out, binary)
	}
}
