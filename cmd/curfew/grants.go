package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/protocol"
)

func newGrants(a *app) *cobra.Command {
	var f api.GrantFilter
	c := &cobra.Command{
		Use:   "grants [GRANT]",
		Short: "List grants, or show one with its receipt",
		Long: `Lists your own grants and those that you may revoke or read about, newest first; or shows one,
with the receipt of its end: how late it was cut, what was in flight and what became of it.`,
		Example: `  curfew grants --active
  curfew grants g7p3q8w1bbb
  curfew grants --mine -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				g, err := c.Grant(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(g, func(w io.Writer) { a.showGrant(w, g) })
			}
			grants, err := c.Grants(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.print(grants, func(w io.Writer) {
				a.showGrants(w, grants)
				more(w, cmd, len(grants), f.Limit, func(i int) string { return grants[i].ID })
			})
		},
	}
	c.Flags().BoolVar(&f.Active, "active", false, "only those that may be used now")
	c.Flags().StringVar(&f.Target, "target", "", "only for this target")
	c.Flags().BoolVar(&f.Mine, "mine", false, "only your own")
	pageFlags(c, &f.After, &f.Limit)
	return c
}

func (a *app) showGrants(w io.Writer, grants []api.Grant) {
	if len(grants) == 0 {
		fmt.Fprintln(w, "No grants.")
		return
	}
	rows := make([][]string, 0, len(grants))
	for _, g := range grants {
		end := g.End
		if !g.Ended.IsZero() {
			end = g.Ended
		}
		status := g.Status
		if g.EndCode != "" {
			status = g.EndCode
		}
		rows = append(rows, []string{g.ID, status, person(g.Person.Email, g.Person.Subject), g.Target, g.Level, a.when(g.Start), a.when(end)})
	}
	a.table(w, []string{"GRANT", "STATUS", "WHO", "TARGET", "LEVEL", "START", "END"}, rows, 2)
}

func (a *app) showGrant(w io.Writer, g api.Grant) {
	ended := ""
	if !g.Ended.IsZero() {
		ended = fmt.Sprintf("%s, %s by %s: %s", a.when(g.Ended), visible(g.EndCode), visible(g.EndedBy), visible(g.EndReason))
	}
	fields(w, "grant", g.ID, "request", g.Request, "who", visible(person(g.Person.Email, g.Person.Subject)),
		"target", visible(g.Target), "level", visible(g.Level), "approved by", visible(strings.Join(g.Approvers, ", ")),
		"status", g.Status, "break glass", yes(g.BreakGlass), "start", a.when(g.Start), "end", a.when(g.End),
		"extended", strings.Join(a.extensions(g), "\n"), "limits", limitWords(g), "recorded", recordWords(g.Parameters), "ended", ended)
	if g.Receipt != nil {
		showReceipt(w, *g.Receipt)
	}
}

func (a *app) extensions(g api.Grant) (all []string) {
	for _, x := range g.Extensions {
		line := fmt.Sprintf("%s to %s, by request %s", a.when(x.At), a.when(x.To), x.Request)
		if len(x.Approvers) > 0 {
			line += ", approved by " + visible(strings.Join(x.Approvers, ", "))
		}
		all = append(all, line)
	}
	return all
}

// recordWords says what of a session is not recorded.
func recordWords(parameters string) string {
	if parameters == "" {
		return ""
	}
	return "without the values of parameters: their types alone"
}

// limitWords says what a grant's rule allows beyond what its level does.
func limitWords(g api.Grant) string {
	var words []string
	if l := g.Limits; l != nil {
		for _, limit := range []struct {
			set   bool
			words string
		}{
			{l.Sessions > 0, fmt.Sprintf("%d sessions at once", l.Sessions)}, {l.Idle > 0, "idle for " + l.Idle.String()},
			{l.Rows > 0, fmt.Sprintf("%d rows a session", l.Rows)}, {l.Bytes > 0, fmt.Sprintf("%d bytes a session", l.Bytes)},
		} {
			if limit.set {
				words = append(words, limit.words)
			}
		}
	}
	if g.WithLastSession {
		words = append(words, "it ends when its last session is closed")
	}
	return strings.Join(words, ", ")
}

// showReceipt shows what people look for; -o json has it all.
func showReceipt(w io.Writer, r api.Receipt) {
	var cut protocol.Cut
	var clean protocol.Clean
	// Both were written by Curfew itself; what is missing shows as missing.
	_ = json.Unmarshal(r.Cut, &cut)
	_ = json.Unmarshal(r.Clean, &clean)
	var outcomes, residue []string
	for _, o := range cut.Outcomes {
		line := fmt.Sprintf("backend %s: nothing in flight", o.Backend)
		if o.InFlight != 0 || o.TxID != "" {
			line = fmt.Sprintf("backend %s: statement %d in flight, %s", o.Backend, o.InFlight, fateWords(o))
		}
		outcomes = append(outcomes, visible(line))
	}
	for _, x := range clean.Residue {
		residue = append(residue, visible(fmt.Sprintf("%s %s: %s", x.Kind, x.Object, x.Action)))
	}
	account := "gone: " + clean.Proof
	if len(r.Clean) == 0 {
		account = "locked; cleaning goes on"
	}
	fmt.Fprintln(w, "Receipt:")
	fields(w, "account", visible(r.Account), "cut", fmt.Sprintf("%.1f ms after the deadline, sessions left: %d", r.LateMS, cut.Left),
		"in flight", strings.Join(outcomes, "\n"), "rolled back", visible(strings.Join(clean.RolledBack, ", ")),
		"left behind", strings.Join(residue, "\n"), "now", visible(account))
}

// fateWords says what became of the transaction in flight.
func fateWords(o protocol.Outcome) string {
	switch {
	case o.TxID != "":
		return "transaction " + o.TxID + " " + o.Fate
	case o.Fate == protocol.FateNone:
		return "which had written nothing"
	}
	return "its fate is " + o.Fate
}
