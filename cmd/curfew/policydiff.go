package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// diffReport is how two policies differ.
type diffReport struct {
	Old      string          `json:"old"`
	New      string          `json:"new"`
	Changes  []policy.Change `json:"changes"`
	LocksOut string          `json:"locks_out,omitempty"` // why a server would refuse to reload it
}

func newPolicyDiff(a *app) *cobra.Command {
	var f policyFlags
	var as, groups, identities []string
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say who gains and who loses what between two policies",
		Long: `Compares what two policy files give to whom, target by target and level by level, with the terms of
each rule; and who may read recordings. Whom: those that you name with --as (under people: in NEW,
or with --group) or --identity; or else somebody for each group, e-mail and subject that either
policy names, of whom nothing else is known. Ends with 0 when nothing changes, and with 8
otherwise.`,
		Example: `  curfew policy diff policy.yaml policy.new.yaml
  curfew policy diff policy.yaml policy.new.yaml --as alice --group developers
  git show HEAD:policy.yaml > /tmp/old.yaml; curfew policy diff /tmp/old.yaml policy.yaml -c curfew.yaml`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			before, _, err := f.book(a, args[0])
			if err != nil {
				return err
			}
			after, _, err := f.book(a, args[1])
			if err != nil {
				return err
			}
			var who []auth.Identity
			if len(as)+len(identities) > 0 {
				if who, err = a.people(after, as, groups, identities, a.now()); err != nil {
					return err
				}
			}
			r := diffReport{Old: args[0], New: args[1], Changes: policy.Diff(before.Policy, after.Policy, who...)}
			if err := after.Policy.LocksOut(before.Policy, who...); err != nil && !after.Policy.Lockdown {
				r.LocksOut = err.Error()
			}
			if err := a.print(r, func(w io.Writer) { showDiff(w, r) }); err != nil {
				return err
			}
			if len(r.Changes) > 0 || r.LocksOut != "" {
				return &exitError{status: exitFound}
			}
			return nil
		},
	}
	f.bind(c)
	c.Flags().StringSliceVar(&as, "as", nil, "somebody to compare for; repeatable")
	c.Flags().StringSliceVar(&groups, "group", nil, "a group of those that --as names; repeatable")
	c.Flags().StringSliceVar(&identities, "identity", nil, "file that says who somebody is; repeatable")
	return c
}

func showDiff(w io.Writer, r diffReport) {
	who := ""
	for _, c := range r.Changes {
		if c.Who != who {
			who = c.Who
			fmt.Fprintf(w, "%s\n", visible(who))
		}
		what := c.Level + " on " + c.Target
		if c.Level == "" {
			what = "the recordings of " + c.Target
		}
		fmt.Fprintf(w, "  %-7s %s\n", c.Change, visible(what))
		for _, words := range c.Old {
			fmt.Fprintf(w, "          - %s\n", visible(words))
		}
		for _, words := range c.New {
			fmt.Fprintf(w, "          + %s\n", visible(words))
		}
	}
	if len(r.Changes) == 0 {
		fmt.Fprintln(w, "nobody gains or loses anything")
	}
	if r.LocksOut != "" {
		fmt.Fprintf(w, "a server refuses to reload it unless it says lockdown: true: %s\n", visible(r.LocksOut))
	}
}
