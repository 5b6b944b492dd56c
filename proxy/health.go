package proxy

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TargetState is what the last try to work on a target has shown.
type TargetState struct {
	Target string
	Err    error     // nil: it could be worked on, or was not tried yet
	Since  time.Time // since when that is so; zero: it was not tried yet
}

// reach keeps the state of every target.
type reach struct {
	metrics *metrics

	mu       sync.Mutex // guards byTarget
	byTarget map[string]TargetState
}

func newReach(m *metrics) *reach { return &reach{metrics: m, byTarget: map[string]TargetState{}} }

// tried notes what came of a try to work on a target.
func (r *reach) tried(target string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, known := r.byTarget[target]
	if !known || (was.Err == nil) != (err == nil) {
		was.Since = time.Now()
	}
	was.Target, was.Err = target, err
	r.byTarget[target] = was
	up := 0.0
	if err == nil {
		up = 1
	}
	r.metrics.up.WithLabelValues(target).Set(up)
}

func (r *reach) of(target string) TargetState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.byTarget[target]
	s.Target = target
	return s
}

// Targets tells of every target, by name, whether the broker could work on it.
func (s *Server) Targets() []TargetState {
	var all []TargetState
	for _, target := range slices.Sorted(maps.Keys(s.cfg.Engines)) {
		all = append(all, s.reach.of(target))
	}
	return all
}

// pulse is when a loop that waits for nothing has last turned.
type pulse struct{ at atomic.Pointer[time.Time] }

func (p *pulse) beat() {
	now := time.Now()
	p.at.Store(&now)
}

// Still is for how long the loop that looks after sessions has not turned; 0 before Tend. It waits for no
// disk and no database, so anything but a fraction of a second means that this process is stuck.
func (s *Server) Still() time.Duration {
	if at := s.pulse.at.Load(); at != nil {
		return time.Since(*at)
	}
	return 0
}

// Draining says whether this node takes no more connections.
func (s *Server) Draining() bool { return s.draining.Load() }

// What is counted when somebody asks.
var (
	descSessions = prometheus.NewDesc("curfew_sessions", "Sessions that go on.", []string{"target", "level"}, nil)
	descAccounts = prometheus.NewDesc("curfew_accounts", "Accounts that this node looks after: of grants that live, and of grants that end.", []string{"target", "state"}, nil)
	descEnding   = prometheus.NewDesc("curfew_account_oldest_ending_seconds", "How long the longest of the ends that go on has gone on; 0: none does.", []string{"target"}, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSessions, descAccounts, descEnding} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	type place struct{ target, level string }
	live := map[place]int{}
	for _, l := range s.roll.all() {
		live[place{l.header.Target, l.header.Level}]++
	}
	for p, n := range live {
		ch <- prometheus.MustNewConstMetric(descSessions, prometheus.GaugeValue, float64(n), p.target, p.level)
	}
	now := time.Now()
	for target := range s.cfg.Engines {
		alive, ending, oldest := s.tenures.census(target, now)
		ch <- prometheus.MustNewConstMetric(descAccounts, prometheus.GaugeValue, float64(alive), target, "live")
		ch <- prometheus.MustNewConstMetric(descAccounts, prometheus.GaugeValue, float64(ending), target, "ending")
		ch <- prometheus.MustNewConstMetric(descEnding, prometheus.GaugeValue, oldest.Seconds(), target)
	}
}

// census counts a target's tenures.
func (ts *tenures) census(target string, now time.Time) (alive, ending int, oldest time.Duration) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.byGrant {
		if t.grant.Target != target {
			continue
		}
		since := t.ending.Load()
		if since == nil {
			alive++
			continue
		}
		ending++
		oldest = max(oldest, now.Sub(*since))
	}
	return alive, ending, oldest
}
