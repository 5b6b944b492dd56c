// Package harness puts a whole Curfew together for a story: a PostgreSQL and a MariaDB in temporary
// directories, the curfew binary as a child process in dev mode, and people who use its command line.
//
// What a story may rely on: nothing is mocked. The databases are Debian's, or those that CURFEW_POSTGRES_BIN and
// CURFEW_MYSQL_SERVER name, a MySQL in place of the MariaDB among them, run as unprivileged users;
// people act through the binary and stock clients; Kill is kill -9, and Start after it uses the same
// directory and ports. Everything that was started is gone after Close, also when a step failed.
// Nothing here sleeps to wait for something that can be observed: see Eventually.
package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/curfewdb/curfew/internal/testport"
)

// Root finds the work tree of the product: the directory above this module.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "curfew")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("the product's work tree was not found above the working directory")
}

// Build builds the static binary to out; without -trimpath, so that what the tests themselves are made of serves
// for it as well.
func Build(ctx context.Context, out string, tags string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", tags, "-o", out, "./cmd/curfew")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}
	return nil
}

// FreeAddr gives a loopback address that nobody listens on now, and that nobody else in this process is given: a
// server that is restarted finds its own free.
func FreeAddr() (string, error) {
	port, err := testport.Next()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// Eventually asks again and again, until check gives nil or the time is up; then it gives the last error
// that was not about the time. What check says when the time is up doesn't count, good or bad.
func Eventually(ctx context.Context, patience time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("the first answer took too long")
	for {
		err := check(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("not within %v: %w", patience, last)
		case err == nil:
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", patience, last)
		case <-tick.C:
		}
	}
}
