package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Curfew is one `curfew dev`, or `curfew serve`, as a child process. Its directory, its ports and so its truth outlive it.
type Curfew struct {
	Bin     string
	Dir     string   // of the data
	API     string   // host:port
	Listen  []string // host:port for PostgreSQL's clients, TARGET=host:port for those of a MariaDB
	Targets []string // NAME=URL
	Env     []string // beside this process's own
	Webhook string   // that is told what happens; empty: none
	Ops     string   // host:port of /healthz, /readyz and /metrics; empty: nowhere
	Config  string   // path of the configuration of a `curfew serve`; empty: it is a `curfew dev`

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone and waited for
}

// NewCurfew takes free ports and writes the stories' policy for the targets, NAME=URL each; Start starts it.
func NewCurfew(bin, dir string, targets ...string) (*Curfew, error) {
	c := &Curfew{Bin: bin, Dir: dir, Targets: targets}
	var err error
	if c.API, err = FreeAddr(); err != nil {
		return nil, err
	}
	if c.Ops, err = FreeAddr(); err != nil {
		return nil, err
	}
	for _, t := range targets {
		addr, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		if name, _, _ := strings.Cut(t, "="); name != Orders {
			addr = name + "=" + addr
		}
		c.Listen = append(c.Listen, addr)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return c, os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(c.Policy()), 0o600)
}

// Start starts the process and waits until it is ready. It ends early when the process does.
func (c *Curfew) Start(ctx context.Context) error {
	if err := c.Launch(); err != nil {
		return err
	}
	ready := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.API+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		if err := res.Body.Close(); err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz says %s", res.Status)
		}
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-c.exited:
			cancel(errors.New("the process ended"))
		case <-ctx.Done():
		}
	}()
	if err := Eventually(ctx, 30*time.Second, ready); err != nil {
		return fmt.Errorf("curfew dev did not become ready: %w (%w)\n%s", err, context.Cause(ctx), c.Log())
	}
	return nil
}

// Launch starts the process and waits for nothing.
func (c *Curfew) Launch() error {
	args := []string{"dev", "--dir", c.Dir, "--api", c.API, "--yes"}
	for _, l := range c.Listen {
		args = append(args, "--listen", l)
	}
	for _, t := range c.Targets {
		args = append(args, "--target", t)
	}
	if c.Ops != "" {
		args = append(args, "--ops", c.Ops)
	}
	if c.Webhook != "" {
		args = append(args, "--notify-webhook", c.Webhook)
	}
	if c.Config != "" {
		args = []string{"serve", "--config", c.Config}
	}
	logFile, err := os.OpenFile(c.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	c.cmd = exec.Command(c.Bin, args...) // its life hangs on Stop and Kill, not on a context
	c.cmd.Env = append(os.Environ(), c.Env...)
	c.cmd.Stdout, c.cmd.Stderr = logFile, logFile
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	cmd, exited := c.cmd, make(chan struct{})
	c.exited = exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	return nil
}

func (c *Curfew) logPath() string { return c.Dir + ".log" }

// Log gives the end of what all the processes so far have logged, and have said on their terminal.
func (c *Curfew) Log() string { return c.logs(8000) }

// logs gives the end of each log, as much of it as is said.
func (c *Curfew) logs(most int) string {
	var all []byte
	paths := []string{c.logPath()}
	if c.Config == "" {
		paths = append([]string{filepath.Join(c.Dir, "curfew.log")}, paths...)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			text = []byte(err.Error())
		}
		if i := len(text) - most; i > 0 {
			text = text[i:]
		}
		all = append(append(all, bytes.TrimSpace(text)...), '\n')
	}
	return string(all)
}

// Kill is kill -9.
func (c *Curfew) Kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.exited
	return nil
}

// Reload asks the process to read its policy again.
func (c *Curfew) Reload() error { return c.cmd.Process.Signal(syscall.SIGHUP) }

// Exited is closed when the process that was started last is gone.
func (c *Curfew) Exited() <-chan struct{} { return c.exited }

// PID is the process's that was started last.
func (c *Curfew) PID() int { return c.cmd.Process.Pid }

// PeakMemory is the most that the process has had resident so far, in bytes.
func (c *Curfew) PeakMemory() (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kib, err := strconv.Atoi(f[1])
			return kib << 10, err
		}
	}
	return 0, errors.New("the kernel does not tell the process's peak memory")
}

// Stop asks the process to drain, and reports one that did not end well within 30 s.
func (c *Curfew) Stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.exited:
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("curfew did not stop within 30 s of SIGTERM:\n"+c.Log()), c.Kill())
	}
	if s := c.cmd.ProcessState; !s.Success() {
		return fmt.Errorf("curfew ended with %s:\n%s", s, c.Log())
	}
	return nil
}

// Policy is the stories' own, for the targets of this Curfew: everything a developer may ask for needs a
// lead's word; the owner's level needs two people's.
func (c *Curfew) Policy() string {
	var names []string
	levels := "targets:\n"
	for _, t := range c.Targets {
		name, _, _ := strings.Cut(t, "=")
		names = append(names, name)
		levels += targetLevels[name]
	}
	policy := "# The stories' policy.\n" + levels + strings.ReplaceAll(rules, "TARGETS", strings.Join(names, ", "))
	if slices.Contains(names, Shop) {
		policy += loaders
	}
	return policy + readers
}

// Orders and Shop are the targets of the stories, and the databases behind them: a PostgreSQL and a MariaDB.
const (
	Orders = "orders"
	Shop   = "shop"
)

var targetLevels = map[string]string{
	Orders: `  orders:
    levels:
      reader: {roles: [orders_reader]}
      writer: {roles: [orders_writer]}
      owner: {roles: [orders_owner], set_role: true}
      migrator: {roles: [orders_writer], prepared_transactions: true}
      idler: {roles: [orders_writer], idle: 2s}
      counted: {roles: [orders_writer]}
      brief: {roles: [orders_writer]}
      glass: {roles: [orders_owner]}
      keeper: {roles: [orders_writer]}
`,
	Shop: `  shop:
    levels:
      reader: {roles: [shop_reader]}
      writer: {roles: [shop_writer], sessions: 40}
      owner: {roles: [shop_owner]}
      migrator: {roles: [shop_writer], prepared_transactions: true}
      idler: {roles: [shop_writer], idle: 2s}
      keeper: {roles: [shop_writer]}
      loader: {roles: [shop_writer], local_infile: true}
      counted: {roles: [shop_writer]}
      brief: {roles: [shop_writer]}
      glass: {roles: [shop_owner]}
`,
}

const rules = `rules:
  - name: developers
    who: {groups: [developers, leads]}
    targets: [TARGETS]
    levels: [reader, writer, migrator]
    longest: 1h
    reason: required
    approvals: {count: 1, from: {groups: [leads, developers]}}
  - name: idlers
    who: {groups: [developers]}
    targets: [TARGETS]
    levels: [idler]
    longest: 1h
    reason: required
    approvals: {count: 1, from: {groups: [leads]}}
  - name: keepers
    who: {groups: [developers]}
    targets: [TARGETS]
    levels: [keeper]
    longest: 1h
    reason: required
    mfa: {acr: ["urn:curfew:mfa"], within: 15m}
    approvals: {count: 1, from: {groups: [leads]}, mfa: {acr: ["urn:curfew:mfa"], within: 15m}}
  - name: owners
    who: {groups: [developers]}
    targets: [TARGETS]
    levels: [owner]
    longest: 30m
    reason: required
    approvals: {count: 2, from: {groups: [leads, security]}}
  - name: counted
    who: {groups: [developers]}
    targets: [TARGETS]
    levels: [counted]
    longest: 1h
    approvals: {count: 0}
    limits: {sessions: 2, rows: 50, bytes: 1MB}
    record: {parameters: types}
    review: {within: 24h}
  - name: brief
    who: {groups: [developers]}
    targets: [TARGETS]
    levels: [brief]
    longest: 1h
    approvals: {count: 0}
    ends: with-last-session
  - name: emergencies
    who: {groups: [developers]}
    targets: [TARGETS]
    levels: [glass]
    longest: 15m
    break_glass: true
    mfa: {acr: ["urn:curfew:mfa"]}
    approvals: {count: 0}
    review: {within: 24h}
`

const loaders = `  - name: loaders
    who: {groups: [developers]}
    targets: [shop]
    levels: [loader]
    longest: 1h
    reason: required
    approvals: {count: 1, from: {groups: [leads]}}
`

const readers = `readers:
  - who: {groups: [security]}
    targets: ["*"]
`
