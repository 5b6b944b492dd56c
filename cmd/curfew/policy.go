package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/policy"
)

func newPolicy(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Test, explain and compare policies",
		Long: `Works on policy files: no server is asked, and nobody need be logged in; only explain asks the
server, if you are logged in and name no file. Labels of targets come from the configuration:
--config, or else the curfew.yaml beside the policy, if it is there.`,
		Example: `  curfew policy test policy.yaml
  curfew policy explain --as alice --group developers --target orders --level writer --for 2h
  curfew policy diff policy.yaml policy.new.yaml`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(newPolicyTest(a), newPolicyExplain(a), newPolicyDiff(a))
	return c
}

// policyFlags say which policy is meant, and where its targets' labels stand.
type policyFlags struct {
	config string
}

func (f *policyFlags) bind(c *cobra.Command) {
	c.Flags().StringVarP(&f.config, "config", "c", "", "configuration that the policy belongs to (default: curfew.yaml beside it)")
}

// book reads a policy with its cases; no path: the one that the configuration names, or ./policy.yaml.
func (f *policyFlags) book(a *app, path string) (*config.Book, string, error) {
	conf := f.config
	if conf == "" {
		beside := filepath.Join(filepath.Dir(path), "curfew.yaml")
		if _, err := os.Stat(beside); err == nil {
			conf = beside
		}
	}
	var targets map[string]config.Target
	if conf != "" {
		var named string
		var err error
		if targets, named, err = config.LoadTargets(conf); err != nil {
			return nil, "", a.mistakes(err)
		}
		if path == "" {
			path = named
		}
	}
	if path == "" {
		path = "policy.yaml"
	}
	book, err := config.LoadBook(path, targets)
	if err != nil {
		return nil, "", a.mistakes(err)
	}
	if targets == nil {
		for _, r := range book.Policy.Rules {
			if len(r.Labels) > 0 && !labelled(book.Policy) {
				return nil, "", problem(exitUsage, "usage", fmt.Sprintf("rule %q selects targets by their labels, which stand in the configuration", r.Name),
					"name it: --config curfew.yaml; or give labels: in "+strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))+".cases.yaml")
			}
		}
	}
	return book, path, nil
}

func labelled(p *policy.Policy) bool {
	for _, t := range p.Targets {
		if len(t.Labels) > 0 {
			return true
		}
	}
	return false
}

// mistakes says everything that is wrong in files, a line each.
func (a *app) mistakes(err error) error {
	var all *config.Errors
	if !errors.As(err, &all) {
		return err
	}
	if a.output == "json" {
		return problem(exitFound, "failed", all.Error(), "")
	}
	for _, p := range all.Problems {
		fmt.Fprintln(a.stderr, visible(p.String()))
	}
	return &exitError{status: exitFound}
}

// people finds the identities that --as and --identity name.
func (a *app) people(book *config.Book, names, groups, files []string, now time.Time) ([]auth.Identity, error) {
	var all []auth.Identity
	for _, name := range names {
		id, known := book.Person(name, now)
		if len(groups) > 0 {
			id.Groups = groups
		} else if !known && book.HasPeople() {
			return nil, problem(exitUsage, "usage", fmt.Sprintf("nobody is called %q under people in the policy", name), "say what is known of them: --group, or --identity FILE")
		}
		all = append(all, id)
	}
	for _, file := range files {
		id, err := config.ReadIdentity(file, now)
		if err != nil {
			return nil, a.mistakes(err)
		}
		all = append(all, id)
	}
	return all, nil
}
