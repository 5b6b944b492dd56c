package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// opened is how long logins take, in milliseconds.
type opened struct {
	direct []float64
	curfew []float64
}

// openRows: what Curfew adds to a login when the grant is live, and so its account is there.
func openRows(ctx context.Context, st *stage) ([]row, error) {
	n := 150
	if st.set.quick {
		n = 30
	}
	pg, err := st.openPostgres(ctx)
	if err != nil {
		return nil, err
	}
	ways := append(pg, st.openMariaDB())
	r := row{Name: "open", Work: "opening a session under a live grant, over a direct login with the same TLS", Must: "≤ 5 ms", Goal: "≤ 3 ms", Value: math.Inf(-1)}
	var said []string
	for _, w := range ways {
		var o opened
		for i := range n {
			for k := range 2 { // side by side in time, and neither always first
				login, to := w.direct, &o.direct
				if (i+k)%2 == 1 {
					login, to = w.curfew, &o.curfew
				}
				began := time.Now()
				leave, err := login(ctx)
				took := time.Since(began)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", w.work, err)
				}
				if err := leave(); err != nil {
					return nil, fmt.Errorf("%s: %w", w.work, err)
				}
				*to = append(*to, float64(took.Microseconds())/1e3)
			}
		}
		added := median(o.curfew) - median(o.direct)
		tell := func(name string, v []float64) {
			r.Cells = append(r.Cells, cell{Work: w.work, Contender: name, Value: median(v), Unit: fmt.Sprintf("ms (p99 %.1f)", percentile(v, 99))})
		}
		tell(direct, o.direct)
		tell(curfew, o.curfew)
		said = append(said, fmt.Sprintf("%s %.1f", w.work, added))
		if w.counts {
			r.Value = max(r.Value, added)
		}
	}
	r.Measured = "ms: " + strings.Join(said, ", ")
	r.Verdict = bar{5, 3, true}.verdict(r.Value)
	r.Note = "p50 of logins in turns, up to the client's knowing that it is in; the verdict is on the slower engine with TLS"
	return []row{r}, nil
}

// way is a pair of logins that are compared.
type way struct {
	work           string
	counts         bool
	direct, curfew func(context.Context) (leave func() error, err error)
}

func (st *stage) openPostgres(ctx context.Context) ([]way, error) {
	all, err := st.postgres()
	if err != nil {
		return nil, err
	}
	if err := all[3].visit(ctx, ""); err != nil { // the account is made by the first session
		return nil, err
	}
	login := func(c contender, ca string) func(context.Context) (func() error, error) {
		return func(ctx context.Context) (func() error, error) {
			conn, err := c.pgx(ctx, ca)
			if err != nil {
				return nil, err
			}
			return func() error { return conn.Close(ctx) }, nil
		}
	}
	return []way{
		{"PostgreSQL", false, login(all[0], ""), login(all[3], "")},
		{"PostgreSQL with TLS", true, login(all[0], st.pg.CA), login(all[3], st.ca)},
	}, nil
}

func (st *stage) openMariaDB() way {
	through := harness.Credentials{Credentials: st.shop, CAFile: st.ca}
	return way{"MariaDB with TLS", true,
		func(ctx context.Context) (func() error, error) {
			c, err := st.my.Login(ctx, "app", appPassword, "shop")
			if err != nil {
				return nil, err
			}
			return c.Close, nil
		},
		func(ctx context.Context) (func() error, error) {
			c, err := through.MySQL(ctx)
			if err != nil {
				return nil, err
			}
			return c.Close, nil
		}}
}
