package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/policy"
)

type explainFlags struct {
	policyFlags
	file, as, identity, history, at, start string
	groups                                 []string
	ask                                    policy.Ask
}

func newPolicyExplain(a *app) *cobra.Command {
	var f explainFlags
	c := &cobra.Command{
		Use:   "explain",
		Short: "Say what a policy makes of an ask, and what each rule has to do with it",
		Long: `Says what would come of an ask, which rule decides, and why each other one does not.

Logged in, the server is asked: it judges by the policy in force, as of now, with your login and
your past (grants, reviews that are owed), and tells of the rules that are for you. Readers of every
target may ask about anybody who has logged in (--as EMAIL), and are told of every rule.

With --policy, --config, --group, --identity, --history or --at, or without a login, a policy file
is asked. Who asks is then somebody named under people: in it (--as), somebody in the groups that
you name (--as with --group), or whoever is described in a file (--identity; what curfew whoami
-o json prints is such a file).

Ends with 0 when it would be allowed, with 3 when a stronger or newer login would, and with 4 when
it would be refused.`,
		Example: `  curfew policy explain --target orders --level writer --for 30m --reason "fix 4711"
  curfew policy explain --as alice@example.com --target orders --level owner --break-glass --reason x
  curfew policy explain --as alice --group developers --target orders --level writer --for 30m --reason "fix 4711"
  curfew policy explain --policy policy.yaml --identity whoami.json --target orders --level writer --at "2026-12-24 20:00 Europe/Berlin"
  curfew policy explain --policy policy.yaml --as alice --target orders --level owner --break-glass -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := f.run(cmd.Context(), a)
			if err != nil {
				return err
			}
			switch e.Outcome {
			case policy.OutcomeAllowed:
				return nil
			case policy.OutcomeStepUp:
				return &exitError{status: exitLogin}
			}
			return &exitError{status: exitForbidden}
		},
	}
	f.bind(c)
	flags := c.Flags()
	flags.StringVar(&f.file, "policy", "", "policy file (without a login: the configuration's, or policy.yaml)")
	flags.StringVar(&f.as, "as", "", "who asks: an e-mail, at a server; a name under people:, or any with --group, in a file")
	flags.StringSliceVar(&f.groups, "group", nil, "a group of theirs; repeatable")
	flags.StringVar(&f.identity, "identity", "", "file that says who asks: issuer, subject, email, groups, acr, amr, auth_time or auth_age, claims")
	flags.StringVar(&f.history, "history", "", "file with their past, as a case's history: is written")
	flags.StringVarP(&f.ask.Target, "target", "t", "", "target")
	flags.StringVarP(&f.ask.Level, "level", "l", "", "access level")
	flags.DurationVar(&f.ask.Duration, "for", defaultFor, "how long the access is to last")
	flags.StringVarP(&f.ask.Reason, "reason", "r", "", "what for")
	flags.StringVar(&f.ask.Ticket, "ticket", "", "number of a ticket")
	flags.StringVar(&f.at, "at", "", `when it is asked: RFC 3339, or "2026-03-01 14:00 Europe/Berlin" (default: now)`)
	flags.StringVar(&f.start, "start", "", "when it is to begin, written likewise (default: when it is approved)")
	flags.BoolVar(&f.ask.BreakGlass, "break-glass", false, "break the glass")
	c.MarkFlagsMutuallyExclusive("as", "identity")
	_ = c.MarkFlagRequired("target") // both are flags of this command
	_ = c.MarkFlagRequired("level")
	return c
}

// run asks the server or a file, and prints what it says.
func (f *explainFlags) run(ctx context.Context, a *app) (e policy.Explanation, err error) {
	offline := f.file != "" || f.config != "" || f.identity != "" || f.history != "" || f.at != "" || len(f.groups) > 0
	if !offline {
		c, err := a.client()
		if err == nil {
			return f.atServer(ctx, a, c)
		}
		if a.server != "" {
			return e, err
		}
	}
	if f.as == "" && f.identity == "" {
		return e, problem(exitUsage, "usage", "it is not said who asks", "log in, and it is you; or name them: --as NAME, or --identity FILE")
	}
	if e, err = f.explain(a); err != nil {
		return e, err
	}
	return e, a.print(e, func(w io.Writer) { showExplanation(w, e) })
}

// atServer has the server judge.
func (f *explainFlags) atServer(ctx context.Context, a *app, c *api.Client) (e policy.Explanation, err error) {
	what := api.Suppose{As: f.as, Ask: api.Ask{
		Target: f.ask.Target, Level: f.ask.Level, Duration: api.Duration(f.ask.Duration), Reason: f.ask.Reason, Ticket: f.ask.Ticket, BreakGlass: f.ask.BreakGlass,
	}}
	if f.start != "" {
		if what.Start, err = config.ParseTime(f.start); err != nil {
			return e, problem(exitUsage, "usage", "--start "+err.Error(), "")
		}
	}
	said, err := c.Explain(ctx, what)
	if err != nil {
		return e, err
	}
	e = policy.Explanation{Person: said.Person, Ask: f.ask, At: said.At, Policy: said.Policy, Outcome: policy.Outcome(said.Outcome), Rule: said.Rule, Says: said.Says, Next: said.Next}
	for _, r := range said.Rules {
		e.Rules = append(e.Rules, policy.RuleStory(r))
	}
	return e, a.print(said, func(w io.Writer) {
		showExplanation(w, e)
		fmt.Fprintf(w, "\nBy the policy in force at %s, %s.\n", visible(c.Server), visible(said.Policy))
	})
}

func (f *explainFlags) explain(a *app) (e policy.Explanation, err error) {
	book, _, err := f.book(a, f.file)
	if err != nil {
		return e, err
	}
	now := a.now()
	if f.at != "" {
		if now, err = config.ParseTime(f.at); err != nil {
			return e, problem(exitUsage, "usage", "--at "+err.Error(), "")
		}
	}
	if f.start != "" {
		if f.ask.Start, err = config.ParseTime(f.start); err != nil {
			return e, problem(exitUsage, "usage", "--start "+err.Error(), "")
		}
	}
	var names, files []string
	if f.as != "" {
		names = []string{f.as}
	} else {
		files = []string{f.identity}
	}
	who, err := a.people(book, names, f.groups, files, now)
	if err != nil {
		return e, err
	}
	var facts policy.Facts
	if f.history != "" {
		if facts, err = config.ReadHistory(f.history, now); err != nil {
			return e, a.mistakes(err)
		}
	}
	return book.Policy.Explain(who[0], f.ask, facts, now), nil
}

func showExplanation(w io.Writer, e policy.Explanation) {
	what := fmt.Sprintf("%s asks for %s on %s for %s", e.Person, e.Ask.Level, e.Ask.Target, span(e.Ask.Duration))
	outcome := map[policy.Outcome]string{
		policy.OutcomeAllowed: "allowed", policy.OutcomeStepUp: "not with this login", policy.OutcomeDenied: "denied",
		policy.OutcomeRefused: "refused: no rule allows it", policy.OutcomeFailed: "denied: a condition can't be evaluated", policy.OutcomeInvalid: "makes no sense",
	}[e.Outcome]
	if e.Rule != "" {
		outcome += fmt.Sprintf(" by the rule %q", e.Rule)
	}
	fmt.Fprintf(w, "%s: %s\n", visible(what), visible(outcome))
	if e.Says != "" {
		fmt.Fprintf(w, "  they read   %s\n", visible(e.Says))
	}
	for _, next := range e.Next {
		fmt.Fprintf(w, "  then        %s\n", visible(next))
	}
	for _, r := range e.Rules {
		mark := " "
		if r.Decides {
			mark = "*"
		}
		fmt.Fprintf(w, "\n%s %s\n    %s\n", mark, visible(r.Rule), visible(r.Gives))
		for _, why := range r.Because {
			fmt.Fprintf(w, "    - %s\n", strings.TrimSpace(visible(why)))
		}
		if r.Decides && len(r.Because) == 0 {
			fmt.Fprintln(w, "    - it decides")
		}
	}
}
