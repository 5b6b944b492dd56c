package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newExtend(a *app) *cobra.Command {
	var length time.Duration
	var reason, ticket string
	var wait bool
	c := &cobra.Command{
		Use:   "extend GRANT",
		Short: "Ask for more time under your own grant",
		Long: `Asks for a later end of your own grant. It is decided as the grant was, by as many people, and
within what its rule gives at most, measured from now. Your sessions go on as they are: nothing has
to be connected anew.`,
		Example: `  curfew extend g7p3q8w1bbb --for 30m --reason "the index takes longer"
  curfew extend g7p3q8w1bbb --for 30m --reason "the index takes longer" --wait`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.Extend(cmd.Context(), args[0], api.Extend{Duration: api.Duration(length), Reason: reason, Ticket: ticket})
			if err != nil {
				return err
			}
			if wait && r.Status == "open" {
				if r, err = a.awaitDecision(cmd.Context(), c, r); err != nil {
					return err
				}
			}
			return a.print(r, func(w io.Writer) { a.showAsked(w, r) })
		},
	}
	c.Flags().DurationVar(&length, "for", defaultFor, "how much longer, beyond its present end")
	c.Flags().StringVarP(&reason, "reason", "r", "", "why; approvers and auditors read it")
	c.Flags().StringVar(&ticket, "ticket", "", "the ticket that it is for; default: that of the grant's own request")
	c.Flags().BoolVar(&wait, "wait", false, "wait for the decision")
	return c
}
