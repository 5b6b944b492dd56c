package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/e2e/rig"
)

// world is one run's servers, Curfew and people, and what they have been through.
type world struct {
	o   Options
	pg  *harness.Postgres
	my  *harness.MariaDB
	cur *harness.Curfew

	alice, bob, sam         *harness.Person
	asker, approver, reader *api.Client

	asking chan struct{} // one place for each request that is open: a person may have so many only

	down    atomic.Bool  // Curfew is dead at the moment
	crashes atomic.Int64 // how often it has died so far

	mu       sync.Mutex // guards what follows
	sessions map[*session]struct{}
	told     tally             // statements by what the client knows of them
	late     map[string][]late // by class
	counts   map[string]int
	problems []string
}

type late struct {
	ms    float64
	grant string
}

// atOnce is the most sessions of one grant; the policy's levels are made for it.
const atOnce = 60

func newWorld(ctx context.Context, o Options) (w *world, err error) {
	w = &world{o: o, asking: make(chan struct{}, 16), sessions: map[*session]struct{}{}, told: tally{}, late: map[string][]late{}, counts: map[string]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	crowd := fmt.Sprint(o.Idle + o.Busy + 200)
	w.pg, err = rig.StartPostgres(ctx, filepath.Join(o.Dir, "postgres"), map[string]string{
		"max_connections": crowd, "log_statement": "all", "log_line_prefix": logPrefix, "log_min_error_statement": "panic",
		"log_min_messages": "log", "log_duration": "off", "autovacuum": "off"})
	if err != nil {
		return nil, err
	}
	if err := w.pg.Exec(ctx, "orders", "CREATE TABLE soak (tag text NOT NULL, body text); GRANT SELECT, INSERT ON soak TO orders_writer"); err != nil {
		return nil, err
	}
	w.my, err = harness.StartMariaDB(ctx, filepath.Join(o.Dir, "mariadb"), "max-connections="+crowd, "back-log=512",
		"general-log=1", "log-output=TABLE", "innodb-flush-log-at-trx-commit=2")
	if err != nil {
		return nil, err
	}
	if err := w.my.Exec(ctx, "shop", "CREATE TABLE soak (tag VARCHAR(64) NOT NULL, body TEXT) ENGINE=InnoDB; GRANT SELECT, INSERT ON shop.soak TO shop_writer"); err != nil {
		return nil, err
	}
	return w, w.startCurfew(ctx)
}

// The levels take more sessions than the harness's own.
var policyText = fmt.Sprintf(`targets:
  orders: {levels: {worker: {roles: [orders_writer], sessions: %d}}}
  shop: {levels: {worker: {roles: [shop_writer], sessions: %d}}}
rules:
  - name: load
    who: {groups: [developers]}
    targets: [orders, shop]
    levels: [worker]
    longest: 1h
    reason: required
    approvals: {count: 1, from: {groups: [leads]}}
readers:
  - who: {groups: [security]}
    targets: ["*"]
`, atOnce, atOnce)

func (w *world) startCurfew(ctx context.Context) (err error) {
	if w.cur, err = harness.NewCurfew(w.o.Bin, filepath.Join(w.o.Dir, "curfew-home"), w.pg.Target(), w.my.Target()); err != nil {
		return err
	}
	if w.cur.Ops, err = harness.FreeAddr(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(w.cur.Dir, "policy.yaml"), []byte(policyText), 0o600); err != nil {
		return err
	}
	if err := w.cur.Start(ctx); err != nil {
		return err
	}
	for name, p := range map[string]**harness.Person{"alice": &w.alice, "bob": &w.bob, "sam": &w.sam} {
		if *p, err = w.cur.Login(ctx, name, filepath.Join(w.o.Dir, "homes")); err != nil {
			return err
		}
	}
	for p, c := range map[*harness.Person]**api.Client{w.alice: &w.asker, w.bob: &w.approver, w.sam: &w.reader} {
		if *c, err = rig.Client(p); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) close() (err error) {
	if w.cur != nil && w.cur.Exited() != nil {
		err = w.cur.Stop()
	}
	if w.my != nil {
		err = errors.Join(err, w.my.Close())
	}
	if w.pg != nil {
		err = errors.Join(err, w.pg.Close())
	}
	return err
}

// patiently does something through the API, again while Curfew is down.
func (w *world) patiently(ctx context.Context, do func() error) error {
	for {
		before := w.crashes.Load()
		err := do()
		if err == nil || ctx.Err() != nil || !w.down.Load() && w.crashes.Load() == before {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

func (w *world) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.o.Log("PROBLEM %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, text)
}
