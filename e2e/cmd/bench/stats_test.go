package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestStatistics(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	for what, c := range map[string]struct{ got, want float64 }{
		"median":         {median(v), 3},
		"of two":         {median([]float64{1, 2}), 1.5},
		"percentile 99":  {percentile(v, 99), 4.96},
		"percentile 100": {percentile(v, 100), 5},
		"of one":         {percentile([]float64{7}, 99), 7},
		"geomean":        {geomean([]float64{0.5, 2, 8}), 2},
		"spread":         {spread([]float64{90, 100, 110}), 0.2},
	} {
		if math.Abs(c.got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("a median of nothing")
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		bar  bar
		v    float64
		want string
	}{
		{bar{0.9, 1.05, false}, 1.05, reachesGoal}, {bar{0.9, 1.05, false}, 0.9, reachesMust}, {bar{0.9, 1.05, false}, 0.89, short},
		{bar{50, 10, true}, 10, reachesGoal}, {bar{50, 10, true}, 50, reachesMust}, {bar{50, 10, true}, 50.1, short},
		{bar{50, 10, true}, math.NaN(), short}, {bar{0.9, 1, false}, math.NaN(), short},
	} {
		if got := c.bar.verdict(c.v); got != c.want {
			t.Errorf("%v against %+v is %q, want %q", c.v, c.bar, got, c.want)
		}
	}
	if worst(reachesGoal, short, reachesMust) != short || worst(reachesGoal, reachesMust) != reachesMust || worst(reachesGoal) != reachesGoal {
		t.Error("the worst is another")
	}
}

// A row's ratio is that of medians, and its CPU is told for the work of each round.
func TestCellsAreMedians(t *testing.T) {
	r := rounds{
		curfew:  {{rate: 100, work: 1, cpu: 3}, {rate: 300, work: 3, cpu: 6}, {rate: 200, work: 2, cpu: 2}},
		haproxy: {{rate: 400, work: 4, cpu: 4}, {rate: 400, work: 4, cpu: 8}, {rate: 100, work: 1, cpu: 1}},
	}
	list := cellsOf([]string{"simple ×1"}, []contender{{name: haproxy}, {name: curfew}}, []rounds{r}, haproxy, "tps", "CPU s/100k")
	if len(list) != 2 || list[1].Value != 200 || list[1].Ratio != 0.5 || list[1].CPU != 2 || list[0].Ratio != 1 {
		t.Errorf("%+v", list)
	}
	if got := ratios([]rounds{r}, curfew, haproxy, rounds.cpu); got[0] != 2 {
		t.Errorf("CPU ratio %v", got)
	}
}

func TestThePrintedTable(t *testing.T) {
	rep := report{About: machine{At: time.Unix(0, 0).UTC(), Cores: 2, CPU: "a CPU", Warnings: []string{"not quiet"}},
		Rows: []row{{Name: "pgbench", Work: "pgbench -S", Measured: "0.62", Must: "≥ 0.90", Goal: "≥ 1.05", Verdict: short, Note: "a note",
			Cells: []cell{{Work: "simple ×1", Contender: curfew, Value: 8837, Unit: "tps", Ratio: 1, Rounds: []float64{8000, 8837}}}}}}
	var table, data strings.Builder
	if err := rep.print(&table, "table"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"WARNING: not quiet", "2 cores, a CPU", "8837 tps", "×1.00", "≥ 0.90", "SHORT", "pgbench: a note"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("%q is not in\n%s", want, table.String())
		}
	}
	if err := rep.print(&data, "json"); err != nil || !strings.Contains(data.String(), `"verdict": "SHORT"`) {
		t.Errorf("%v\n%s", err, data.String())
	}
}
