package mysql

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	driver "github.com/go-sql-driver/mysql"
)

// doorway is as much of a MySQL server as starting looks at: who is being let in at this moment, by the id of
// the connection, and from where.
type doorway struct {
	mu      sync.Mutex // guards what follows
	opening map[uint32]string
	looks   int
	missed  int               // KILLs of who was gone
	onLook  func(look int)    // called with mu held before a look is replied
	onKill  func(id uint32)   // called with mu held before a KILL is carried out
	killed  map[uint32]string // by the statement that did it
}

func (d *doorway) Connect(context.Context) (sqldriver.Conn, error) { return doorwayConn{d}, nil }
func (d *doorway) Driver() sqldriver.Driver                        { return nil }

// left gives who is still being let in.
func (d *doorway) left() []uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.opening))
}

type doorwayConn struct{ *doorway }

func (c doorwayConn) Prepare(string) (sqldriver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c doorwayConn) Begin() (sqldriver.Tx, error)           { return nil, errors.ErrUnsupported }
func (c doorwayConn) Close() error                           { return nil }

func (c doorwayConn) QueryContext(_ context.Context, text string, _ []sqldriver.NamedValue) (sqldriver.Rows, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case strings.Contains(text, "processlist"):
		if c.looks++; c.onLook != nil {
			c.onLook(c.looks)
		}
		list := &replied{columns: 2}
		for id, host := range c.opening {
			list.rows = append(list.rows, []sqldriver.Value{int64(id), host})
		}
		return list, nil
	case text == "SELECT USER()":
		return &replied{columns: 1, rows: [][]sqldriver.Value{{testBroker + "@192.0.2.7"}}}, nil
	case text == "SELECT CONNECTION_ID()":
		return &replied{columns: 1, rows: [][]sqldriver.Value{{int64(7)}}}, nil
	}
	return nil, fmt.Errorf("asked %q", text)
}

// ExecContext carries out KILLs. KILL QUERY does nothing to a connection that runs no statement yet.
func (c doorwayConn) ExecContext(_ context.Context, text string, args []sqldriver.NamedValue) (sqldriver.Result, error) {
	for _, a := range args {
		text = strings.Replace(text, "?", fmt.Sprint(a.Value), 1)
	}
	var id uint32
	query := strings.HasPrefix(text, "KILL QUERY ")
	if _, err := fmt.Sscan(text[strings.LastIndexByte(text, ' ')+1:], &id); err != nil || !strings.HasPrefix(text, "KILL ") {
		return nil, fmt.Errorf("told %q", text)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onKill != nil {
		c.onKill(id)
	}
	if _, there := c.opening[id]; !there {
		c.missed++
		return nil, &driver.MySQLError{Number: 1094, Message: "Unknown thread id"}
	}
	if !query {
		delete(c.opening, id)
		c.killed[id] = text
	}
	return sqldriver.RowsAffected(0), nil
}

// replied is a list of rows.
type replied struct {
	columns int
	rows    [][]sqldriver.Value
}

func (a *replied) Columns() []string { return make([]string, a.columns) }
func (a *replied) Close() error      { return nil }

func (a *replied) Next(dest []sqldriver.Value) error {
	if len(a.rows) == 0 {
		return io.EOF
	}
	copy(dest, a.rows[0])
	a.rows = a.rows[1:]
	return nil
}

// atDoorway runs f with an engine whose server is d, in a bubble, for a minute at most.
func atDoorway(t *testing.T, d *doorway, says server, f func(context.Context, *Engine)) {
	synctest.Test(t, func(t *testing.T) {
		d.killed = map[uint32]string{}
		e := &Engine{prober: newProber(nil)}
		e.prober.saw(says)
		e.closing = newLine(t.Context(), sql.OpenDB(d), e.prober, slog.New(slog.DiscardHandler))
		defer e.closing.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f(ctx, e)
	})
}

// TestOpeningsAreWaitedFor: whoever copied the user before the lock is in or gone when starting returns, and who
// won't get on is killed; nobody else is.
func TestOpeningsAreWaitedFor(t *testing.T) {
	t.Run("one that stays", func(t *testing.T) {
		d := &doorway{opening: map[uint32]string{21: "192.0.2.7:4711", 22: "198.51.100.1:80"}}
		atDoorway(t, d, mysqlGreeting(), func(ctx context.Context, e *Engine) {
			began := time.Now()
			waited, err := e.starting(ctx)
			if took := time.Since(began); !waited || err != nil || took < startingWait || took > 2*startingWait {
				t.Errorf("%t %v after %s", waited, err, took)
			}
			if left := d.left(); !slices.Equal(left, []uint32{22}) {
				t.Errorf("still being let in: %d; killed: %v", left, d.killed)
			}
		})
	})
	t.Run("one that gets in", func(t *testing.T) {
		d := &doorway{opening: map[uint32]string{21: "192.0.2.7:4711"}}
		d.onLook = func(look int) {
			if look == 3 {
				delete(d.opening, 21)
				d.opening[23] = "192.0.2.7:4712" // came after the lock: nobody waits for it
			}
		}
		atDoorway(t, d, mysqlGreeting(), func(ctx context.Context, e *Engine) {
			began := time.Now()
			waited, err := e.starting(ctx)
			if took := time.Since(began); !waited || err != nil || took >= startingWait || len(d.killed) > 0 {
				t.Errorf("%t %v after %s, killed %v", waited, err, took, d.killed)
			}
		})
	})
	t.Run("one that leaves as it is killed", func(t *testing.T) {
		d := &doorway{opening: map[uint32]string{21: ""}} // a server that has not looked the name up yet
		d.onKill = func(id uint32) { delete(d.opening, id) }
		atDoorway(t, d, mysqlGreeting(), func(ctx context.Context, e *Engine) {
			if waited, err := e.starting(ctx); !waited || err != nil || d.missed != 1 {
				t.Errorf("%t %v, %d KILLs missed", waited, err, d.missed)
			}
		})
	})
	t.Run("nobody", func(t *testing.T) {
		d := &doorway{opening: map[uint32]string{22: "198.51.100.1:80"}}
		atDoorway(t, d, mysqlGreeting(), func(ctx context.Context, e *Engine) {
			if waited, err := e.starting(ctx); waited || err != nil || d.looks != 1 {
				t.Errorf("%t %v, %d looks", waited, err, d.looks)
			}
		})
	})
	t.Run("MariaDB", func(t *testing.T) {
		d := &doorway{opening: map[uint32]string{21: "192.0.2.7:4711"}}
		atDoorway(t, d, mariadbGreeting(), func(ctx context.Context, e *Engine) {
			if waited, err := e.starting(ctx); waited || err != nil || d.looks != 0 {
				t.Errorf("%t %v, %d looks", waited, err, d.looks)
			}
		})
	})
}

// TestALostLineIsBuried: a connection that was given up is ended at the server, which may not have heard that its
// client is gone: what comes there yet must not happen.
func TestALostLineIsBuried(t *testing.T) {
	s := need(t)
	u, err := url.Parse(s.URL(testBroker, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	wall := newFirewall(t, u.Host)
	u.Host = wall.Addr().String()
	e, err := New(t.Context(), Config{Target: "orders", URL: u.String(), Password: brokerPassword, Installation: testInstallation,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var lost uint32
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	err = e.closing.do(ctx, func(ctx context.Context, c *conn) error {
		lost = c.id
		asked := make(chan error, 1)
		go func() {
			_, err := c.ExecContext(ctx, "DO SLEEP(30)")
			asked <- err
		}()
		eventually(t, "it is at work", func() bool {
			return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ? AND info LIKE 'DO SLEEP%'", lost) == "1"
		})
		wall.drop()
		giveUp()
		return <-asked
	})
	if err == nil {
		t.Fatal("nothing was given up")
	}
	if err := e.closing.do(t.Context(), func(ctx context.Context, c *conn) error { return c.PingContext(ctx) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lost connection is gone", func() bool {
		return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?", lost) == "0"
	})
}
