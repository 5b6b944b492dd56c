package mysql

import (
	"crypto/tls"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestParseTarget: what a URL says.
func TestParseTarget(t *testing.T) {
	for raw, want := range map[string]target{
		"mysql://broker@db.example/shop":                 {network: "tcp", address: "db.example:3306", user: "broker", database: "shop", timeout: connectTime},
		"mysql://broker@[::1]:3307?account_host=10.%25":  {network: "tcp", address: "[::1]:3307", user: "broker", accountHost: "10.%", timeout: connectTime},
		"mysql://b@h/?sslmode=disable&connect_timeout=3": {network: "tcp", address: "h:3306", user: "b", timeout: 3 * time.Second},
		"mysql://b@/shop?socket=/run/mysqld/x.sock":      {network: "unix", address: "/run/mysqld/x.sock", user: "b", database: "shop", timeout: connectTime},
		"mysql://b@/?host=/run/mysqld&sslmode=prefer":    {network: "unix", address: "/run/mysqld/mysqld.sock", user: "b", timeout: connectTime},
		"mysql://b@h/?sslmode=prefer":                    {network: "tcp", address: "h:3306", user: "b", prefer: true, timeout: connectTime},
	} {
		got, err := parseTarget(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if with := want.network == "tcp" && !strings.Contains(raw, "disable"); with != (got.tls != nil) {
			t.Errorf("%s: TLS %v", raw, got.tls != nil)
		}
		if got.tls != nil && got.tls.InsecureSkipVerify != want.prefer {
			t.Errorf("%s: the certificate is verified: %v", raw, !got.tls.InsecureSkipVerify)
		}
		got.tls = nil
		if *got != want {
			t.Errorf("%s: %+v", raw, *got)
		}
	}
	full, err := parseTarget("mysql://b@db.example/")
	if err != nil || full.tls.ServerName != "db.example" || full.tls.InsecureSkipVerify {
		t.Errorf("%+v %v", full, err)
	}
}

// TestParseTargetRefuses: every doubt is refused, and no refusal shows a password.
func TestParseTargetRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for raw, contains := range map[string]string{
		"postgres://b@h/":                             "mysql://",
		"mysql://h/":                                  "no user",
		"mysql://b:hunter2@h/":                        "password",
		"mysql://b@h/?password=hunter2":               "password",
		"mysql://b:hunter2%zz@h/":                     "not a URL",
		"mysql://b@h/?sslmode=disable;x=hunter2":      "malformed",
		"mysql://b@/shop":                             "no host",
		"mysql://b@h:0/":                              "port",
		"mysql://b@h:99999/":                          "port",
		"mysql://b@h/a/b":                             "more than one database",
		"mysql://b@h/?sslmode=maybe":                  "sslmode",
		"mysql://b@h/?sslmode=require&sslmode=prefer": "more than once",
		"mysql://b@h/?tls=skip-verify":                "no parameter",
		"mysql://b@h/?socket=/x":                      "a host and a socket",
		"mysql://b@/?socket=/x&host=/y":               "exclude",
		"mysql://b@/?host=db.example":                 "directory",
		"mysql://b@h/?connect_timeout=0":              "seconds",
		"mysql://b@h/?connect_timeout=soon":           "seconds",
		"mysql://b@h/?sslcert=/x":                     "go together",
		"mysql://b@h/?sslcert=/x&sslkey=/y":           "sslcert=/x, sslkey=/y: open /x",
		"mysql://b@h/?sslrootcert=/nonexistent":       "sslrootcert",
		"mysql://b@h/?sslrootcert=" + empty:           "no certificate",
		"mysql://b@h/?server_public_key=/nowhere":     "server_public_key",
		"mysql://b@h/?server_public_key=" + empty:     "not a PEM",
	} {
		if got, err := parseTarget(raw); err == nil || !strings.Contains(err.Error(), contains) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %+v %v", raw, got, err)
		}
	}
}

// TestPublicKeyFile: MySQL's public_key.pem, and what is none.
func TestPublicKeyFile(t *testing.T) {
	key, err := newPasswordKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "public_key.pem")
	if err := os.WriteFile(file, key.public, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := parseTarget("mysql://b@h/?server_public_key=" + file)
	if err != nil || !got.key.Equal(&key.private.PublicKey) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := parseTarget("mysql://b@h/?server_public_key=" + file); err == nil {
		t.Error("garbage passes for a key")
	}
}

// TestLevelsOfTLS: what each sslmode does without, how old TLS may be, and whether a password in full is safe.
func TestLevelsOfTLS(t *testing.T) {
	for _, c := range []struct {
		query             string
		tls, prefer, seal bool // TLS at all; clear text will do; a password in full can't be read
	}{
		{"", true, false, true}, {"?sslmode=verify-full", true, false, true}, {"?sslmode=verify-ca", true, false, true}, {"?sslmode=require", true, false, true},
		{"?sslmode=prefer", true, true, false}, {"?sslmode=disable", false, false, false},
	} {
		got, err := parseTarget("mysql://broker@db.example.com/shop" + c.query)
		if err != nil {
			t.Fatal(err)
		}
		if (got.tls != nil) != c.tls || got.prefer != c.prefer || got.unsealed() == c.seal {
			t.Errorf("%q: TLS %t, prefer %t, unsealed %t", c.query, got.tls != nil, got.prefer, got.unsealed())
		}
		if got.tls != nil && got.tls.MinVersion != tls.VersionTLS12 {
			t.Errorf("%q: TLS from %#x on", c.query, got.tls.MinVersion)
		}
	}
}
