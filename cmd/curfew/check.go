package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/protocol"
)

// inspector reads the configuration and asks each target what the broker lacks. Everything that is wrong
// goes into the report; an error means that there is none. Without names it asks every target.
type inspector func(ctx context.Context, config string, targets []string) (checkReport, error)

// checkReport is what curfew check found.
type checkReport struct {
	Config   string         `json:"config"`
	Problems []fileProblem  `json:"problems"` // of the configuration and the policy
	Targets  []targetReport `json:"targets"`
}

// fileProblem is one thing that is wrong in a file.
type fileProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

// targetReport is what one target lacks, and the SQL that would give it.
type targetReport struct {
	Target   string             `json:"target"`
	Findings []protocol.Finding `json:"findings"`
	Setup    string             `json:"setup,omitempty"` // only with --print-setup
	Error    string             `json:"error,omitempty"` // it could not be asked
}

// ok reports whether Curfew could keep its promises with this.
func (r checkReport) ok() bool {
	for _, t := range r.Targets {
		if !t.ok() {
			return false
		}
	}
	return len(r.Problems) == 0
}

func (t targetReport) ok() bool {
	for _, f := range t.Findings {
		if f.Severity == "error" {
			return false
		}
	}
	return t.Error == ""
}

func newCheck(a *app) *cobra.Command {
	var config string
	var setup bool
	c := &cobra.Command{
		Use:   "check [TARGET...]",
		Short: "Check the configuration, the policy and the targets",
		Long: `Reports everything that is wrong in the configuration and the policy at once, with file and line,
then connects to each target, or to those that are named, and says in plain words what Curfew's
broker login lacks there. Nothing is changed. Ends with 0 when Curfew could run with this, and
with 8 otherwise.`,
		Example: `  curfew check --config curfew.yaml
  curfew check orders --print-setup > setup.sql     # the SQL for a target, for a DBA to read and run
  curfew check -o json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.inspect(cmd.Context(), config, args)
			if err != nil {
				return err
			}
			if !setup {
				for i := range r.Targets {
					r.Targets[i].Setup = ""
				}
			}
			show := showCheck
			if setup {
				show = showSetup
			}
			if err := a.print(r, func(w io.Writer) { show(w, a.stderr, r) }); err != nil {
				return err
			}
			if !r.ok() {
				return &exitError{status: exitFound}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&config, "config", "c", "/etc/curfew/curfew.yaml", "configuration file")
	c.Flags().BoolVar(&setup, "print-setup", false, "print the SQL that sets up the broker on each target")
	return c
}

func showProblems(w io.Writer, problems []fileProblem) {
	for _, p := range problems {
		at := p.File
		if p.Line > 0 {
			at += fmt.Sprintf(":%d", p.Line)
		}
		if p.Key != "" {
			at += ": " + p.Key
		}
		fmt.Fprintf(w, "%s: %s\n", visible(at), visible(p.Message))
	}
}

func showCheck(w, _ io.Writer, r checkReport) {
	showProblems(w, r.Problems)
	if len(r.Problems) == 0 {
		fmt.Fprintf(w, "%s: good\n", visible(r.Config))
	}
	lacks := false
	for _, t := range r.Targets {
		switch {
		case t.Error != "":
			fmt.Fprintf(w, "%s: can't be checked: %s\n", visible(t.Target), visible(t.Error))
		case len(t.Findings) == 0:
			fmt.Fprintf(w, "%s: good\n", visible(t.Target))
		default:
			fmt.Fprintf(w, "%s:\n", visible(t.Target))
		}
		for _, f := range t.Findings {
			fmt.Fprintf(w, "  %-7s  %s\n", f.Severity, visible(f.What))
			if f.Fix != "" {
				fmt.Fprintf(w, "           %s\n", strings.ReplaceAll(visibleLines(strings.TrimSpace(f.Fix)), "\n", "\n           "))
			}
			lacks = lacks || f.Severity == "error"
		}
	}
	if lacks {
		fmt.Fprintln(w, "The SQL that sets all of it up: curfew check --print-setup TARGET")
	}
}

// showSetup prints nothing but SQL on standard output, so that it can be piped.
func showSetup(w, notes io.Writer, r checkReport) {
	showProblems(notes, r.Problems)
	for _, t := range r.Targets {
		fmt.Fprintf(w, "-- target %s\n%s\n", visible(t.Target), strings.TrimSpace(t.Setup))
	}
}
