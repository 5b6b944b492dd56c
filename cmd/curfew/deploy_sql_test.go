package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
	"github.com/curfewdb/curfew/protocol/postgres/pgtest"
)

// What docker-compose.yml runs in its databases makes, on real ones, all that `curfew check` asks for with the
// configuration and the policy that it gives Curfew.
func TestDeployedDatabases(t *testing.T) {
	pg, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Stop()
	my, err := mysqltest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer my.Stop()
	if err := pg.SQL(t.Context(), "postgres", "CREATE DATABASE orders"); err != nil {
		t.Fatal(err)
	}
	if err := my.SQL(t.Context(), "", "CREATE DATABASE shop"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put("broker.password", "of-the-broker", 0o600)
	put("mariadb-broker.password", "of-the-broker", 0o600)
	// In its container the server's socket is where its client looks, and root's.
	put("mariadb", fmt.Sprintf("#!/bin/sh\nMYSQL_PWD=%s exec %s -h127.0.0.1 -P%d -u%s shop\n", mysqltest.Password, clientPath(t), my.Port, mysqltest.Admin), 0o700)

	for _, script := range []string{"postgres/10-orders.sh", "mariadb/10-shop.sh"} {
		c := exec.CommandContext(t.Context(), "bash", filepath.Join("..", "..", "deploy", filepath.FromSlash(script)))
		c.Env = append(os.Environ(), "SHARED="+dir, "PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", pg.Port), "PGPASSWORD="+pgtest.Password,
			"MARIADB_ROOT_PASSWORD=x", "PATH="+dir+":"+os.Getenv("PATH"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	// The test's servers have no certificates.
	if err := my.SQL(t.Context(), "", "ALTER USER curfew_broker REQUIRE NONE"); err != nil {
		t.Fatal(err)
	}
	cfg := strings.NewReplacer("@postgres:5432", fmt.Sprintf("@127.0.0.1:%d", pg.Port), "sslmode=verify-full&sslrootcert=/shared/ca.pem", "sslmode=disable",
		"@mariadb:3306", fmt.Sprintf("@127.0.0.1:%d", my.Port), "?sslrootcert=/shared/ca.pem&", "?sslmode=disable&",
		"file:/shared/", "file:"+dir+"/").Replace(deployed(t, "deploy", "curfew.yaml"))
	put("policy.yaml", deployed(t, "deploy", "policy.yaml"), 0o600)
	report, err := inspectHouse(t.Context(), put("curfew.yaml", cfg, 0o600), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !report.ok() || len(report.Targets) != 2 {
		t.Errorf("curfew check finds %+v", report)
	}
}

func clientPath(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("mariadb")
	if err != nil {
		t.Fatal(err)
	}
	return path
}
