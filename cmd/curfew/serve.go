package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/proxy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

func newServe(a *app) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the Curfew server",
		Long: `Runs the API and the listeners that clients connect to, as the configuration says.

SIGTERM and SIGINT drain: nobody new is let in, sessions are told and ended, the accounts of
live grants are locked until Curfew is back. That takes 45 seconds at most; a second signal ends
the process at once, as kill -9 does, and the next start makes good for it.

SIGHUP reads the policy and the certificates again; when something is wrong in them the old ones
stay in force. Other changes need a restart.`,
		Example: `  curfew serve --config /etc/curfew/curfew.yaml
  curfew check --config /etc/curfew/curfew.yaml   # before it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewJSONHandler(a.stderr, nil))
			defer a.hurry(cmd.Context(), log)()
			return a.serve(cmd.Context(), path, serveOptions{log: log, step: crashStep(a.env), seams: crashSeams(a.env), notify: newNotifier(a.env)})
		},
	}
	c.Flags().StringVar(&path, "config", "/etc/curfew/curfew.yaml", "the configuration")
	return c
}

// hurry ends the process at the second signal to stop; the func ends that.
func (a *app) hurry(ctx context.Context, log *slog.Logger) (stop func()) {
	again, done := make(chan os.Signal, 1), make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		select {
		case <-again:
			log.Error("asked to stop a second time: ending at once; what is left in the databases is taken up at the next start")
			os.Exit(exitFailed)
		case <-done:
			signal.Stop(again)
		}
	}()
	return func() { close(done) }
}

// serveOptions are what serve and dev do differently.
type serveOptions struct {
	log    *slog.Logger
	step   func(string) error
	seams  seams          // where a test breaks things
	notify notifier       // the service manager
	began  func(h *house) // told when everything listens
}

// How often what is done regularly is done.
const (
	diskEvery  = 10 * time.Second // what is left on the disk
	keepEvery  = 10 * time.Second // open recordings on the ledger, checkpoints to the anchors
	askEvery   = time.Second      // whether recordings can be kept
	askAgain   = 1500 * time.Millisecond
	apiTimeout = 10 * time.Second // the API's last answers, when it stops
)

// serve runs Curfew until ctx ends, and then drains it.
func (a *app) serve(ctx context.Context, path string, o serveOptions) (err error) {
	cfg, pol, err := config.Load(path, engineWords())
	if err != nil {
		return err
	}
	if n := runtime.GOMAXPROCS(0); recorder.Durability(cfg.Recording.Durability).Processors(n) != n { // else it stays Go's own affair
		runtime.GOMAXPROCS(recorder.Durability(cfg.Recording.Durability).Processors(n))
	}
	h, err := build(ctx, cfg, pol, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.openOps(); err != nil {
		return fmt.Errorf("ops: %w", err)
	}
	unhealed := h.heal(ctx)
	if err := h.proxy.Resume(ctx); err != nil {
		return errors.Join(unhealed, err)
	}
	if unhealed != nil { // nobody is let in, but what has to end in the databases ends
		h.proxy.Drain()
		return unhealed
	}
	listeners, apiListener, err := h.listen()
	if err != nil {
		h.proxy.Drain()
		return err
	}
	if o.began != nil {
		o.began(h)
	}
	return h.run(ctx, listeners, apiListener)
}

// run does everything at once until asked ends or one part fails; the desk goes on until the proxy is
// drained. That this node is to be left alone is known before anything of it stops.
func (h *house) run(asked context.Context, listeners []proxy.Listener, apiListener net.Listener) error {
	ctx, fail := context.WithCancelCause(h.base)
	defer fail(nil)
	defer context.AfterFunc(asked, func() {
		h.stopping.Store(true)
		h.say("STOPPING=1")
		fail(context.Cause(asked))
	})()
	lasting, stop := context.WithCancel(h.base)
	var front, back sync.WaitGroup
	part := func(g *sync.WaitGroup, name string, ctx context.Context, f func(context.Context) error) {
		g.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				fail(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	part(&back, "desk", lasting, h.desk.Run)
	part(&back, "watch", lasting, func(ctx context.Context) error { h.proxy.Tend(ctx); return nil })
	part(&back, "keep", lasting, h.keep)
	part(&back, "recorder", lasting, h.watchRecorder)
	part(&back, "logins", lasting, h.logins.Run)
	part(&back, "notify", lasting, h.tell.Run)
	part(&back, "disk", lasting, h.measureDisk)
	part(&back, "evidence", lasting, h.lookThrough)
	part(&back, "watchdog", lasting, func(ctx context.Context) error { return h.notify.watchdog(ctx, h.alive) })
	part(&front, "reload", ctx, h.reloadOnHangup)
	part(&front, "api", ctx, func(ctx context.Context) error { return h.serveAPI(ctx, apiListener) })
	part(&front, "proxy", ctx, func(ctx context.Context) error { return h.proxy.Serve(ctx, listeners...) })
	h.serving.Store(true)
	h.say("READY=1")
	front.Wait()
	stop()
	back.Wait()
	h.record(h.base) // the last roots and checkpoint before the lights go out
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// say tells the service manager something that it may want to know.
func (h *house) say(state string) {
	if err := h.notify.say(state); err != nil {
		h.log.Warn("the service manager can't be told", "state", state, "error", err)
	}
}

func (h *house) measureDisk(ctx context.Context) error {
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	for {
		h.meters.measureDisk(h.cfg.Data)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// listen opens every listener before any is served, so that a taken port stops the start.
func (h *house) listen() ([]proxy.Listener, net.Listener, error) {
	var opened []net.Listener
	closeAll := func() (err error) {
		for _, o := range opened {
			err = errors.Join(err, o.Close())
		}
		return err
	}
	open := func(addr string) (net.Listener, error) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen: %w", err), closeAll())
		}
		opened = append(opened, l)
		return l, nil
	}
	apiListener, err := open(h.cfg.API.Listen)
	if err != nil {
		return nil, nil, err
	}
	var all []proxy.Listener
	for i, c := range h.cfg.Listeners {
		l, err := open(c.Listen)
		if err != nil {
			return nil, nil, err
		}
		front, err := h.front(c, h.certs.server(i), !onLoopback(l.Addr()))
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("listener %s: %w", c.Listen, err), closeAll())
		}
		all = append(all, proxy.Listener{Listener: l, Front: front, Engine: c.Engine, Target: c.Target})
		h.log.Info("listening", "engine", c.Engine, "target", c.Target, "address", l.Addr().String(), "tls", c.TLS != nil)
	}
	h.log.Info("listening", "api", apiListener.Addr().String(), "tls", h.cfg.API.TLS != nil)
	return all, apiListener, nil
}

// front is one listener's side of an engine.
func (h *house) front(l config.Listener, tls *tls.Config, requireTLS bool) (protocol.Front, error) {
	cfg := protocol.ListenerConfig{TLS: tls, RequireTLS: requireTLS, Cleartext: l.Cleartext, DecoyKey: h.decoy, Log: h.log}
	if l.Target != "" {
		cfg.Engine = h.engines[l.Target]
	}
	return engines()[l.Engine].NewFront(cfg)
}

func onLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// serveAPI answers until ctx ends and then finishes what it is answering.
func (h *house) serveAPI(ctx context.Context, l net.Listener) error {
	srv := api.NewServer(ctx, h.api, h.log)
	srv.TLSConfig = h.certs.server(apiCert)
	done := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(done)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	})
	var err error
	if srv.TLSConfig != nil {
		err = srv.ServeTLS(l, "", "")
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		<-done
		return nil
	}
	return err
}

// keep puts how far open recordings have come on the ledger, and the ledger's checkpoint where others
// keep it.
func (h *house) keep(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.record(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *house) record(ctx context.Context) {
	if moved := h.library.Moved(); len(moved) > 0 {
		if err := h.store.Moved(ctx, ledger.SessionsMoved{Node: h.cfg.Node, Sessions: moved}); err != nil {
			h.log.Error("open recordings not on the ledger", "error", err)
		}
	}
	for _, anchor := range h.cfg.Anchors {
		if err := h.store.Anchor(ctx, anchor.File); err != nil {
			h.log.Error("ALERT anchor not written", "file", anchor.File, "error", err)
			continue
		}
		h.meters.anchored.WithLabelValues(anchor.File).SetToCurrentTime()
	}
}

// watchRecorder puts it on the ledger when recordings can't be kept: new sessions are refused then, and
// running ones stop. It is apart from keep, because a disk that hangs must not hold up the anchors.
func (h *house) watchRecorder(ctx context.Context) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	degraded := false
	for {
		select {
		case <-tick.C:
			degraded = h.recorderDegraded(ctx, degraded)
		case <-ctx.Done():
			return nil
		}
	}
}

// recorderDegraded reports whether recordings can't be kept and that is on the ledger. One failure is not
// enough, for it may have been one file's: the disk is asked before anybody is alarmed.
func (h *house) recorderDegraded(ctx context.Context, before bool) bool {
	err := h.library.Err()
	if err != nil && !before {
		select {
		case <-time.After(askAgain):
			err = h.library.Err()
		case <-ctx.Done():
			return false
		}
	}
	switch {
	case err == nil && before:
		h.log.Info("recordings can be kept again")
	case err != nil && !before:
		h.log.Error("ALERT recordings can't be kept; new sessions are refused", "error", err)
		if failed := h.store.Degraded(ctx, ledger.RecorderDegraded{Node: h.cfg.Node, Error: err.Error()}); failed != nil {
			h.log.Error("alert not on the ledger; it is tried again", "error", failed)
			return false
		}
	}
	return err != nil
}

// reloadOnHangup reads the policy and the certificates again on SIGHUP.
func (h *house) reloadOnHangup(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-hangup:
			h.reload(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *house) reload(ctx context.Context) {
	if err := h.certs.load(); err != nil {
		h.log.Error("certificates not reloaded; the old ones stay", "error", err)
	}
	pol, err := config.LoadPolicy(h.cfg.Policy, h.cfg.Targets)
	if err == nil {
		err = h.desk.Reload(ctx, pol)
	}
	if err != nil {
		h.log.Error("policy not reloaded; the old one stays in force", "error", err)
		return
	}
	h.log.Info("policy reloaded", "hash", pol.Hash)
}
