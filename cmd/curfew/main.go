// Command curfew is the whole of Curfew: the server (curfew serve, curfew dev) and what people use it
// with. A file per command; newRoot lists them.
//
// Exit status: 0 done · 1 something failed · 2 the command line is wrong · 3 not logged in ·
// 4 forbidden, refused by the policy, or denied by a person · 5 not found · 6 not in a state for this any
// more (lapsed, cancelled, ended) · 7 the server can't be reached or can't do its work now ·
// 8 verify, check or policy found something · 130 interrupted. connect gives the client's own status once that ran.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	a := &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		env: os.Getenv, now: time.Now, inspect: inspectHouse,
	}
	status := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

// app is one run of the command: everything that it takes from the world around it.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	now            func() time.Time
	inspect        inspector // for check

	output string // -o
	server string // --server
	ca     string // --ca

	tokenFile string // --token-file
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.newRoot()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	return a.fail(cmd, err, ctx.Err() != nil)
}

// newRoot adds the commands that there are. Each command's file has a function that makes it.
func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "curfew",
		Short: "Just-in-time access to databases",
		Long: `Curfew gives people access to a database for a while: ask, have it approved, connect with
the client you know, be cut off at the database when the time is up, and prove it.

` + exitStatusHelp,
		Example: `  curfew login --server https://curfew.example.com
  curfew connect orders --level writer --for 30m --reason "fix order 4711"
  curfew requests --open
  curfew approve r4k2m9x0aaa`,
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	f := root.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", "", `how to print: table (default) or json; errors too`)
	f.StringVar(&a.server, "server", "", "address of the Curfew server (CURFEW_SERVER; default: that of the last login)")
	f.StringVar(&a.tokenFile, "token-file", "", "file with the token to show, of a CI job for example (or CURFEW_TOKEN; default: that of the last login)")
	f.StringVar(&a.ca, "ca", "", "PEM file of the CA that vouches for the server (CURFEW_CA; default: the system's)")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return &usageError{c, err} })
	root.AddGroup(
		&cobra.Group{ID: groupAccess, Title: "Get access:"},
		&cobra.Group{ID: groupDecide, Title: "Decide:"},
		&cobra.Group{ID: groupProve, Title: "Read and prove:"},
		&cobra.Group{ID: groupServe, Title: "Run Curfew:"},
	)
	a.add(root, groupAccess, newLogin, newWhoami, newLogout, newTargets, newRequest, newConnect, newGrants, newCredentials, newExtend, newRelease)
	a.add(root, groupDecide, newRequests, newApprove, newDeny, newComment, newCancel, newRevoke, newReviews, newReview)
	a.add(root, groupProve, newSessions, newReplay, newReport, newExport, newVerify, newKey, newCheckpoint)
	a.add(root, groupServe, newServe, newDev, newStatus, newBackup, newPolicy, newVersion)
	if a.inspect != nil {
		a.add(root, groupServe, newCheck)
	}
	return root
}

const (
	groupAccess = "access"
	groupDecide = "decide"
	groupProve  = "prove"
	groupServe  = "serve"
)

// add makes each command and sees to what all of them share: wrong arguments are usage errors.
func (a *app) add(root *cobra.Command, group string, commands ...func(*app) *cobra.Command) {
	for _, newCommand := range commands {
		c := newCommand(a)
		c.GroupID = group
		for _, one := range append(c.Commands(), c) {
			judgeArgs(one)
		}
		root.AddCommand(c)
	}
}

// judgeArgs has wrong arguments of a command be usage errors.
func judgeArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		return
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &usageError{c, err}
		}
		return nil
	}
}

// usageError is a command line that says what can't be done.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// exitError ends the command with a status and, when there is something left to say, a problem.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *exitError) Unwrap() error { return e.err }

// isUsage also knows cobra's own complaints, which have no type.
func isUsage(err error) bool {
	var u *usageError
	return errors.As(err, &u) || strings.HasPrefix(err.Error(), "unknown command ") ||
		strings.HasPrefix(err.Error(), "required flag(s) ") || strings.Contains(err.Error(), "flags in the group")
}
