package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newCredentials(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "credentials GRANT",
		Short: "Get what another client needs to connect",
		Long: `Makes a new grant password and prints what a stock client needs to connect: a DSN (default),
shell variables, a line for ~/.pgpass, or JSON. The password is shown once; running this again
makes another, and the one before is void for new logins. It works until the grant ends.`,
		Example: `  curfew credentials g7p3q8w1bbb
  eval "$(curfew credentials g7p3q8w1bbb -o env)" && pg_dump --schema-only
  curfew credentials g7p3q8w1bbb -o pgpass >> ~/.pgpass`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := a.format("dsn", "env", "pgpass", "json")
			if err != nil {
				return err // before the old password is voided
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			creds, err := c.Password(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			caFile, err := a.keepCA(creds)
			if err != nil {
				return err
			}
			switch format {
			case "json":
				return a.printJSON(struct {
					api.Credentials
					CAFile string `json:"ca_file,omitempty"`
					DSN    string `json:"dsn"`
				}{creds, caFile, dsn(creds, caFile)})
			case "env":
				printEnv(a.stdout, creds, caFile)
			case "pgpass":
				fmt.Fprintln(a.stdout, pgpass(creds))
			default:
				fmt.Fprintln(a.stdout, dsn(creds, caFile))
			}
			if isTerminal(a.stdout) {
				fmt.Fprintf(a.stderr, "Good until %s. The password is not shown again.\n", a.when(creds.End))
			}
			return nil
		},
	}
}

func dsn(c api.Credentials, caFile string) string {
	q := url.Values{}
	if c.SSLMode != "" {
		q.Set("sslmode", c.SSLMode)
	}
	if caFile != "" {
		q.Set("sslrootcert", caFile)
	}
	u := url.URL{
		Scheme: "postgresql", User: url.UserPassword(c.User, c.Password),
		Host: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), Path: "/" + c.Database,
		// libpq takes a plus literally, where url.Values writes one for a space.
		RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20"),
	}
	return u.String()
}

func printEnv(w io.Writer, c api.Credentials, caFile string) {
	pairs := []string{
		"PGHOST", c.Host, "PGPORT", strconv.Itoa(c.Port), "PGUSER", c.User, "PGPASSWORD", c.Password,
		"PGDATABASE", c.Database, "PGSSLMODE", c.SSLMode, "PGSSLROOTCERT", caFile,
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "export %s=%s\n", pairs[i], shellQuote(pairs[i+1]))
		}
	}
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// pgpass is a line of libpq's password file; a colon and a backslash are escaped there.
func pgpass(c api.Credentials) string {
	esc := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	return strings.Join([]string{
		esc.Replace(c.Host), strconv.Itoa(c.Port), esc.Replace(c.Database), esc.Replace(c.User), esc.Replace(c.Password),
	}, ":")
}
