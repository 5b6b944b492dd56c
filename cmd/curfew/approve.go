package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newApprove(a *app) *cobra.Command {
	return a.decision(decision{
		word: "approve", done: "Approved",
		short: "Approve a request",
		long: `Shows the request and, after a yes on a terminal, approves it. The access begins with the last
approval that is needed. Nobody approves their own request.`,
		decide: (*api.Client).Approve,
	})
}

// decision is what approve and deny share.
type decision struct {
	word, done  string
	short, long string
	decide      func(c *api.Client, ctx context.Context, id, comment string) (api.Request, error)
}

func (a *app) decision(d decision) *cobra.Command {
	var comment string
	var yes bool
	c := &cobra.Command{
		Use:   d.word + " REQUEST",
		Short: d.short,
		Long:  d.long,
		Example: fmt.Sprintf(`  curfew %[1]s r4k2m9x0aaa
  curfew %[1]s r4k2m9x0aaa --comment "as agreed in the call" --yes`, d.word),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := a.format("table", "json")
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.Request(cmd.Context(), args[0], 0)
			if err != nil {
				return err
			}
			if format != "json" {
				a.showRequest(a.stdout, r)
			}
			if r.Status == "open" && !yes && isTerminal(a.stdin) && format != "json" {
				ok, err := a.confirm(d.word+" it?", false)
				if err != nil {
					return err
				}
				if !ok {
					return problem(exitInterrupted, "interrupted", "nothing was decided", "")
				}
			}
			if r, err = d.decide(c, cmd.Context(), r.ID, comment); err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { a.showDecided(w, d.done, r) })
		},
	}
	c.Flags().StringVarP(&comment, "comment", "c", "", "goes on the ledger with the decision")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask back")
	return c
}

func (a *app) showDecided(w io.Writer, done string, r api.Request) {
	switch {
	case r.Status == "open":
		fmt.Fprintf(w, "%s. It still needs %s.\n", done, visible(api.ShowApprovals(r.Missing, r.Approvers)))
	case r.Extends != "" && r.Grant != "":
		fmt.Fprintf(w, "%s: grant %s of %s lasts %s longer. Its end: curfew grants %s\n",
			done, r.Grant, visible(person(r.Person.Email, r.Person.Subject)), r.Duration, r.Grant)
	case r.Grant != "":
		fmt.Fprintf(w, "%s: grant %s for %s, %s. End it early with: curfew revoke %s\n",
			done, r.Grant, visible(person(r.Person.Email, r.Person.Subject)), r.Duration, r.Grant)
	default:
		fmt.Fprintf(w, "%s: request %s is %s.\n", done, r.ID, r.Status)
	}
}

// confirm asks on the terminal. An empty answer is the default; the end of the input is a no.
func (a *app) confirm(question string, yes bool) (bool, error) {
	hint := "[y/N]"
	if yes {
		hint = "[Y/n]"
	}
	fmt.Fprintf(a.stderr, "%s %s ", question, hint)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err == io.EOF && line == "" {
		fmt.Fprintln(a.stderr)
		return false, nil
	}
	if err != nil && err != io.EOF {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "":
		return yes, nil
	case "y", "yes":
		return true, nil
	default:
		return false, nil
	}
}

func list(words []string) string { return strings.Join(words, ", ") }
