package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

type exportFlags struct {
	scope    api.Scope
	from, to string
	format   string
	file     string
}

func newExport(a *app) *cobra.Command {
	var f exportFlags
	c := &cobra.Command{
		Use:   "export",
		Short: "Export recordings and the ledger",
		Long: `Exports what you may read: as a bundle that curfew verify checks offline, or as JSON Lines, one
event a line with its session, grant and person, for people and SIEMs. That it was exported, and
by whom, goes on the ledger.`,
		Example: `  curfew export --grant g7p3q8w1bbb --file evidence.tar.zst
  curfew export --target orders --from 2026-03-01 --to 2026-04-01 --format jsonl --file march.jsonl
  curfew export --session s5t6v7w8x9y0 --format jsonl | jq .text`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.export(cmd, f) },
	}
	c.Flags().StringVar(&f.scope.Session, "session", "", "only this session")
	c.Flags().StringVar(&f.scope.Grant, "grant", "", "only this grant")
	c.Flags().StringVar(&f.scope.Target, "target", "", "only this target")
	c.Flags().StringVar(&f.from, "from", "", "leave out what ended before (RFC 3339, a date, or HH:MM)")
	c.Flags().StringVar(&f.to, "to", "", "leave out what began at this time or later")
	c.Flags().StringVar(&f.format, "format", api.FormatBundle, "bundle or jsonl")
	c.Flags().StringVarP(&f.file, "file", "f", "", "file to write (default: standard output)")
	return c
}

func (a *app) export(cmd *cobra.Command, f exportFlags) (err error) {
	if f.format != api.FormatBundle && f.format != api.FormatJSONL {
		return problem(exitUsage, "usage", fmt.Sprintf("--format %s is not known", f.format), "use bundle or jsonl")
	}
	if f.file == "" && f.format == api.FormatBundle && isTerminal(a.stdout) {
		return problem(exitUsage, "usage", "a bundle is not for a terminal", "say where it goes: --file evidence.tar.zst")
	}
	if f.scope.From, err = a.moment(f.from); err != nil {
		return err
	}
	if f.scope.To, err = a.moment(f.to); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	r, err := c.Export(cmd.Context(), f.scope, f.format)
	if err != nil {
		return err
	}
	defer r.Close()
	if f.file == "" {
		_, err = io.Copy(a.stdout, r)
		return cutShort(err)
	}
	n, err := saveWhole(f.file, r)
	if err != nil {
		return err
	}
	return a.print(map[string]any{"file": f.file, "bytes": n, "format": f.format}, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d bytes.\n", f.file, n)
		if f.format == api.FormatBundle {
			fmt.Fprintf(w, "Check it with: curfew verify %s --key <verifier key>\n", f.file)
		}
	})
}

// saveWhole writes a file that is there whole or not at all; recordings are for their reader's eyes only.
func saveWhole(path string, r io.Reader) (int64, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".curfew-*") // 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	n, err := io.Copy(f, r)
	if err != nil {
		f.Close()
		return n, cutShort(err)
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return n, err
	}
	if err := f.Close(); err != nil {
		return n, err
	}
	return n, os.Rename(f.Name(), path)
}

// cutShort says that a download broke off; the server cuts one that it can't finish.
func cutShort(err error) error {
	if err == nil {
		return nil
	}
	return problem(exitUnreachable, api.CodeUnreachable, "the download broke off, and what came is not all: "+err.Error(), "try again; the server's log says why")
}

// moment reads a flag that may be left out.
func (a *app) moment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return parseTime(text, a.now())
}
