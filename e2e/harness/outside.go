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
	"syscall"
	"time"

	"github.com/curfewdb/curfew/internal/provider"
)

// outsideEnv has the program of the tests be an identity provider instead: its kind.
const outsideEnv = "CURFEW_E2E_OUTSIDE"

// Kinds of providers.
const (
	People = "people" // with the demo identities, as in `curfew dev`
	Jobs   = "jobs"   // a CI system
)

// Outside is an identity provider that is a process of its own: it can die, hang, and come back at its address.
type Outside struct {
	Identities

	kind, addr, key string
	cmd             *exec.Cmd
}

// BeOutside runs an identity provider to the end of the process, if StartOutside has started this one; else it does
// nothing. It is what TestMain does first.
func BeOutside() {
	kind := os.Getenv(outsideEnv)
	if kind == "" {
		return
	}
	fmt.Fprintln(os.Stderr, serveOutside(kind, os.Args[1], os.Args[2]))
	os.Exit(1)
}

func serveOutside(kind, addr, keyFile string) error {
	ctx := context.Background()
	key, err := provider.OpenKey(keyFile)
	if err != nil {
		return err
	}
	ln, err := provider.Listen(ctx, addr)
	if err != nil {
		return err
	}
	if kind == Jobs {
		j, err := newJobs("http://"+addr, bytes.TrimSpace(key))
		if err != nil {
			return err
		}
		return (&http.Server{Handler: j, ReadHeaderTimeout: 10 * time.Second}).Serve(ln)
	}
	p, err := provider.New(provider.Options{Issuer: "http://" + addr, Key: key})
	if err != nil {
		return err
	}
	return p.Serve(ctx, ln)
}

// StartOutside starts one. Its administrator's key lies in dir.
func StartOutside(ctx context.Context, kind, dir string) (*Outside, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	o := &Outside{kind: kind, addr: addr, key: filepath.Join(dir, kind+".key")}
	key, err := provider.OpenKey(o.key)
	if err != nil {
		return nil, err
	}
	o.Identities = Identities{Issuer: "http://" + addr, Key: bytes.TrimSpace(key)}
	return o, o.Start(ctx)
}

// Start starts the process, again after Kill, and waits until it answers.
func (o *Outside) Start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.cmd = exec.Command(self, o.addr, o.key) // its life hangs on Kill, not on a context
	o.cmd.Env = append(os.Environ(), outsideEnv+"="+o.kind)
	o.cmd.Stderr = os.Stderr
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := o.cmd.Start(); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Issuer+"/.well-known/openid-configuration", nil)
		if err != nil {
			return err
		}
		return do(r, nil)
	})
}

// Kill is kill -9.
func (o *Outside) Kill() error {
	if err := o.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = o.cmd.Wait() // how it ended is known
	return nil
}

// Hang stops it in the middle of whatever it does: whoever asks connects, and hears nothing.
func (o *Outside) Hang() error { return o.cmd.Process.Signal(syscall.SIGSTOP) }

// GoOn ends Hang.
func (o *Outside) GoOn() error { return o.cmd.Process.Signal(syscall.SIGCONT) }
