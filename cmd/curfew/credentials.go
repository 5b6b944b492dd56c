package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/protocol"
)

func newCredentials(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "credentials GRANT",
		Short: "Get what another client needs to connect",
		Long: `Makes a new grant password and prints what a stock client needs to connect: a DSN (default),
or, with -o, what the target's clients take:

` + formatsHelp() + `
The password is shown once; running this again makes another, and the one before is void for new
logins. It works until the grant ends.`,
		Example: `  curfew credentials g7p3q8w1bbb
  eval "$(curfew credentials g7p3q8w1bbb -o env)" && pg_dump --schema-only
  curfew credentials g7p3q8w1bbb -o pgpass >> ~/.pgpass
  (umask 077; curfew credentials g2m5x9y4ccc -o cnf > shop.cnf); mariadb-dump --defaults-file=shop.cnf shop`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := a.format(everyFormat()...); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			g, err := c.Grant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			kind, err := kindOf(g.Target, g.Engine)
			if err != nil {
				return err
			}
			format, err := a.format(append(slices.Clone(kind.Client.Formats), "json")...)
			if err != nil {
				return err // before the old password is voided
			}
			creds, err := c.Password(cmd.Context(), g.ID)
			if err != nil {
				return err
			}
			return a.showCredentials(creds, kind.Client, format)
		},
	}
}

func (a *app) showCredentials(creds api.Credentials, client protocol.StockClient, format string) error {
	caFile, err := a.keepCA(creds)
	if err != nil {
		return err
	}
	all := shown(creds, caFile)
	if format == "json" {
		return a.printJSON(struct {
			api.Credentials
			CAFile string `json:"ca_file,omitempty"`
			DSN    string `json:"dsn"`
		}{creds, caFile, strings.TrimSuffix(client.Print(all, client.Formats[0]), "\n")})
	}
	fmt.Fprint(a.stdout, client.Print(all, format))
	if isTerminal(a.stdout) {
		fmt.Fprintf(a.stderr, "Good until %s. The password is not shown again.\n", a.when(creds.End))
	}
	return nil
}

// everyFormat is what -o can be for one target or another; the first is the default of all.
func everyFormat() []string {
	var all []string
	for _, name := range engineNames() {
		for _, f := range engines()[name].Client.Formats {
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	return append(all, "json")
}

// formatsHelp says which engine's clients take which.
func formatsHelp() string {
	var b strings.Builder
	for _, name := range engineNames() {
		fmt.Fprintf(&b, "  %-9s  %s, json\n", name, strings.Join(engines()[name].Client.Formats, ", "))
	}
	return b.String()
}
