package main

import (
	"context"
	"fmt"
	"slices"
)

// pgbenchCells runs pgbench -S in every protocol with every number of clients.
func (st *stage) pgbenchCells(ctx context.Context, tls bool) ([]string, []contender, []rounds, error) {
	if err := fillPostgres(ctx, st); err != nil {
		return nil, nil, nil, err
	}
	all, err := st.postgres()
	if err != nil {
		return nil, nil, nil, err
	}
	var works []string
	for _, p := range protocols {
		for _, n := range clients {
			works = append(works, fmt.Sprintf("%s ×%d", p, n))
		}
	}
	cells, err := st.turns(ctx, all, works, func(ctx context.Context, c contender, i int) (shot, error) {
		return st.selects(ctx, c, tls, protocols[i/len(clients)], clients[i%len(clients)])
	})
	return works, all, cells, err
}

func pgbenchRows(ctx context.Context, st *stage) ([]row, error) {
	works, all, cells, err := st.pgbenchCells(ctx, false)
	if err != nil {
		return nil, err
	}
	tps := ratios(cells, curfew, haproxy, rounds.rate)
	cpu := ratios(cells, curfew, haproxy, rounds.cpu)
	var added, others []float64
	for i, c := range cells {
		if clients[i%len(clients)] == 1 {
			added = append(added, c.p50(curfew)-c.p50(direct))
			others = append(others, c.p50(haproxy)-c.p50(direct))
		}
	}
	mean, low := geomean(tps), slices.Min(tps)
	return []row{
		{Name: "pgbench", Work: "pgbench -S, tps to HAProxy", Value: mean, Cells: cellsOf(works, all, cells, haproxy, "tps", "CPU s/100k"),
			Measured: fmt.Sprintf("%.2f, lowest cell %.2f (pgbouncer %.2f)", mean, low, geomean(ratios(cells, pgbouncer, haproxy, rounds.rate))),
			Must:     "≥ 0.90, no cell < 0.70", Goal: "≥ 1.05, no cell < 0.90",
			Verdict: worst(bar{0.90, 1.05, false}.verdict(mean), bar{0.70, 0.90, false}.verdict(low))},
		{Name: "pgbench-cpu", Work: "the same, proxy CPU per query to HAProxy", Value: geomean(cpu),
			Measured: fmt.Sprintf("%.2f, highest cell %.2f (pgbouncer %.2f)", geomean(cpu), slices.Max(cpu), geomean(ratios(cells, pgbouncer, haproxy, rounds.cpu))),
			Must:     "≤ 1.25", Goal: "≤ 0.90", Verdict: bar{1.25, 0.90, true}.verdict(geomean(cpu))},
		{Name: "pgbench-p50", Work: "p50 added at 1 client", Value: slices.Max(added),
			Measured: fmt.Sprintf("%.0f µs simple, %.0f extended, %.0f prepared (HAProxy %.0f, %.0f, %.0f)", added[0], added[1], added[2], others[0], others[1], others[2]),
			Must:     "≤ 90 µs", Goal: "≤ 40 µs", Verdict: bar{90, 40, true}.verdict(slices.Max(added))},
	}, nil
}

func tlsRows(ctx context.Context, st *stage) ([]row, error) {
	works, all, cells, err := st.pgbenchCells(ctx, true)
	if err != nil {
		return nil, err
	}
	tps := ratios(cells, curfew, direct, rounds.rate)
	return []row{{Name: "tls", Work: "TLS on the client's leg, tps to direct TLS", Value: geomean(tps), Cells: cellsOf(works, all, cells, direct, "tps", "CPU s/100k"),
		Measured: fmt.Sprintf("%.2f, lowest cell %.2f (HAProxy, which passes TLS through, %.2f; pgbouncer %.2f)", geomean(tps), slices.Min(tps),
			geomean(ratios(cells, haproxy, direct, rounds.rate)), geomean(ratios(cells, pgbouncer, direct, rounds.rate))),
		Must: "≥ 0.60", Goal: "≥ 0.75", Verdict: bar{0.60, 0.75, false}.verdict(geomean(tps))}}, nil
}
