package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// world stands in for everything around the proxy: it keeps the order of what happened, and makes the
// step named in fail go wrong, once or for good.
type world struct {
	mu      sync.Mutex // guards what follows
	log     []string
	fail    map[string]int // step → how many times it still fails
	grant   policy.Grant
	end     context.CancelCauseFunc
	held    context.Context
	sink    protocol.Sink
	cuts    []ledger.AccountCut
	ends    []recorder.End
	intents []Intent
	specs   []protocol.AccountSpec   // of what was provisioned or recalled
	gids    []string                 // what each recording shows as prepared
	hang    map[string]chan struct{} // step → it hangs until this is closed

	lost  chan struct{}         // what a recording's Lost gives
	usage func() protocol.Usage // nil: nothing moves

	deaf bool // the target says nothing while it provisions
	slow bool // a login there takes for ever

	relay func(ctx context.Context, sink protocol.Sink) error
}

var errBroken = errors.New("broken on purpose")

func newWorld() *world {
	w := &world{fail: map[string]int{}, hang: map[string]chan struct{}{}}
	w.held, w.end = context.WithCancelCause(context.Background())
	w.grant = policy.Grant{ID: "g1", Request: "r1", Target: "orders", Level: "writer", Start: time.Now(), End: time.Now().Add(time.Hour),
		Identity: auth.Identity{Issuer: "i", Subject: "alice"}, Can: policy.Level{Roles: []string{"w"}, Sessions: 2}}
	w.relay = func(context.Context, protocol.Sink) error { return nil }
	return w
}

func (w *world) do(step string) error {
	w.mu.Lock()
	if hang := w.hang[step]; hang != nil {
		w.mu.Unlock()
		<-hang
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	if w.fail[step] > 0 {
		w.fail[step]--
		w.log = append(w.log, step+"!")
		return errBroken
	}
	w.log = append(w.log, step)
	return nil
}

// quiet is do for what only reads: it stands in the log when it fails.
func (w *world) quiet(step string) error {
	w.mu.Lock()
	failing := w.fail[step] > 0
	w.mu.Unlock()
	if failing {
		return w.do(step)
	}
	return nil
}

func (w *world) happened() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, " ")
}

// Grants
func (w *world) Find(context.Context, string) (policy.Grant, error)   { return w.grant, w.do("find") }
func (w *world) Recall(context.Context, string) (policy.Grant, error) { return w.grant, nil }
func (w *world) End(_ context.Context, _, code, reason string) error {
	w.end(&protocol.Refusal{Code: code, Public: reason})
	return w.do("end:" + code)
}
func (w *world) Hold(ctx context.Context, _ string) (context.Context, func(), error) {
	if w.held.Err() != nil {
		return nil, nil, context.Cause(w.held)
	}
	if err := w.do("hold"); err != nil {
		return nil, nil, err
	}
	held, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(w.held, func() { cancel(context.Cause(w.held)) })
	return held, func() { stop(); w.do("release") }, nil
}

// Recordings, Recording
func (w *world) Create(recorder.Header) (Recording, error) { return recording{w}, w.do("create") }
func (w *world) Prepares(string) ([]string, error)         { return w.gids, w.quiet("prepares") }

type recording struct{ w *world }

func (r recording) Record(...recorder.Event) error { return r.w.do("record") }
func (r recording) HeaderHash() string             { return "" }
func (r recording) Lost() <-chan struct{}          { return r.w.lost }
func (r recording) Discard() error                 { return r.w.do("discard") }
func (r recording) Seal(e recorder.End) (recorder.Sealed, error) {
	r.w.mu.Lock()
	r.w.ends = append(r.w.ends, e)
	r.w.mu.Unlock()
	return recorder.Sealed{End: e}, r.w.do("seal")
}

// Sessions, Accounts
func (w *world) Opened(context.Context, ledger.SessionOpened) error { return w.do("opened") }
func (w *world) Sealed(context.Context, ledger.SessionSealed) error { return w.do("sealed") }
func (w *world) OfGrant(context.Context, string) ([]string, error) {
	return []string{"s1"}, w.quiet("of_grant")
}
func (w *world) Intend(context.Context, ledger.AccountIntended) error { return w.do("intend") }
func (w *world) Intended(context.Context) ([]Intent, error)           { return w.intents, nil }
func (w *world) Cleaned(context.Context, ledger.AccountCleaned) error { return w.do("receipt.clean") }
func (w *world) StillOpen(context.Context, ledger.AccountOpen) error  { return w.do("alert") }
func (w *world) Foreign(context.Context, ledger.AccountForeign) error { return w.do("foreign") }
func (w *world) Cut(_ context.Context, e ledger.AccountCut) error {
	w.mu.Lock()
	w.cuts = append(w.cuts, e)
	w.mu.Unlock()
	return w.do("receipt.cut")
}

// engine, account, client, link
type engine struct{ *world }

func (e engine) Enrol(string) ([]byte, error)                                        { return nil, nil }
func (e engine) Check(context.Context, []protocol.Level) ([]protocol.Finding, error) { return nil, nil }
func (e engine) Setup([]protocol.Level) string                                       { return "" }
func (e engine) Provision(ctx context.Context, spec protocol.AccountSpec) (protocol.Account, error) {
	e.saw(spec)
	if e.deaf {
		<-ctx.Done()
		e.fail["provision"] = 1
		return nil, errors.Join(ctx.Err(), e.do("provision"))
	}
	return account{e.world}, e.do("provision")
}
func (e engine) Recall(spec protocol.AccountSpec) protocol.Account {
	e.saw(spec)
	e.do("recall")
	return account{e.world}
}
func (e engine) Sweep(ctx context.Context, live func(string) bool) ([]protocol.Finding, error) {
	return nil, e.look(ctx, "sweep")
}
func (e engine) Watch(ctx context.Context) ([]protocol.Foreign, error) {
	if err := e.look(ctx, "watch"); err != nil {
		return nil, err
	}
	return []protocol.Foreign{{Account: "curfew_i_g1", Backend: "7", Killed: true}}, nil
}
func (e engine) Close() {}

// look is what a deaf target never answers, and is in nobody's way else.
func (w *world) look(ctx context.Context, step string) error {
	w.mu.Lock()
	deaf := w.deaf
	w.mu.Unlock()
	if !deaf {
		return nil
	}
	<-ctx.Done()
	w.do(step)
	return ctx.Err()
}

func (w *world) saw(spec protocol.AccountSpec) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.specs = append(w.specs, spec)
}

type account struct{ w *world }

func (a account) Name() string { return "curfew_i_g1" }
func (a account) Cut(context.Context) (protocol.Cut, error) {
	err := a.w.do("cut")
	return protocol.Cut{GoneAt: time.Now()}, err
}
func (a account) Clean(context.Context) (protocol.Clean, error) {
	return protocol.Clean{}, a.w.do("clean")
}

type client struct{ w *world }

func (c client) Login() protocol.Login { return protocol.Login{User: "g1"} }
func (c client) Attach(ctx context.Context, _ protocol.Account) (protocol.Link, error) {
	if c.w.slow {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return link{c.w}, c.w.do("attach")
}
func (c client) Close(error) { c.w.do("hangup") }

type link struct{ w *world }

func (l link) Relay(ctx context.Context, s protocol.Sink) error {
	l.w.do("relay")
	return l.w.relay(ctx, s)
}
func (l link) Notify(string) { l.w.do("notify") }
func (l link) Usage() protocol.Usage {
	if l.w.usage == nil {
		return protocol.Usage{}
	}
	return l.w.usage()
}
func (l link) Kill(context.Context) (protocol.Outcome, error) {
	return protocol.Outcome{InFlight: 3, Fate: protocol.FateAborted}, l.w.do("kill")
}

func serverFor(w *world) *Server {
	return New(Config{Node: "n", Installation: "i", Engines: map[string]protocol.Engine{"orders": engine{w}},
		EngineNames: map[string]string{"orders": "fake"}, Grants: w, Recordings: w, Sessions: w, Accounts: w,
		FailedLogin: func(string) {}, Log: slog.New(slog.DiscardHandler)})
}

func run(s *Server, w *world) {
	s.serve(context.Background(), Listener{Engine: "fake"}, client{w})
}

// Every step of a session fails once: what was opened is closed, in order, and what comes later never
// happens.
func TestEveryStepFailsOnce(t *testing.T) {
	cases := []struct{ fail, want string }{
		{"find", "find! hangup"},
		{"hold", "find hold! hangup"},
		{"create", "find hold hold create! release hangup"},
		{"opened", "find hold hold create opened! discard release hangup"},
		{"intend", "find hold hold create opened intend! seal sealed release hangup"},
		{"provision", "find hold hold create opened intend provision! seal sealed release hangup"},
		{"attach", "find hold hold create opened intend provision attach! seal sealed release hangup"},
		{"seal", "find hold hold create opened intend provision attach relay seal! release hangup"},
		{"", "find hold hold create opened intend provision attach relay seal sealed release hangup"},
	}
	for _, c := range cases {
		t.Run(c.fail, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.fail[c.fail] = 1
				s := serverFor(w)
				run(s, w)
				synctest.Wait()
				if got := w.happened(); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				w.end(draining())
				synctest.Wait()
				time.Sleep(time.Minute)
			})
		})
	}
}

// Whatever ends a session but the client's goodbye has its backend killed before the recording is sealed.
func TestBackendIsKilled(t *testing.T) {
	cases := []struct {
		name, code string
		relay      func(w *world) func(context.Context, protocol.Sink) error
	}{
		{"vanished", recorder.EndVanished, func(w *world) func(context.Context, protocol.Sink) error {
			return func(context.Context, protocol.Sink) error {
				return &protocol.EndError{Code: recorder.EndVanished, Err: errBroken}
			}
		}},
		{"not recorded", recorder.EndRecord, func(w *world) func(context.Context, protocol.Sink) error {
			return func(context.Context, protocol.Sink) error {
				return &protocol.EndError{Code: recorder.EndRecord, Err: errBroken}
			}
		}},
		{"expired", recorder.EndExpired, func(w *world) func(context.Context, protocol.Sink) error {
			return func(ctx context.Context, _ protocol.Sink) error {
				w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
				<-ctx.Done()
				return context.Cause(ctx)
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.relay = c.relay(w)
				run(serverFor(w), w)
				synctest.Wait()
				log := strings.Fields(w.happened())
				kill, seal := slices.Index(log, "kill"), slices.Index(log, "seal")
				if kill < 0 || seal < kill {
					t.Errorf("the backend must be killed, then the recording sealed: %v", log)
				}
				if cut := slices.Index(log, "cut"); c.code == recorder.EndExpired && (cut < 0 || cut > kill) {
					t.Errorf("the account is cut before a session asks for its outcome: %v", log)
				}
				if got := w.ends[0]; got.Code != c.code || got.InFlight != 3 || got.Fate != protocol.FateAborted {
					t.Errorf("end: %+v", got)
				}
				w.end(draining())
			})
		})
	}
}

// The end of a grant is complete and in order, however often a step of it fails first.
func TestEndIsRetried(t *testing.T) {
	for _, step := range []string{"", "cut", "receipt.cut", "clean", "receipt.clean"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				s := serverFor(w)
				run(s, w)
				w.fail[step] = 5
				w.end(&protocol.Refusal{Code: recorder.EndRevoked, Public: "revoked"})
				time.Sleep(10 * time.Minute)
				var order []string
				for _, f := range strings.Fields(w.happened()) {
					if slices.Contains([]string{"cut", "receipt.cut", "clean", "receipt.clean"}, f) {
						order = append(order, f)
					}
				}
				if got := strings.Join(order, " "); got != "cut receipt.cut clean receipt.clean" {
					t.Errorf("the end: %s\nall: %s", got, w.happened())
				}
				if (step == "cut" || step == "clean") && !strings.Contains(w.happened(), "alert") {
					t.Error("an end that stays open must alert")
				}
				if s.tenures.of("curfew_i_g1") != nil {
					t.Error("the tenure is not forgotten")
				}
			})
		})
	}
}

// A provision that failed half-way may have left something: the grant's end looks for it.
func TestFailedProvisionIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fail["provision"] = 1
		run(serverFor(w), w)
		w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
		time.Sleep(time.Minute)
		if got := w.happened(); !strings.HasSuffix(got, "recall cut receipt.cut clean receipt.clean release") {
			t.Error(got)
		}
	})
}

// Two sessions share an account; a third is over the limit; the end of one leaves the other alone.
func TestSessionsShareAnAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		leave := make(chan struct{})
		w.relay = func(ctx context.Context, _ protocol.Sink) error {
			select {
			case <-leave:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		s := serverFor(w)
		go run(s, w)
		go run(s, w)
		synctest.Wait()
		run(s, w)
		if got := w.happened(); strings.Count(got, "provision") != 1 || strings.Count(got, "relay") != 2 {
			t.Error(got)
		}
		leave <- struct{}{}
		synctest.Wait()
		if strings.Contains(w.happened(), "cut") {
			t.Error("the account was cut while the grant lives")
		}
		w.end(&protocol.Refusal{Code: recorder.EndReleased, Public: "done"})
		time.Sleep(time.Minute)
		if got := w.happened(); strings.Count(got, "kill") != 1 || strings.Count(got, " cut") != 1 {
			t.Error(got)
		}
	})
}

// Use of the account past the proxy ends the grant.
func TestForeignBackendEndsGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := serverFor(w)
		run(s, w)
		s.watch(t.Context(), "orders", engine{w}, new(sync.WaitGroup))
		time.Sleep(time.Minute)
		got := w.happened()
		for _, want := range []string{"end:foreign", "foreign", "cut", "clean"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s is missing: %s", want, got)
			}
		}
	})
}

// After a crash, a live grant's account is adopted at once, an ended one's is closed with a receipt.
func TestResume(t *testing.T) {
	for _, over := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.intents = []Intent{{AccountIntended: ledger.AccountIntended{Grant: "g1", Account: "curfew_i_g1", Target: "orders"}}}
			want := "hold intend provision"
			if over {
				w.grant.Ended, w.grant.EndCode = time.Now().Add(-time.Hour), recorder.EndExpired
				w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
				want = "recall cut receipt.cut clean receipt.clean"
			}
			if err := serverFor(w).Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if got := w.happened(); got != want {
				t.Errorf("over %v: got %s, want %s", over, got, want)
			}
			if over && (len(w.cuts) != 1 || w.cuts[0].LateMS < 3_500_000) {
				t.Errorf("the receipt must own up to being late: %+v", w.cuts)
			}
			w.end(draining())
			time.Sleep(time.Minute)
		})
	}
}

// occupied is a server with one session. The func stops it.
func occupied(t *testing.T, w *world) (stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	attached := make(chan struct{})
	w.relay = func(ctx context.Context, _ protocol.Sink) error {
		close(attached)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- serverFor(w).Serve(ctx, Listener{Listener: ln, Engine: "fake", Front: front{w}}) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	<-attached
	return func() error { end(); return <-done }
}

// A node that stops tells its clients, kills their backends and locks the accounts of live grants.
func TestDrain(t *testing.T) {
	w := newWorld()
	if err := occupied(t, w)(); err != nil {
		t.Fatal(err)
	}
	got := w.happened()
	if w.ends[0].Code != recorder.EndDrained || !strings.Contains(got, "kill") || !strings.Contains(got, "cut") || strings.Contains(got, "clean") {
		t.Errorf("%s %+v", got, w.ends)
	}
}

// The account of a live grant is locked as soon as the node is asked to stop, however long its sessions take
// to end; and a grant that ends meanwhile is ended whole.
func TestDrainLocksAtOnce(t *testing.T) {
	w := newWorld()
	disk := make(chan struct{})
	w.hang["seal"] = disk
	stop := occupied(t, w)
	done := make(chan error)
	go func() { done <- stop() }()
	until := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(endTimeout - time.Second); !strings.Contains(w.happened(), what); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s: %s", what, w.happened())
			}
		}
	}
	until("cut")
	w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
	until("receipt.cut")
	close(disk)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := w.happened(); !strings.Contains(got, "clean receipt.clean") {
		t.Error(got)
	}
}

type front struct{ w *world }

func (f front) Accept(context.Context, net.Conn, protocol.Doorman) (protocol.Client, error) {
	return client{f.w}, nil
}
