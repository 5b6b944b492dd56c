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
	most := int((time.Until(end) + spec.Longer).Seconds()) + 1
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
		var left int
		_, text, _ := strings.Cut(made, "MAX_STATEMENT_TIME ")
		if _, err := fmt.Sscanf(text, "%d.", &left); err != nil || left > most || left < int((time.Until(end)+spec.Longer).Seconds()) {
			t.Errorf("want %d seconds: %s", most, made)
		}
	} else if r, err := a.row(t.Context()); err != nil || !r.note.End.Equal(end.UTC()) {
		t.Errorf("%+v, %v", r, err)
	}
	finish(t, a)
	if err := a.Extend(t.Context(), end.Add(time.Hour)); err == nil {
		t.Error("an account that is gone was extended")
	}
}

// TestNoTimeLeft: to MariaDB no time at all means no limit.
func TestNoTimeLeft(t *testing.T) {
	a := newAccount(&Engine{}, newSpec(0))
	for _, ago := range []time.Duration{0, time.Hour} {
		if got := a.left(time.Now().Add(-ago)); got != "1" {
			t.Errorf("%s after the end there are %s seconds", ago, got)
		}
	}
}
