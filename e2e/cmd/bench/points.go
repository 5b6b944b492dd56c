package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

// points is how many rows MariaDB's table has that one row is selected of.
const points = 100_000

var fillMariaDB = onceFor(func(ctx context.Context, st *stage) error {
	return st.my.Exec(ctx, "shop", fmt.Sprintf(`
		CREATE TABLE points (id INT PRIMARY KEY, balance INT NOT NULL, filler CHAR(84) NOT NULL) ENGINE=InnoDB;
		INSERT INTO points SELECT seq, seq * 7, 'x' FROM seq_1_to_%d;
		GRANT SELECT ON shop.points TO shop_writer`, points))
})

// mysqlConn is the driver's own connection: database/sql around it would cost as much as a proxy.
func (c contender) mysqlConn(ctx context.Context) (driver.Conn, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName, cfg.Addr, cfg.Net = c.user, c.password, c.database, c.addr(), "tcp"
	cfg.Logger, cfg.AllowCleartextPasswords = &mysql.NopLogger{}, false
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return connector.Connect(ctx)
}

// selectPoints is one client's: it selects until ctx ends, and gives the time of each in microseconds.
func (c contender) selectPoints(ctx context.Context, start <-chan struct{}, ready func(), prepared bool) (took []float64, err error) {
	conn, err := c.mysqlConn(context.WithoutCancel(ctx))
	if err != nil {
		ready()
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var stmt driver.Stmt
	if prepared {
		stmt, err = conn.Prepare("SELECT balance FROM points WHERE id = ?")
	}
	ready()
	if err != nil {
		return nil, err
	}
	<-start
	lasting := context.WithoutCancel(ctx) // a statement that has begun is finished
	dest := make([]driver.Value, 1)
	for ctx.Err() == nil {
		began := time.Now()
		id := 1 + rand.Int64N(points)
		var rows driver.Rows
		if prepared {
			rows, err = stmt.(driver.StmtQueryContext).QueryContext(lasting, []driver.NamedValue{{Ordinal: 1, Value: id}})
		} else {
			rows, err = conn.(driver.QueryerContext).QueryContext(lasting, "SELECT balance FROM points WHERE id = "+strconv.FormatInt(id, 10), nil)
		}
		if err != nil {
			return nil, err
		}
		if err = rows.Next(dest); err != nil {
			return nil, err
		}
		if err = rows.Next(dest); err != io.EOF {
			return nil, fmt.Errorf("more than a row, or: %w", err)
		}
		if err = rows.Close(); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(began).Microseconds()))
	}
	return took, nil
}

// selectAll is one round: so many clients at once, all of which are in before the clock runs.
func (st *stage) selectAll(ctx context.Context, c contender, prepared bool, n int) (shot, error) {
	spent, err := c.spent()
	if err != nil {
		return shot{}, err
	}
	start := make(chan struct{})
	var in, out sync.WaitGroup
	in.Add(n)
	all, failed := make([][]float64, n), make([]error, n)
	window, stop := context.WithCancel(ctx)
	defer stop()
	for i := range n {
		out.Go(func() { all[i], failed[i] = c.selectPoints(window, start, in.Done, prepared) })
	}
	in.Wait()
	began := time.Now()
	close(start)
	end := time.AfterFunc(time.Duration(st.set.seconds*float64(time.Second)), stop)
	defer end.Stop()
	out.Wait()
	took := time.Since(began)
	if err := errors.Join(append(failed, ctx.Err())...); err != nil {
		return shot{}, err
	}
	cpu, err := spent(ctx)
	times := slices.Concat(all...)
	s := shot{rate: float64(len(times)) / took.Seconds(), work: float64(len(times)) / 1e5, cpu: cpu.Seconds()}
	if n == 1 {
		s.p50 = median(times)
	}
	return s, err
}

func mariadbRows(ctx context.Context, st *stage) ([]row, error) {
	if err := fillMariaDB(ctx, st); err != nil {
		return nil, err
	}
	all, err := st.mariadb()
	if err != nil {
		return nil, err
	}
	var works []string
	for _, p := range []string{"text", "prepared"} {
		for _, n := range clients {
			works = append(works, fmt.Sprintf("%s ×%d", p, n))
		}
	}
	cells, err := st.turns(ctx, all, works, func(ctx context.Context, c contender, i int) (shot, error) {
		return st.selectAll(ctx, c, i/len(clients) == 1, clients[i%len(clients)])
	})
	if err != nil {
		return nil, err
	}
	rate := ratios(cells, curfew, haproxy, rounds.rate)
	return []row{{Name: "mariadb", Work: "MariaDB point selects, text and prepared, to HAProxy", Value: geomean(rate),
		Cells: cellsOf(works, all, cells, haproxy, "/s", "CPU s/100k"),
		Measured: fmt.Sprintf("%.2f, lowest cell %.2f; text %.2f, prepared %.2f; CPU × %.2f", geomean(rate), slices.Min(rate), geomean(rate[:3]), geomean(rate[3:]),
			geomean(ratios(cells, curfew, haproxy, rounds.cpu))),
		Must: "≥ 0.85", Goal: "≥ 1.0", Verdict: bar{0.85, 1.0, false}.verdict(geomean(rate)),
		Note: "clients are go-sql-driver's connections in one process, without database/sql around them"}}, nil
}
