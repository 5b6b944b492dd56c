package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newRelease(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "release GRANT",
		Short: "The task is done: end your own grant now",
		Long: `Ends your own grant at once: its sessions are cut, its account is locked and dropped. The less
time access lies open, the less can go wrong with it.`,
		Example: `  curfew release g7p3q8w1bbb`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			g, err := c.Release(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(g, func(w io.Writer) { fmt.Fprintf(w, "Grant %s is released.\n", g.ID) })
		},
	}
}
