//go:build dex

package dex

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/internal/provider"
)

const policyOfDex = `targets:
  orders:
    levels:
      writer: {roles: [orders_writer]}
rules:
  - {name: writers, who: {groups: [developers]}, targets: [orders], levels: [writer], longest: 30m, reason: required, mfa: {acr: ["urn:curfew:mfa"], within: 15m},
     approvals: {count: 1, from: {groups: [leads]}, mfa: {acr: ["urn:curfew:mfa"], within: 15m}}}
readers:
  - {who: {groups: [security]}, targets: ["*"]}
`

// story is a Curfew whose people log in at Dex.
type story struct {
	curfew *harness.Curfew
	homes  string
}

func newStory(t *testing.T, issuer string) *story {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "curfew")
	if err := harness.Build(t.Context(), bin, ""); err != nil {
		t.Fatal(err)
	}
	pg, err := harness.StartPostgres(t.Context(), filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Close() })
	key, err := provider.OpenKey(filepath.Join(dir, "key")) // of nobody: there are no demo identities here
	if err != nil {
		t.Fatal(err)
	}
	c, err := harness.ServingTLS(bin, filepath.Join(dir, "data"), policyOfDex, fmt.Sprintf("issuers:\n  - {url: %q, client_id: curfew-cli, mfa: declared}\n", issuer),
		&harness.Identities{Issuer: issuer, Key: key}, pg.Target())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("curfew's log:\n%s", c.Log())
		}
		_ = c.Kill()
	})
	return &story{c, filepath.Join(dir, "homes")}
}

// types is what somebody types; whenever they are told to log in, their browser does. It gives what the command says,
// and how often they had to.
func (s *story) types(t *testing.T, name string, into any, args ...string) (logins int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.curfew.Bin, append(args, "-o", "json")...)
	cmd.Env = append(os.Environ(), "CURFEW_HOME="+filepath.Join(s.homes, name))
	var out, said bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if _, page, ok := strings.Cut(lines.Text(), "Log in with your browser: "); ok {
			logins++
			res, err := http.Get(browse(t, page, name+"@example.test").String())
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: curfew %s: %v\n%s%s", name, strings.Join(args, " "), err, &said, &out)
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return logins
}

// People who log in at Dex, which asserts no MFA and no age, ask and approve under a rule that wants both: the
// configuration declares the one, a login of that moment is the other. Every record says that it was declared.
func TestDeclaredFromLoginToRecord(t *testing.T) {
	s := newStory(t, dexServer(t))
	var in struct{ Person api.Person }
	for _, name := range []string{"alice", "bob", "sam"} {
		if n := s.types(t, name, &in, "login", "--no-browser", "--server", "http://"+s.curfew.API); n != 1 || !in.Person.Declared || in.Person.ACR != "" {
			t.Fatalf("%s: %d logins, %+v", name, n, in.Person)
		}
	}
	var r api.Request
	asked := s.types(t, "alice", &r, "request", "orders", "--level", "writer", "--for", "5m", "--reason", "a story")
	if !r.Person.Declared || r.Person.ACR != "" || time.Since(r.Person.AuthTime) > time.Minute {
		t.Errorf("asked after %d logins as %+v", asked, r.Person)
	}
	decided := s.types(t, "bob", &r, "approve", r.ID)
	if r.Grant == "" || !r.Decisions[0].Person.Declared || r.Decisions[0].Person.ACR != "" {
		t.Fatalf("approved after %d logins: %+v", decided, r)
	}
	var creds harness.Credentials
	s.types(t, "alice", &creds, "credentials", r.Grant)
	if out, err := harness.Run(creds.PSQL(t.Context(), "-At", "-c", "INSERT INTO orders (item) VALUES ('declared') RETURNING current_user")); err != nil || !strings.Contains(out, r.Grant) {
		t.Fatalf("%q %v", out, err)
	}
	var g api.Grant
	s.types(t, "alice", &g, "release", r.Grant)
	s.onRecord(t, r.Grant)
}

// onRecord checks what an auditor reads.
func (s *story) onRecord(t *testing.T, grant string) {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "bundle.tar.zst")
	cmd := exec.CommandContext(t.Context(), s.curfew.Bin, "export", "--grant", grant, "--file", bundle)
	cmd.Env = append(os.Environ(), "CURFEW_HOME="+filepath.Join(s.homes, "sam"))
	if _, err := harness.Run(cmd); err != nil {
		t.Fatal(err)
	}
	ledger, err := harness.Run(exec.CommandContext(t.Context(), "tar", "-x", "--zstd", "-O", "-f", bundle, "--wildcards", "*ledger.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]int{}
	for line := range strings.Lines(ledger) {
		var e struct {
			Type string
			Data struct {
				Person struct {
					Declared bool `json:"mfa_declared"`
					ACR      string
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Data.Person.Declared && e.Data.Person.ACR == "" {
			shown[e.Type]++
		}
	}
	for _, kind := range []string{"request.created", "request.decided", "grant.created"} {
		if shown[kind] != 1 {
			t.Errorf("%s: %d of them show that MFA was declared\n%s", kind, shown[kind], ledger)
		}
	}
}
