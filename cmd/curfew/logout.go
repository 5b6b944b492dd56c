package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newLogout(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "End this login",
		Long: `Ends this login at the server and forgets its token. Grants go on until they end:
curfew release ends one at once.`,
		Example: `  curfew logout`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.resolve()
			if err != nil {
				return err
			}
			if s.Token != "" {
				c, err := a.clientFor(s)
				if err != nil {
					return err
				}
				// A token that is not good any more is as logged out as it can be.
				if err := c.Logout(cmd.Context()); err != nil && !hasCode(err, api.CodeUnauthenticated) {
					return err
				}
			}
			if err := a.dropSession(s); err != nil {
				return err
			}
			return a.print(map[string]string{"server": s.Server}, func(w io.Writer) {
				fmt.Fprintf(w, "Logged out at %s.\n", s.Server)
			})
		},
	}
}

func hasCode(err error, code string) bool {
	p, ok := api.AsProblem(err)
	return ok && p.Code == code
}
