package e2e

import (
	"fmt"
	"strings"
	"testing"
)

func TestMySQL2(t *testing.T) {
	number := "double"
	if shop.my.IsMySQL() {
		number = "bigint" // it goes by the parameters' types, which MariaDB doesn't tell
	}
	driver{
		name:    "mysql2",
		command: []string{"node", "mysql2.js"},
		types:   []string{number, "varchar", "varchar", "double", "varchar", "blob", "null", "varchar", "varchar", "varchar"},
		check: func(t *testing.T, recs []*record) {
			aHundredRows(t, recs)
			pipelined(t, recs)
			refused := 0
			for _, rec := range recs {
				for _, st := range rec.list {
					if st.name == "change_user" && len(rec.blocked) == 1 && len(st.results) == 1 && st.results[0].Errno == 1047 {
						refused++
					}
				}
			}
			if refused != 1 {
				t.Errorf("a change of user was refused %d times", refused)
			}
		},
	}.runs(t, onShop)
}

// pipelined: each answer of fifty stands at the statement that it is of.
func pipelined(t *testing.T, recs []*record) {
	t.Helper()
	found := find(recs, "execute", "SELECT ? + 0 AS n")
	for i, st := range found {
		if len(st.params) != 1 || len(st.results) != 1 || st.results[0].Rows != 1 {
			t.Errorf("run %d of a pipeline is on record with %+v, %+v", i, st.params, st.results)
		}
	}
	if len(found) < 24 {
		t.Errorf("%d runs of a pipeline are on record", len(found))
	}
}

// aHundredRows checks that every row of a batch is on record, in whatever form it was sent.
func aHundredRows(t *testing.T, recs []*record) {
	t.Helper()
	seen := map[string]bool{}
	note := func(text string) {
		for i := range 100 {
			for _, how := range []string{"bulk", "pipelined", "rewritten"} {
				if name := fmt.Sprintf("%s %d", how, i); text == name || strings.Contains(text, "'"+name+"'") {
					seen[name] = true
				}
			}
		}
	}
	for _, rec := range recs {
		for _, st := range rec.list {
			note(string(st.text))
			for _, p := range st.params {
				note(string(p.data))
			}
		}
	}
	if len(seen) < 99 {
		t.Errorf("%d of a hundred rows of a batch are on record", len(seen))
	}
}
