package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/store"
)

// backupReport is what a backup holds.
type backupReport struct {
	To         string `json:"to"`
	Entries    int64  `json:"entries"`    // of the ledger
	Recordings int    `json:"recordings"` // sealed ones in the copy
	Copied     int    `json:"copied"`     // of them, by this run
	Bytes      int64  `json:"bytes"`      // of those
}

func newBackup(a *app) *cobra.Command {
	var path, to string
	c := &cobra.Command{
		Use:   "backup",
		Short: "Copy a server's store, keys and sealed recordings",
		Long: `Copies what is worth keeping of the data directory that the configuration names, while the server
runs: the store as of one moment, whose ledger is then held against its checkpoint; the keys; and
the recordings that are sealed. Run again into the same directory it copies new recordings only.
Sessions that go on are in the next one. To restore it, put it in place of the data directory.

The copy can sign as the server does: keep it as safe as the server.`,
		Example: `  curfew backup --to /backup/curfew
  curfew backup --config /etc/curfew/curfew.yaml --to /backup/curfew -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := config.Load(path, engineWords())
			if err != nil {
				return err
			}
			r, err := backup(cmd.Context(), cfg.Data, to)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "%s holds a ledger of %d entries and %d recordings, %d of them new (%s).\n",
					visible(r.To), r.Entries, r.Recordings, r.Copied, size(uint64(r.Bytes)))
			})
		},
	}
	c.Flags().StringVar(&path, "config", "/etc/curfew/curfew.yaml", "the configuration")
	c.Flags().StringVar(&to, "to", "", "the directory to copy to; it is made if need be")
	_ = c.MarkFlagRequired("to") // it is there
	return c
}

// backup copies the store before the recordings: every session that it has as sealed was a file by then.
func backup(ctx context.Context, data, to string) (r backupReport, err error) {
	r.To = to
	if err := os.MkdirAll(to, 0o700); err != nil {
		return r, err
	}
	if r.Entries, err = store.Backup(ctx, filepath.Join(data, "store.db"), filepath.Join(to, "store.db")); err != nil {
		return r, err
	}
	for _, key := range []string{"ledger.key", "sealing.key"} {
		if _, err := copyFile(filepath.Join(data, key), filepath.Join(to, key)); err != nil {
			return r, err
		}
	}
	from, place := filepath.Join(data, "recordings", "sealed"), filepath.Join(to, "recordings", "sealed")
	return r, filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(place, rel), 0o700)
		}
		return r.recording(path, filepath.Join(place, rel), e)
	})
}

// recording copies a sealed recording, unless it is there: it never changes but by an erasure, which leaves
// another length or time.
func (r *backupReport) recording(from, to string, e fs.DirEntry) error {
	if !e.Type().IsRegular() || !strings.HasSuffix(from, ".zst") {
		return nil // what a sealing under way has left, or a test of the disk
	}
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.Recordings++
	if there, err := os.Stat(to); err == nil && there.Size() == info.Size() && !there.ModTime().Before(info.ModTime()) {
		return nil
	}
	n, err := copyFile(from, to)
	r.Copied++
	r.Bytes += n
	return err
}

// copyFile copies a file whole or not at all, for its owner alone.
func copyFile(from, to string) (n int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".copy-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(out.Name()) // gone, if all went well
	n, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return n, err
	}
	return n, os.Rename(out.Name(), to)
}
