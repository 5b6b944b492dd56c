package e2e

import (
	"fmt"
	"testing"
)

func TestPsycopg3(t *testing.T) {
	driver{
		name:    "psycopg",
		command: []string{"/usr/bin/python3", "psycopg3_driver.py"},
		types:   []string{"int2", "int8", "numeric", "float8", "bool", "text", "bytea", "unknown", "timestamptz", "date", "time", "uuid", "jsonb", "text[]", "int2[]"},
		check: func(t *testing.T, recs []*record) {
			canceled(t, recs, 1)
			copied(t, recs, 1, 1, 1)
			for _, rec := range recs {
				for i, c := range rec.copies {
					if i == 3 && (c.Bytes != len("5000\tgiven up\n") || rec.at(c.Of).results[0].Code != "57014") {
						t.Errorf("a copy that the client gave up is on record as %+v", c)
					}
				}
			}
			for i, st := range find(recs, "bind", "SELECT $1::int4 + 0") {
				if len(st.params) != 1 || string(st.params[0].data) != fmt.Sprint(i) {
					t.Errorf("run %d of a pipeline is on record with %+v", i, st.params)
				}
			}
		},
	}.runs(t, onOrders)
}
