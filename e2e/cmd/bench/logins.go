package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/e2e/rig"
)

// pgx logs in. ca: TLS, trusting the certificates of that file; empty: none.
func (c contender) pgx(ctx context.Context, ca string) (*pgx.Conn, error) {
	q := url.Values{"sslmode": {"disable"}}
	if ca != "" {
		q = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {ca}}
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.user, c.password), Host: c.addr(), Path: "/" + c.database, RawQuery: q.Encode()}
	return pgx.Connect(ctx, u.String())
}

// visit logs in, asks one thing, and leaves.
func (c contender) visit(ctx context.Context, ca string) error {
	conn, err := c.pgx(ctx, ca)
	if err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, "SELECT 1").ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

// atOnce has so many workers do n things.
func atOnce(workers, n int, do func(i int) error) error {
	var side sync.WaitGroup
	next := make(chan int)
	failed := make([]error, workers)
	for w := range workers {
		side.Go(func() {
			for i := range next {
				if failed[w] == nil {
					failed[w] = do(i)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	side.Wait()
	return errors.Join(failed...)
}

// visitsDirect is how many direct logins there are a second.
func visitsDirect(ctx context.Context, c contender, workers, n int) (shot, error) {
	began := time.Now()
	err := atOnce(workers, n, func(int) error { return c.visit(ctx, "") })
	return shot{rate: float64(n) / time.Since(began).Seconds(), work: float64(n) / 1e3}, err
}

// visitsOwn is how many sessions there are a second that have an account made for them, and dropped. The
// requests and approvals are not in it: they wait for people anyhow.
func (st *stage) visitsOwn(ctx context.Context, workers, n int) (shot, error) {
	all := make([]api.Credentials, n)
	for i := range all {
		var err error
		if _, all[i], err = st.grant(ctx, harness.Orders, time.Hour); err != nil {
			return shot{}, err
		}
	}
	spent, err := st.through(all[0]).spent()
	if err != nil {
		return shot{}, err
	}
	began := time.Now()
	err = atOnce(workers, n, func(i int) error {
		if err := st.through(all[i]).visit(ctx, ""); err != nil {
			return err
		}
		_, err := st.asker.Release(ctx, all[i].Grant)
		return err
	})
	if err != nil {
		return shot{}, err
	}
	if err := st.dropped(ctx, all); err != nil {
		return shot{}, err
	}
	took := time.Since(began)
	cpu, err := spent(ctx)
	for _, c := range all {
		if _, failed := rig.Receipt(ctx, st.asker, c.Grant, time.Minute); failed != nil {
			return shot{}, failed
		}
	}
	return shot{rate: float64(n) / took.Seconds(), work: float64(n) / 1e3, cpu: cpu.Seconds()}, err
}

// dropped waits until the database has none of these grants' accounts any more. Asking for each receipt through
// the API would take as long as what is measured.
func (st *stage) dropped(ctx context.Context, all []api.Credentials) error {
	eye, err := st.pg.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer eye.Close(ctx)
	var grants []string
	for _, c := range all {
		grants = append(grants, c.Grant)
	}
	return harness.Eventually(ctx, time.Minute, func(ctx context.Context) error {
		var left int
		err := eye.QueryRow(ctx, "SELECT count(*) FROM pg_roles WHERE substring(rolname FROM '[^_]*$') = ANY ($1)", grants).Scan(&left)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d accounts are still there", left)
		}
		return err
	})
}

func accountRows(ctx context.Context, st *stage) ([]row, error) {
	all, err := st.postgres()
	if err != nil {
		return nil, err
	}
	n, workers, works := 100, []int{1, 8}, []string{"one after the other", "8 at once"}
	if st.set.quick {
		n = 20
	}
	two := []contender{all[0], all[len(all)-1]}
	cells, err := st.turns(ctx, two, works, func(ctx context.Context, c contender, i int) (shot, error) {
		if c.name == direct {
			return visitsDirect(ctx, c, workers[i], n)
		}
		return st.visitsOwn(ctx, workers[i], n)
	})
	if err != nil {
		return nil, err
	}
	rate := ratios(cells, curfew, direct, rounds.rate)
	return []row{{Name: "accounts", Work: "a session with account made and dropped, to direct SCRAM logins", Value: geomean(rate),
		Cells:    cellsOf(works, two, cells, direct, "/s", "CPU s/1000"),
		Measured: fmt.Sprintf("%.2f: %.0f/s to %.0f/s one after the other, %.0f/s to %.0f/s 8 at once", geomean(rate), cells[0].rate(curfew), cells[0].rate(direct), cells[1].rate(curfew), cells[1].rate(direct)),
		Must:     "≥ 0.70", Goal: "≥ 0.95", Verdict: bar{0.70, 0.95, false}.verdict(geomean(rate)),
		Note: "from the first byte of the login until a DBA sees the last account gone, with the grant released through the API; without request and approval, and receipts are read afterwards"}}, nil
}
