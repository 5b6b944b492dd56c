package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func newWhoami(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show who you are to Curfew",
		Long:  `Shows the identity that the server knows you by, with the groups that rules look at.`,
		Example: `  curfew whoami
  curfew whoami -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			p, err := c.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(p, func(w io.Writer) {
				fields(w, "e-mail", p.Email, "name", p.Name, "groups", strings.Join(p.Groups, ", "),
					"logged in", a.when(p.AuthTime), "with", strings.Join(p.AMR, ", "), "class", p.ACR,
					"issuer", p.Issuer, "subject", p.Subject, "server", c.Server)
			})
		},
	}
}
