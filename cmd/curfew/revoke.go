package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newRevoke(a *app) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "revoke GRANT",
		Short: "End a grant now",
		Long: `Ends a grant at once, in the middle of a statement if need be. Its holder, whoever could have
approved it, and security may do this. The holder reads the reason.`,
		Example: `  curfew revoke g7p3q8w1bbb --reason "wrong database"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			g, err := c.Revoke(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return a.print(g, func(w io.Writer) {
				fmt.Fprintf(w, "Grant %s of %s is revoked. Its receipt: curfew grants %s\n", g.ID, visible(person(g.Person.Email, g.Person.Subject)), g.ID)
			})
		},
	}
	c.Flags().StringVarP(&reason, "reason", "r", "", "why; the holder and auditors read it")
	return c
}
