package postgres

import (
	"encoding/json"
	"testing"
	"time"
)

// Extend moves what the server itself does at the end, and nothing else: the session goes on, the note keeps
// from when on what is new is the account's, and the timeouts leave room for one more extension.
func TestExtend(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(0)
	spec.Longer = 2 * time.Hour
	a := provision(t, e, spec)
	c := login(t, a, "orders")
	read := func() (until time.Time, limit int, n note) {
		t.Helper()
		var comment string
		err := c.QueryRow(t.Context(), `SELECT rolvaliduntil, rolconnlimit, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = current_user`).Scan(&until, &limit, &comment)
		if err == nil {
			err = json.Unmarshal([]byte(comment), &n)
		}
		if err != nil {
			t.Fatal(err)
		}
		return until, limit, n
	}
	_, limit, was := read()
	end := spec.End.Add(30 * time.Minute)
	for range 2 {
		if err := a.Extend(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	until, still, now := read()
	if until.Sub(end).Abs() > time.Millisecond || !now.End.Equal(end.UTC()) || now.Since != was.Since || now.Grant != was.Grant || still != limit {
		t.Errorf("valid until %v, %d connections, %+v; before %d, %+v", until, still, now, limit, was)
	}
	exec(t, c, "INSERT INTO orders (what) VALUES ('x')", "DELETE FROM orders WHERE what = 'x'")
	var ms int64
	if err := login(t, a, "orders").QueryRow(t.Context(), "SELECT setting::bigint FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'").Scan(&ms); err != nil {
		t.Fatal(err)
	}
	want := time.Until(end) + spec.Longer + deadManWaits
	if got := time.Duration(ms) * time.Millisecond; got < want-time.Minute || got > want+time.Minute {
		t.Errorf("a transaction may idle for %v, want %v", got, want)
	}
	finish(t, a)
	if err := a.Extend(t.Context(), end.Add(time.Hour)); err == nil {
		t.Error("an account that is gone was extended")
	}
}
