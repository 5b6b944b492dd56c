package mysql

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// odd is credentials of which every part needs care.
func odd() protocol.Credentials {
	return protocol.Credentials{Host: "::1", Port: 7306, User: `g"1`, Password: `p#w\t'x" ü`, Database: `my 'db`,
		TLS: protocol.TLSVerify, CAFile: `/home/a b/ü#"1.pem`}
}

// stockPrograms are the clients that this machine has; CURFEW_MYSQL_CLIENTS names more.
func stockPrograms(t *testing.T) (found []string) {
	for _, name := range append(strings.Fields(os.Getenv("CURFEW_MYSQL_CLIENTS")), "mariadb", "mysql") {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Fatal("no client of MariaDB or MySQL: apt-get install mariadb-client")
	}
	return found
}

// person keeps private files in a directory of the test, which is the home, too.
func person(t *testing.T, myCnf string) (protocol.Person, func() string) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".my.cnf"), []byte(myCnf), 0o600); err != nil {
		t.Fatal(err)
	}
	written := ""
	return protocol.Person{Home: home, Private: func(text string) (string, error) {
		written = text
		path := filepath.Join(home, "private file")
		return path, os.WriteFile(path, []byte(text), 0o600)
	}}, func() string { return written }
}

// The installed clients read each value as it is, our own after whatever the person's ~/.my.cnf says, and
// what the person has set beside it stays.
func TestClientsReadTheOptions(t *testing.T) {
	for _, program := range stockPrograms(t) {
		p, _ := person(t, "[client]\nhost=prod\nport=1\nuser=root\npassword=evil\nskip-ssl\n[mysql]\ndatabase=prod\nprompt=mine\n")
		c := odd()
		r, err := runClient(t.Context(), program, c, p)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, append(r.Args, "--print-defaults")...)
		cmd.Env = r.Environ(append(os.Environ(), "HOME="+p.Home, "MYSQL_HOST=prod", "MYSQL_PWD=evil"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
		last := func(name string) string { // of several, the last one holds
			_, value, found := "", "", false
			for _, line := range strings.Split(string(out), "\n") {
				if i := strings.LastIndex(" "+line, " --"+name+"="); i >= 0 {
					value, found = line[i+len("--"+name+"="):], true
				}
			}
			if !found {
				t.Errorf("%s has no %s: %s", program, name, out)
			}
			return value
		}
		for name, want := range map[string]string{"host": c.Host, "port": "7306", "user": c.User, "database": c.Database,
			"protocol": "tcp", "ssl-ca": c.CAFile, "prompt": "mine"} {
			if got := last(name); !strings.HasPrefix(got, want+" ") && got != want {
				t.Errorf("%s: %s is %q, want %q", program, name, got, want)
			}
		}
		if got := last("password"); !strings.HasPrefix(got, c.Password+" ") && !strings.HasPrefix(got, "*****") { // MySQL's own hide it
			t.Errorf("%s: password %q", program, got)
		}
		all := string(out)
		if !strings.Contains(all, "--ssl-mode=VERIFY_IDENTITY") && !strings.Contains(all, "--loose-ssl-mode=VERIFY_IDENTITY") &&
			strings.LastIndex(all, " --ssl-verify-server-cert") < strings.LastIndex(all, "skip-ssl") {
			t.Errorf("%s does not verify: %s", program, all)
		}
		if strings.Contains(strings.Join(r.Args, " "), c.Password) {
			t.Errorf("the password stands in the arguments: %q", r.Args)
		}
	}
}

// A client says nothing that it didn't say without us: no option is unknown to it.
func TestClientsDontComplain(t *testing.T) {
	for _, program := range stockPrograms(t) {
		for _, tls := range []string{protocol.TLSOff, protocol.TLSVerify} {
			p, _ := person(t, "")
			r, err := runClient(t.Context(), program, protocol.Credentials{Host: "127.0.0.1", Port: 1, User: "g1", Password: "x", Database: "d", TLS: tls}, p)
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(program, append(r.Args, "-e", "SELECT 1")...).CombinedOutput()
			if err == nil || strings.Contains(string(out), "unknown") || strings.Contains(string(out), "arning") || !strings.Contains(string(out), "127.0.0.1") {
				t.Errorf("%s, %s: %v\n%s", program, tls, err, out)
			}
		}
	}
}

// MySQL's own clients and MariaDB's are told in their words; one that doesn't say whose it is, in both.
func TestRunClientByFlavour(t *testing.T) {
	const files = "Default options are read from the following files in the given order:\n/nowhere/my.cnf ~/.my.cnf \n"
	for name, c := range map[string]struct {
		help, want string
	}{
		"mariadb": {"x from 11.8.6-MariaDB, client 15.2\n" + files, "!include HOME/.my.cnf\n[client]\nhost=\"h\"\nport=\"1\"\nprotocol=\"tcp\"\nuser=\"u\"\npassword=\"p\"\n[client-mariadb]\nskip-ssl\nskip-ssl-verify-server-cert\n"},
		"mysql":   {"x Ver 9.7.4 for Linux\n" + files, "!include HOME/.my.cnf\n[client]\nhost=\"h\"\nport=\"1\"\nprotocol=\"tcp\"\nuser=\"u\"\npassword=\"p\"\nloose-ssl-mode=DISABLED\n[client-mariadb]\nskip-ssl\nskip-ssl-verify-server-cert\n"},
		"none":    {"", "[client]\nhost=\"h\"\nport=\"1\"\nprotocol=\"tcp\"\nuser=\"u\"\npassword=\"p\"\nloose-ssl-mode=DISABLED\n[client-mariadb]\nskip-ssl\nskip-ssl-verify-server-cert\n"},
	} {
		p, written := person(t, "[client]\n")
		program := filepath.Join(p.Home, "client")
		script := "#!/bin/sh\ncat <<'END'\n" + c.help + "END\n"
		if c.help == "" {
			script = "#!/bin/sh\nexit 1\n"
		}
		if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		r, err := runClient(t.Context(), program, protocol.Credentials{Host: "h", Port: 1, User: "u", Password: "p", TLS: protocol.TLSOff}, p)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.ReplaceAll(c.want, "HOME", p.Home); written() != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, written(), want)
		}
		if len(r.Args) != 1 || r.Args[0] != "--defaults-file="+filepath.Join(p.Home, "private file") {
			t.Errorf("%q", r.Args)
		}
		env := r.Environ([]string{"MYSQL_PWD=x", "MYSQL_HOST=prod", "MYSQL_TEST_LOGIN_FILE=/home/a/.mylogin.cnf", "CURFEW_TOKEN=t", "TERM=vt100"})
		if want := []string{"TERM=vt100", "MYSQL_TEST_LOGIN_FILE=" + filepath.Join(p.Home, "private file.none")}; !slices.Equal(env, want) {
			t.Errorf("%q", env)
		}
	}
	full := errors.New("no space left on device")
	_, err := runClient(t.Context(), "/nowhere", odd(), protocol.Person{Private: func(string) (string, error) { return "", full }})
	if !errors.Is(err, full) {
		t.Error(err)
	}
}

func TestPrintCredentials(t *testing.T) {
	c := odd()
	for format, want := range map[string]string{
		"cnf": "[client]\nhost=\"::1\"\nport=\"7306\"\nprotocol=\"tcp\"\nuser=\"g\\\"1\"\npassword=\"p#w\\\\t'x\\\" ü\"\n" +
			"ssl-ca=\"/home/a b/ü#\\\"1.pem\"\nloose-ssl-mode=VERIFY_IDENTITY\n[client-mariadb]\nssl\nssl-verify-server-cert\n[mysql]\ndatabase=\"my 'db\"\n",
		"env": "export MYSQL_HOST='::1'\nexport MYSQL_TCP_PORT='7306'\nexport MYSQL_USER='g\"1'\nexport MYSQL_PWD='p#w\\t'\\''x\" ü'\n" +
			"export MYSQL_DATABASE='my '\\''db'\nexport MYSQL_SSL_MODE='VERIFY_IDENTITY'\nexport MYSQL_SSL_CA='/home/a b/ü#\"1.pem'\n",
		"dsn": "mysql://g%221:p%23w%5Ct%27x%22%20%C3%BC@[::1]:7306/my%20%27db?ssl-ca=%2Fhome%2Fa%20b%2F%C3%BC%23%221.pem&ssl-mode=VERIFY_IDENTITY\n",
	} {
		if got := printCredentials(c, format); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", format, got, want)
		}
		if !slices.Contains(stockClient().Formats, format) {
			t.Errorf("%s is not offered", format)
		}
	}
	u, err := url.Parse(strings.TrimSpace(printCredentials(c, "dsn")))
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := u.User.Password(); p != c.Password || u.User.Username() != c.User || u.Path != "/"+c.Database || u.Query().Get("ssl-ca") != c.CAFile {
		b, _ := json.Marshal(u)
		t.Errorf("%s", b)
	}
	c.TLS, c.CAFile = protocol.TLSOff, ""
	if got := printCredentials(c, "dsn"); !strings.HasSuffix(got, "?ssl-mode=DISABLED\n") {
		t.Error(got)
	}
	// A word that a newer server may say is as strict as the strictest that we know.
	c.TLS = "verify-ca"
	if got := printCredentials(c, "dsn"); !strings.HasSuffix(got, "?ssl-mode=VERIFY_IDENTITY\n") {
		t.Error(got)
	}
}
