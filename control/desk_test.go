package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

var (
	alice = person("alice", "developers")
	dana  = person("dana", "developers")
	bob   = person("bob", "leads")
	carol = person("carol", "leads", "security")
	sam   = person("sam", "security")
	eve   = person("eve")
)

func person(name string, groups ...string) auth.Identity {
	return auth.Identity{Issuer: "https://id.example.test", Subject: name, Email: name + "@example.test", Groups: groups}
}

// testPolicy: reader at once; writer by one lead; owner by two of leads and security; security reads orders.
func testPolicy() *policy.Policy {
	leads := policy.Who{Groups: []string{"leads"}}
	developers := policy.Who{Groups: []string{"developers"}}
	levels := map[string]policy.Level{"reader": {}, "writer": {Sessions: 3}, "owner": {}}
	return &policy.Policy{
		Hash: "sha256:1", Text: "one",
		Targets: map[string]policy.Target{"orders": {Levels: levels}, "stock": {Levels: levels}},
		Rules: []policy.Rule{
			{Name: "read", Who: developers, Targets: []string{"*"}, Levels: []string{"reader"}, Longest: time.Hour},
			{Name: "write", Who: developers, Targets: []string{"*"}, Levels: []string{"writer"}, Longest: time.Hour,
				Reason: true, Lapse: 10 * time.Minute, Approvals: policy.Approvals{Count: 1, From: leads}},
			{Name: "own", Who: policy.Who{Groups: []string{"developers", "leads"}}, Targets: []string{"*"}, Levels: []string{"owner"}, Longest: time.Hour,
				Approvals: policy.Approvals{Count: 2, From: policy.Who{Groups: []string{"leads", "security"}}}},
		},
		Readers: []policy.Reader{{Who: policy.Who{Groups: []string{"security"}}, Targets: []string{"orders"}}},
	}
}

// disk is a store whose writes can be made to fail, before or after they are stored, or to hang; and whose
// clock can be moved. Its mark of time is kept once a minute: in a story hours pass, and each second's would cost a
// transaction that shows nothing.
type disk struct {
	*store.Store
	ticks atomic.Int64
	full  atomic.Bool // nothing is stored
	lying atomic.Bool // it is stored, and reported as failed
	stuck atomic.Bool // nothing comes back before its context ends
	moved atomic.Int64
}

var errDisk = errors.New("no space left on device")

func (d *disk) broken(ctx context.Context) error {
	switch {
	case d.stuck.Load():
		<-ctx.Done()
		return ctx.Err()
	case d.full.Load():
		return errDisk
	}
	return nil
}

func (d *disk) Tick(ctx context.Context) error {
	if err := d.broken(ctx); err != nil {
		return err
	}
	if d.ticks.Add(1)%60 != 1 {
		return nil
	}
	return d.Store.Tick(ctx)
}

func (d *disk) Update(ctx context.Context, fn func(*store.Tx) error) error {
	if err := d.broken(ctx); err != nil {
		return err
	}
	err := d.Store.Update(ctx, fn)
	if err == nil && d.lying.Load() {
		return errDisk
	}
	return err
}

func (d *disk) Now() time.Time { return d.Store.Now().Add(time.Duration(d.moved.Load())) }

type world struct {
	*Desk
	t    testing.TB
	dir  string
	disk *disk
	halt func() // ends Run; the desk itself goes on
	stop func()
}

func open(t testing.TB, dir string, p *policy.Policy) *world {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), KeyPath: filepath.Join(dir, "key"), Node: "test"})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, disk: &disk{Store: s}}
	w.Desk, err = newDesk(t.Context(), Options{
		Policy: p, Log: slog.New(slog.DiscardHandler),
		Enrol: func(target, password string) ([]byte, error) { return []byte(target + ":" + password), nil },
		Targets: map[string]TargetInfo{
			"orders": {Engine: "postgres", Host: "curfew.example.test", Port: 6432, Database: "orders"},
			"stock":  {Engine: "postgres", Host: "curfew.example.test", Port: 6432, Database: "stock"},
		},
	}, w.disk)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- w.Run(ctx) }()
	w.halt = sync.OnceFunc(func() {
		cancel()
		<-ran
	})
	w.stop = func() {
		w.halt()
		w.Desk.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	return w
}

// story runs fn in a bubble of time with a desk that runs.
func story(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	dir := quickDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := open(t, dir, testPolicy())
		defer func() { w.stop() }()
		fn(t, w)
	})
}

// again ends the process, as far as a test can, and starts the next after a while.
func (w *world) again(p *policy.Policy, after time.Duration) {
	w.t.Helper()
	w.stop()
	w.stop = func() {} // in case the next one doesn't open
	time.Sleep(after)
	*w = *open(w.t, w.dir, p)
}

func (w *world) ask(who auth.Identity, level string, d time.Duration) policy.Request {
	w.t.Helper()
	r, err := w.Ask(w.t.Context(), who, policy.Ask{Target: "orders", Level: level, Duration: d, Reason: "ticket 7"})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) approve(who auth.Identity, id string) policy.Request {
	w.t.Helper()
	r, err := w.Decide(w.t.Context(), who, id, true, "fine")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// granted is alice's grant as writer, approved by bob.
func (w *world) granted(d time.Duration) policy.Grant {
	w.t.Helper()
	return w.grant(w.approve(bob, w.ask(alice, "writer", d).ID).Grant)
}

func (w *world) grant(id string) policy.Grant {
	w.t.Helper()
	g, err := w.Recall(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) hold(id string) context.Context {
	w.t.Helper()
	held, release, err := w.Hold(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(release)
	return held
}

func (w *world) entries(typ string) (found []ledger.Entry) {
	w.t.Helper()
	err := w.disk.Entries(w.t.Context(), 0, func(line []byte) error {
		e, err := ledger.Decode(line)
		if err == nil && e.Type == typ {
			found = append(found, e)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func into[T any](t testing.TB, e ledger.Entry) (v T) {
	t.Helper()
	if err := e.Into(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// ended checks that a grant's end is on the ledger once, and says this.
func (w *world) ended(id, code, by string) ledger.GrantEnded {
	w.t.Helper()
	var ends []ledger.GrantEnded
	for _, e := range w.entries(ledger.TypeGrantEnded) {
		if end := into[ledger.GrantEnded](w.t, e); end.Grant == id {
			ends = append(ends, end)
		}
	}
	if len(ends) != 1 {
		w.t.Fatalf("grant %s ended %d times on the ledger: %+v", id, len(ends), ends)
	}
	if ends[0].Code != code || ends[0].By != by {
		w.t.Errorf("grant %s ended as %s by %s, want %s by %s", id, ends[0].Code, ends[0].By, code, by)
	}
	return ends[0]
}

// refused checks an error's code and that it says what to do next.
func (w *world) refused(err error, code, says string) {
	w.t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		w.t.Errorf("got %v, want a refusal %s", err, code)
		return
	}
	if e.Code != code || !strings.Contains(e.Public+"; "+e.Next, says) {
		w.t.Errorf("got %s %q, want %s and %q", e.Code, e.Error(), code, says)
	}
	var over *EndedError
	if e.Next == "" && !errors.As(err, &over) {
		w.t.Errorf("%q doesn't say what to do next", e.Public)
	}
}

func causeOf(ctx context.Context) string {
	var e *EndedError
	if errors.As(context.Cause(ctx), &e) {
		return e.Code
	}
	return fmt.Sprint(context.Cause(ctx))
}
