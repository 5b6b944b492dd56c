package e2e

import "testing"

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
			inOrder(t, recs)
		},
	}.runs(t, onOrders)
}
