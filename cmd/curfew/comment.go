package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newComment(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "comment REQUEST TEXT",
		Short: "Say something on a request, without deciding on it",
		Long: `Puts a word on a request that you see: a question to whoever asks, or an answer to whoever decides.
It goes on the ledger and decides nothing.`,
		Example: `  curfew comment r4k2m9x0aaa "which orders?"`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.Comment(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "Said. Everybody who sees the request reads it: curfew requests %s\n", r.ID)
			})
		},
	}
}
