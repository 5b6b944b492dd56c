package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/recorder/intended"
)

func newReport(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "report GRANT",
		Short: "Hold what was run under a grant against the SQL that its request named",
		Long: `Says of each statement that was run under a grant whether it was inside the SQL that its request
named (curfew request --sql) or outside of it, and which intended statements were not executed. For
readers of the target; that you read the recordings goes on the ledger.

Statements are compared one by one, whatever their order and number. White space, comments and the
case of keywords make no difference; a parameter ($1, ?) stands for any value that was bound, a
literal for itself. What a client asks by itself counts as well.

curfew verify says the same of a bundle, without a server, and curfew export --format jsonl of each
statement.`,
		Example: `  curfew report g7p3q8w1bbb
  curfew report g7p3q8w1bbb -o json | jq '.statements[] | select(.verdict == "outside")'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.Report(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { a.showIntended(w, r) })
		},
	}
}

func (a *app) showIntended(w io.Writer, r api.Report) {
	fields(w, "grant", r.Grant, "request", r.Request, "who", visible(person(r.Person.Email, r.Person.Subject)),
		"target", visible(r.Target), "level", visible(r.Level), "sessions", fmt.Sprint(r.Sessions), "unread", visible(strings.Join(r.Unread, ", ")))
	fmt.Fprintln(w, "\nIntended:")
	rows := make([][]string, 0, len(r.Planned))
	for _, p := range r.Planned {
		what := string(p.Verdict)
		if p.Executed > 0 {
			what = fmt.Sprintf("executed %d×", p.Executed)
		}
		rows = append(rows, []string{what, oneLine(p.Text)})
	}
	a.table(w, []string{"", "STATEMENT"}, rows, 1)
	fmt.Fprintln(w, "\nExecuted:")
	rows = rows[:0]
	for _, l := range r.Statements {
		rows = append(rows, []string{string(l.Verdict), l.Session, fmt.Sprintf("#%d", l.ID), a.when(l.At), cmp.Or(l.Error, "-"), oneLine(l.Text)})
	}
	a.table(w, []string{"", "SESSION", "NO", "AT", "ERROR", "STATEMENT"}, rows, 5)
	if r.LeftOut > 0 {
		fmt.Fprintf(w, "And %d more. All of them: curfew export --grant %s --format jsonl\n", r.LeftOut, r.Grant)
	}
	fmt.Fprintf(w, "\n%s\n", heldAgainst(r.Report))
}

// heldAgainst sums a report up.
func heldAgainst(r intended.Report) string {
	s := fmt.Sprintf("%d executed: %d inside, %d outside", r.Executed, r.Inside, r.Outside)
	missing := 0
	for _, p := range r.Planned {
		if p.Executed == 0 {
			missing++
		}
	}
	if missing > 0 {
		s += fmt.Sprintf("; %d of the %d intended not executed", missing, len(r.Planned))
	}
	if r.NotExecuted > 0 {
		s += fmt.Sprintf("; %d sent and not executed", r.NotExecuted)
	}
	if r.Erased > 0 {
		s += fmt.Sprintf("; %d events are erased and can't be compared", r.Erased)
	}
	return s
}

// oneLine is a text for a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
