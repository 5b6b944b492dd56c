package main

import (
	"context"
	"fmt"
)

// rounds are the shots of every contender in one cell.
type rounds map[string][]shot

// turns has every contender take a turn in every round of every cell, side by side in time.
func (st *stage) turns(ctx context.Context, all []contender, works []string, shoot func(context.Context, contender, int) (shot, error)) ([]rounds, error) {
	cells := make([]rounds, len(works))
	for i := range cells {
		cells[i] = rounds{}
	}
	for r := range st.set.rounds {
		for i, work := range works {
			for k := range all {
				c := all[(k+r)%len(all)] // who is first is not always the same
				s, err := shoot(ctx, c, i)
				if err != nil {
					return nil, fmt.Errorf("%s through %s: %w", work, c.name, err)
				}
				cells[i][c.name] = append(cells[i][c.name], s)
			}
		}
		progress("round %d of %d", r+1, st.set.rounds)
	}
	return cells, nil
}

func (r rounds) rates(name string) (v []float64) {
	for _, s := range r[name] {
		v = append(v, s.rate)
	}
	return v
}

func (r rounds) rate(name string) float64 { return median(r.rates(name)) }

// cpu is seconds of the proxy's for one of its work.
func (r rounds) cpu(name string) float64 {
	var v []float64
	for _, s := range r[name] {
		v = append(v, s.cpu/s.work)
	}
	return median(v)
}

func (r rounds) p50(name string) float64 {
	var v []float64
	for _, s := range r[name] {
		v = append(v, s.p50)
	}
	return median(v)
}

// cellsOf lists them for the report, with the ratio to a yardstick.
func cellsOf(works []string, all []contender, cells []rounds, yardstick, unit, cpu string) (list []cell) {
	for i, work := range works {
		for _, c := range all {
			v := cells[i].rate(c.name)
			list = append(list, cell{Work: work, Contender: c.name, Value: v, Unit: unit, Ratio: v / cells[i].rate(yardstick),
				CPU: cells[i].cpu(c.name), CPUUnit: cpu, P50: cells[i].p50(c.name), Rounds: cells[i].rates(c.name)})
		}
	}
	return list
}

// ratios of one contender to another, cell by cell.
func ratios(cells []rounds, of, to string, value func(rounds, string) float64) (v []float64) {
	for _, c := range cells {
		v = append(v, value(c, of)/value(c, to))
	}
	return v
}
