package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/curfewdb/curfew/e2e/harness"
)

// scale of pgbench's tables, as for the anchors: 1,000,000 rows.
const scale = 10

var (
	protocols = []string{"simple", "extended", "prepared"}
	clients   = []int{1, 8, 32}
)

// fillPostgres makes pgbench's tables, once.
var fillPostgres = onceFor(func(ctx context.Context, st *stage) error {
	d, err := at(direct, st.pg.Addr, harness.Superuser, "", "orders", 0)
	if err != nil {
		return err
	}
	if _, err := harness.Run(d.pgbench(ctx, false, "-i", "-q", "-s", strconv.Itoa(scale))); err != nil {
		return err
	}
	return st.pg.Exec(ctx, "orders", "GRANT SELECT ON pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history TO orders_writer; CHECKPOINT")
})

// onceFor has something done once in a run.
func onceFor(do func(context.Context, *stage) error) func(context.Context, *stage) error {
	var once sync.Once
	var failed error
	return func(ctx context.Context, st *stage) error {
		once.Do(func() { failed = do(ctx, st) })
		return failed
	}
}

// pgbench is the stock program on the way to a contender.
func (c contender) pgbench(ctx context.Context, tls bool, args ...string) *exec.Cmd {
	return c.libpq(ctx, tls, program("pgbench"), args...)
}

// program prefers PostgreSQL's own to the wrapper in the path, which Debian writes in Perl.
func program(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is a good one
	if len(found) == 0 {
		return name
	}
	return slices.Max(found)
}

// libpq is a program that reads its environment.
func (c contender) libpq(ctx context.Context, tls bool, program string, args ...string) *exec.Cmd {
	mode := "disable"
	if tls {
		mode = "require"
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+c.host, "PGPORT="+strconv.Itoa(c.port), "PGUSER="+c.user, "PGPASSWORD="+c.password,
		"PGDATABASE="+c.database, "PGSSLMODE="+mode, "PGGSSENCMODE=disable", "PGPASSFILE=/nonexistent", "PGCONNECT_TIMEOUT=15")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// shot is what one round in one cell has shown.
type shot struct {
	rate float64 // per second
	work float64 // that CPU is told for one of: 100,000 queries, a GB
	cpu  float64 // seconds of the proxy's
	p50  float64 // microseconds
}

var (
	tpsLine   = regexp.MustCompile(`tps = ([0-9.]+) \(without initial connection time\)`)
	countLine = regexp.MustCompile(`number of transactions actually processed: ([0-9]+)`)
	failLine  = regexp.MustCompile(`number of failed transactions: ([0-9]+)`)
)

// selects is one round of pgbench -S.
func (st *stage) selects(ctx context.Context, c contender, tls bool, protocol string, n int) (shot, error) {
	logs, err := os.MkdirTemp(st.dir, "log-")
	if err != nil {
		return shot{}, err
	}
	defer os.RemoveAll(logs)
	args := []string{"-n", "-S", "-M", protocol, "-c", strconv.Itoa(n), "-j", strconv.Itoa(min(n, 2)),
		"-T", strconv.Itoa(max(1, int(st.set.seconds)))}
	if n == 1 {
		args = append(args, "-l", "--log-prefix="+filepath.Join(logs, "log"))
	}
	spent, err := c.spent()
	if err != nil {
		return shot{}, err
	}
	var out string
	for range 3 { // on a machine that is busy a second can pass before everybody is in
		if out, err = harness.Run(c.pgbench(ctx, tls, args...)); err != nil {
			return shot{}, err
		}
		if found(countLine, out) > 0 {
			break
		}
	}
	cpu, err := spent(ctx)
	if err != nil {
		return shot{}, err
	}
	s := shot{rate: found(tpsLine, out), work: found(countLine, out) / 1e5, cpu: cpu.Seconds()}
	if s.rate <= 0 || found(failLine, out) > 0 {
		return s, fmt.Errorf("pgbench through %s:\n%s", c.name, out)
	}
	if n == 1 {
		s.p50, err = latency(logs)
	}
	return s, err
}

func found(line *regexp.Regexp, in string) float64 {
	m := line.FindStringSubmatch(in)
	if m == nil {
		return 0
	}
	v, _ := strconv.ParseFloat(m[1], 64) // the pattern is a number's
	return v
}

// latency is the median of pgbench's transaction logs, in microseconds.
func latency(dir string) (float64, error) {
	files, err := filepath.Glob(filepath.Join(dir, "log.*"))
	if err != nil {
		return 0, err
	}
	var all []float64
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() { // client transaction time script epoch microseconds
			fields := strings.Fields(lines.Text())
			if len(fields) < 3 {
				return 0, errors.New("pgbench's log is not as expected")
			}
			v, err := strconv.ParseFloat(fields[2], 64)
			if err != nil {
				return 0, err
			}
			all = append(all, v)
		}
		if err := lines.Err(); err != nil {
			return 0, err
		}
	}
	if len(all) == 0 {
		return 0, errors.New("pgbench has logged nothing")
	}
	return median(all), nil
}
