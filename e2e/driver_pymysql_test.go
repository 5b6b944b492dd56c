package e2e

import (
	"strings"
	"testing"
)

func TestPyMySQL(t *testing.T) {
	driver{
		name:    "PyMySQL",
		command: []string{"/usr/bin/python3", "pymysql_driver.py"},
		check: func(t *testing.T, recs []*record) {
			aHundredRows(t, recs)
			insert := find(recs, "simple", "(id, big, price")
			if len(insert) != 1 {
				t.Fatalf("the INSERT of typed values is on record %d times", len(insert))
			}
			for i, c := range myTyped {
				text := c.text
				if c.name == "data" {
					text = `'\0` + "\xff" + `\'\"\\\n'`
				}
				if !strings.Contains(string(insert[0].text), text) {
					t.Errorf("value %d is not in the text on record: %q", i, insert[0].text)
				}
			}
			for _, words := range []string{"PREPARE p FROM 'SELECT ? + ?'", "EXECUTE p USING @a, @b"} {
				if len(find(recs, "simple", words)) != 1 {
					t.Errorf("%s is not on record", words)
				}
			}
		},
	}.runs(t, onShop)
}
