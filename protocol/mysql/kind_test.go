package mysql

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// A front is one target's: its greeting has that server's version. Its recordings are redacted as this SQL is written.
func TestKind(t *testing.T) {
	k := Kind()
	if !k.Pinned || k.Dialect != recorder.DialectBackslashes {
		t.Errorf("%+v", k)
	}
	if front, err := k.NewFront(protocol.ListenerConfig{}); err == nil {
		t.Errorf("a front of no target: %+v", front)
	}
	e, err := k.New(t.Context(), protocol.TargetConfig{Name: "shop", URL: "mysql://broker@127.0.0.1:1/shop?sslmode=disable"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	front, err := k.NewFront(protocol.ListenerConfig{Engine: e, RequireTLS: true, MaxMessage: 7, DecoyKey: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	if cfg := front.(*Front).cfg; cfg.Engine != e || !cfg.RequireTLS || cfg.MaxMessage != 7 || string(cfg.DecoyKey) != "k" {
		t.Errorf("%+v", cfg)
	}
	if e, err := k.New(t.Context(), protocol.TargetConfig{Name: "shop", URL: "mysql://broker:hunter2@127.0.0.1/shop"}); err == nil || e != nil {
		t.Errorf("%v, %v", e, err)
	}
}

// The MariaDB of docker-compose.yml is set up as Setup says.
func TestDeployedExampleIsSetUpAsSetupSays(t *testing.T) {
	script, err := os.ReadFile(filepath.Join("..", "..", "deploy", "mariadb", "10-shop.sh"))
	if err != nil {
		t.Fatal(err)
	}
	flat := func(sql string) string {
		return strings.ReplaceAll(strings.Join(strings.Fields(sql), " "), "IF NOT EXISTS ", "")
	}
	there, setup, n := flat(string(script)), strings.ReplaceAll(uncomment(sqlFile(true, "setup")), ":broker", "curfew_broker"), 0
	for statement := range strings.SplitSeq(strings.ReplaceAll(setup, ":roles", ""), ";") {
		statement = flat(statement)
		if statement == "" || strings.HasPrefix(statement, "CREATE USER curfew_broker") { // with a password there
			continue
		}
		if n++; !strings.Contains(there, statement+";") {
			t.Errorf("deploy/mariadb/10-shop.sh lacks: %s", statement)
		}
	}
	if n < 8 {
		t.Errorf("%d statements in the setup", n)
	}
}
