package main

import (
	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newDeny(a *app) *cobra.Command {
	return a.decision(decision{
		word: "deny", done: "Denied",
		short:  "Deny a request",
		long:   `Shows the request and, after a yes on a terminal, denies it. One denial ends a request.`,
		decide: (*api.Client).Deny,
	})
}
