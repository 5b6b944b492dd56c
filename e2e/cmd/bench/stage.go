package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/e2e/rig"
)

// stage is everything that is measured, and what it is measured on: made when a row first needs it.
type stage struct {
	set settings
	dir string

	pg      *harness.Postgres
	my      *harness.MariaDB
	curfew  *harness.Curfew
	haproxy *daemon
	bouncer *daemon

	alice, bob, sam *harness.Person
	asker, approver *api.Client
	reader          *api.Client

	orders, shop api.Credentials // of the grants that load runs under
	ca           string          // PEM file of Curfew's listeners

	closers []func() error
}

// crowd is how many sessions the servers take at once, and some.
const crowd = 1300

func newStage(ctx context.Context, dir string, s settings) (st *stage, err error) {
	st = &stage{set: s, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	progress("starting PostgreSQL, MariaDB and Curfew")
	if err := st.servers(ctx); err != nil {
		return nil, err
	}
	st.curfew, err = harness.NewCurfew(s.bin, filepath.Join(dir, "curfew-home"), rig.Plain(st.pg.Target()), rig.Plain(st.my.Target()))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(st.curfew.Dir, "policy.yaml"), []byte(policyText), 0o600); err != nil {
		return nil, err
	}
	if err := st.curfew.Start(ctx); err != nil {
		return nil, err
	}
	st.closers = append(st.closers, st.curfew.Stop)
	st.ca = filepath.Join(st.curfew.Dir, "tls.crt")
	if err := st.people(ctx); err != nil {
		return nil, err
	}
	return st, st.proxies(ctx)
}

const policyText = `targets:
  orders: {levels: {worker: {roles: [orders_writer], sessions: 1200}}}
  shop: {levels: {worker: {roles: [shop_writer], sessions: 1200}}}
rules:
  - name: load
    who: {groups: [developers]}
    targets: [orders, shop]
    levels: [worker]
    longest: 8h
    reason: required
    approvals: {count: 1, from: {groups: [leads]}}
readers:
  - who: {groups: [security]}
    targets: ["*"]
`

func (st *stage) servers(ctx context.Context) (err error) {
	st.pg, err = rig.StartPostgres(ctx, filepath.Join(st.dir, "postgres"), map[string]string{
		"max_connections": fmt.Sprint(crowd), "shared_buffers": "512MB", "max_wal_size": "4GB", "autovacuum": "off", "jit": "off"})
	if err != nil {
		return err
	}
	st.closers = append(st.closers, st.pg.Close)
	if err := st.pg.Exec(ctx, "postgres", "CREATE ROLE app LOGIN PASSWORD '"+appPassword+"' IN ROLE orders_writer"); err != nil {
		return err
	}
	st.my, err = harness.StartMariaDB(ctx, filepath.Join(st.dir, "mariadb"), fmt.Sprintf("max-connections=%d", crowd), "back-log=512",
		"innodb-flush-log-at-trx-commit=2", "innodb-buffer-pool-size=256M")
	if err != nil {
		return err
	}
	st.closers = append(st.closers, st.my.Close)
	return nil
}

// appPassword is that of the login app, which goes past Curfew and has the rights of the accounts.
const appPassword = "app"

func (st *stage) people(ctx context.Context) (err error) {
	for name, p := range map[string]**harness.Person{"alice": &st.alice, "bob": &st.bob, "sam": &st.sam} {
		if *p, err = st.curfew.Login(ctx, name, filepath.Join(st.dir, "homes")); err != nil {
			return err
		}
	}
	for p, c := range map[*harness.Person]**api.Client{st.alice: &st.asker, st.bob: &st.approver, st.sam: &st.reader} {
		if *c, err = rig.Client(p); err != nil {
			return err
		}
	}
	if _, st.orders, err = st.grant(ctx, harness.Orders, 8*time.Hour); err != nil {
		return err
	}
	_, st.shop, err = st.grant(ctx, harness.Shop, 8*time.Hour)
	return err
}

// grant is one of the level that takes a crowd.
func (st *stage) grant(ctx context.Context, target string, d time.Duration) (api.Grant, api.Credentials, error) {
	return rig.Grant(ctx, st.asker, st.approver, target, "worker", d)
}

// close ends what was started, last first.
func (st *stage) close() (err error) {
	for i := len(st.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, st.closers[i]())
	}
	return err
}
