package soak

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/curfewdb/curfew/e2e/rig"
)

// sample is what Curfew's process has at one moment.
type sample struct {
	at          time.Duration // since the load began
	rss         int
	descriptors int
	goroutines  float64
	sessions    int // that clients have open
}

func (s sample) String() string {
	return fmt.Sprintf("%d MiB, %d descriptors, %.0f goroutines", s.rss>>20, s.descriptors, s.goroutines)
}

func (w *world) look(ctx context.Context, began time.Time) (s sample, err error) {
	pid := w.cur.PID()
	s.at = time.Since(began)
	if s.rss, err = rig.RSS(pid); err != nil {
		return s, err
	}
	if s.descriptors, err = rig.Descriptors(pid); err != nil {
		return s, err
	}
	w.mu.Lock()
	s.sessions = len(w.sessions)
	w.mu.Unlock()
	s.goroutines, err = w.metric(ctx, "go_goroutines")
	return s, err
}

// metric reads one number of Curfew's own.
func (w *world) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.cur.Ops+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("no %s among the metrics: %w", name, lines.Err())
}

// watch looks regularly until ctx ends.
func (w *world) watch(ctx context.Context, every time.Duration) (all []sample) {
	began := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return all
		case <-tick.C:
		}
		if w.down.Load() {
			continue
		}
		s, err := w.look(ctx, began)
		if err != nil {
			if ctx.Err() == nil && !w.down.Load() {
				w.problem("look at the process: %v", err)
			}
			continue
		}
		all = append(all, s)
		if i%6 == 5 {
			w.o.Log("%v: %d sessions; %v", s.at.Round(time.Second), s.sessions, s)
		}
	}
}

// slope is by how much a value grows from the first sample to the last, by the line that fits best.
func slope(all []sample, value func(sample) float64) float64 {
	var sx, sy, sxx, sxy float64
	n := float64(len(all))
	for _, s := range all {
		x, y := s.at.Seconds(), value(s)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if d := n*sxx - sx*sx; d > 0 {
		return (n*sxy - sx*sy) / d * (all[len(all)-1].at - all[0].at).Seconds()
	}
	return 0
}

// growth judges whether the process grew while the load was the same: its second half, which begins when
// everything has been used once.
func (w *world) growth(r *Report, all []sample) {
	half := all[len(all)/2:]
	if len(half) < 10 || w.o.Duration < 2*time.Minute || w.o.Crashes > 0 { // too short to say, or not one process
		return
	}
	open := 0
	for _, x := range half {
		open += x.sessions
	}
	open /= len(half)
	r.check(open >= (w.o.Idle+w.o.Busy)*9/10, "sessions open, on average of the second half", fmt.Sprint(open), fmt.Sprintf("≥ 90 %% of %d", w.o.Idle+w.o.Busy))
	first := half[0]
	grown := slope(half, func(s sample) float64 { return float64(s.rss) }) / (1 << 20)
	most := max(16, float64(first.rss)/(1<<20)/5)
	r.check(grown <= most, "memory, second half", fmt.Sprintf("%+.1f MiB from %d", grown, first.rss>>20), fmt.Sprintf("≤ %+.0f MiB", most))
	files := slope(half, func(s sample) float64 { return float64(s.descriptors - 3*s.sessions) })
	r.check(files <= 0.1*float64(first.descriptors)+20, "descriptors beside the sessions', second half", fmt.Sprintf("%+.0f from %d", files, first.descriptors), "no growth")
	routines := slope(half, func(s sample) float64 { return s.goroutines })
	r.check(routines <= 0.1*first.goroutines+50, "goroutines, second half", fmt.Sprintf("%+.0f from %.0f", routines, first.goroutines), "no growth")
}
