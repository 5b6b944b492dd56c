package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/protocol"
)

// kindOf gives the engine that a server names for a target.
func kindOf(target, engine string) (protocol.Kind, error) {
	kind, ok := engines()[engine]
	if engine == "" {
		return kind, problem(exitUnreachable, api.CodeUnavailable, "this Curfew serves no target "+target+" any more", "ask whoever runs Curfew")
	}
	if !ok {
		return kind, problem(exitFailed, "failed", fmt.Sprintf("this curfew (%s) knows no %q, which the target is", version, engine),
			"take the version of curfew that the server has")
	}
	return kind, nil
}

// findClient looks for the engine's own client in PATH, and says what to do when it isn't there.
func findClient(client protocol.StockClient, path string) (string, error) {
	for _, program := range client.Programs {
		for _, dir := range filepath.SplitList(path) {
			p, err := exec.LookPath(filepath.Join(dir, program))
			if err == nil && filepath.IsAbs(p) { // never one that lies in the working directory
				return p, nil
			}
		}
	}
	return "", problem(exitFailed, "failed", either(client.Programs)+" is not installed here",
		"install it ("+client.Install+"), or use another client: curfew request, then curfew credentials")
}

// shown gives credentials in the words that engines share.
func shown(c api.Credentials, caFile string) protocol.Credentials {
	return protocol.Credentials{Host: c.Host, Port: c.Port, User: c.User, Password: c.Password, Database: c.Database,
		TLS: c.SSLMode, CAFile: caFile}
}

// stockClient is a program that was found, and how it is run.
type stockClient struct {
	program string
	how     protocol.StockClient
}

// run runs it in the foreground with the person's own arguments and gives its exit status. What was
// written for it is gone when it has ended.
func (s stockClient) run(ctx context.Context, a *app, args []string, c protocol.Credentials) (int, error) {
	home, err := a.home()
	if err != nil {
		return exitFailed, err
	}
	var written []string
	defer func() {
		for _, path := range written {
			_ = os.Remove(path) // the password in it is void with the next, or with the grant's end
		}
	}()
	person := protocol.Person{Private: func(text string) (string, error) {
		path, err := writeTemporary(home, text)
		if err == nil {
			written = append(written, path)
		}
		return path, err
	}}
	person.Home, _ = os.UserHomeDir() // without one there are no settings of the person's own
	how, err := s.how.Run(ctx, s.program, c, person)
	if err != nil {
		return exitFailed, err
	}
	cmd := exec.Command(s.program, append(how.Args, args...)...) // not CommandContext: it lives through a Ctrl-C, and so do we
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	cmd.Env = how.Environ(os.Environ())
	return foreground(cmd, isTerminal(a.stdin))
}

// foreground waits for the program. From a terminal, Ctrl-C and Ctrl-\ reach it without us; signals sent to
// us alone are passed on.
func foreground(cmd *exec.Cmd, fromKeyboard bool) (int, error) {
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(sigs)
	if err := cmd.Start(); err != nil {
		return exitFailed, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-sigs:
			if fromKeyboard && (s == os.Interrupt || s == syscall.SIGQUIT) {
				continue
			}
			_ = cmd.Process.Signal(s) // it has ended in the meantime, if this fails
		case err := <-ended:
			return exitStatusOf(err)
		}
	}
}

func exitStatusOf(err error) (int, error) {
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		return exitDone, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// keepCA puts the CA where stock clients can read it; empty when the server sent none.
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
