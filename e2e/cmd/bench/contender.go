package main

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/rig"
)

// The contenders.
const (
	direct    = "direct"
	haproxy   = "haproxy"
	pgbouncer = "pgbouncer"
	curfew    = "curfew"
)

// contender is one way to a database.
type contender struct {
	name           string
	host           string
	port           int
	user, password string
	database       string
	pid            int // of the proxy; 0 when there is none
}

func at(name, addr, user, password, database string, pid int) (contender, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return contender{}, err
	}
	port, err := strconv.Atoi(text)
	return contender{name, host, port, user, password, database, pid}, err
}

func (c contender) addr() string { return net.JoinHostPort(c.host, strconv.Itoa(c.port)) }

// spent gives a function that tells what CPU the proxy has used since. It waits until the proxy is at rest:
// what it does after the clients have gone, sealing recordings for example, is its cost too, and nobody
// else's.
func (c contender) spent() (func(context.Context) (time.Duration, error), error) {
	if c.pid == 0 {
		return func(context.Context) (time.Duration, error) { return 0, nil }, nil
	}
	before, err := rig.CPU(c.pid)
	return func(ctx context.Context) (time.Duration, error) {
		after, err := rig.AtRest(ctx, c.pid)
		return after - before, err
	}, err
}

func (st *stage) through(c api.Credentials) contender {
	return contender{curfew, c.Host, c.Port, c.User, c.Password, c.Database, st.curfew.PID()}
}

// postgres are the ways to PostgreSQL.
func (st *stage) postgres() ([]contender, error) {
	var all []contender
	for _, w := range []struct {
		name, addr string
		pid        int
	}{{direct, st.pg.Addr, 0}, {haproxy, st.haproxy.addr["postgres"], st.haproxy.pid()}, {pgbouncer, st.bouncer.addr["postgres"], st.bouncer.pid()}} {
		c, err := at(w.name, w.addr, "app", appPassword, "orders", w.pid)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return append(all, st.through(st.orders)), nil
}

// mariadb are the ways to MariaDB.
func (st *stage) mariadb() ([]contender, error) {
	d, err := at(direct, st.my.Addr, "app", appPassword, "shop", 0)
	if err != nil {
		return nil, err
	}
	h, err := at(haproxy, st.haproxy.addr["mariadb"], "app", appPassword, "shop", st.haproxy.pid())
	return []contender{d, h, st.through(st.shop)}, err
}
