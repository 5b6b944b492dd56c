package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the operators' listener: whoever scrapes is quick, and there are few of them.
const (
	opsRead  = 5 * time.Second
	opsWrite = 20 * time.Second
	opsIdle  = 2 * time.Minute
)

// opsHandler serves what machines look at. It names targets, levels and what is wrong with them, and
// no person.
func (h *house) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := h.alive(); err != nil {
			writeOps(w, http.StatusServiceUnavailable, map[string]string{"status": "stuck", "reason": err.Error()})
			return
		}
		writeOps(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		s := h.state(r.Context())
		writeOps(w, s.httpStatus(), s)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelWarn), MaxRequestsInFlight: 8, Timeout: opsWrite / 2,
	}))
	return mux
}

func writeOps(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // whoever asked has gone, if this fails
}

// openOps opens the operators' listener, if there is to be one, and serves it until the house is closed:
// while Curfew starts and drains, too.
func (h *house) openOps() error {
	if h.cfg.Ops == nil {
		return nil
	}
	l, err := net.Listen("tcp", h.cfg.Ops.Listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h.opsHandler(), ReadHeaderTimeout: opsRead, ReadTimeout: opsRead, WriteTimeout: opsWrite, IdleTimeout: opsIdle,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug), TLSConfig: h.certs.server(opsCert)}
	h.log.Info("listening", "ops", l.Addr().String(), "tls", srv.TLSConfig != nil)
	served := make(chan error, 1)
	go func() {
		if srv.TLSConfig != nil {
			served <- srv.ServeTLS(l, "", "")
		} else {
			served <- srv.Serve(l)
		}
	}()
	h.closers = append(h.closers, func() error {
		end, cancel := context.WithTimeout(h.base, time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}
