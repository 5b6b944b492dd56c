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
		Long: `Lists your own sessions, those whose recordings you may read, and, while they go on, those of grants
that you could have decided on; newest first. Or shows one, or ends one.`,
		Example: `  curfew sessions --open
  curfew sessions kill s5t6v7w8x9y0 --reason "holds a lock on orders"
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
			return a.print(sessions, func(w io.Writer) {
				a.showSessions(w, sessions)
				more(w, cmd, len(sessions), f.Limit, func(i int) string { return sessions[i].ID })
			})
		},
	}
	c.Flags().StringVar(&f.Grant, "grant", "", "only under this grant")
	c.Flags().StringVar(&f.Target, "target", "", "only on this target")
	c.Flags().BoolVar(&f.Open, "open", false, "only those that go on now")
	c.Flags().BoolVar(&f.Mine, "mine", false, "only your own")
	pageFlags(c, &f.After, &f.Limit)
	c.AddCommand(newKill(a))
	return c
}

func newKill(a *app) *cobra.Command {
	var k api.Kill
	c := &cobra.Command{
		Use:   "kill SESSION",
		Short: "End a session now",
		Long: `Ends one session at once, in the middle of a statement if need be: its backend is terminated in the
database. Its grant goes on, so that its holder may connect again; with --revoke the grant is ended,
too, and every session of it. Whoever may revoke the grant may do this: its holder, whoever could
have approved it, and security. The holder reads who it was, and the reason.`,
		Example: `  curfew sessions kill s5t6v7w8x9y0 --reason "holds a lock on orders"
  curfew sessions kill s5t6v7w8x9y0 --revoke --reason "not what was agreed"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			g, err := c.Kill(cmd.Context(), args[0], k)
			if err != nil {
				return err
			}
			return a.print(g, func(w io.Writer) {
				who := visible(person(g.Person.Email, g.Person.Subject))
				if k.Revoke {
					fmt.Fprintf(w, "Grant %s of %s is revoked, and with it session %s. Its receipt: curfew grants %s\n", g.ID, who, args[0], g.ID)
					return
				}
				fmt.Fprintf(w, "Session %s of %s is ended. The grant goes on until %s; to end it, too: curfew revoke %s\n", args[0], who, a.when(g.End), g.ID)
			})
		},
	}
	c.Flags().StringVarP(&k.Reason, "reason", "r", "", "why; the holder and auditors read it")
	c.Flags().BoolVar(&k.Revoke, "revoke", false, "end the grant, too")
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
		idle, bytes := "", ""
		if s.Live != nil {
			idle, bytes = span(s.Live.Idle.Std()), size(s.Live.FromClient+s.Live.FromServer)
		}
		rows = append(rows, []string{
			s.ID, status, person(s.Person.Email, s.Person.Subject), s.Target, s.Level, s.Grant, a.when(s.Began), took, strconv.FormatUint(s.Statements, 10), bytes, idle,
		})
	}
	a.table(w, []string{"SESSION", "STATUS", "WHO", "TARGET", "LEVEL", "GRANT", "BEGAN", "TOOK", "STATEMENTS", "BYTES", "IDLE"}, rows, 2)
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
	moved, idle := "", ""
	if s.Live != nil {
		moved = fmt.Sprintf("%s from the client, %s from the database", size(s.Live.FromClient), size(s.Live.FromServer))
		idle = span(s.Live.Idle.Std())
	}
	fields(w, "session", s.ID, "grant", s.Grant, "who", visible(person(s.Person.Email, s.Person.Subject)),
		"target", visible(s.Target), "level", visible(s.Level), "account", visible(s.Account), "from", visible(s.Client), "node", visible(s.Node),
		"began", a.when(s.Began), "moved", moved, "idle", idle, "ended", a.when(s.Ended), "how", visible(s.EndCode), "told", visible(s.EndReason), "in flight", visible(s.Fate),
		"interrupted", interrupted, "sealed", sealed)
	fmt.Fprintf(w, "Replay it: curfew replay %s\n", s.ID)
}

// size writes a number of bytes as people read it.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, unit := float64(n), 0
	for v >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}
