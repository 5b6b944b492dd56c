package main

import (
	"io"

	"github.com/spf13/cobra"
)

func newCheckpoint(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint",
		Short: "Print the ledger's latest signed checkpoint",
		Long: `Prints the signed checkpoint of the whole ledger. Kept by somebody else, it pins everything up to
now: curfew verify --anchor finds what was cut off or rewritten later, even by the key's holder.`,
		Example: `  (curfew checkpoint; echo) >> witness.anchors`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			b, err := c.Checkpoint(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(map[string]string{"checkpoint": string(b)}, func(w io.Writer) { w.Write(b) }) //nolint:errcheck // as every print
		},
	}
}
