package mysql

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
	"github.com/curfewdb/curfew/recorder"
)

// memory is a Sink that keeps copies. hang, when set, is called with every event before it is kept.
type memory struct {
	mu     sync.Mutex
	events []recorder.Event
	fail   error
	hang   func(recorder.Event)
}

func (m *memory) Record(events ...recorder.Event) error {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	for _, e := range events {
		if hang != nil {
			hang(e)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, e := range events {
		m.events = append(m.events, copyEvent(e))
	}
	return nil
}

func copyEvent(e recorder.Event) recorder.Event {
	for _, b := range []*[]byte{&e.Text, &e.Name, &e.Prepares, &e.Tag, &e.Code, &e.Message, &e.SHA256, &e.Severity} {
		*b = bytes.Clone(*b)
	}
	e.Params = slices.Clone(e.Params)
	for i := range e.Params {
		e.Params[i].Value, e.Params[i].Name = bytes.Clone(e.Params[i].Value), bytes.Clone(e.Params[i].Name)
	}
	return e
}

// all gives the events so far, without what depends on the clock.
func (m *memory) all() []recorder.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Clone(m.events)
	for i := range list {
		list[i].Duration, list[i].FirstRow = 0, 0
	}
	return list
}

func (m *memory) of(types ...recorder.Type) []recorder.Event {
	return slices.DeleteFunc(m.all(), func(e recorder.Event) bool { return !slices.Contains(types, e.Type) })
}

// show writes events as a person would note them, one a line.
func show(events []recorder.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%s", e.Type)
		switch e.Type {
		case recorder.TypeStatement:
			fmt.Fprintf(&b, " %d %s", e.ID, e.Kind)
			jot(&b, "of", e.Of)
			jot(&b, "name", e.Name)
			if e.Field != "" {
				fmt.Fprintf(&b, " %s=%d", e.Field, e.Index)
			}
			fmt.Fprintf(&b, " %q", e.Text)
		case recorder.TypePart:
			fmt.Fprintf(&b, " %d %s index=%d %q", e.ID, e.Field, e.Index, e.Text)
		case recorder.TypeResult:
			fmt.Fprintf(&b, " of=%d n=%d", e.Of, e.N)
			jot(&b, "rows", e.Rows)
			jot(&b, "bytes", e.Bytes)
			jot(&b, "id", e.InsertID)
			jot(&b, "warnings", uint64(e.Warnings))
			jot(&b, "tag", e.Tag)
			jot(&b, "errno", uint64(e.Errno))
			jot(&b, "code", e.Code)
			jot(&b, "message", e.Message)
			jot(&b, "tx", []byte(e.Tx))
		case recorder.TypeCopy:
			fmt.Fprintf(&b, " of=%d n=%d %s rows=%d bytes=%d sha256=%x tag=%q", e.Of, e.N, e.Direction, e.Rows, e.Bytes, e.SHA256, e.Tag)
		case recorder.TypeNotice:
			fmt.Fprintf(&b, " of=%d from=%s %s %s %d %q", e.Of, e.From, e.Severity, e.Code, e.Errno, e.Message)
		case recorder.TypeBlocked:
			fmt.Fprintf(&b, " of=%d %q", e.Of, e.Reason)
		case recorder.TypeCancel:
			fmt.Fprintf(&b, " of=%d", e.Of)
		}
		jot(&b, "max", e.MaxRows)
		jot(&b, "prepares", e.Prepares)
		if e.More {
			b.WriteString(" more")
		}
		for _, p := range e.Params {
			b.WriteString(" " + showParam(p))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// jot writes what is not zero.
func jot[T uint64 | []byte](b *strings.Builder, name string, v T) {
	switch v := any(v).(type) {
	case uint64:
		if v > 0 {
			fmt.Fprintf(b, " %s=%d", name, v)
		}
	case []byte:
		if v != nil && len(v) > 0 {
			fmt.Fprintf(b, " %s=%q", name, v)
		}
	}
}

func showParam(p recorder.Param) string {
	var b strings.Builder
	if p.Name != nil {
		fmt.Fprintf(&b, "%s:", p.Name)
	}
	switch {
	case p.Null:
		fmt.Fprintf(&b, "%s=null", p.Type)
	case p.Hex:
		fmt.Fprintf(&b, "%s=hex:%x", p.Type, p.Value)
	default:
		fmt.Fprintf(&b, "%s=%q", p.Type, p.Value)
	}
	if p.More {
		b.WriteString("…")
	}
	return b.String()
}

// wire is a listener whose sessions go to an account of its own.
type wire struct {
	t       *testing.T
	front   *Front
	account *account
	user    string
	listen  net.Listener
	doorman keeper
	held    context.Context
	end     context.CancelCauseFunc // ends the grant
	results chan wireResult
	fail    error // of every sink from the start

	mu    sync.Mutex // guards sinks
	sinks []*memory  // of the sessions, in the order they were attached in
}

// wireResult is how a session went.
type wireResult struct {
	err     error
	outcome protocol.Outcome
}

var wires atomic.Uint32

// newWire makes the account and serves until the test is over.
func newWire(t *testing.T, level protocol.Level) *wire {
	t.Helper()
	s := need(t)
	return wireTo(t, s, s.URL(mysqltest.Admin, "test"), level, FrontConfig{})
}

// wireTo is a wire to a server of its own, by the target's URL.
func wireTo(t *testing.T, s *mysqltest.Server, target string, level protocol.Level, cfg FrontConfig) *wire {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e, err := New(context.WithoutCancel(t.Context()), Config{Target: "orders", URL: target, Password: mysqltest.Password, Installation: "w1re01", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	level.Name = "writer"
	grant := fmt.Sprintf("g%010d", wires.Add(1))
	a := newAccount(e, protocol.AccountSpec{
		Installation: "w1re01", Grant: grant, Name: "curfew_w1re01_" + grant, Requester: "al@example.test", End: time.Now().Add(time.Hour), Level: level,
	})
	a.secret = newSecret()
	if err := s.SQL(t.Context(), "", "CREATE USER '"+a.spec.Name+"'@'127.0.0.1' IDENTIFIED BY '"+a.secret+"'", "GRANT ALL ON test.* TO '"+a.spec.Name+"'@'127.0.0.1'"); err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, account: a, user: grant, results: make(chan wireResult, 64)}
	cfg.Engine, cfg.Log = e, log
	w.front = NewFront(cfg)
	w.doorman = keeper{user: grant, verifier: enrol(personPassword)}
	w.held, w.end = context.WithCancelCause(t.Context())
	if w.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := w.listen.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() { w.serve(conn) })
		}
	})
	t.Cleanup(func() {
		w.listen.Close()
		w.end(&protocol.Refusal{Code: recorder.EndDrained, Public: "the test is over"})
		sessions.Wait()
		ctx := context.WithoutCancel(t.Context())
		if _, err := w.account.Cut(ctx); err != nil {
			t.Error(err)
		}
		if err := s.SQL(ctx, "", "DROP USER IF EXISTS '"+w.account.spec.Name+"'@'127.0.0.1'"); err != nil {
			t.Error(err)
		}
	})
	return w
}

// serve is the life of a session, as package proxy has it.
func (w *wire) serve(conn net.Conn) {
	defer conn.Close()
	ctx := context.WithoutCancel(w.t.Context())
	var r wireResult
	client, err := w.front.Accept(ctx, conn, w.doorman)
	if err != nil {
		w.results <- wireResult{err: err}
		return
	}
	link, err := client.Attach(w.held, w.account)
	if err == nil {
		sink := &memory{fail: w.fail}
		w.mu.Lock()
		w.sinks = append(w.sinks, sink)
		w.mu.Unlock()
		err = link.Relay(w.held, sink)
		if err != nil {
			kctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			var kerr error
			if r.outcome, kerr = link.Kill(kctx); kerr != nil {
				w.t.Errorf("kill: %v", kerr)
			}
			cancel()
		}
	}
	client.Close(err)
	r.err = err
	w.results <- r
}

// result waits for the next session's end.
func (w *wire) result() wireResult {
	w.t.Helper()
	select {
	case r := <-w.results:
		return r
	case <-time.After(20 * time.Second):
		w.t.Fatal("the session does not end")
		return wireResult{}
	}
}

// sink is what the nth session recorded.
func (w *wire) sink(n int) *memory {
	w.t.Helper()
	var m *memory
	eventually(w.t, fmt.Sprintf("session %d is attached", n), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.sinks) > n {
			m = w.sinks[n]
		}
		return m != nil
	})
	return m
}

func (w *wire) port() int { return w.listen.Addr().(*net.TCPAddr).Port }

// config is where go-sql-driver connects to.
func (w *wire) config(params string) *driver.Config {
	w.t.Helper()
	cfg, err := driver.ParseDSN(fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/test?%s", w.user, personPassword, w.port(), params))
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

// connect is one connection of go-sql-driver's.
func (w *wire) connect(params string) *sql.Conn {
	w.t.Helper()
	return w.connectBy(w.config(params))
}

func (w *wire) connectBy(cfg *driver.Config) *sql.Conn {
	w.t.Helper()
	connector, err := driver.NewConnector(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	c, err := db.Conn(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close(); db.Close() })
	return c
}

// bye waits for the next session to end in order.
func (w *wire) bye() {
	w.t.Helper()
	if r := w.result(); r.err != nil {
		w.t.Fatalf("the client said goodbye, and the session ended with %v", r.err)
	}
}

// hangUp closes a driver's connection, not only the handle to it.
func hangUp(t *testing.T, c *sql.Conn) {
	t.Helper()
	_ = c.Raw(func(dc any) error { return dc.(interface{ Close() error }).Close() })
	c.Close()
}

// rawClient is a client that sends what it is told, and reads packets.
type rawClient struct {
	*upstream
	t testing.TB
}

// raw logs in with these capabilities, through the front.
func (w *wire) raw(caps capability) *rawClient {
	w.t.Helper()
	return dialRaw(w.t, w.port(), w.user, personPassword, caps)
}

func dialRaw(t testing.TB, port int, user, password string, caps capability) *rawClient {
	t.Helper()
	tg, err := parseTarget("mysql://" + user + "@127.0.0.1:" + strconv.Itoa(port) + "/test?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	u, err := dialUpstream(t.Context(), landing{target: tg, user: user, secret: password, database: "test", caps: caps, charset: 45, maxPacket: 1 << 24})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.conn.Close() })
	u.conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &rawClient{u, t}
}

// send sends commands without waiting for answers.
func (c *rawClient) send(payloads ...[]byte) {
	c.t.Helper()
	var msg []byte
	for _, p := range payloads {
		msg = appendPacket(msg, 0, p)
	}
	if _, err := c.conn.Write(msg); err != nil {
		c.t.Fatal(err)
	}
}

// packet reads a packet of an answer; seq is what the first one must have.
func (c *rawClient) packet(seq byte) []byte {
	c.t.Helper()
	c.reader.seq = seq
	p, err := c.reader.read(1 << 30)
	if err != nil {
		c.t.Fatal(err)
	}
	return bytes.Clone(p)
}

// ok sends a command and wants an OK packet for an answer.
func (c *rawClient) ok(payload []byte) okPacket {
	c.t.Helper()
	c.send(payload)
	p := c.packet(1)
	ok, whole := parseOK(p, c.caps)
	if p[0] == packetErr || !whole {
		c.t.Fatalf("%q is answered by %q", payload, p)
	}
	return ok
}

// quit says goodbye.
func (c *rawClient) quit() {
	c.send([]byte{comQuit})
	c.conn.Close()
}

// want compares events in show's words; the first, attached, is left out.
func want(t *testing.T, m *memory, lines ...string) {
	t.Helper()
	events := m.all()
	if len(events) == 0 || events[0].Type != recorder.TypeAttached {
		t.Fatalf("the first event is not attached:\n%s", show(events))
	}
	got, expected := show(events[1:]), strings.Join(lines, "\n")+"\n"
	if got != expected {
		t.Errorf("recorded:\n%s\nwanted:\n%s", got, expected)
	}
}
