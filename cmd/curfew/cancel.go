package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "cancel REQUEST",
		Short:   "Withdraw your own request",
		Long:    `Withdraws your own request while it is open. A grant that it became is ended with curfew release.`,
		Example: `  curfew cancel r4k2m9x0aaa`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.Cancel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { fmt.Fprintf(w, "Request %s is cancelled.\n", r.ID) })
		},
	}
}
