package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/crew"
	"github.com/curfewdb/curfew/recorder"
)

// ended is a cause that is no Refusal, as the desk's is.
type ended struct{}

func (ended) Error() string { return "secret detail" }
func (ended) Public() string {
	return "your grant ended at 14:30 UTC; ask again: curfew request orders"
}

// running waits until the account's backend runs what contains text.
func (w *wire) running(text string) {
	w.t.Helper()
	eventually(w.t, "the server runs "+text, func() bool {
		return super(w.t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active' AND query LIKE $2",
			w.account.spec.Name, "%"+text+"%") == "1"
	})
}

func (w *wire) backends() string {
	return super(w.t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", w.account.spec.Name)
}

// TestEndInFlight: the grant ends in the middle of a statement: the client reads why, the backend is
// gone, and what became of the statement is known and on record.
func TestEndInFlight(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	f.send(&pgproto3.Query{String: "INSERT INTO orders (what) SELECT 'late' FROM pg_sleep(30)"})
	w.running("pg_sleep(30)")
	began := time.Now()
	w.end(ended{})
	last := f.lastWords()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the client was told after %s", took)
	}
	if last == nil || last.Code != "57P01" || last.Severity != "FATAL" || last.Message != (ended{}).Public() {
		t.Errorf("the client read %+v", last)
	}
	r := w.result()
	if !errors.As(r.err, new(ended)) {
		t.Errorf("Relay returned %v", r.err)
	}
	if r.outcome.InFlight != 1 || w.backends() != "0" {
		t.Errorf("outcome %+v, %s backends", r.outcome, w.backends())
	}
	if got := w.sink.of(recorder.TypeResult); len(got) != 1 || string(got[0].Code) != "57P01" {
		t.Errorf("the end of the statement is not on record:\n%s", show(got))
	}
	if n := super(t, "orders", "SELECT count(*) FROM orders WHERE what = 'late'"); n != "0" {
		t.Error("the row is there")
	}
}

// TestEndDuringCopy: in the middle of a bulk load, a client that only sends is told all the same.
func TestEndDuringCopy(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	f.send(&pgproto3.Query{String: "COPY orders (what) FROM STDIN"})
	f.until('G')
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		row := &pgproto3.CopyData{Data: []byte(strings.Repeat("bulk\n", 5000))}
		b, _ := row.Encode(nil)
		for {
			if _, err := f.conn.Write(b); err != nil {
				return
			}
		}
	}()
	eventually(t, "copy data flows", func() bool {
		for _, s := range w.account.Joined() {
			l := s.(*link)
			l.obs.mu.Lock()
			n := l.obs.out.meter.bytes
			l.obs.mu.Unlock()
			return n > 1<<20
		}
		return false
	})
	w.end(&protocol.Refusal{Code: recorder.EndRevoked, Public: "revoked"})
	if last := f.lastWords(); last == nil || last.Message != "revoked" {
		t.Errorf("the client read %+v", last)
	}
	if r := w.result(); w.backends() != "0" || r.outcome.InFlight != 1 {
		t.Errorf("%s backends, %+v", w.backends(), r.outcome)
	}
	f.conn.Close()
	<-stop
	if c := w.sink.of(recorder.TypeCopy); len(c) != 1 || c[0].Bytes < 1<<20 {
		t.Errorf("the copy is not on record: %s", show(c))
	}
	if n := super(t, "orders", "SELECT count(*) FROM orders WHERE what = 'bulk'"); n != "0" {
		t.Error("rows are there")
	}
}

// TestEndOfADeafClient: a client that reads nothing delays nothing. Who waits for it to read waits for wordsTime each
// time; a busy machine takes long now and then.
func TestEndOfADeafClient(t *testing.T) {
	const most, tries = wordsTime / 2, 5
	var took []time.Duration
	for len(took) < tries && (len(took) == 0 || took[len(took)-1] > most) {
		took = append(took, endOfADeafClient(t))
	}
	if len(took) == tries && took[tries-1] > most {
		t.Errorf("Relay returned after %s", took)
	}
}

func endOfADeafClient(t *testing.T) (took time.Duration) {
	t.Helper()
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	// A set in the list is sent as it is made; one behind FROM would be made first, whole.
	f.send(&pgproto3.Query{String: "SELECT repeat('x', 1000), generate_series(1, 10000000)"})
	eventually(t, "the server waits for the client", func() bool {
		return super(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'ClientWrite'", w.account.spec.Name) == "1"
	})
	began := time.Now()
	w.end(ended{})
	took = w.result().relayed.Sub(began)
	if w.backends() != "0" {
		t.Error("the backend is there")
	}
	return took
}

// TestEndWithAHungSink: neither does a recorder that hangs, and nothing is forwarded after it comes back.
func TestEndWithAHungSink(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	hung, release := make(chan struct{}), make(chan struct{})
	w.sink.mu.Lock()
	w.sink.hang = func(e recorder.Event) {
		if strings.Contains(string(e.Text), "hang") {
			close(hung)
			<-release
		}
	}
	w.sink.mu.Unlock()
	f.send(&pgproto3.Query{String: "INSERT INTO orders (what) VALUES ('hang')"})
	<-hung
	w.end(ended{})
	if last := f.lastWords(); last == nil || last.Message != (ended{}).Public() {
		t.Errorf("the client read %+v", last)
	}
	w.result() // although the recorder still hangs
	close(release)
	if n := super(t, "orders", "SELECT count(*) FROM orders WHERE what = 'hang'"); n != "0" || w.backends() != "0" {
		t.Errorf("%s rows, %s backends", n, w.backends())
	}
}

// TestNoRecordNoQuery: what can't be recorded does not run, and the client reads that.
func TestNoRecordNoQuery(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	f.send(&pgproto3.Query{String: "SELECT 1"})
	f.until('Z')
	w.sink.mu.Lock()
	w.sink.fail = errors.New("disk full")
	w.sink.mu.Unlock()
	f.send(&pgproto3.Query{String: "INSERT INTO orders (what) VALUES ('unrecorded')"})
	if last := f.lastWords(); last == nil || last.Code != stateNotRecorded || last.Message != sentenceRecord {
		t.Errorf("the client read %+v", last)
	}
	var end *protocol.EndError
	if r := w.result(); !errors.As(r.err, &end) || end.Code != recorder.EndRecord {
		t.Errorf("Relay returned %v", r.err)
	}
	if n := super(t, "orders", "SELECT count(*) FROM orders WHERE what = 'unrecorded'"); n != "0" {
		t.Error("the row is there")
	}
}

// TestVanish: a client that is gone without a goodbye ends its backend, too.
func TestVanish(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	f.send(&pgproto3.Query{String: "SELECT pg_sleep(31)"})
	w.running("pg_sleep(31)")
	f.conn.(*net.TCPConn).SetLinger(0)
	f.conn.Close()
	r := w.result()
	var end *protocol.EndError
	if !errors.As(r.err, &end) || end.Code != recorder.EndVanished || r.outcome.InFlight != 1 || w.backends() != "0" {
		t.Errorf("%v, %+v, %s backends", r.err, r.outcome, w.backends())
	}
}

// TestServerGoes: the database ends the session; its own words reach the client.
func TestServerGoes(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	f.send(&pgproto3.Query{String: "SELECT pg_sleep(32)"})
	w.running("pg_sleep(32)")
	super(t, "postgres", "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1", w.account.spec.Name)
	if last := f.lastWords(); last == nil || last.Message != "terminating connection due to administrator command" {
		t.Errorf("the client read %+v", last)
	}
	var end *protocol.EndError
	if r := w.result(); !errors.As(r.err, &end) || end.Code != recorder.EndServer {
		t.Errorf("Relay returned %v", r.err)
	}
}

// TestGoodbyeWithWorkLeft: what was sent before the goodbye is done to its end, and on record.
func TestGoodbyeWithWorkLeft(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	f.send(&pgproto3.Query{String: "SELECT 'done' FROM pg_sleep(0.3)"}, &pgproto3.Terminate{})
	f.conn.Close()
	if r := w.result(); r.err != nil {
		t.Fatal(r.err)
	}
	if got := w.sink.of(recorder.TypeResult); len(got) != 1 || string(got[0].Tag) != "SELECT 1" {
		t.Error(show(got))
	}
}

// TestViolation: what no client sends ends the session, and does not reach the server.
func TestViolation(t *testing.T) {
	for name, bytes := range map[string]string{
		"unknown type":     "\x01\x00\x00\x00\x04",
		"password message": "p\x00\x00\x00\x05\x00",
		"short length":     "Q\x00\x00\x00\x03",
		"too long":         "Q\x7f\xff\xff\xff",
		"long Sync":        "S\x00\x01\x00\x00",
		"NUL in a Query":   "Q\x00\x00\x00\x08a\x00b\x00",
		"Bind cut short":   "B\x00\x00\x00\x08\x00\x00\x00\x01",
		"Execute too long": "E\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, 0, FrontConfig{})
			f := w.frontend("")
			if _, err := f.conn.Write([]byte(bytes)); err != nil {
				t.Fatal(err)
			}
			if last := f.lastWords(); last == nil || last.Code != stateProtocol {
				t.Errorf("the client read %+v", last)
			}
			var end *protocol.EndError
			if r := w.result(); !errors.As(r.err, &end) || end.Code != recorder.EndViolation {
				t.Errorf("Relay returned %v", r.err)
			}
		})
	}
}

// TestCancel: Ctrl-C works with our own key, over clear text and TLS, stands in the recording, and a
// wrong key does nothing.
func TestCancel(t *testing.T) {
	cert, pool := certificate(t)
	w := newWire(t, 0, FrontConfig{TLS: serverTLS(cert)})
	c := w.connect("")
	pid := super(t, "postgres", "SELECT pid FROM pg_stat_activity WHERE usename = $1", w.account.spec.Name)
	if pid == fmt.Sprint(c.PgConn().PID()) {
		t.Error("the client was given the server's own pid")
	}
	for i, secure := range []bool{false, true} {
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), fmt.Sprintf("SELECT pg_sleep(%d)", 40+i))
			done <- err
		}()
		w.running(fmt.Sprintf("pg_sleep(%d)", 40+i))
		key := slices.Clone(c.PgConn().SecretKey())
		key[0] ^= 1
		w.cancel(nil, c.PgConn().PID(), key)
		w.running(fmt.Sprintf("pg_sleep(%d)", 40+i))
		key[0] ^= 1
		if secure {
			w.cancel(clientTLS(pool), c.PgConn().PID(), key)
		} else {
			w.cancel(nil, c.PgConn().PID(), key)
		}
		var pe *pgconn.PgError
		if err := <-done; !errors.As(err, &pe) || pe.Code != "57014" {
			t.Errorf("%v", err)
		}
	}
	w.bye(c)
	cancels := w.sink.of(recorder.TypeCancel)
	if len(cancels) != 2 || cancels[0].Of == 0 || cancels[1].Of <= cancels[0].Of || !strings.HasPrefix(cancels[0].From, "127.0.0.1:") {
		t.Errorf("cancel events: %s", show(cancels))
	}
}

// TestNotify: a notice comes between two messages, also into a stream of rows.
func TestNotify(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	seen := make(chan string, 100)
	cfg, err := pgx.ParseConfig(w.dsn(""))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { seen <- n.Message }
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, c, "SELECT 1")
	var l *link
	for _, s := range w.account.Joined() {
		l = s.(*link)
	}
	l.Notify("5 minutes left")
	exec(t, c, "SELECT 1")
	if got := <-seen; got != "5 minutes left" {
		t.Error(got)
	}
	go func() {
		for range 20 {
			l.Notify("in the stream")
		}
	}()
	rows, err := c.Query(t.Context(), "SELECT repeat('x', 2000) FROM generate_series(1, 20000)", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	if rows.Err() != nil || n != 20000 {
		t.Error(n, rows.Err())
	}
	w.bye(c)
	if got := w.sink.of(recorder.TypeNotice); len(got) != 21 || got[0].From != "curfew" {
		t.Error(show(got))
	}
}

// TestAttachToAClosingAccount: a session that comes too late reads so.
func TestAttachToAClosingAccount(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	w.account.Shut()
	_, err := pgx.Connect(t.Context(), w.dsn(""))
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || !strings.Contains(pe.Message, "ending") {
		t.Error(err)
	}
	if r := w.result(); !errors.Is(r.err, crew.ErrClosing) {
		t.Error(r.err)
	}
}

// TestAttachWithoutDatabase: what the server says about it is what the client reads.
func TestAttachWithoutDatabase(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	_, err := pgx.Connect(t.Context(), strings.Replace(w.dsn(""), "/orders?", "/nowhere?", 1))
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "3D000" || pe.Message != `database "nowhere" does not exist` {
		t.Error(err)
	}
	w.result()
	if n := len(w.account.Joined()); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// cancel sends a CancelRequest and waits for the hang-up.
func (w *wire) cancel(over func(net.Conn) net.Conn, pid uint32, key []byte) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if over != nil {
		conn = over(conn)
	}
	msg := append(be32(16), be32(codeCancel)...)
	msg = append(append(msg, be32(int(pid))...), key...)
	if _, err := conn.Write(msg); err != nil {
		w.t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, context.DeadlineExceeded) {
		w.t.Errorf("the answer to a cancel request: %d bytes, %v", n, err)
	}
	if r := w.result(); !errors.Is(r.err, protocol.ErrHandled) {
		w.t.Errorf("Accept returned %v", r.err)
	}
}
