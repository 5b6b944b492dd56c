package main

import (
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sys/unix"

	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/store"
)

// meters is what the house itself counts, beside what its parts do.
type meters struct {
	update       prometheus.Histogram
	updateFailed prometheus.Counter
	failedLogins *prometheus.CounterVec
	anchored     *prometheus.GaugeVec
	free, size   prometheus.Gauge
}

// storeBuckets are from a disk's cache to a store that hangs.
var storeBuckets = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func newMeters(reg prometheus.Registerer) *meters {
	m := &meters{
		update: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "curfew_store_update_seconds",
			Help: "How long the store took for a transaction, the wait for its turn included.", Buckets: storeBuckets}),
		updateFailed: prometheus.NewCounter(prometheus.CounterOpts{Name: "curfew_store_update_failures_total",
			Help: "Transactions that the store could not make durable."}),
		failedLogins: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "curfew_logins_failed_total",
			Help: "Strangers who could not prove who they are, by where."}, []string{"where"}),
		anchored: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "curfew_anchor_last_success_timestamp_seconds",
			Help: "When an anchor was last known to hold the ledger's checkpoint."}, []string{"file"}),
		free: prometheus.NewGauge(prometheus.GaugeOpts{Name: "curfew_data_free_bytes", Help: "What is left on the disk of the data directory."}),
		size: prometheus.NewGauge(prometheus.GaugeOpts{Name: "curfew_data_size_bytes", Help: "How large that disk is."}),
	}
	for _, where := range []string{store.AtWire, store.AtAPI, store.AtWeb, store.AtLink, store.AtToken, store.AtLogout} {
		m.failedLogins.WithLabelValues(where)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "curfew_build_info", Help: "Always 1; its labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	build.Set(1)
	reg.MustRegister(m.update, m.updateFailed, m.failedLogins, m.anchored, m.free, m.size, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// updated is store.Options.Observe. What the desk refuses is no failure of the store's.
func (m *meters) updated(took time.Duration, err error) {
	m.update.Observe(took.Seconds())
	var refused *control.Error
	if err != nil && !errors.As(err, &refused) && !errors.Is(err, store.ErrNotFound) {
		m.updateFailed.Inc()
	}
}

// measureDisk says what is left on the data directory's disk; it is apart from whoever asks, because a disk
// that hangs must not hold up an answer.
func (m *meters) measureDisk(dir string) {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		m.free.Set(float64(fs.Bavail) * float64(fs.Bsize))
		m.size.Set(float64(fs.Blocks) * float64(fs.Bsize))
	}
}

// What is counted when somebody asks.
var (
	descGrants   = prometheus.NewDesc("curfew_grants", "Grants that have not ended on the ledger.", []string{"state"}, nil)
	descRequests = prometheus.NewDesc("curfew_requests_open", "Requests that nobody has decided on.", nil, nil)
	descGlass    = prometheus.NewDesc("curfew_grants_break_glass", "Active grants for which the glass was broken.", nil, nil)
	descDue      = prometheus.NewDesc("curfew_reviews_due", "Reviews that are still to be done.", nil, nil)
	descOverdue  = prometheus.NewDesc("curfew_reviews_overdue", "Those of them whose time is up.", nil, nil)
	descSkew     = prometheus.NewDesc("curfew_issuer_clock_skew_seconds", "How far an issuer's clock was ahead of this one when it last answered.", []string{"issuer"}, nil)
	descLedger   = prometheus.NewDesc("curfew_ledger_entries", "Entries of the ledger.", nil, nil)
	descSent     = prometheus.NewDesc("curfew_notifications_sent_total", "Notifications that a destination has taken.", []string{"destination"}, nil)
	descFailed   = prometheus.NewDesc("curfew_notifications_failed_total", "Attempts that a destination did not take.", []string{"destination"}, nil)
	descLost     = prometheus.NewDesc("curfew_notifications_lost_total", "Notifications that were given up.", []string{"destination"}, nil)
	descWaiting  = prometheus.NewDesc("curfew_notifications_waiting", "Notifications that a destination has not had yet.", []string{"destination"}, nil)
	descOldest   = prometheus.NewDesc("curfew_notification_oldest_seconds", "For how long the next notification of a destination has waited; 0: none waits.", []string{"destination"}, nil)
	descReady    = prometheus.NewDesc("curfew_ready", "Whether a check of /readyz is green.", []string{"check"}, nil)
)

// Describe implements prometheus.Collector.
func (h *house) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descGrants, descRequests, descGlass, descDue, descOverdue, descLedger, descSkew, descReady, descSent, descFailed, descLost, descWaiting, descOldest} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (h *house) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	c := h.desk.Census()
	gauge(descGrants, float64(c.Scheduled), "scheduled")
	gauge(descGrants, float64(c.Active), "active")
	gauge(descGrants, float64(c.Ending), "ending")
	gauge(descRequests, float64(c.Open))
	gauge(descGlass, float64(c.Broken))
	gauge(descDue, float64(c.Reviews.Due))
	gauge(descOverdue, float64(c.Reviews.Overdue))
	gauge(descLedger, float64(h.store.Size()))
	h.collectNotify(ch)
	h.collectClocks(gauge)
	for _, check := range h.state(h.base).Checks {
		v := 0.0
		if check.OK {
			v = 1
		}
		gauge(descReady, v, check.Name)
	}
}

func (h *house) collectNotify(ch chan<- prometheus.Metric) {
	for _, s := range h.tell.Stats() {
		for d, n := range map[*prometheus.Desc]uint64{descSent: s.Sent, descFailed: s.Failed, descLost: s.Lost} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), s.Name)
		}
		oldest := 0.0
		if !s.Oldest.IsZero() {
			oldest = max(h.store.Now().Sub(s.Oldest).Seconds(), 0)
		}
		ch <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(s.Waiting), s.Name)
		ch <- prometheus.MustNewConstMetric(descOldest, prometheus.GaugeValue, oldest, s.Name)
	}
}
