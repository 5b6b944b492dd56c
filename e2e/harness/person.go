package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/curfewdb/curfew/control/api"
)

// Person is one of the demo identities at a terminal of their own.
type Person struct {
	Name string
	Home string // CURFEW_HOME

	curfew *Curfew
}

// Login logs a demo identity in. home is a directory that the person's sessions are kept below.
func (c *Curfew) Login(ctx context.Context, name, home string) (*Person, error) {
	p := &Person{Name: name, Home: filepath.Join(home, name), curfew: c}
	if err := os.MkdirAll(p.Home, 0o700); err != nil {
		return nil, err
	}
	_, err := p.Run(ctx, "login", "--as", name)
	return p, err
}

// Command is the curfew command line as this person would type it.
func (p *Person) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.curfew.Bin, args...)
	cmd.Env = p.Env()
	return cmd
}

// Env is what this person's shell has set.
func (p *Person) Env() []string {
	return append(os.Environ(), "CURFEW_HOME="+p.Home, "CURFEW_DEV="+p.curfew.Dir, "PGPASSFILE=/nonexistent", "PSQLRC=/nonexistent", "PAGER=cat")
}

// CommandError is a command that said no: its exit code and all that it said.
type CommandError struct {
	Args   []string
	Code   int
	Stdout string
	Stderr string
}

// Error gives the command and what it said.
func (e *CommandError) Error() string {
	return fmt.Sprintf("%s: exit code %d\n%s%s", strings.Join(e.Args, " "), e.Code, e.Stdout, e.Stderr)
}

// Run runs a command to its end and gives its standard output.
func (p *Person) Run(ctx context.Context, args ...string) (string, error) {
	return Run(p.Command(ctx, args...))
}

// Run runs any command to its end and gives its standard output; an error is a *CommandError.
func Run(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return "", err
		}
		return stdout.String(), &CommandError{Args: cmd.Args, Code: exit.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	}
	return stdout.String(), nil
}

// JSON runs a command with -o json and decodes what it prints.
func (p *Person) JSON(ctx context.Context, out any, args ...string) error {
	text, err := p.Run(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), out); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return nil
}

// Ask asks for access to a target.
func (p *Person) Ask(ctx context.Context, target, level string, d time.Duration, more ...string) (api.Request, error) {
	var r api.Request
	args := append([]string{"request", target, "--level", level, "--for", d.String(), "--reason", "a story"}, more...)
	return r, p.JSON(ctx, &r, args...)
}

// Approve agrees to a request.
func (p *Person) Approve(ctx context.Context, request string) (api.Request, error) {
	var r api.Request
	return r, p.JSON(ctx, &r, "approve", request)
}

// Grant reads one grant, with its receipt once there is one.
func (p *Person) Grant(ctx context.Context, id string) (api.Grant, error) {
	var g api.Grant
	return g, p.JSON(ctx, &g, "grants", id)
}

// Granted asks, lets each approver agree, and gives the grant.
func (p *Person) Granted(ctx context.Context, target, level string, d time.Duration, approvers ...*Person) (api.Grant, error) {
	r, err := p.Ask(ctx, target, level, d)
	if err != nil {
		return api.Grant{}, err
	}
	for _, a := range approvers {
		if r, err = a.Approve(ctx, r.ID); err != nil {
			return api.Grant{}, err
		}
	}
	if r.Grant == "" {
		return api.Grant{}, fmt.Errorf("request %s is %s after %d approvals", r.ID, r.Status, len(approvers))
	}
	return p.Grant(ctx, r.Grant)
}

// Sessions lists the sessions of a grant.
func (p *Person) Sessions(ctx context.Context, grant string) ([]api.Session, error) {
	var s []api.Session
	return s, p.JSON(ctx, &s, "sessions", "--grant", grant)
}

// Credentials makes a grant password, and gives what a stock client needs beside it.
func (p *Person) Credentials(ctx context.Context, grant string) (Credentials, error) {
	var c Credentials
	return c, p.JSON(ctx, &c, "credentials", grant)
}

// VerifierKey gives the public key that the ledger's checkpoints are signed for.
func (p *Person) VerifierKey(ctx context.Context) (string, error) {
	key, err := p.Run(ctx, "key")
	return strings.TrimSpace(key), err
}
