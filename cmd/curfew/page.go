package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// pageFlags are those of a command that lists.
func pageFlags(c *cobra.Command, after *string, limit *int) {
	c.Flags().IntVar(limit, "limit", 100, "at most so many")
	c.Flags().StringVar(after, "after", "", "what comes behind this one in the list")
}

// more says how to go on with a list that was cut at its limit.
func more(w io.Writer, cmd *cobra.Command, n, limit int, id func(int) string) {
	if n > 0 && n == limit {
		fmt.Fprintf(w, "There may be more: add --after %s to this command (%s).\n", id(n-1), cmd.CommandPath())
	}
}
