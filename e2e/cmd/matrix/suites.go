package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Tests of the end-to-end suite that only one kind of server has a part in, beside the subtests with its
// name. Those of the others need not be run again and again.
var (
	drivers = map[string][]string{
		"postgres": {"TestPgx", "TestFortyMebibytesThroughPgx", "TestPq", "TestPgjdbc", "TestPgForNode", "TestPsycopg2", "TestPsycopg3",
			"TestPostgresDumpAndRestore", "TestPgbench"},
		"mysql": {"TestGoSQLDriver", "TestConnectorJ", "TestMariaDBForNode", "TestMySQL2", "TestPyMySQL", "TestDumpAndRestore", "TestMariaDBSlap"},
	}
	stories = map[string][]string{
		"postgres": {"TestServerLogIsInTheRecording", "TestPreparingIsRefusedUnlessTheLevelAllowsIt", "TestPsql18", "TestPsql18AtAnotherIssuer"},
		"mysql": {"TestCtrlCInTheStockClient", "TestXAIsRefusedUnlessTheLevelAllowsIt", "TestFilesStayWithTheClientUnlessTheLevelAllowsIt",
			"TestSomebodyElsesXATransactionIsLeftAlone", "TestLoadIsOnRecord", "TestFortyMebibytesAtOnce",
			"TestATriggerThatIsLeftBehindBreaksNoApplication", "TestAViewThatIsLeftBehindShowsAStrangerNothing"},
	}
)

// elsewhere are tests of the disk under Curfew, which no database has a part in.
var elsewhere = []string{"TestABadDisk"}

// test is how a test begins in a file.
var test = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// checkNames: every test above exists. go test -list would start the suite's servers.
func checkNames() error {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		return err
	}
	var there []string
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, m := range test.FindAllSubmatch(text, -1) {
			there = append(there, string(m[1]))
		}
	}
	for _, lists := range []map[string][]string{drivers, stories, {"": elsewhere}} {
		for _, names := range lists {
			for _, name := range names {
				if !slices.Contains(there, name) {
					return fmt.Errorf("there is no test %s in the end-to-end suite", name)
				}
			}
		}
	}
	return nil
}

// arguments of go test for a suite against a kind of server, and the directory it runs in.
func arguments(kind, suite string) (dir string, args []string, err error) {
	other := map[string]string{"postgres": "mysql", "mysql": "postgres"}[kind]
	exactly := func(names []string) string { return "^(" + strings.Join(names, "|") + ")$" }
	var skip []string
	switch suite {
	case "protocol":
		dir, args = "..", []string{"./protocol/" + kind + "/..."}
	case "stories":
		dir, args = ".", []string{"-parallel", "8", "."}
		skip = append(skip, exactly(slices.Concat(drivers[kind], drivers[other], stories[other], elsewhere)), ".*/^"+other+"$")
	case "drivers":
		dir, args = ".", []string{"-parallel", "8", "-run", exactly(drivers[kind]), "."}
	default:
		return "", nil, fmt.Errorf("there is no suite %q: protocol, stories, drivers", suite)
	}
	if len(skip) > 0 {
		args = append([]string{"-skip", strings.Join(skip, "|")}, args...)
	}
	return dir, append([]string{"test", "-json", "-count=1", "-timeout", "20m"}, args...), nil
}

// skip is a test that said why it did not run.
type skip struct{ name, why string }

// result is what became of a suite.
type result struct {
	passes   int // top-level tests
	failures []string
	skips    []skip
	broken   string // it could not be built or run
	took     time.Duration
}

func (r result) passed() bool { return len(r.failures) == 0 && r.broken == "" && r.passes > 0 }

func (r result) String() string {
	if r.passed() {
		return fmt.Sprintf("passed: %d tests, %d skipped", r.passes, len(r.skips))
	}
	return fmt.Sprintf("FAILED: %s %s", strings.Join(r.failures, " "), r.broken)
}

// test runs a suite with the server's environment and keeps what it says in a file.
func (s *server) test(ctx context.Context, suite string, env []string, logFile string) (result, error) {
	dir, args, err := arguments(s.kind, suite)
	if err != nil {
		return result{}, err
	}
	log, err := os.Create(logFile)
	if err != nil {
		return result{}, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // the tests end their servers
	cmd.WaitDelay = 30 * time.Second
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	r, err := follow(out, log)
	if werr := cmd.Wait(); werr != nil && r.passed() {
		r.broken = "go test: " + werr.Error()
	}
	r.took = time.Since(start)
	return r, errors.Join(err, ctx.Err())
}

// reason is the line before "--- SKIP" that a test gives.
var reason = regexp.MustCompile(`^\s+\S+_test\.go:\d+: (.*)`)

// follow reads the events of go test -json, writes the tests' words to log, and tells how far it is.
func follow(out io.Reader, log io.Writer) (r result, err error) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	said := map[string]string{} // the last line that a test gave
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(log, lines.Text()) // of the build
			continue
		}
		switch top := e.Test != "" && !strings.Contains(e.Test, "/"); e.Action {
		case "output", "build-output":
			if _, err := io.WriteString(log, e.Output); err != nil {
				return r, err
			}
			if m := reason.FindStringSubmatch(strings.TrimRight(e.Output, "\n")); m != nil {
				said[e.Test] = m[1]
			}
		case "pass":
			if top {
				r.passes++
			}
		case "skip":
			if e.Test != "" {
				r.skips = append(r.skips, skip{e.Test, said[e.Test]})
			}
		case "build-fail":
			r.broken = "it does not build"
		case "fail":
			if e.Test == "" && len(r.failures) == 0 && r.broken == "" {
				r.broken = "the tests ended before their time"
			}
			if e.Test != "" {
				r.failures = append(r.failures, e.Test)
				fmt.Printf("     FAILED: %s\n", e.Test)
			}
		}
	}
	return r, lines.Err()
}
