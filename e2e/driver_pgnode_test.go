package e2e

import "testing"

func TestPgForNode(t *testing.T) {
	driver{
		name:    "pg",
		command: []string{"node", "pg.js"},
		// It names no types, and asks for none.
		types: []string{"unknown", "unknown", "unknown", "unknown", "unknown", "unknown", "unknown", "unknown", "unknown", "unknown", "unknown", "unknown",
			"unknown", "unknown", "unknown"},
		texts: map[int]string{4: "true", 12: `{"a":[1,"ü"]}`, 13: `{"plain","two words","quo\"te",NULL,"ü,"}`, 14: `{"1","-2","3"}`},
		check: func(t *testing.T, recs []*record) {
			canceled(t, recs, 0)
			copied(t, recs, 1, 1, 0)
			inOrder(t, recs)
			read := 0
			for _, st := range find(recs, "execute", "SELECT m FROM generate_series") {
				read += st.results[0].Rows
			}
			if read != 1400 {
				t.Errorf("of a portal %d rows are on record", read)
			}
		},
	}.runs(t, onOrders)
}
