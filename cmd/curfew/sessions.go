package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newSessions(a *app) *cobra.Command {
	var f api.SessionFilter
	c := &cobra.Command{
		Use:   "sessions [SESSION]",
		Short: "List sessions, or show one",
		Long:  `Lists your own sessions and those whose recordings you may read, newest first; or shows one.`,
		Example: `  curfew sessions --open
  curfew sessions --grant g7p3q8w1bbb
  curfew sessions s5t6v7w8x9y0 -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				s, err := c.Session(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(s, func(w io.Writer) { a.showSession(w, s) })
			}
			sessions, err := c.Sessions(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.print(sessions, func(w io.Writer) { a.showSessions(w, sessions) })
		},
	}
	c.Flags().StringVar(&f.Grant, "grant", "", "only under this grant")
	c.Flags().StringVar(&f.Target, "target", "", "only on this target")
	c.Flags().BoolVar(&f.Open, "open", false, "only those that go on now")
	c.Flags().BoolVar(&f.Mine, "mine", false, "only your own")
	c.Flags().IntVar(&f.Limit, "limit", 100, "at most so many")
	return c
}

func (a *app) showSessions(w io.Writer, sessions []api.Session) {
	if len(sessions) == 0 {
		fmt.Fprintln(w, "No sessions.")
		return
	}
	rows := make([][]string, 0, len(sessions))
	for _, s := range sessions {
		status, took := "open", span(a.now().Sub(s.Began))
		if !s.Ended.IsZero() {
			status, took = first(s.EndCode, "ended"), span(s.Ended.Sub(s.Began))
		}
		rows = append(rows, []string{
			s.ID, status, person(s.Person.Email, s.Person.Subject), s.Target, s.Level, s.Grant, a.when(s.Began), took, strconv.FormatUint(s.Statements, 10),
		})
	}
	a.table(w, []string{"SESSION", "STATUS", "WHO", "TARGET", "LEVEL", "GRANT", "BEGAN", "TOOK", "STATEMENTS"}, rows, 2)
}

func (a *app) showSession(w io.Writer, s api.Session) {
	interrupted := ""
	if s.Interrupted {
		interrupted = "yes: healed after a crash, up to the last statement that was kept"
	}
	sealed := "not yet"
	if s.Root != "" {
		sealed = fmt.Sprintf("%d events, root %s", s.Events, s.Root)
	}
	fields(w, "session", s.ID, "grant", s.Grant, "who", visible(person(s.Person.Email, s.Person.Subject)),
		"target", visible(s.Target), "level", visible(s.Level), "account", visible(s.Account), "from", visible(s.Client), "node", visible(s.Node),
		"began", a.when(s.Began), "ended", a.when(s.Ended), "how", visible(s.EndCode), "told", visible(s.EndReason), "in flight", visible(s.Fate),
		"interrupted", interrupted, "sealed", sealed)
	fmt.Fprintf(w, "Replay it: curfew replay %s\n", s.ID)
}
