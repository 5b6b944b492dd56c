package enginetest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// client is a stock driver's one connection.
type client struct {
	t    *testing.T
	ctx  context.Context
	db   *sql.DB
	conn *sql.Conn
	raw  *wire                // nil until it has logged in
	last atomic.Pointer[wire] // what the login dialled last
	in   atomic.Bool          // it has logged in, over raw: what the driver dials now is for something else
	gone atomic.Bool          // it has vanished, and makes no connection any more
}

// connect logs in by way of dial. The driver gives up after a while, so that a hang is a failure.
func (s *suite) connect(t *testing.T, dial Dial, user, password string) (*client, error) {
	t.Helper()
	c := &client{t: t, ctx: context.WithoutCancel(t.Context())}
	connector, err := s.kit.Connect(func(ctx context.Context) (net.Conn, error) {
		if c.gone.Load() {
			return nil, net.ErrClosed // some drivers cancel on a new connection what they give up
		}
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		w, ok := conn.(*wire)
		if !ok {
			w = &wire{Conn: conn, most: -1}
		}
		if !c.in.Load() {
			c.last.Store(w)
		}
		return w, nil
	}, user, password, s.kit.Dialect.Database)
	if err != nil {
		t.Fatal(err)
	}
	c.db = sql.OpenDB(connector)
	c.db.SetMaxOpenConns(1)
	t.Cleanup(func() { // a statement may still be in flight
		c.gone.Store(true)
		if w := c.last.Load(); w != nil {
			w.Conn.Close()
		}
		c.bye()
	})
	ctx, stop := context.WithTimeout(c.ctx, patience)
	defer stop()
	c.conn, err = c.db.Conn(ctx)
	c.in.Store(true)
	c.raw = c.last.Load()
	if err != nil {
		c.db.Close()
	}
	return c, err
}

func (c *client) exec(statement string, args ...any) error {
	_, err := c.conn.ExecContext(c.ctx, statement, args...)
	return err
}

// must runs statements that succeed.
func (c *client) must(statements ...string) {
	c.t.Helper()
	for _, s := range statements {
		if err := c.exec(s); err != nil {
			c.t.Fatalf("%s: %v", s, err)
		}
	}
}

// start runs a statement beside the test.
func (c *client) start(statement string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- c.exec(statement) }()
	return done
}

// bye says goodbye.
func (c *client) bye() {
	if c.conn != nil {
		c.conn.Close()
	}
	c.db.Close()
}

// vanish breaks the connection off without a word.
func (c *client) vanish() {
	c.gone.Store(true)
	if tcp, ok := c.raw.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.raw.Conn.Close()
}

// alive says whether the session still answers.
func (c *client) alive() bool { return c.exec("SELECT 1") == nil }

// run does one line of a dialogue and tells what is seen of it.
func (c *client) run(l Line) string {
	var b strings.Builder
	if l.Exec {
		r, err := c.conn.ExecContext(c.ctx, l.SQL, l.Args...)
		if err != nil {
			return see(&b, err)
		}
		affected, err := r.RowsAffected()
		id, _ := r.LastInsertId() // not every driver has it
		fmt.Fprintf(&b, "affected %d, id %d\n", affected, id)
		return see(&b, err)
	}
	rows, err := c.conn.QueryContext(c.ctx, l.SQL, l.Args...)
	if err != nil {
		return see(&b, err)
	}
	defer rows.Close()
	for {
		if err := seeRows(&b, rows); err != nil {
			return see(&b, err)
		}
		if !rows.NextResultSet() {
			break
		}
		b.WriteString("next result\n")
	}
	return see(&b, errors.Join(rows.Err(), rows.Close()))
}

func see(b *strings.Builder, err error) string {
	if err != nil {
		fmt.Fprintf(b, "error %T %v\n", err, err)
	}
	return b.String()
}

func seeRows(b *strings.Builder, rows *sql.Rows) error {
	types, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	for _, typ := range types {
		length, _ := typ.Length()
		precision, scale, _ := typ.DecimalSize()
		nullable, known := typ.Nullable()
		fmt.Fprintf(b, "column %s %s %d %d %d %t %t\n", typ.Name(), typ.DatabaseTypeName(), length, precision, scale, nullable, known)
	}
	for rows.Next() {
		values, into := make([]any, len(types)), make([]any, len(types))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		for _, v := range values {
			text := fmt.Sprintf("%T %v; ", v, v)
			if len(text) > 1000 {
				text = fmt.Sprintf("%T, %d bytes, %x; ", v, len(text), sha256.Sum256([]byte(text)))
			}
			b.WriteString(text)
		}
		b.WriteByte('\n')
	}
	return rows.Err()
}

// wire counts what goes over a connection, and can break it off.
type wire struct {
	net.Conn
	most int // bytes that the client can send before the connection is cut; negative: no limit

	mu       sync.Mutex // guards what follows
	sent     int
	received []byte // the first 64 KiB
	until    <-chan struct{}
}

// linger has the client's hang-up wait.
func (w *wire) linger(until <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = until
}

func (w *wire) Close() error {
	w.mu.Lock()
	until := w.until
	w.mu.Unlock()
	if until != nil {
		<-until
	}
	return w.Conn.Close()
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	sent := w.sent
	w.mu.Unlock()
	if w.most >= 0 && sent+len(b) > w.most {
		_, _ = w.Conn.Write(b[:w.most-sent])
		w.Conn.Close()
		return 0, net.ErrClosed
	}
	n, err := w.Conn.Write(b)
	w.mu.Lock()
	w.sent += n
	w.mu.Unlock()
	return n, err
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	if len(w.received) < 1<<16 {
		w.received = append(w.received, b[:n]...)
	}
	w.mu.Unlock()
	return n, err
}

// counts gives how many bytes the client sent, and what it received at first.
func (w *wire) counts() (sent int, received []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, append([]byte(nil), w.received...)
}
