package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/recorder/export"
)

func newVerify(a *app) *cobra.Command {
	var key, anchor string
	c := &cobra.Command{
		Use:   "verify BUNDLE --key KEY",
		Short: "Check an exported bundle, offline",
		Long: `Checks a bundle (a .tar.zst or the directory of one) without a server: that nothing in the ledger
or the recordings was changed, removed, reordered or cut off since it was signed, and that the
story they tell obeys Curfew's rules. The verifier key must come from somebody whom you trust,
not with the bundle. An anchor is a file of checkpoints that somebody else kept: with it, a cut
tail and a rewrite by the holder of the signing key are found too.

Ends with 0 when nothing was changed and no rule was broken, and with 8 otherwise.`,
		Example: `  curfew verify evidence.tar.zst --key curfew.key
  curfew verify evidence.tar.zst --key 'curfew-k3x9q1+1a2b3c4d+AXY…' --anchor witness.anchors
  curfew verify evidence/ --key curfew.key -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			verifier, err := readKey(key)
			if err != nil {
				return err
			}
			o := export.VerifyOptions{Key: verifier, Anchor: anchor, Dialects: dialects()}
			p := a.newProgress()
			if p.live {
				o.Progress = func(name string) { p.say("Checking "+visible(name), 0) }
			}
			report, err := export.Verify(cmd.Context(), args[0], o)
			p.done()
			if errors.Is(err, fs.ErrNotExist) {
				return problem(exitNotFound, "not_found", err.Error(), "check the path")
			}
			if err != nil {
				return err
			}
			if err := a.print(struct {
				OK bool `json:"ok"`
				export.Report
			}{report.OK(), report}, func(w io.Writer) { a.showReport(w, report, anchor != "") }); err != nil {
				return err
			}
			if !report.OK() {
				return &exitError{status: exitFound}
			}
			return nil
		},
	}
	c.Flags().StringVar(&key, "key", "", "the installation's verifier key, or a file that holds it (curfew key prints it)")
	c.Flags().StringVar(&anchor, "anchor", "", "file of checkpoints that somebody else keeps")
	cobra.CheckErr(c.MarkFlagRequired("key"))
	return c
}

// readKey takes the key itself (name+hash+base64) or a file with it.
func readKey(s string) (string, error) {
	b, err := os.ReadFile(s)
	if err == nil {
		if len(b) > 4096 {
			return "", problem(exitUsage, "usage", s+" is too long for a verifier key", "give the key that curfew key prints")
		}
		return strings.TrimSpace(string(b)), nil
	}
	if strings.Count(s, "+") >= 2 {
		return strings.TrimSpace(s), nil
	}
	return "", problem(exitUsage, "usage", "the verifier key can't be read: "+err.Error(), "give --key a file, or the key itself")
}

func (a *app) showReport(w io.Writer, r export.Report, anchored bool) {
	for _, f := range r.Findings {
		word := map[export.Severity]string{export.SeverityError: "WRONG", export.SeverityOpen: "open", export.SeverityNote: "note"}[f.Severity]
		fmt.Fprintf(w, "%-5s  %s: %s\n", word, visible(f.Where), visible(f.What))
	}
	ledger := fmt.Sprintf("%d entries, root %s", r.Entries, r.Root)
	if r.Withheld > 0 {
		ledger += fmt.Sprintf("; %d of them out of scope, as hashes", r.Withheld)
	}
	anchor := "none given: what happened since somebody last kept a checkpoint rests on the holder of the signing key"
	if anchored {
		anchor = fmt.Sprintf("covers %d entries", r.Anchored)
	}
	fields(w, "installation", visible(r.Installation), "from", a.when(r.First), "to", a.when(r.Last), "ledger", visible(ledger),
		"told", fmt.Sprintf("%d requests, %d grants, %d sessions", r.Requests, r.Grants, r.Sessions),
		"recordings", fmt.Sprintf("%d with %d events, %d statements", r.Recordings, r.Events, r.Statements),
		"anchor", anchor)
	for _, one := range r.Intended {
		fmt.Fprintf(w, "grant %s, against the SQL that request %s named: %s\n", visible(one.Grant), visible(one.Request), heldAgainst(one.Report))
	}
	if r.OK() {
		fmt.Fprintln(w, "OK: nothing was changed, removed, reordered or cut off.")
	} else {
		fmt.Fprintln(w, "NOT OK: the evidence was changed, or what it shows broke a rule.")
	}
}
