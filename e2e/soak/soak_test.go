package soak

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// A few seconds of it, so that it keeps working. How late an end may be is for `make soak` to judge, on a
// machine that does nothing else.
func TestSoakShortly(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "curfew")
	if err := harness.Build(t.Context(), bin, ""); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Options{Dir: filepath.Join(dir, "soak"), Bin: bin, Duration: 12 * time.Second, Idle: 16, Busy: 8,
		Late: 20 * time.Second, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := r.Print(&table); err != nil {
		t.Error(err)
	}
	t.Log("\n" + table.String())
	for _, f := range r.Failures {
		t.Error(f)
	}
}

// What the comparison is for: each way in which the three may differ is told.
func TestCompareTellsWhatIsMissing(t *testing.T) {
	tagOf := func(n uint64) tag { return tag{harness.Orders, n} }
	for name, c := range map[string]struct {
		told, ran, asked, finished []uint64
		want                       string
	}{
		"all is well":               {told: []uint64{1}, ran: []uint64{1, 2}, asked: []uint64{1, 2, 3}, finished: []uint64{1}},
		"unrecorded":                {ran: []uint64{1, 2}, asked: []uint64{1}, want: "nobody recorded: 1 of 2"},
		"recorded twice":            {ran: []uint64{1}, asked: []uint64{1, 1}, want: "more than once: 1"},
		"run twice":                 {ran: []uint64{1, 1}, asked: []uint64{1}, want: "more than once: 1"},
		"answered and not run":      {told: []uint64{2}, ran: []uint64{1}, asked: []uint64{1, 2}, want: "not run or recorded: 1"},
		"an answer out of thin air": {ran: []uint64{1}, asked: []uint64{1, 2}, finished: []uint64{2}, want: "did not run: 1"},
		"nothing at all":            {want: "nobody recorded: 0 of 0"},
	} {
		t.Run(name, func(t *testing.T) {
			count := func(list []uint64) tally {
				all := tally{}
				for _, n := range list {
					all[tagOf(n)]++
				}
				return all
			}
			r := &Report{}
			compare(r, harness.Orders, count(c.told), count(c.ran), &kept{asked: count(c.asked), finished: count(c.finished)})
			got := strings.Join(r.Failures, "\n")
			if c.want == "" && got != "" || c.want != "" && (len(r.Failures) != 1 || !strings.Contains(got, c.want)) {
				t.Errorf("failures: %q, want %q", got, c.want)
			}
		})
	}
}
