package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

// statusMost is how long the operators' listener may take to answer.
const statusMost = 10 * time.Second

func newStatus(a *app) *cobra.Command {
	var ops string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show whether a Curfew server can do its work",
		Long: `Asks a server's operators' listener (ops: in its configuration) for /readyz, and shows each check,
with the reason where it is red. It needs no login. Ends with 0 when the server is ready, and with 7
when it is not, or does not answer: fit for a container's health check.`,
		Example: `  curfew status
  curfew status --ops https://curfew.example.com:7434 --ca ca.pem -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ops == "" {
				ops = first(a.env("CURFEW_OPS"), "http://127.0.0.1:7434")
			}
			s, err := a.askOps(cmd.Context(), ops)
			if err != nil {
				return err
			}
			if err := a.print(s, func(w io.Writer) { a.showState(w, s) }); err != nil {
				return err
			}
			if s.Status != statusReady {
				return &exitError{status: exitUnreachable}
			}
			return nil
		},
	}
	c.Flags().StringVar(&ops, "ops", "", "address of the operators' listener (CURFEW_OPS; default http://127.0.0.1:7434)")
	return c
}

// askOps reads /readyz, which answers in full whether it is green or red.
func (a *app) askOps(ctx context.Context, ops string) (s State, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusMost)
	defer cancel()
	silent := func(why any) error {
		return problem(exitUnreachable, api.CodeUnreachable, fmt.Sprintf("no answer from the operators' listener at %s: %v", ops, why),
			"check its address (--ops, CURFEW_OPS; ops: in the server's configuration) and that the server runs")
	}
	client, err := httpClient(first(a.ca, a.env("CURFEW_CA")))
	if err != nil {
		return s, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(ops, "/")+"/readyz", nil)
	if err != nil {
		return s, silent(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return s, silent(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&s); err != nil || len(s.Checks) == 0 {
		return s, silent(fmt.Sprintf("it answered %q, which Curfew does not send", res.Status))
	}
	return s, nil
}

func (a *app) showState(w io.Writer, s State) {
	fmt.Fprintf(w, "%s %s is %s\n", visible(s.Node), visible(s.Version), visible(s.Status))
	rows := make([][]string, 0, len(s.Checks))
	for _, c := range s.Checks {
		how := "ok"
		switch {
		case !c.OK && c.Needed:
			how = "RED"
		case !c.OK:
			how = "degraded"
		}
		rows = append(rows, []string{c.Name, how, a.when(c.Since), c.Reason})
	}
	a.table(w, []string{"CHECK", "STATE", "SINCE", "REASON"}, rows, 3)
}
