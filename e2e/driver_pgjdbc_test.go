package e2e

import (
	"strings"
	"testing"
)

func TestPgjdbc(t *testing.T) {
	driver{
		name:    "pgjdbc",
		command: []string{"java", "-XX:TieredStopAtLevel=1", "-Duser.timezone=UTC", "-cp", "/usr/share/java/postgresql.jar", "Pgjdbc.java"},
		types: []string{"int4", "int8", "numeric", "float8", "bool", "varchar", "bytea", "varchar", "timestamptz", "date", "time", "uuid", "jsonb",
			"text[]", "int4[]"},
		texts: map[int]string{4: "TRUE"},
		check: func(t *testing.T, recs []*record) {
			canceled(t, recs, 2)
			copied(t, recs, 1, 1, 0)
			fetched := find(recs, "execute", "SELECT m FROM generate_series")
			rows := 0
			for _, st := range fetched {
				rows += st.results[0].Rows
			}
			if len(fetched) < 7 || rows != 2000 {
				t.Errorf("of a portal %d rows are on record, in %d executions", rows, len(fetched))
			}
			if found := find(recs, "simple", "SELECT ("); len(found) != 1 || !strings.Contains(string(found[0].text), `O''Hara`) {
				t.Errorf("what was sent as one text is on record %d times", len(found))
			}
		},
	}.runs(t, onOrders)
}
