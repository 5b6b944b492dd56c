package e2e

import "testing"

func TestMariaDBForNode(t *testing.T) {
	driver{
		name:    "mariadb",
		command: []string{"node", "mariadb.js"},
		types:   []string{"int", "decimal", "varchar", "double", "varchar", "blob", "varchar", "varchar", "varchar", "varchar"},
		check: func(t *testing.T, recs []*record) {
			aHundredRows(t, recs)
			pipelined(t, recs)
			failed := 0
			for _, st := range find(recs, "simple", "SELECT this fails") {
				for _, o := range st.results {
					if o.Errno == 1054 {
						failed++
					}
				}
			}
			if failed != 1 {
				t.Errorf("the statement that fails amid a pipeline is on record %d times", failed)
			}
		},
	}.runs(t, onShop)
}
