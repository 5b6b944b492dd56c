package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

// defaultFor is how long is asked for when --for is left out; connect and request agree on it.
const defaultFor = 30 * time.Minute

type askFlags struct {
	level  string
	length time.Duration
	reason string
}

func (f *askFlags) bind(c *cobra.Command) {
	c.Flags().StringVarP(&f.level, "level", "l", "", "access level (curfew targets lists them; may be left out when there is one only)")
	c.Flags().DurationVar(&f.length, "for", defaultFor, "how long the access is to last")
	c.Flags().StringVarP(&f.reason, "reason", "r", "", "what for; approvers and auditors read it")
}

func newRequest(a *app) *cobra.Command {
	var f askFlags
	var start, ticket, sql string
	var wait, glass bool
	c := &cobra.Command{
		Use:   "request TARGET",
		Short: "Ask for access",
		Long: `Asks for an access level on a target, for a while. The time runs from the last approval that is
needed (or from --start), whenever you connect. curfew connect asks, waits and connects in one.

--break-glass is for emergencies: where a rule allows it, you are in at once. It is told to
everybody who should know, it is short, and you can't do it again before somebody else has reviewed
what you did.`,
		Example: `  curfew request orders --level writer --for 30m --reason "fix order 4711"
  curfew request orders --level reader --for 2h --start 2026-03-01T22:00:00Z --reason "release 3.2"
  curfew request orders --level writer --wait --reason "fix order 4711"
  curfew request orders --level writer --ticket OPS-4711 --sql "update orders set …" --reason "fix order 4711"
  curfew request orders --level owner --for 15m --break-glass --reason "orders are down"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			ask, err := a.newAsk(cmd.Context(), c, args[0], f)
			if err != nil {
				return err
			}
			if start != "" {
				if ask.Start, err = parseTime(start, a.now()); err != nil {
					return err
				}
			}
			if ask.SQL, err = a.textOrFile(sql); err != nil {
				return err
			}
			ask.Ticket, ask.BreakGlass = ticket, glass
			r, err := c.Ask(cmd.Context(), ask)
			if err != nil {
				return err
			}
			if wait && r.Status == "open" {
				if r, err = a.awaitDecision(cmd.Context(), c, r); err != nil {
					return err
				}
			}
			return a.print(r, func(w io.Writer) { a.showAsked(w, r) })
		},
	}
	f.bind(c)
	c.Flags().StringVar(&start, "start", "", "when it is to begin (RFC 3339, or HH:MM today); default: when it is approved")
	c.Flags().BoolVar(&wait, "wait", false, "wait for the decision")
	c.Flags().StringVar(&ticket, "ticket", "", "the ticket that it is for; some rules require one")
	c.Flags().StringVar(&sql, "sql", "", "what you intend to run, for approvers to read; @FILE reads it from a file, @- from the input")
	c.Flags().BoolVar(&glass, "break-glass", false, "an emergency: no waiting, and somebody else reviews it afterwards")
	c.MarkFlagsMutuallyExclusive("break-glass", "start")
	return c
}

// textOrFile gives the text itself, or what the file holds that it names behind an @.
func (a *app) textOrFile(s string) (string, error) {
	name, named := strings.CutPrefix(s, "@")
	if !named {
		return s, nil
	}
	in := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, textMost+1))
	if err == nil && len(b) > textMost {
		err = problem(exitUsage, "usage", fmt.Sprintf("%s is longer than %d bytes", s, textMost), "name what matters of it")
	}
	return string(b), err
}

// textMost is how many bytes of a file are taken.
const textMost = 32 << 10

// newAsk fills in a level that was left out, when only one can be meant.
func (a *app) newAsk(ctx context.Context, c *api.Client, target string, f askFlags) (api.Ask, error) {
	ask := api.Ask{Target: target, Level: f.level, Duration: api.Duration(f.length), Reason: f.reason}
	if ask.Level != "" {
		return ask, nil
	}
	targets, err := c.Targets(ctx)
	if err != nil {
		return ask, err
	}
	var names []string
	for _, t := range targets {
		if t.Name == target {
			for _, l := range t.Levels {
				if !slices.Contains(names, l.Name) { // several rules may offer one level
					names = append(names, l.Name)
				}
			}
		}
	}
	switch len(names) {
	case 0:
		return ask, problem(exitNotFound, api.CodeNotFound, fmt.Sprintf("there is no target %q that you may ask for", target), "see what there is: curfew targets")
	case 1:
		ask.Level = names[0]
		return ask, nil
	default:
		return ask, problem(exitUsage, "usage", fmt.Sprintf("%s has the levels %s", target, list(names)), "say which: --level "+names[0])
	}
}

func (a *app) showAsked(w io.Writer, r api.Request) {
	a.showRequest(w, r)
	switch r.Status {
	case "open":
		fmt.Fprintf(w, "Waiting for %s. They decide with: curfew approve %s\n", visible(api.ShowApprovals(r.Missing, r.Approvers)), r.ID)
	case "approved":
		if r.Extends != "" {
			fmt.Fprintf(w, "Extended: %s. Your sessions go on; its new end: curfew grants %s\n", r.Grant, r.Grant)
			return
		}
		if r.BreakGlass {
			fmt.Fprintf(w, "The glass is broken. Somebody else has to review what you do: curfew reviews --mine\n")
		}
		fmt.Fprintf(w, "Granted: %s. Connect with: curfew connect %s --level %s\n", r.Grant, visible(r.Target), visible(r.Level))
	}
}

// parseTime takes RFC 3339, a date, or a time of today.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation("2006-01-02", s, now.Location()); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation("15:04", s, now.Location()); err == nil {
		y, m, d := now.Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), 0, 0, now.Location()), nil
	}
	return time.Time{}, problem(exitUsage, "usage", fmt.Sprintf("%q is not a time", s), "write it like 2026-03-01T22:00:00Z, 2026-03-01 or 22:00")
}
