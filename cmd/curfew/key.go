package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newKey(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Print the verifier key",
		Long: `Prints the key that curfew verify needs. Give it to auditors on another way than the bundles that
they check with it: whoever can change both can make them match.`,
		Example: `  curfew key > curfew.key`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			key, err := c.VerifierKey(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(map[string]string{"key": key}, func(w io.Writer) { fmt.Fprintln(w, key) })
		},
	}
}
