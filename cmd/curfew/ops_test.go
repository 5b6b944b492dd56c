package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/store"
)

// opsAnswer gives what the operators' listener answers.
func opsAnswer(t *testing.T, h *house, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.opsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func readiness(t *testing.T, h *house) (int, map[string]string) {
	t.Helper()
	status, body := opsAnswer(t, h, "/readyz")
	var s State
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	if (s.Status == statusReady) != (status == http.StatusOK) {
		t.Errorf("status %d says %s", status, s.Status)
	}
	red := map[string]string{}
	for _, c := range s.Checks {
		if !c.OK {
			red[c.Name] = c.Reason
		}
	}
	return status, red
}

// Curfew is ready when it has started, is not asked to stop, and can keep what it has to. Databases that are
// down are shown, and make it no less ready.
func TestReady(t *testing.T) {
	h := offlineHouse(t, "")
	if status, red := readiness(t, h); status != http.StatusServiceUnavailable || red[checkStarted] == "" || len(red) != 1 {
		t.Errorf("before it serves: %d, %v", status, red)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 2)
	go func() { ran <- h.desk.Run(ctx) }()
	go func() { h.proxy.Tend(ctx); ran <- nil }()
	defer func() { stop(); <-ran; <-ran }()
	h.serving.Store(true)
	deadline := time.Now().Add(10 * time.Second)
	for {
		status, red := readiness(t, h)
		if status == http.StatusOK && red["target:orders"] != "" && red["target:shop"] != "" && len(red) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with two targets that are down: %d, %v", status, red)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if status, body := opsAnswer(t, h, "/healthz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	h.stopping.Store(true)
	if status, red := readiness(t, h); status != http.StatusServiceUnavailable || red[checkAccepting] == "" {
		t.Errorf("when it was asked to stop: %d, %v", status, red)
	}
	if err := h.ready(t.Context()); err == nil || !strings.Contains(err.Error(), "asked to stop") || strings.Contains(err.Error(), "target") {
		t.Errorf("the log reads %v", err)
	}
}

// A loop that stands still is a process that is not alive, for whoever asks and for the service manager.
func TestAlive(t *testing.T) {
	h := offlineHouse(t, "")
	if err := h.alive(); err != nil {
		t.Errorf("before any loop turns: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	tended := make(chan struct{})
	go func() { h.proxy.Tend(ctx); close(tended) }()
	for h.proxy.Still() == 0 {
		time.Sleep(time.Millisecond)
	}
	if h.proxy.Still() > stillMost {
		t.Errorf("it stands still for %s", h.proxy.Still())
	}
	stop()
	<-tended
	was := h.proxy.Still()
	time.Sleep(2 * time.Millisecond)
	if h.proxy.Still() <= was {
		t.Error("a loop that has ended is not seen to stand still")
	}
}

// What the desk refuses is no failure of the store; what the disk does is.
func TestStoreFailuresAreCounted(t *testing.T) {
	h := offlineHouse(t, "")
	before := testutil.ToFloat64(h.meters.updateFailed)
	h.meters.updated(time.Millisecond, nil)
	h.meters.updated(time.Millisecond, &control.Error{Code: control.CodeConflict})
	h.meters.updated(time.Millisecond, store.ErrNotFound)
	if got := testutil.ToFloat64(h.meters.updateFailed); got != before {
		t.Errorf("%v failures", got-before)
	}
	h.meters.updated(time.Millisecond, errors.New("disk full"))
	if got := testutil.ToFloat64(h.meters.updateFailed); got != before+1 {
		t.Errorf("%v failures", got-before)
	}
	h.failedLogin("wire")("192.0.2.1:7")
	if got := testutil.ToFloat64(h.meters.failedLogins.WithLabelValues("wire")); got != 1 {
		t.Errorf("%v failed logins", got)
	}
	h.meters.measureDisk(h.cfg.Data)
	if free, size := testutil.ToFloat64(h.meters.free), testutil.ToFloat64(h.meters.size); free <= 0 || size < free {
		t.Errorf("%v bytes of %v are free", free, size)
	}
}

// /metrics follows the conventions, and no label of it comes from a person or a stranger.
func TestMetricsFollowTheConventions(t *testing.T) {
	h := offlineHouse(t, "")
	status, body := opsAnswer(t, h, "/metrics")
	if status != http.StatusOK || !strings.Contains(body, "curfew_build_info{") || !strings.Contains(body, "go_goroutines ") {
		t.Errorf("%d\n%s", status, body)
	}
	problems, err := testutil.GatherAndLint(h.metrics)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	allowed := map[string]bool{"target": true, "level": true, "code": true, "reason": true, "state": true, "check": true, "where": true,
		"severity": true, "result": true, "part": true, "from": true, "file": true, "le": true, "quantile": true, "version": true, "goversion": true,
		"destination": true, "issuer": true}
	for name, labels := range exposed(t) {
		for _, l := range labels {
			if l != "" && !allowed[l] {
				t.Errorf("%s has the label %s", name, l)
			}
		}
	}
}

// manager is a service manager that listens.
func manager(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, path
}

func heard(t *testing.T, conn *net.UnixConn, within time.Duration) string {
	t.Helper()
	buf := make([]byte, 100)
	conn.SetReadDeadline(time.Now().Add(within))
	n, err := conn.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// The service manager hears that all is well for as long as it is.
func TestWatchdog(t *testing.T) {
	conn, path := manager(t)
	env := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000"}
	n := newNotifier(func(name string) string { return env[name] })
	if n.every != 20*time.Millisecond {
		t.Errorf("every %s", n.every)
	}
	if err := n.say("READY=1"); err != nil || heard(t, conn, time.Second) != "READY=1" {
		t.Errorf("not heard: %v", err)
	}
	stuck := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		n.watchdog(ctx, func() error {
			select {
			case <-stuck:
				return errors.New("stuck")
			default:
				return nil
			}
		})
		close(done)
	}()
	for range 3 {
		if got := heard(t, conn, 5*time.Second); got != "WATCHDOG=1" {
			t.Errorf("heard %q", got)
		}
	}
	close(stuck)
	heard(t, conn, 50*time.Millisecond) // one may have been under way
	if got := heard(t, conn, 200*time.Millisecond); got != "" {
		t.Errorf("heard %q of a process that is stuck", got)
	}
	stop()
	<-done
	alone := newNotifier(func(string) string { return "" })
	if err := errors.Join(alone.say("READY=1"), alone.watchdog(t.Context(), nil)); err != nil {
		t.Errorf("without a manager: %v", err)
	}
}
