// Command soak runs Curfew under load and accidents for a while, and counts. docs/PERFORMANCE.md says what it
// looks at. Its exit status is not 0 when anything is not as it must be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/e2e/soak"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	o := soak.Options{Log: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
	}}
	flag.DurationVar(&o.Duration, "duration", 10*time.Minute, "how long")
	flag.IntVar(&o.Idle, "idle", 1000, "sessions that do next to nothing")
	flag.IntVar(&o.Busy, "busy", 100, "sessions that work")
	flag.IntVar(&o.Crashes, "crashes", 0, "how often Curfew is killed with -9 and started again meanwhile")
	flag.DurationVar(&o.Late, "late", 500*time.Millisecond, "how late any grant may end")
	flag.Uint64Var(&o.Seed, "seed", 0, "of what happens when (default: another one each time)")
	flag.StringVar(&o.Bin, "curfew", "", "the binary (default: built from the work tree)")
	keep := flag.Bool("keep", false, "leave the files where they are, logs among them")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("what is %q?", flag.Arg(0))
	}
	if o.Dir, err = os.MkdirTemp("", "curfew-soak-"); err != nil {
		return err
	}
	if err := os.Chmod(o.Dir, 0o755); err != nil { // servers that run as others walk through it
		return err
	}
	defer func() {
		if *keep {
			o.Log("everything is in %s", o.Dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(o.Dir))
	}()
	if o.Bin == "" {
		o.Bin = filepath.Join(o.Dir, "curfew")
		if err := harness.Build(ctx, o.Bin, ""); err != nil {
			return err
		}
	}
	r, err := soak.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := r.Print(os.Stdout); err != nil {
		return err
	}
	if len(r.Failures) > 0 {
		return fmt.Errorf("%d things are not as they must be", len(r.Failures))
	}
	return nil
}
