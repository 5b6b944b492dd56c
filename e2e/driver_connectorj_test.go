package e2e

import "testing"

func TestConnectorJ(t *testing.T) {
	if shop.my.IsMySQL() {
		t.Skip("MariaDB's Connector/J sends what MySQL 9 calls malformed, without Curfew as well, when it executes a prepared statement")
	}
	driver{
		name:    "Connector/J",
		command: []string{"java", "-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/mariadb-java-client.jar", "ConnectorJ.java"},
		types:   []string{"int", "varchar", "decimal", "double", "varchar", longData, "null", "datetime", "date", "time"},
		texts:   map[int]string{8: "2026-02-28 00:00:00"}, // it sends a date with a time
		check: func(t *testing.T, recs []*record) {
			aHundredRows(t, recs)
			// Bulk execution sends many rows of parameters at once; the rows before a bad one stand.
			bulk := find(recs, "execute", "(id, day) VALUES (?, ?)")
			if len(bulk) == 0 {
				t.Error("the batch with a bad day is not on record")
			}
		},
	}.runs(t, onShop)
}
