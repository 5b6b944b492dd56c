package proxy

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// metrics is what this package counts. No label comes from a stranger or a person: targets and levels are
// the configuration's, codes and reasons are closed sets.
type metrics struct {
	ended      *prometheus.CounterVec // sessions, by target, level and code
	statements *prometheus.CounterVec
	blocked    *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	refused    *prometheus.CounterVec // connections, by reason

	record       prometheus.Histogram // one statement of recordEvery
	recordFailed prometheus.Counter

	late    *prometheus.HistogramVec
	cut     *prometheus.HistogramVec
	clean   *prometheus.HistogramVec
	retries *prometheus.CounterVec

	sweeps   *prometheus.CounterVec
	swept    *prometheus.GaugeVec // when one was last whole
	findings *prometheus.GaugeVec
	foreign  *prometheus.CounterVec
	up       *prometheus.GaugeVec
}

// Buckets: from a disk's cache to one that hangs, and from an idle machine to a target that was away.
var (
	recordBuckets = []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 0.025, 0.1, 1, 5}
	endBuckets    = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300}
)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		reg.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		reg.MustRegister(h)
		return h
	}
	m.ended = counter("curfew_sessions_ended_total", "Sessions that have ended, by how (the codes of a recording's end).", "target", "level", "code")
	m.statements = counter("curfew_statements_total", "Statements on record.", "target")
	m.blocked = counter("curfew_statements_blocked_total", "Statements that were recorded and refused.", "target")
	m.bytes = counter("curfew_session_bytes_total", "Bytes that sessions have moved, by who sent them.", "target", "from")
	m.refused = counter("curfew_connections_refused_total", "Connections that did not become a session, by reason.", "reason")
	m.record = histogram("curfew_record_seconds", "How long a statement waited for its record; one in "+strconv.Itoa(recordEvery)+" is measured.", recordBuckets).WithLabelValues().(prometheus.Histogram)
	m.recordFailed = counter("curfew_record_failures_total", "Records that could not be kept.").WithLabelValues()
	m.late = histogram("curfew_grant_end_lateness_seconds", "From a grant's end until no backend of its account was left.", endBuckets, "target")
	m.cut = histogram("curfew_grant_cut_seconds", "From the decision to end a grant until no backend of its account was left.", endBuckets, "target")
	m.clean = histogram("curfew_grant_clean_seconds", "From there until its account was gone.", endBuckets, "target")
	m.retries = counter("curfew_grant_end_failures_total", "Tries to cut or clean an account that failed.", "target", "part")
	m.sweeps = counter("curfew_sweeps_total", "Sweeps of a target.", "target", "result")
	m.swept = gauge("curfew_sweep_last_success_timestamp_seconds", "When a target was last swept.", "target")
	m.findings = gauge("curfew_sweep_findings", "What the last sweep found and may not touch.", "target", "severity")
	m.foreign = counter("curfew_foreign_backends_total", "Backends of accounts that were not Curfew's own sessions.", "target")
	m.up = gauge("curfew_target_up", "Whether the broker could work on the target when it last tried.", "target")
	return m
}

// targets makes the series of every target, so that a rate can be taken of what has not happened yet.
func (m *metrics) targets(names map[string]protocol.Engine) {
	for t := range names {
		m.statements.WithLabelValues(t)
		m.blocked.WithLabelValues(t)
		m.bytes.WithLabelValues(t, "client")
		m.bytes.WithLabelValues(t, "server")
		m.foreign.WithLabelValues(t)
		m.swept.WithLabelValues(t) // never, as far as this process knows
		for _, h := range []*prometheus.HistogramVec{m.late, m.cut, m.clean} {
			h.WithLabelValues(t)
		}
		for _, part := range []string{"cut", "clean"} {
			m.retries.WithLabelValues(t, part)
		}
		for _, result := range []string{"ok", "error"} {
			m.sweeps.WithLabelValues(t, result)
		}
	}
	for _, r := range refusals {
		m.refused.WithLabelValues(r)
	}
}

// moved adds what a session has done since the last look.
func (m *metrics) moved(target string, was, is counts) {
	add := func(c *prometheus.CounterVec, was, is uint64, labels ...string) {
		if is > was {
			c.WithLabelValues(labels...).Add(float64(is - was))
		}
	}
	add(m.bytes, was.fromClient, is.fromClient, target, "client")
	add(m.bytes, was.fromServer, is.fromServer, target, "server")
	add(m.statements, was.statements, is.statements, target)
	add(m.blocked, was.blocked, is.blocked, target)
}

// refusals are the reasons that a connection may be refused for.
var refusals = []string{protocol.RefuseLogin, protocol.RefuseToken, protocol.RefuseNoGrant, protocol.RefuseTLS, protocol.RefuseUnsupported,
	protocol.RefuseLimit, protocol.RefuseUnavailable, recorder.EndDrained, recorder.EndViolation, "other"}

// refuse counts a connection that did not become a session.
func (m *metrics) refuse(err error) {
	reason := "other"
	var refusal *protocol.Refusal
	if errors.As(err, &refusal) {
		for _, r := range refusals {
			if r == refusal.Code {
				reason = r
			}
		}
	}
	m.refused.WithLabelValues(reason).Inc()
}

// recordEvery is how many statements there are for one whose record is timed: a power of two.
const recordEvery = 64

// meter is a session's recording, counted. It is on the path of every statement: it allocates nothing,
// and asks for the time once in a while only.
type meter struct {
	Recording
	metrics    *metrics
	statements atomic.Uint64
	blocked    atomic.Uint64
}

// Record implements protocol.Sink.
func (m *meter) Record(events ...recorder.Event) (err error) {
	var statements, blocked uint64
	for i := range events {
		switch events[i].Type {
		case recorder.TypeStatement:
			statements++
		case recorder.TypeBlocked:
			blocked++
		}
	}
	if blocked > 0 {
		m.blocked.Add(blocked)
	}
	if statements > 0 && m.due(statements) {
		began := time.Now()
		err = m.Recording.Record(events...)
		m.metrics.record.Observe(time.Since(began).Seconds())
	} else {
		err = m.Recording.Record(events...)
	}
	if err != nil && !errors.Is(err, recorder.ErrSealed) { // what comes after the end is nobody's loss
		m.metrics.recordFailed.Inc()
	}
	return err
}

// Waits implements protocol.Waiter.
func (m *meter) Waits() bool {
	w, ok := m.Recording.(protocol.Waiter)
	return ok && w.Waits()
}

// due counts statements, and says whether one that is to be timed is among them.
func (m *meter) due(n uint64) bool {
	is := m.statements.Add(n)
	return is/recordEvery != (is-n)/recordEvery
}

// sessionEnded counts a session by how it ended, or a connection that did not become one.
func (m *metrics) sessionEnded(st *story, err error) {
	if !st.began {
		m.refuse(err)
		return
	}
	m.ended.WithLabelValues(st.header.Target, st.header.Level, st.end.Code).Inc()
}
