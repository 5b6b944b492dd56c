package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/e2e/rig"
)

// memoryRows: what an idle session costs, in a process that has just started and one that is at rest.
func memoryRows(ctx context.Context, st *stage) ([]row, error) {
	n := 1000
	if st.set.quick {
		n = 200
	}
	r := row{Name: "memory", Work: fmt.Sprintf("memory per idle session, %d of them", n), Must: "≤ 40 KiB, TLS ≤ 120", Goal: "≤ 8 KiB, TLS ≤ 40"}
	grown := map[string]float64{}
	for _, tls := range []bool{false, true} {
		// A heap that has grown before hides what a session takes.
		if err := st.restart(ctx); err != nil {
			return nil, err
		}
		all, err := st.postgres()
		if err != nil {
			return nil, err
		}
		for _, c := range all[1:] {
			if tls && c.name == haproxy {
				continue // it passes TLS through
			}
			err := st.vacated(ctx) // of those before
			var kib float64
			if err == nil {
				kib, err = c.idle(ctx, tls, st.ca, n)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			work := "plain"
			if tls {
				work = "TLS"
			}
			grown[c.name+work] = kib
			r.Cells = append(r.Cells, cell{Work: work, Contender: c.name, Value: kib, Unit: "KiB"})
		}
	}
	plain, secret := grown[curfew+"plain"], grown[curfew+"TLS"]
	r.Value = plain
	r.Measured = fmt.Sprintf("%.1f KiB, TLS %.1f (HAProxy %.1f; pgbouncer %.1f, TLS %.1f)", plain, secret,
		grown[haproxy+"plain"], grown[pgbouncer+"plain"], grown[pgbouncer+"TLS"])
	r.Verdict = worst(bar{40, 8, true}.verdict(plain), bar{120, 40, true}.verdict(secret))
	r.Note = "growth of the resident set from after 20 sessions that have come and gone until so many are open, each after one query; not of the database's"
	return []row{r}, nil
}

func (st *stage) restart(ctx context.Context) error {
	if err := st.curfew.Stop(); err != nil {
		return err
	}
	return st.curfew.Start(ctx)
}

// vacated waits until the server has room for a thousand sessions: pgbouncer keeps its connections for a while.
func (st *stage) vacated(ctx context.Context) error {
	eye, err := st.pg.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer eye.Close(ctx)
	return harness.Eventually(ctx, time.Minute, func(ctx context.Context) error {
		var n int
		err := eye.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").Scan(&n)
		if err == nil && n > 100 {
			err = fmt.Errorf("%d sessions are still open", n)
		}
		return err
	})
}

// idle opens sessions and gives what each has added to the proxy's resident set, in KiB.
func (c contender) idle(ctx context.Context, tls bool, ca string, n int) (kib float64, err error) {
	if !tls {
		ca = ""
	}
	for range 20 {
		if err := c.visit(ctx, ca); err != nil {
			return 0, err
		}
	}
	before, err := c.resident(ctx)
	if err != nil {
		return 0, err
	}
	all := make([]*pgx.Conn, n)
	defer func() {
		for _, conn := range all {
			if conn != nil {
				conn.Close(context.WithoutCancel(ctx)) // it has served its purpose
			}
		}
	}()
	err = atOnce(4, n, func(i int) (err error) {
		if all[i], err = c.pgx(ctx, ca); err != nil {
			return err
		}
		_, err = all[i].PgConn().Exec(ctx, "SELECT 1").ReadAll()
		return err
	})
	if err != nil {
		return 0, err
	}
	after, err := c.resident(ctx)
	return float64(after-before) / 1024 / float64(n), err
}

// resident is the proxy's memory when it is at rest and no longer gives any back.
func (c contender) resident(ctx context.Context) (int, error) {
	least := 0
	for since := time.Now(); time.Since(since) < 3*time.Second; {
		if _, err := rig.AtRest(ctx, c.pid); err != nil {
			return 0, err
		}
		now, err := rig.RSS(c.pid)
		if err != nil {
			return 0, err
		}
		if least == 0 || now < least {
			least, since = now, time.Now()
		}
	}
	return least, nil
}
