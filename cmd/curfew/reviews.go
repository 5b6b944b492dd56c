package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

func newReviews(a *app) *cobra.Command {
	var f api.ReviewFilter
	c := &cobra.Command{
		Use:   "reviews",
		Short: "List what is to be reviewed, and what was",
		Long: `Lists reviews, the earliest due first: of what you did, of what you may review, and of what you may
read. A rule can ask that sessions be reviewed by somebody else; what was done with the glass
broken always is, all of it at once.`,
		Example: `  curfew reviews --due
  curfew reviews --mine
  curfew reviews --target orders -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			reviews, err := c.Reviews(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.print(reviews, func(w io.Writer) {
				a.showReviews(w, reviews)
				more(w, cmd, len(reviews), f.Limit, func(i int) string { return reviews[i].ID })
			})
		},
	}
	c.Flags().BoolVar(&f.Mine, "mine", false, "only of what you did")
	c.Flags().BoolVar(&f.Due, "due", false, "only those that wait for your word")
	c.Flags().StringVar(&f.Target, "target", "", "only on this target")
	pageFlags(c, &f.After, &f.Limit)
	c.MarkFlagsMutuallyExclusive("mine", "due")
	return c
}

func (a *app) showReviews(w io.Writer, reviews []api.Review) {
	if len(reviews) == 0 {
		fmt.Fprintln(w, "No reviews.")
		return
	}
	rows := make([][]string, 0, len(reviews))
	for _, r := range reviews {
		what := "session"
		if r.Session == "" {
			what = "glass broken"
		}
		by := r.By
		if r.Reviewer != nil {
			by = person(r.Reviewer.Email, r.Reviewer.Subject)
		}
		rows = append(rows, []string{r.ID, r.Status, what, person(r.Person.Email, r.Person.Subject), r.Target, r.Level, a.when(r.Due), by, r.Finding})
	}
	a.table(w, []string{"REVIEW", "STATUS", "WHAT", "WHO", "TARGET", "LEVEL", "DUE", "BY", "FINDING"}, rows, 8)
}

func newReview(a *app) *cobra.Command {
	var r api.Reviewed
	c := &cobra.Command{
		Use:   "review SESSION|GRANT",
		Short: "Say what you have found in what somebody else did",
		Long: `Says that you have looked at a session's recording, or at everything that was done under a grant
for which the glass was broken, and what you found. It is said once, and goes on the ledger. Nobody
reviews what they did themselves.`,
		Example: `  curfew replay s3h8k1t5ccc                  # look at it first
  curfew review s3h8k1t5ccc --ok
  curfew review g7p3q8w1bbb --finding "read salaries, which the incident had nothing to do with"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			done, err := c.Review(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) {
				fmt.Fprintf(w, "Reviewed: %s of %s, %s. What else waits for you: curfew reviews --due\n",
					done.ID, visible(person(done.Person.Email, done.Person.Subject)), done.Status)
			})
		},
	}
	c.Flags().BoolVar(&r.OK, "ok", false, "nothing was found")
	c.Flags().StringVar(&r.Finding, "finding", "", "what was found; its subject, and auditors, read it")
	c.MarkFlagsMutuallyExclusive("ok", "finding")
	c.MarkFlagsOneRequired("ok", "finding")
	return c
}
