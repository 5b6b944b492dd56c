package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// Verdicts.
const (
	reachesGoal = "goal"
	reachesMust = "must"
	short       = "SHORT"
)

// row is one line of the table of what Curfew must reach.
type row struct {
	Name     string  `json:"name"`
	Work     string  `json:"work"`
	Value    float64 `json:"value"`
	Measured string  `json:"measured"` // the same for people, with what else there is to say
	Must     string  `json:"must"`
	Goal     string  `json:"goal"`
	Verdict  string  `json:"verdict"`
	Note     string  `json:"note,omitempty"`
	Cells    []cell  `json:"cells,omitempty"`
}

// cell is one combination of work and contender.
type cell struct {
	Work      string    `json:"work"`
	Contender string    `json:"contender"`
	Value     float64   `json:"value"` // median of rounds
	Unit      string    `json:"unit"`
	Ratio     float64   `json:"ratio,omitempty"` // of Value to the yardstick's
	CPU       float64   `json:"cpu,omitempty"`   // of the proxy, in CPUUnit
	CPUUnit   string    `json:"cpu_unit,omitempty"`
	P50       float64   `json:"p50_us,omitempty"` // microseconds
	Rounds    []float64 `json:"rounds,omitempty"`
}

// bar is what one value is held against.
type bar struct {
	must, goal float64
	less       bool // less is better
}

func (b bar) verdict(v float64) string {
	reaches := func(limit float64) bool {
		if b.less {
			return v <= limit
		}
		return v >= limit
	}
	switch {
	case math.IsNaN(v):
		return short
	case reaches(b.goal):
		return reachesGoal
	case reaches(b.must):
		return reachesMust
	}
	return short
}

// worst of several verdicts.
func worst(all ...string) string {
	for _, v := range []string{short, reachesMust} {
		for _, x := range all {
			if x == v {
				return v
			}
		}
	}
	return reachesGoal
}

// report is all that a run has to say.
type report struct {
	About machine `json:"about"`
	Rows  []row   `json:"rows"`
}

func (r *report) print(w io.Writer, format string) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	for _, line := range r.About.lines() {
		fmt.Fprintln(w, line)
	}
	for _, x := range r.Rows {
		if len(x.Cells) > 0 {
			fmt.Fprintf(w, "\n%s\n", x.Work)
			printCells(w, x.Cells)
		}
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORK\tMEASURED\tMUST\tGOAL\tVERDICT")
	for _, x := range r.Rows {
		fmt.Fprintln(t, strings.Join([]string{x.Work, x.Measured, x.Must, x.Goal, x.Verdict}, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range r.Rows {
		if x.Note != "" {
			fmt.Fprintf(w, "%s: %s\n", x.Name, x.Note)
		}
	}
	return nil
}

func printCells(w io.Writer, cells []cell) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range cells {
		fields := []string{"  " + c.Work, c.Contender, number(c.Value) + " " + c.Unit}
		add := func(is bool, format string, args ...any) {
			text := ""
			if is {
				text = fmt.Sprintf(format, args...)
			}
			fields = append(fields, text)
		}
		add(c.Ratio > 0, "×%.2f", c.Ratio)
		add(c.CPU > 0, "%.2f %s", c.CPU, c.CPUUnit)
		add(c.P50 > 0, "p50 %.0f µs", c.P50)
		if len(c.Rounds) > 1 {
			fields = append(fields, fmt.Sprintf("±%.0f %%", 50*spread(c.Rounds)))
		}
		fmt.Fprintln(t, strings.Join(fields, "\t")+"\t")
	}
	_ = t.Flush() // what is wrong with w is told by the table's own flush
}

func number(v float64) string {
	switch {
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
