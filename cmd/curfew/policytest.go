package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// testReport is what curfew policy test found.
type testReport struct {
	Policy string       `json:"policy"`
	Hash   string       `json:"hash"`
	Cases  []caseReport `json:"cases"`
	Failed int          `json:"failed"`
}

type caseReport struct {
	Case  string   `json:"case"`
	Place string   `json:"place"`
	OK    bool     `json:"ok"`
	Wrong []string `json:"wrong,omitempty"`
}

func newPolicyTest(a *app) *cobra.Command {
	var f policyFlags
	c := &cobra.Command{
		Use:   "test [FILE]",
		Short: "Run the cases that are written beside a policy",
		Long: `Plays the cases of a policy: those under cases: in the file itself, and those in the file beside it
that ends in .cases.yaml. Each says who asks for what, when, and what must come of it. Ends with 0
when all came as expected, and with 8 otherwise, or if there is no case, or if a file is wrong.`,
		Example: `  curfew policy test policy.yaml
  curfew policy test --config /etc/curfew/curfew.yaml
  curfew policy test policy.yaml -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			book, path, err := f.book(a, arg(args, 0))
			if err != nil {
				return err
			}
			if len(book.Cases) == 0 {
				return problem(exitFound, "failed", path+" has no cases", "write some under cases:, or in a file beside it that ends in .cases.yaml")
			}
			r := testReport{Policy: path, Hash: book.Policy.Hash, Cases: []caseReport{}}
			for _, c := range book.Cases {
				one := caseReport{Case: c.Name, Place: c.Place, Wrong: book.Policy.Try(c)}
				if one.OK = len(one.Wrong) == 0; !one.OK {
					r.Failed++
				}
				r.Cases = append(r.Cases, one)
			}
			if err := a.print(r, func(w io.Writer) { showTest(w, r) }); err != nil {
				return err
			}
			if r.Failed > 0 {
				return &exitError{status: exitFound}
			}
			return nil
		},
	}
	f.bind(c)
	return c
}

func showTest(w io.Writer, r testReport) {
	for _, c := range r.Cases {
		if c.OK {
			fmt.Fprintf(w, "  ok    %s\n", visible(c.Case))
			continue
		}
		fmt.Fprintf(w, "  FAIL  %s\n        %s\n", visible(c.Case), visible(c.Place))
		for _, why := range c.Wrong {
			fmt.Fprintf(w, "        %s\n", visible(why))
		}
	}
	if r.Failed > 0 {
		fmt.Fprintf(w, "%d of %d cases came otherwise; which rule does what: curfew policy explain\n", r.Failed, len(r.Cases))
		return
	}
	fmt.Fprintf(w, "%d cases, all as expected\n", len(r.Cases))
}

// arg gives an argument that may be left out.
func arg(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}
