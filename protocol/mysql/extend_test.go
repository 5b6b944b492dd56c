package mysql

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Extend moves what the server itself does at the end, and nothing else: the session goes on, and the number of
// connections is as it was.
func TestExtend(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(0)
	spec.Longer = time.Hour
	a := provision(t, e, spec)
	c := direct(t, a, "orders")
	end := spec.End.Add(30 * time.Minute)
	for range 2 {
		if err := a.Extend(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	do(t, c, "INSERT INTO orders (what) VALUES ('x')", "DELETE FROM orders WHERE what = 'x'")
	made := super(t, "", "SHOW CREATE USER "+user(spec.Name, "127.0.0.1"))
	if !strings.Contains(made, "MAX_USER_CONNECTIONS 6") || strings.Contains(made, "ACCOUNT LOCK") {
		t.Errorf("%s", made)
	}
	if testServer.IsMariaDB() {
		left := int((time.Until(end) + spec.Longer).Seconds())
		if !strings.Contains(made, fmt.Sprintf("MAX_STATEMENT_TIME %d.", left)) && !strings.Contains(made, fmt.Sprintf("MAX_STATEMENT_TIME %d.", left+1)) {
			t.Errorf("want %d seconds: %s", left, made)
		}
	} else if r, err := a.row(t.Context()); err != nil || !r.note.End.Equal(end.UTC()) {
		t.Errorf("%+v, %v", r, err)
	}
	finish(t, a)
	if err := a.Extend(t.Context(), end.Add(time.Hour)); err == nil {
		t.Error("an account that is gone was extended")
	}
}
