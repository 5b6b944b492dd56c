package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/recorder/replay"
)

type replayFlags struct {
	speed       float64
	idle        time.Duration
	noWait      bool
	from, until time.Duration
	session     string
	find        string
}

func newReplay(a *app) *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:   "replay SESSION|FILE",
		Short: "Replay a session",
		Long: `Replays a session in the terminal, at the pace at which it went: each statement with its time,
parameters, result and what became of it. The session's id is looked up at the server, which puts
on the ledger that you read it; a recording's file or an exported bundle is replayed from disk.
With -o json the recording's own lines are printed. Not on a terminal, nothing is waited for.`,
		Example: `  curfew replay s5t6v7w8x9y0
  curfew replay s5t6v7w8x9y0 --speed 4 --idle 2s
  curfew replay evidence.tar.zst --session s5t6v7w8x9y0 --no-wait
  curfew replay s5t6v7w8x9y0 --find 'DROP TABLE'
  curfew replay s5t6v7w8x9y0.jsonl.zst -o json | jq .text`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.replay(cmd.Context(), args[0], f) },
	}
	c.Flags().Float64Var(&f.speed, "speed", 1, "2 is twice as fast")
	c.Flags().DurationVar(&f.idle, "idle", 0, "the longest pause (default: as long as it was)")
	c.Flags().BoolVar(&f.noWait, "no-wait", false, "no pauses")
	c.Flags().DurationVar(&f.from, "start", 0, "begin with what happened so long after the session's begin")
	c.Flags().DurationVar(&f.until, "until", 0, "stop before what happened so long after the session's begin")
	c.Flags().StringVar(&f.find, "find", "", "only events that hold this text (case counts), without pauses")
	c.Flags().StringVar(&f.session, "session", "", "which session of a bundle")
	return c
}

func (a *app) replay(ctx context.Context, what string, f replayFlags) error {
	format, err := a.format("table", "json")
	if err != nil {
		return err
	}
	if f.speed <= 0 {
		return problem(exitUsage, "usage", "--speed must be more than 0", "2 is twice as fast")
	}
	if format == "json" && (f.find != "" || f.from != 0 || f.until != 0) {
		return problem(exitUsage, "usage", "-o json prints all lines of the recording: --find, --start and --until don't go with it",
			"leave them out and choose with jq, or leave out -o json")
	}
	r, err := a.openRecording(ctx, what, f.session)
	if err != nil {
		return err
	}
	defer r.Close()
	if format == "json" {
		_, err = io.Copy(a.stdout, r)
		return cutShort(err)
	}
	live := isTerminal(a.stdout)
	lines := io.Reader(r)
	if l, ok := r.(*localFile); ok {
		lines = l.Reader // it may be one that can be read from anywhere
	}
	return replay.Play(ctx, a.stdout, lines, replay.Options{
		Speed: f.speed, Idle: f.idle, NoWait: f.noWait || !live, Start: f.from, Until: f.until, Find: f.find,
		Width: a.terminalWidth(a.stdout), Color: live && a.env("NO_COLOR") == "",
	})
}

// openRecording takes a path to what is on disk, or else a session's id.
func (a *app) openRecording(ctx context.Context, what, session string) (io.ReadCloser, error) {
	if _, err := os.Stat(what); err == nil {
		return openLocal(what, session)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if session != "" {
		return nil, problem(exitNotFound, api.CodeNotFound, fmt.Sprintf("there is no bundle %q here", what), "check the path")
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	r, err := c.Recording(ctx, what)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return spool(r)
}

// spool keeps a download in a file without a name: it is watched at its own pace, and the server doesn't
// wait for slow readers.
func spool(r io.Reader) (io.ReadCloser, error) {
	f, err := os.CreateTemp("", "curfew-replay-*") // 0600
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	var size int64
	if err == nil {
		size, err = io.Copy(f, r)
		err = cutShort(err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &localFile{Reader: io.NewSectionReader(f, 0, size), closers: []func() error{f.Close}}, nil
}
