package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/internal/provider"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"curfew": main})
}

// TestStories plays testdata/*.txtar: the command as people run it, against a real desk, store, ledger and
// identity provider. Only databases are missing; their clients are scripts that tell how they were called.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			h, err := newStage(env.WorkDir)
			if err != nil {
				return err
			}
			env.Defer(h.close)
			env.Values[stageKey{}] = h
			env.Setenv("CURFEW_DEV", filepath.Join(env.WorkDir, "dev"))
			env.Setenv("CURFEW_HOME", filepath.Join(env.WorkDir, "alice"))
			env.Setenv("SERVER", h.server)
			env.Setenv("PATH", filepath.Join(env.WorkDir, "bin")+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"grab": grab, "asked": asked, "record": record, "expire": expire, "receipt": receipt, "private": private, "confirm": confirmDevice, "waitfor": waitFor, "browse": browse, "job": job,
		},
	})
}

type stageKey struct{}

// stage is a Curfew without databases.
type stage struct {
	server  string
	issuer  string
	key     []byte
	jobs    ciSystem
	store   *store.Store
	desk    *control.Desk
	library *recorder.Library
	asked   chan string // ids of requests, as they are made
	closers []func()
}

func (h *stage) close() {
	for i := len(h.closers) - 1; i >= 0; i-- {
		h.closers[i]()
	}
}

func storiesPolicy() *policy.Policy {
	developers, leads := policy.Who{Groups: []string{"developers"}}, policy.Who{Groups: []string{"leads"}}
	rule := func(name, level string, approvals int) policy.Rule {
		return policy.Rule{
			Name: name, Who: developers, Targets: []string{"orders"}, Levels: []string{level}, Longest: time.Hour,
			Reason: approvals > 0, Approvals: policy.Approvals{Count: approvals, From: leads},
		}
	}
	return &policy.Policy{
		Hash: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("stories"))), Text: "stories",
		Targets: map[string]policy.Target{"orders": {Levels: map[string]policy.Level{
			"writer": {Roles: []string{"orders_writer"}}, "reader": {Roles: []string{"orders_reader"}},
			"owner": {Roles: []string{"orders_owner"}}, "bulk": {Roles: []string{"orders_bulk"}},
		}}, "shop": {Levels: map[string]policy.Level{"reader": {Roles: []string{"shop_reader"}}}}},
		Rules: []policy.Rule{rule("writers", "writer", 1), rule("readers", "reader", 0), {
			Name: "shoppers", Who: developers, Targets: []string{"shop"}, Levels: []string{"reader"}, Longest: time.Hour,
		}, {
			Name: "emergencies", Who: developers, Targets: []string{"orders"}, Levels: []string{"owner"}, Longest: 15 * time.Minute,
			Reason: true, BreakGlass: true, Review: &policy.Review{Within: 24 * time.Hour},
		}, {
			Name: "reviewed", Who: developers, Targets: []string{"orders"}, Levels: []string{"bulk"}, Longest: time.Hour,
			Review: &policy.Review{Within: 24 * time.Hour}, Limits: policy.Limits{Sessions: 2, Rows: 1000}, WithLastSession: true,
		}},
		Readers: []policy.Reader{{Who: policy.Who{Groups: []string{"security"}}, Targets: []string{"*"}}},
	}
}

func newStage(work string) (h *stage, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	h = &stage{asked: make(chan string, 16), closers: []func(){cancel}}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	dir := filepath.Join(work, "dev")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	tokens, jobs, err := h.openJobs(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.openStore(ctx, dir, jobs); err != nil {
		return nil, err
	}
	identities, err := h.openProvider(ctx, dir)
	if err != nil {
		return nil, err
	}
	sealer, err := auth.OpenSealer(filepath.Join(dir, "seal.key"))
	if err != nil {
		return nil, err
	}
	logins, err := control.NewLogins(control.LoginOptions{
		Store: h.store, Desk: h.desk, Providers: []*auth.Provider{identities}, Tokens: tokens, Sealer: sealer, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	joined := &api.Desk{Desk: h.desk, Ledger: h.store, Recordings: h.library, Dialects: dialects(), Log: slog.New(slog.DiscardHandler)}
	h.server = h.serve(ctx, api.New(api.Config{
		Version: "test", Logins: api.Doorkeeper{Logins: logins}, Requests: noted{joined, h.asked}, Grants: joined,
		Sessions: joined, Reviews: joined, Evidence: joined, Foresight: joined, Explain: api.Explain, Now: h.store.Now, Log: slog.New(slog.DiscardHandler),
		FailedLogin: func(from string) { h.store.FailedLogin(from, "api") },
	}))
	b, err := json.Marshal(devFile{API: h.server, Issuer: h.issuer, Key: filepath.Join(dir, "identities.key")})
	if err != nil {
		return nil, err
	}
	return h, os.WriteFile(filepath.Join(dir, devFileName), b, 0o600)
}

func (h *stage) openStore(ctx context.Context, dir string, more policy.Rule) (err error) {
	h.store, err = store.Open(ctx, store.Options{Path: filepath.Join(dir, "store.db"), KeyPath: filepath.Join(dir, "ledger.key"), Version: "test"})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, func() { h.store.Close() })
	if h.library, err = recorder.Open(filepath.Join(dir, "recordings"), recorder.Options{}); err != nil {
		return err
	}
	h.closers = append(h.closers, func() { h.library.Close() })
	rules := storiesPolicy()
	rules.Rules = append(rules.Rules, more)
	h.desk, err = control.New(ctx, control.Options{
		Store: h.store, Policy: rules, Log: slog.New(slog.DiscardHandler),
		Enrol: func(_, password string) ([]byte, error) { return []byte("verifier of " + password), nil },
		Targets: map[string]control.TargetInfo{"orders": {
			Engine: "postgres", Host: "127.0.0.1", Port: 6432, Database: "orders", SSLMode: "verify-full", CA: "PEM of the CA\n",
		}, "shop": {
			Engine: "mysql", Host: "127.0.0.1", Port: 7306, Database: "shop", SSLMode: "verify-full", CA: "PEM of the CA\n",
		}},
	})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, h.desk.Close)
	return nil
}

func (h *stage) openProvider(ctx context.Context, dir string) (*auth.Provider, error) {
	var err error
	if h.key, err = provider.OpenKey(filepath.Join(dir, "identities.key")); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h.issuer = "http://" + l.Addr().String()
	p, err := provider.New(provider.Options{Issuer: h.issuer, Key: h.key})
	if err != nil {
		return nil, err
	}
	h.serveOn(ctx, l, p)
	return auth.Discover(ctx, auth.IssuerConfig{URL: h.issuer, ClientID: provider.CLI})
}

func (h *stage) serve(ctx context.Context, handler http.Handler) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // no port on loopback: nothing can be tested
	}
	h.serveOn(ctx, l, handler)
	return "http://" + l.Addr().String()
}

func (h *stage) serveOn(ctx context.Context, l net.Listener, handler http.Handler) {
	srv := api.NewServer(ctx, handler, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	h.closers = append(h.closers, func() { srv.Close(); <-done })
}

// noted tells of each request that is made, so that a story can wait for it.
type noted struct {
	*api.Desk
	asked chan<- string
}

func (n noted) Ask(ctx context.Context, who auth.Identity, a api.Ask) (policy.Request, error) {
	r, err := n.Desk.Ask(ctx, who, a)
	if err == nil {
		n.asked <- r.ID
	}
	return r, err
}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// grab NAME stdout|stderr REGEXP: puts the first group into a variable.
func grab(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if m == nil {
		ts.Fatalf("%s has no match of %s", args[1], args[2])
	}
	ts.Setenv(args[0], m[1])
}

// asked NAME: waits until somebody has made a request, and puts its id into a variable.
func asked(ts *testscript.TestScript, _ bool, args []string) {
	select {
	case id := <-stageOf(ts).asked:
		ts.Setenv(args[0], id)
	case <-time.After(20 * time.Second):
		ts.Fatalf("nobody asked")
	}
}

// record GRANT SESSION [SQL…]: plays what the proxy does for a short session, of these statements.
func record(ts *testscript.TestScript, _ bool, args []string) {
	h, ctx := stageOf(ts), context.Background()
	var g policy.Grant
	ts.Check(h.store.View(ctx, func(tx *store.Tx) (err error) { g, err = tx.Grant(args[0]); return err }))
	account := "curfew_" + h.store.Installation() + "_" + g.ID
	ts.Check(h.store.Intend(ctx, ledger.AccountIntended{Grant: g.ID, Target: g.Target, Account: account, End: g.End}))
	w, err := h.library.Create(recorder.Header{
		Session: args[1], Grant: g.ID, Request: g.Request, Installation: h.store.Installation(), Node: "n1", Began: h.store.Now().UTC(),
		Identity: recorder.Person{Issuer: g.Identity.Issuer, Subject: g.Identity.Subject, Email: g.Identity.Email},
		Target:   g.Target, Level: g.Level, Policy: g.Policy, Engine: h.desk.EngineOf(g.Target), Account: account, Client: "127.0.0.1:5000",
	})
	ts.Check(err)
	ts.Check(h.store.Opened(ctx, ledger.SessionOpened{
		Session: args[1], Grant: g.ID, Target: g.Target, Account: account, Node: "n1", Client: "127.0.0.1:5000", Header: w.HeaderHash(),
	}))
	texts := args[2:]
	if len(texts) == 0 {
		texts = []string{"select 'one \x1b[31m'"}
	}
	for i, text := range texts {
		ts.Check(w.Record(
			recorder.Event{Type: recorder.TypeStatement, ID: uint64(i + 1), Kind: recorder.KindSimple, Text: []byte(text)},
			recorder.Event{Type: recorder.TypeResult, Of: uint64(i + 1), Tag: []byte("SELECT 1"), Rows: 1, Tx: recorder.TxIdle},
		))
	}
	sealed, err := w.Seal(recorder.End{Reason: "client closed", Code: recorder.EndClient, Statements: uint64(len(texts))})
	ts.Check(err)
	ts.Check(h.store.Sealed(ctx, ledger.SessionSealed{Grant: g.ID, Target: g.Target, Sealed: sealed}))
}

// expire GRANT: the time of a grant is up.
func expire(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(stageOf(ts).desk.End(context.Background(), args[0], recorder.EndExpired, "its time was up", "curfew"))
}

// receipt GRANT: plays what the proxy does when a grant has ended.
func receipt(ts *testscript.TestScript, _ bool, args []string) {
	h, ctx := stageOf(ts), context.Background()
	account := "curfew_" + h.store.Installation() + "_" + args[0]
	ts.Check(h.store.Cut(ctx, ledger.AccountCut{
		Grant: args[0], Target: "orders", Account: account, Code: "expired", Deadline: h.store.Now(), LateMS: 1.5,
		Cut: []byte(`{"locked_at":"2026-01-01T00:00:00Z","gone_at":"2026-01-01T00:00:00Z","outcomes":[{"backend":"77","in_flight":3,"txid":"991","fate":"aborted"}],"left":0}`),
	}))
	ts.Check(h.store.Cleaned(ctx, ledger.AccountCleaned{
		Grant: args[0], Target: "orders", Account: account, Clean: []byte(`{"dropped_at":"2026-01-01T00:00:00Z","proof":"no role, no backend"}`),
	}))
}

// private FILE: nobody but the owner can read it.
func private(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if info.Mode().Perm() != 0o600 {
		ts.Fatalf("%s has mode %v", args[0], info.Mode())
	}
}

// confirm NAME FILE: does what the person does with the code that --device printed into FILE.
func confirmDevice(ts *testscript.TestScript, _ bool, args []string) {
	code := regexp.MustCompile(`code: (\S+)`)
	deadline := time.Now().Add(20 * time.Second)
	for {
		b, _ := os.ReadFile(ts.MkAbs(args[1])) // it may not be there yet
		if m := code.FindSubmatch(b); m != nil {
			h := stageOf(ts)
			ts.Check(provider.ConfirmDevice(context.Background(), h.issuer+"/device", string(m[1]), h.key, args[0], true))
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no code in %s: %s", args[1], b)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// waitfor FILE: waits until it is there.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no %s", args[0])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// browse NAME FILE: does what a browser does with the address in FILE, after a page that guessed the port
// has called there too.
func browse(ts *testscript.TestScript, neg bool, args []string) {
	waitFor(ts, neg, args[1:])
	authURL := strings.TrimSpace(ts.ReadFile(args[1]))
	u, err := url.Parse(authURL)
	ts.Check(err)
	back := u.Query().Get("redirect_uri")
	if got := visit(ts, back+"?code=stolen&state=guessed"); got != http.StatusNotFound {
		ts.Fatalf("another login's answer was taken: %d", got)
	}
	q, err := provider.LoginAs(context.Background(), authURL, stageOf(ts).key, args[0])
	ts.Check(err)
	if got := visit(ts, back+"?"+q.Encode()); got != http.StatusOK {
		ts.Fatalf("the callback answered %d", got)
	}
}

func visit(ts *testscript.TestScript, address string) int {
	res, err := http.Get(address)
	ts.Check(err)
	ts.Check(res.Body.Close())
	return res.StatusCode
}
