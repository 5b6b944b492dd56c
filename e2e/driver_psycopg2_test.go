package e2e

import (
	"strings"
	"testing"
)

func TestPsycopg2(t *testing.T) {
	driver{
		name:    "psycopg2",
		command: []string{"/usr/bin/python3", "psycopg2_driver.py"},
		check: func(t *testing.T, recs []*record) {
			canceled(t, recs, 1)
			copied(t, recs, 1, 1, 0)
			insert := find(recs, "simple", "(id, big, price")
			if len(insert) != 1 {
				t.Fatalf("the INSERT of typed values is on record %d times", len(insert))
			}
			for _, text := range []string{"-42", "9223372036854775807", "12345678901234.567890", "0.1", "true", `'Grüße, "O''Hara" \ 世界 🎈'`,
				`'\x00ff27225c0a'::bytea`, "NULL", "'2026-02-28T23:59:58.123456+00:00'::timestamptz", "'2026-02-28'::date", "'12:34:56'::time",
				"'6f1ed002-ab59-4f2c-9a2b-3d3d1b1b7c01'::uuid", `{"a": [1, "ü"]}`, `ARRAY['plain','two words','quo"te',NULL,'ü,']`, "ARRAY[1, -2,3]"} {
				if !strings.Contains(string(insert[0].text), text) {
					t.Errorf("%s is not in the text on record: %q", text, insert[0].text)
				}
			}
			if n := len(find(recs, "simple", "EXECUTE p ( -42)")); n != 3 {
				t.Errorf("the statement that was prepared in SQL is on record %d times", n)
			}
			fetched := 0
			for _, st := range find(recs, "simple", `FETCH FORWARD 500 FROM "on_the_server"`) {
				fetched += st.results[0].Rows
			}
			if fetched != 2000 {
				t.Errorf("of a cursor %d rows are on record", fetched)
			}
			if n := len(find(recs, "function", "")); n < 5 {
				t.Errorf("%d function calls are on record", n)
			}
		},
	}.runs(t, onOrders)
}
