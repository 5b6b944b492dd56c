// Command bench measures what Curfew costs beside what else one may put in front of a database: nothing,
// HAProxy and pgbouncer. All of them serve the same servers and clients in one run, in turns, so that what
// the machine does meanwhile falls on all alike. docs/PERFORMANCE.md says how to read what it prints.
//
// What a reader may rely on: figures are medians of rounds; ratios are of medians of one run; CPU is what
// the kernel accounts to the proxy's process, all its threads and children. Everything that is started is
// ended, also on Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// settings of a run.
type settings struct {
	only    string
	quick   bool
	rounds  int
	seconds float64
	output  string
	bin     string
	disk    string
	profile string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == bareName {
		bareMain(os.Args[2:])
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// flags are set by the environment too, for make: QUICK=1 ONLY=pgbench,tls ROUNDS=5 SECONDS=4.
func (s *settings) flags() error {
	env := func(name, otherwise string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	rounds, err := strconv.Atoi(env("ROUNDS", "0"))
	if err != nil {
		return fmt.Errorf("ROUNDS: %w", err)
	}
	seconds, err := strconv.ParseFloat(env("SECONDS", "0"), 64)
	if err != nil {
		return fmt.Errorf("SECONDS: %w", err)
	}
	quick := env("QUICK", "0")
	flag.BoolVar(&s.quick, "quick", quick != "0", "one short round of everything (QUICK=1)")
	flag.StringVar(&s.only, "only", env("ONLY", ""), "rows to measure, of "+strings.Join(rowNames(), ",")+" (ONLY)")
	flag.IntVar(&s.rounds, "rounds", rounds, "rounds that medians are taken of (ROUNDS; default 3, quick 1)")
	flag.Float64Var(&s.seconds, "seconds", seconds, "length of a round in one cell (SECONDS; default 4, quick 1)")
	flag.StringVar(&s.output, "o", env("OUTPUT", "table"), "table or json (OUTPUT)")
	flag.StringVar(&s.bin, "curfew", env("CURFEW_BIN", ""), "the binary to measure (default: built from the work tree)")
	flag.StringVar(&s.disk, "disk", env("DISK", "/var/tmp"), "a directory on a real disk, for what waits for it (DISK)")
	flag.StringVar(&s.profile, "profile", env("PROFILE", ""), "a file for the CPU profile of a relay that records, from the row recording (PROFILE)")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("what is %q?", flag.Arg(0))
	}
	if s.output != "table" && s.output != "json" {
		return fmt.Errorf("-o %s: table or json", s.output)
	}
	for _, name := range split(s.only) {
		if !known(name) {
			return fmt.Errorf("there is no row %q; there are %s", name, strings.Join(rowNames(), ", "))
		}
	}
	if s.rounds == 0 {
		s.rounds = 3
		if s.quick {
			s.rounds = 1
		}
	}
	if s.seconds == 0 {
		s.seconds = 4
		if s.quick {
			s.seconds = 1
		}
	}
	return nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func run(ctx context.Context) (err error) {
	var s settings
	if err := s.flags(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "curfew-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // servers that run as others walk through it
		return err
	}
	if s.bin == "" {
		s.bin = filepath.Join(dir, "curfew")
		progress("building curfew")
		if err := harness.Build(ctx, s.bin, ""); err != nil {
			return err
		}
	}
	st, err := newStage(ctx, dir, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	rep := report{About: about(ctx, s.bin)}
	for _, w := range rep.About.Warnings {
		progress("WARNING: %s", w)
	}
	failed := st.measure(ctx, &rep)
	rep.About.finish()
	if len(rep.Rows) > 0 {
		failed = errors.Join(failed, rep.print(os.Stdout, s.output))
	}
	return failed
}

// measure makes every row that is asked for. One that fails does not keep the others from being measured.
func (st *stage) measure(ctx context.Context, rep *report) error {
	var failed error
	for _, m := range measurements() {
		if !st.wanted(m) {
			continue
		}
		if ctx.Err() != nil {
			return errors.Join(failed, context.Cause(ctx))
		}
		progress("%s", m.what)
		began := time.Now()
		rows, err := m.do(ctx, st)
		if err != nil {
			err = fmt.Errorf("%s: %w", m.names[0], err)
			progress("FAILED %v", err)
			failed = errors.Join(failed, err)
		}
		rep.Rows = append(rep.Rows, rows...)
		for _, r := range rows {
			progress("%s: %s, %s (%.0f s)", r.Work, r.Measured, r.Verdict, time.Since(began).Seconds())
		}
	}
	return failed
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
