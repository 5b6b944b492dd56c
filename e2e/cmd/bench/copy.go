package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// copies are the tables that are copied out, each about 100 MB of text.
var copies = []struct{ work, table string }{{"narrow rows", "pgbench_accounts"}, {"8 kB rows", "wide"}}

// fillWide makes the rows of 8 kB. They are stored as they are: what is measured is not decompression.
var fillWide = onceFor(func(ctx context.Context, st *stage) error {
	return st.pg.Exec(ctx, "orders", `
		CREATE TABLE wide (id int, body text);
		ALTER TABLE wide ALTER body SET STORAGE PLAIN;
		INSERT INTO wide SELECT g, left(repeat(md5(g::text), 250), 7990) FROM generate_series(1, 12500) g;
		GRANT SELECT ON wide TO orders_writer;`)
})

// copyOut copies a table so many times, with psql, and counts nothing but time.
func (st *stage) copyOut(ctx context.Context, c contender, table string, times int, bytes float64) (shot, error) {
	args := []string{"-X", "-q", "-v", "ON_ERROR_STOP=1"}
	for range times {
		args = append(args, "-c", "COPY "+table+" TO STDOUT")
	}
	cmd := c.libpq(ctx, false, program("psql"), args...)
	var said strings.Builder
	cmd.Stderr = &said // and nobody reads its output: it goes to /dev/null, without a pipe
	spent, err := c.spent()
	if err != nil {
		return shot{}, err
	}
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return shot{}, fmt.Errorf("psql: %w\n%s", err, said.String())
	}
	took := time.Since(began)
	cpu, err := spent(ctx)
	total := bytes * float64(times)
	return shot{rate: total / took.Seconds() / 1e6, work: total / 1e9, cpu: cpu.Seconds()}, err
}

func copyRows(ctx context.Context, st *stage) ([]row, error) {
	if err := fillPostgres(ctx, st); err != nil {
		return nil, err
	}
	if err := fillWide(ctx, st); err != nil {
		return nil, err
	}
	all, err := st.postgres()
	if err != nil {
		return nil, err
	}
	var works []string
	sizes := make([]float64, len(copies))
	for i, x := range copies {
		works = append(works, x.work)
		if sizes[i], err = st.copySize(ctx, x.table); err != nil {
			return nil, err
		}
	}
	times := 10
	if st.set.quick {
		times = 2
	}
	cells, err := st.turns(ctx, all, works, func(ctx context.Context, c contender, i int) (shot, error) {
		return st.copyOut(ctx, c, copies[i].table, times, sizes[i])
	})
	if err != nil {
		return nil, err
	}
	tps := ratios(cells, curfew, haproxy, rounds.rate)
	list := cellsOf(works, all, cells, haproxy, "MB/s", "CPU s/GB")
	cpu := cells[0].cpu(curfew)
	narrow := bar{0.85, 1.05, false}.verdict(tps[0])
	if narrow == reachesGoal && cpu > 1.4 {
		narrow = reachesMust
	}
	half := slices.IndexFunc(list, func(c cell) bool { return c.Work == works[1] })
	return []row{
		{Name: "copy-narrow", Work: "1 GB COPY out, narrow rows, to HAProxy", Value: tps[0], Cells: list[:half],
			Measured: fmt.Sprintf("%.2f, %.1f CPU s/GB (HAProxy %.1f)", tps[0], cpu, cells[0].cpu(haproxy)),
			Must:     "≥ 0.85", Goal: "≥ 1.05, ≤ 1.4 CPU s/GB", Verdict: narrow},
		{Name: "copy-wide", Work: "1 GB, 8 kB rows, to HAProxy", Value: tps[1], Cells: list[half:],
			Measured: fmt.Sprintf("%.2f, %.1f CPU s/GB (HAProxy %.1f)", tps[1], cells[1].cpu(curfew), cells[1].cpu(haproxy)),
			Must:     "≥ 1.0", Goal: "≥ 1.3", Verdict: bar{1.0, 1.3, false}.verdict(tps[1])},
	}, nil
}

// copySize is how many bytes one copy of a table has.
func (st *stage) copySize(ctx context.Context, table string) (float64, error) {
	c, err := st.pg.Connect(ctx, harness.Orders)
	if err != nil {
		return 0, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	var n counter
	_, err = c.PgConn().CopyTo(ctx, &n, "COPY "+table+" TO STDOUT")
	return float64(n), err
}

type counter int64

func (n *counter) Write(p []byte) (int, error) { *n += counter(len(p)); return len(p), nil }

var _ io.Writer = (*counter)(nil)
