package mysqltest

import (
	"testing"
	"time"
)

// The server starts, answers, survives a kill with its data, and is gone afterwards.
func TestServer(t *testing.T) {
	began := time.Now()
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	t.Logf("started in %v", time.Since(began))
	ctx := t.Context()
	if err := s.SQL(ctx, "test", "CREATE TABLE t(a INT)", "INSERT INTO t VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run("max_connections=17"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Value(ctx, "test", "SELECT CONCAT_WS(' ', a, @@max_connections) FROM t")
	if err != nil || got != "7 17" {
		t.Errorf("%q %v", got, err)
	}
}
