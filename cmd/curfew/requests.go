package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newRequests(a *app) *cobra.Command {
	var f api.RequestFilter
	var open bool
	c := &cobra.Command{
		Use:   "requests [REQUEST]",
		Short: "List requests: yours, and those you may decide",
		Long:  `Lists your own requests and those that you may decide or read about, newest first; or shows one.`,
		Example: `  curfew requests --to-decide
  curfew requests r4k2m9x0aaa
  curfew requests --mine -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				r, err := c.Request(cmd.Context(), args[0], 0)
				if err != nil {
					return err
				}
				return a.print(r, func(w io.Writer) { a.showRequest(w, r) })
			}
			if open {
				f.Status = "open"
			}
			requests, err := c.Requests(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.print(requests, func(w io.Writer) {
				a.showRequests(w, requests)
				more(w, cmd, len(requests), f.Limit, func(i int) string { return requests[i].ID })
			})
		},
	}
	c.Flags().BoolVar(&open, "open", false, "only those that nobody has decided yet")
	c.Flags().StringVar(&f.Status, "status", "", "open, approved, denied, lapsed or cancelled")
	c.Flags().StringVar(&f.Target, "target", "", "only for this target")
	c.Flags().BoolVar(&f.Mine, "mine", false, "only your own")
	c.Flags().BoolVar(&f.Decide, "to-decide", false, "only those that wait for your word")
	pageFlags(c, &f.After, &f.Limit)
	c.MarkFlagsMutuallyExclusive("open", "status")
	c.MarkFlagsMutuallyExclusive("mine", "to-decide")
	return c
}

func (a *app) showRequests(w io.Writer, requests []api.Request) {
	if len(requests) == 0 {
		fmt.Fprintln(w, "No requests.")
		return
	}
	rows := make([][]string, 0, len(requests))
	for _, r := range requests {
		rows = append(rows, []string{
			r.ID, r.Status, person(r.Person.Email, r.Person.Subject), r.Target, r.Level, r.Duration.String(), a.when(r.Created), r.Reason,
		})
	}
	a.table(w, []string{"REQUEST", "STATUS", "WHO", "TARGET", "LEVEL", "FOR", "ASKED", "REASON"}, rows, 7)
}

// showRequest shows everything that somebody who decides should know.
func (a *app) showRequest(w io.Writer, r api.Request) {
	who := person(r.Person.Email, r.Person.Subject)
	if r.Person.Name != "" {
		who += " (" + r.Person.Name + ")"
	}
	if len(r.Person.Groups) > 0 {
		who += " of " + strings.Join(r.Person.Groups, ", ")
	}
	start := "when approved"
	if !r.Start.IsZero() {
		start = a.when(r.Start)
	}
	status := r.Status
	switch {
	case r.Status == "open":
		status += fmt.Sprintf("; needs %s; lapses %s", api.ShowApprovals(r.Missing, r.Approvers), a.when(r.Lapses))
	case !r.Ended.IsZero():
		status += " " + a.when(r.Ended)
	}
	var words []string
	for _, d := range r.Decisions {
		word := "denied"
		if d.Approve {
			word = "approved"
		}
		line := fmt.Sprintf("%s by %s %s", word, visible(person(d.Person.Email, d.Person.Subject)), a.when(d.At))
		if d.Comment != "" {
			line += ": " + visible(d.Comment)
		}
		words = append(words, line)
	}
	// Reason and names are others' words: they are made visible one by one, and keep to their line.
	fields(w, "request", r.ID, "who", visible(who), "target", visible(r.Target), "level", visible(r.Level),
		"extends", r.Extends, "for", r.Duration.String(), "start", start, "break glass", yes(r.BreakGlass),
		"reason", visible(r.Reason), "ticket", visible(r.Ticket), "intended sql", lines(r.SQL), "recorded", recordWords(r.Parameters), "asked", a.when(r.Created),
		"rule", visible(r.Rule), "status", status, "decisions", strings.Join(words, "\n"), "comments", strings.Join(a.remarks(r), "\n"), "grant", r.Grant)
}

func (a *app) remarks(r api.Request) (said []string) {
	for _, c := range r.Comments {
		said = append(said, fmt.Sprintf("%s %s: %s", visible(person(c.Person.Email, c.Person.Subject)), a.when(c.At), visible(c.Text)))
	}
	return said
}

// lines makes others' words of several lines visible, each in its own.
func lines(s string) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	for i := range all {
		all[i] = visible(all[i])
	}
	return strings.Join(all, "\n")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
