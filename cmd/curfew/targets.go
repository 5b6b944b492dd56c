package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newTargets(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "targets",
		Aliases: []string{"target"},
		Short:   "List what you may ask for",
		Long:    `Lists the targets and access levels that the policy lets you ask for, and on which terms.`,
		Example: `  curfew targets
  curfew targets -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			targets, err := c.Targets(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(targets, func(w io.Writer) { a.showTargets(w, targets) })
		},
	}
}

func (a *app) showTargets(w io.Writer, targets []api.Target) {
	var rows [][]string
	for _, t := range targets {
		for _, l := range t.Levels {
			reason := "optional"
			if l.Reason {
				reason = "required"
			}
			rows = append(rows, []string{t.Name, t.Engine, l.Name, l.Longest.String(), api.ShowApprovals(l.Approvals, l.Approvers), reason})
		}
	}
	if len(rows) == 0 {
		fmt.Fprintln(w, "The policy has nothing that you may ask for. Whoever runs Curfew can add a rule for you.")
		return
	}
	a.table(w, []string{"TARGET", "ENGINE", "LEVEL", "LONGEST", "APPROVALS", "REASON"}, rows, 4)
}
