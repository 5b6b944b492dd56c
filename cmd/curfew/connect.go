package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

type connectFlags struct {
	ask      askFlags
	once     bool
	database string
	args     []string // the client's own
}

func newConnect(a *app) *cobra.Command {
	var f connectFlags
	c := &cobra.Command{
		Use:   "connect TARGET [flags] [-- the client's arguments]",
		Short: "Ask, wait, and run the database's own client: all in one",
		Long: `Runs the database's own client on a target: ` + clientsHelp() + `.
An active grant of yours is used; without one, it asks for access, waits for the decision, and
goes on when it is approved. Interrupted while waiting, the request stays open: the same command
goes on where it was.

The client is the one that you have, with your own settings of it; the password is never among
its arguments. When it ends, connect offers to release the grant; --once does so without asking.
Each run makes a new grant password, and older ones are void: sessions that are open go on, but
can't log in anew.`,
		Example: `  curfew connect orders --level writer --for 30m --reason "fix order 4711"
  curfew connect orders --once -- -c "select count(*) from orders"     # psql's arguments
  curfew connect shop --once -- -e "select count(*) from baskets"      # mariadb's and mysql's`,
		Args: func(cmd *cobra.Command, args []string) error {
			n := cmd.ArgsLenAtDash()
			if n < 0 {
				n = len(args)
			}
			if n != 1 {
				return fmt.Errorf("one target is needed, got %d arguments; the client's own go behind --", n)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f.args = args[1:]
			return a.connect(cmd.Context(), args[0], f)
		},
	}
	f.ask.bind(c)
	c.Flags().BoolVar(&f.once, "once", false, "release the grant when the client ends")
	c.Flags().StringVarP(&f.database, "dbname", "d", "", "database to connect to (default: the target's)")
	return c
}

func (a *app) connect(ctx context.Context, target string, f connectFlags) error {
	if _, err := a.format("table", "json"); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := a.preview(ctx, c, target); err != nil {
		return err // before anybody is asked to approve something that can't be used
	}
	g, err := a.obtain(ctx, c, target, f.ask)
	if err != nil {
		return err
	}
	client, err := a.clientOf(target, g.Engine)
	if err != nil {
		return err // before the old password is voided
	}
	creds, err := c.Password(ctx, g.ID)
	if err != nil {
		return err
	}
	if f.database != "" {
		creds.Database = f.database
	}
	caFile, err := a.keepCA(creds)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "%s as %s until %s, under grant %s. Everything is recorded.\n",
		visible(g.Target), visible(g.Level), a.when(g.End), g.ID)
	status, err := client.run(ctx, a, f.args, shown(creds, caFile))
	if err != nil {
		return err
	}
	// What follows must also happen after a Ctrl-C that was meant for the client.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt)
	defer stop()
	if err := a.afterwards(ctx, c, g.ID, f.once); err != nil && status == exitDone {
		return err
	} else if err != nil {
		a.fail(nil, err, false) // the client's status is the one that scripts look at
	}
	if status != exitDone {
		return &exitError{status: status}
	}
	return nil
}

// preview sees to it that the target's client is here, where the target is one that may be asked for.
func (a *app) preview(ctx context.Context, c *api.Client, target string) error {
	targets, err := c.Targets(ctx)
	if err != nil {
		return err
	}
	for _, t := range targets {
		if t.Name == target {
			_, err := a.clientOf(target, t.Engine)
			return err
		}
	}
	return nil // an active grant may be there all the same; without one, asking says what is wrong
}

// clientOf finds the client of an engine.
func (a *app) clientOf(target, engine string) (stockClient, error) {
	kind, err := kindOf(target, engine)
	if err != nil {
		return stockClient{}, err
	}
	program, err := findClient(kind.Client, a.env("PATH"))
	return stockClient{program, kind.Client}, err
}

// obtain gives an active grant: one that is there, or one that is asked and waited for.
func (a *app) obtain(ctx context.Context, c *api.Client, target string, f askFlags) (api.Grant, error) {
	g, ok, err := a.activeGrant(ctx, c, target, f.level)
	if err != nil || ok {
		return g, err
	}
	ask, err := a.newAsk(ctx, c, target, f)
	if err != nil {
		return g, err
	}
	r, ok, err := openRequest(ctx, c, ask)
	if err != nil {
		return g, err
	}
	if ok {
		fmt.Fprintf(a.stderr, "Your request %s from %s is still open.\n", r.ID, a.when(r.Created))
	} else if r, err = c.Ask(ctx, ask); err != nil {
		return g, err
	}
	if r.Status == "open" {
		if r, err = a.awaitDecision(ctx, c, r); err != nil {
			return g, err
		}
	}
	g, err = c.Grant(ctx, r.Grant)
	if err != nil {
		return g, err
	}
	switch g.Status {
	case api.GrantEnded:
		return g, problem(exitConflict, api.CodeConflict, fmt.Sprintf("grant %s has ended already: %s", g.ID, g.EndReason), "ask again: curfew connect "+target)
	case api.GrantScheduled:
		return g, problem(exitConflict, api.CodeConflict, fmt.Sprintf("grant %s begins %s", g.ID, a.when(g.Start)), "connect then: curfew connect "+target)
	}
	return g, nil
}

// activeGrant gives the person's own grant that lasts longest.
func (a *app) activeGrant(ctx context.Context, c *api.Client, target, level string) (best api.Grant, ok bool, err error) {
	grants, err := c.Grants(ctx, api.GrantFilter{Active: true, Mine: true, Target: target})
	for _, g := range grants {
		if g.Target != target || g.Status != api.GrantActive || level != "" && g.Level != level {
			continue
		}
		if !ok || g.End.After(best.End) {
			best, ok = g, true
		}
	}
	return best, ok, err
}

// openRequest finds the request that an earlier run left waiting: the same wish, at once, not another.
func openRequest(ctx context.Context, c *api.Client, ask api.Ask) (api.Request, bool, error) {
	requests, err := c.Requests(ctx, api.RequestFilter{Status: "open", Mine: true, Target: ask.Target})
	for _, r := range requests {
		if r.Status == "open" && r.Target == ask.Target && r.Level == ask.Level && r.Duration == ask.Duration &&
			r.Start.IsZero() && (ask.Reason == "" || r.Reason == ask.Reason) {
			return r, true, nil
		}
	}
	return api.Request{}, false, err
}

// afterwards tells what became of the grant, and releases it when the person is done.
func (a *app) afterwards(ctx context.Context, c *api.Client, grant string, once bool) error {
	g, err := c.Grant(ctx, grant)
	if err != nil {
		return err
	}
	if g.Status != api.GrantActive {
		fmt.Fprintf(a.stderr, "Grant %s ended %s: %s\n", g.ID, a.when(g.Ended), visible(first(g.EndReason, g.EndCode, "its time was up")))
		return nil
	}
	if !once {
		if !isTerminal(a.stdin) || !isTerminal(a.stderr) {
			fmt.Fprintf(a.stderr, "Grant %s goes on until %s. Done? curfew release %s\n", g.ID, a.when(g.End), g.ID)
			return nil
		}
		yes, err := a.confirm(fmt.Sprintf("Grant %s goes on until %s. Done with it: release it now?", g.ID, a.when(g.End)), true)
		if err != nil || !yes {
			return err
		}
	}
	if _, err := c.Release(ctx, g.ID); err != nil && !hasCode(err, api.CodeConflict) {
		return err
	}
	fmt.Fprintf(a.stderr, "Grant %s is released.\n", g.ID)
	return nil
}

// awaitDecision waits until the request is not open any more, and tells meanwhile who can decide it.
func (a *app) awaitDecision(ctx context.Context, c *api.Client, r api.Request) (api.Request, error) {
	p := a.newProgress()
	defer p.done()
	for r.Status == "open" {
		p.say(fmt.Sprintf("Request %s waits for %s; lapses %s. Approve: curfew approve %s",
			r.ID, visible(api.ShowApprovals(r.Missing, r.Approvers)), a.when(r.Lapses), r.ID), r.Missing)
		next, err := c.Request(ctx, r.ID, p.patience())
		switch {
		case err == nil:
			r = next
		case ctx.Err() != nil:
			p.done()
			return r, problem(exitInterrupted, "interrupted", "stopped waiting; request "+r.ID+" stays open",
				"go on: curfew connect "+r.Target+" --level "+r.Level+", or withdraw it: curfew cancel "+r.ID)
		case hasCode(err, api.CodeUnreachable), hasCode(err, api.CodeUnavailable):
			// The request is safe at the server; a restart or a broken network shouldn't end the wait.
			p.say("The server can't be reached; trying again. ("+visible(err.Error())+")", -1)
			if err := pause(ctx, 2*time.Second); err != nil {
				continue // the next call fails and says that it was interrupted
			}
		default:
			return r, err
		}
	}
	return r, a.decided(r)
}

// decided turns the three ways in which nothing was granted into errors.
func (a *app) decided(r api.Request) error {
	ask := "ask again: curfew request " + r.Target + " --level " + r.Level
	switch r.Status {
	case "denied":
		said := "request " + r.ID + " was denied"
		for _, d := range r.Decisions {
			if d.Approve {
				continue
			}
			said += " by " + person(d.Person.Email, d.Person.Subject)
			if d.Comment != "" {
				said += ": " + d.Comment
			}
		}
		return problem(exitForbidden, "denied", said, "talk to them, or "+ask)
	case "lapsed":
		return problem(exitConflict, api.CodeConflict, "request "+r.ID+" lapsed: nobody decided in time", ask)
	case "cancelled":
		return problem(exitConflict, api.CodeConflict, "request "+r.ID+" was cancelled", ask)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return errors.New("interrupted")
	case <-t.C:
		return nil
	}
}
