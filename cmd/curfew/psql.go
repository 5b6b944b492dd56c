package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/curfewdb/curfew/control/api"
)

// findPsql looks in PATH, and says what to do when it isn't there.
func findPsql(path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		p, err := exec.LookPath(filepath.Join(dir, "psql"))
		if err == nil && filepath.IsAbs(p) { // never one that lies in the working directory
			return p, nil
		}
	}
	return "", problem(exitFailed, "failed", "psql is not installed here",
		"install it (Debian: apt install postgresql-client), or use another client: curfew request, then curfew credentials")
}

// elsewhere lists variables by which libpq would go to another server, with another login, or log in with
// what isn't ours.
var elsewhere = []string{
	"PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGREQUIRESSL", "PGREQUIREPEER", "PGREQUIREAUTH",
	"PGSSLCERT", "PGSSLKEY", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLROOTCERT", "PGSSLMODE", "PGSSLSNI",
	"PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGKRBSRVNAME", "PGGSSENCMODE", "PGGSSLIB", "PGSSLNEGOTIATION",
	"PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE",
}

// psqlEnv is the environment of psql alone: the password stands nowhere else, least of all in its arguments.
func psqlEnv(environ []string, c api.Credentials, caFile string) []string {
	var out []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if slices.Contains(elsewhere, name) || strings.HasPrefix(name, "CURFEW_") {
			continue
		}
		out = append(out, kv)
	}
	out = append(out, "PGHOST="+c.Host, "PGPORT="+strconv.Itoa(c.Port), "PGUSER="+c.User,
		"PGPASSWORD="+c.Password, "PGDATABASE="+c.Database, "PGGSSENCMODE=disable")
	if c.SSLMode != "" {
		out = append(out, "PGSSLMODE="+c.SSLMode)
	}
	if caFile != "" {
		out = append(out, "PGSSLROOTCERT="+caFile)
	}
	return out
}

// runPsql runs it in the foreground and gives its exit status.
func runPsql(a *app, psql string, args []string, c api.Credentials, caFile string) (int, error) {
	cmd := exec.Command(psql, args...) // not CommandContext: psql lives through a Ctrl-C, and so do we
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	cmd.Env = psqlEnv(os.Environ(), c, caFile)

	// From a terminal, Ctrl-C and Ctrl-\ reach psql without us; signals sent to us alone are passed on.
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(sigs)
	if err := cmd.Start(); err != nil {
		return exitFailed, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	fromKeyboard := isTerminal(a.stdin)
	for {
		select {
		case s := <-sigs:
			if fromKeyboard && (s == os.Interrupt || s == syscall.SIGQUIT) {
				continue
			}
			_ = cmd.Process.Signal(s) // it has ended in the meantime, if this fails
		case err := <-ended:
			return psqlStatus(err)
		}
	}
}

func psqlStatus(err error) (int, error) {
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		return exitDone, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// keepCA puts the CA where libpq can read it; empty when the server sent none.
func (a *app) keepCA(c api.Credentials) (string, error) {
	if c.CA == "" {
		return "", nil
	}
	home, err := a.home()
	if err != nil {
		return "", err
	}
	path := filepath.Join(home, "ca", fileName(net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))+".pem")
	return path, writePrivate(path, []byte(c.CA))
}

// fileName keeps what is harmless in a file's name.
func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, strings.TrimLeft(s, "."))
}
