package mysql

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// plainCaps are what the oldest clients of today have, eofCaps what the newest have.
const (
	plainCaps = capLongFlag | capProtocol41 | capTransactions | capSecureConnection | capPluginAuth | capPluginAuthLenenc |
		capMultiStatements | capMultiResults | capPSMultiResults
	eofCaps = plainCaps | capDeprecateEOF | capSessionTrack
)

func perform(t *testing.T, c *sql.Conn, statements ...string) {
	t.Helper()
	for _, text := range statements {
		if _, err := c.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// TestSimple: text is on record with the results it had, in the words of the server.
func TestSimple(t *testing.T) {
	w := newWire(t, protocol.Level{})
	admin(t, "test", "DROP TABLE IF EXISTS simple", "CREATE TABLE simple (id INT AUTO_INCREMENT PRIMARY KEY, what TEXT)")
	c := w.connect("multiStatements=true")
	perform(t, c, "BEGIN", "INSERT INTO simple (what) VALUES ('x'), ('y')", "UPDATE simple SET what = 'z'", "SELECT 1; SELECT 2 FROM DUAL WHERE FALSE; DO 1", "COMMIT")
	if err := c.PingContext(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.ExecContext(t.Context(), "SELECT 1; SELECT * FROM nowhere; SELECT 3"); err == nil {
		t.Error("no error")
	}
	hangUp(t, c)
	w.bye()
	want(t, w.sink(0),
		`statement 1 simple "BEGIN"`,
		`result of=1 n=0 tx="open"`,
		`statement 2 simple "INSERT INTO simple (what) VALUES ('x'), ('y')"`,
		`result of=2 n=0 rows=2 id=1 tag="Records: 2  Duplicates: 0  Warnings: 0" tx="open"`,
		`statement 3 simple "UPDATE simple SET what = 'z'"`,
		`result of=3 n=0 rows=2 tag="Rows matched: 2  Changed: 2  Warnings: 0" tx="open"`,
		`statement 4 simple "SELECT 1; SELECT 2 FROM DUAL WHERE FALSE; DO 1"`,
		`result of=4 n=0 rows=1 bytes=2 tx="open"`,
		`result of=4 n=1 tx="open"`,
		`result of=4 n=2 tx="open"`,
		`statement 5 simple "COMMIT"`,
		`result of=5 n=0 tx="idle"`,
		`statement 6 command name="ping" ""`,
		`result of=6 n=0 tx="idle"`,
		`statement 7 simple "SELECT 1; SELECT * FROM nowhere; SELECT 3"`,
		`result of=7 n=0 rows=1 bytes=2 tx="idle"`,
		`result of=7 n=1 errno=1146 code="42S02" message="Table 'test.nowhere' doesn't exist"`,
	)
	if a := w.sink(0).all()[0].Attached; a.Backend == "" || a.Server == "" || a.Address == "" {
		t.Errorf("attached: %+v", a)
	}
}

// TestPrepared: an execute names its prepare, and shows its parameters as the server would write them.
func TestPrepared(t *testing.T) {
	w := newWire(t, protocol.Level{})
	c := w.connect("")
	s, err := c.PrepareContext(t.Context(), "SELECT ?, ?, ?, ?, ?, ?")
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(2026, 2, 28, 23, 59, 58, 7000, time.UTC)
	for _, last := range []any{"x", nil} {
		rows, err := s.QueryContext(t.Context(), int64(-3), uint64(math.MaxUint64), 1.5, "grüße", when, last)
		if err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
	s.Close()
	if _, err := c.ExecContext(t.Context(), "SELECT * FROM nowhere WHERE a = ?", 1); err == nil {
		t.Error("no error")
	}
	hangUp(t, c)
	w.bye()
	want(t, w.sink(0),
		`statement 1 prepare "SELECT ?, ?, ?, ?, ?, ?"`,
		`statement 2 execute of=1 "" bigint="-3" bigint unsigned="18446744073709551615" double="1.5" char="grüße" char="2026-02-28 23:59:58.000007" char="x"`,
		`result of=2 n=0 rows=1 bytes=63 tx="idle"`,
		`statement 3 execute of=1 "" bigint="-3" bigint unsigned="18446744073709551615" double="1.5" char="grüße" char="2026-02-28 23:59:58.000007" null=null`,
		`result of=3 n=0 rows=1 bytes=61 tx="idle"`,
		`statement 4 command of=1 name="stmt_close" ""`,
		`statement 5 prepare "SELECT * FROM nowhere WHERE a = ?"`,
		`result of=5 n=0 errno=1146 code="42S02" message="Table 'test.nowhere' doesn't exist"`,
	)
}

// TestCommands: every command that has a place in the protocol is on record, and its answer is followed,
// whether or not the client wants EOF packets.
func TestCommands(t *testing.T) {
	for name, caps := range map[string]capability{"with EOF": plainCaps, "without EOF": eofCaps} {
		t.Run(name, func(t *testing.T) { testCommands(t, caps) })
	}
}

func testCommands(t *testing.T, caps capability) {
	w := newWire(t, protocol.Level{})
	admin(t, "test", "DROP TABLE IF EXISTS cmd", "CREATE TABLE cmd (a INT, b TEXT)", "INSERT INTO cmd VALUES (1, 'x'), (2, 'y'), (3, 'z')")
	c := w.raw(caps)
	c.ok(command(comInitDB, "test"))
	c.send(command(comFieldList, "cmd\x00"), []byte{comStatistics}, []byte{comProcessInfo}, []byte{comSetOption, 1, 0}, []byte{comSetOption, 0, 0})
	c.send(command(comStmtPrepare, "SELECT a FROM cmd WHERE a < ?"))
	handle := w.until(c, 7)
	c.send(glue([]byte{comStmtLongData}, le32(handle), le16(0), []byte("2")), glue([]byte{comStmtLongData}, le32(handle), le16(0), []byte("0")),
		glue([]byte{comStmtExecute}, le32(handle), []byte{0}, le32(1), []byte{0, 1}, le16(typeString)))
	// The cursor comes last: MySQL 9.7 answers an execute without one, behind one, by half a result.
	c.send(executeCursor(handle, integer(9)), fetch(handle, 2), fetch(handle, 2), command(comStmtReset, string(le32(handle))))
	c.send(glue([]byte{comStmtClose}, le32(handle)), []byte{comResetConnection})
	w.until(c, 16)
	c.quit()
	w.bye()
	for _, list := range []struct {
		typ  recorder.Type
		want string
	}{{recorder.TypeStatement, `statement 1 command name="init_db" "test"
statement 2 command name="field_list" "cmd"
statement 3 command name="statistics" ""
statement 4 command name="process_info" ""
statement 5 command name="set_option" "1"
statement 6 command name="set_option" "0"
statement 7 prepare "SELECT a FROM cmd WHERE a < ?"
statement 8 command of=7 name="stmt_send_long_data" param=0 "2"
statement 9 command of=7 name="stmt_send_long_data" param=0 "0"
statement 10 execute of=7 "" stmt_send_long_data="8"
statement 11 execute of=7 "" int="9"
statement 12 command of=11 name="stmt_fetch" "" max=2
statement 13 command of=11 name="stmt_fetch" "" max=2
statement 14 command of=7 name="stmt_reset" ""
statement 15 command of=7 name="stmt_close" ""
statement 16 command name="reset_connection" ""
`}, {recorder.TypeResult, `result of=1 n=0 tx="idle"
result of=2 n=0 tx="idle"
result of=3 n=0 bytes=B
result of=4 n=0 rows=R bytes=B tx="idle"
result of=5 n=0 tx="idle"
result of=6 n=0 tx="idle"
result of=10 n=0 rows=3 bytes=18 tx="idle"
result of=11 n=0 tx="idle"
result of=12 n=0 rows=2 bytes=12 tx="idle"
result of=13 n=0 rows=1 bytes=6 tx="idle"
result of=14 n=0 tx="idle"
result of=16 n=0 tx="idle"
`}} {
		events := w.sink(0).of(list.typ)
		for i := range events { // what the server says of itself is not always the same
			e := &events[i]
			if e.Type == recorder.TypeResult && (e.Of == 3 || e.Of == 4) && e.Bytes > 30 {
				e.Bytes, e.Rows = 0, 0
			}
		}
		got := show(events)
		got = strings.Replace(got, "of=3 n=0", "of=3 n=0 bytes=B", 1)
		got = strings.Replace(got, `of=4 n=0 errno=1047 code="08S01" message="Unknown command"`, `of=4 n=0 tx="idle"`, 1) // MySQL has no such command
		got = strings.Replace(got, "of=4 n=0", "of=4 n=0 rows=R bytes=B", 1)
		got = strings.ReplaceAll(got, " warnings=1", "") // the error before
		if got != list.want {
			t.Errorf("recorded:\n%s\nwanted:\n%s", got, list.want)
		}
	}
}

// until waits until so many statements were sent and answered; nobody reads the answers. It gives the handle
// of what was prepared last.
func (w *wire) until(c *rawClient, statements uint64) (handle uint32) {
	w.t.Helper()
	go io.Copy(io.Discard, c.conn)
	var o *observer
	eventually(w.t, "the session is there", func() bool {
		for _, l := range w.account.Joined() {
			o = l.(*link).obs
		}
		return o != nil
	})
	eventually(w.t, "the commands are answered", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		if last := o.prepares.last; last != nil {
			handle = last.handle
		}
		return o.ids == statements && o.queue.n == 0
	})
	return handle
}

func executeCursor(handle uint32, params ...typedValue) []byte {
	b := executeOf(handle, params...)
	b[5] = 1 // CURSOR_TYPE_READ_ONLY
	return b
}

func fetch(handle, rows uint32) []byte { return glue([]byte{comStmtFetch}, le32(handle), le32(rows)) }

// TestLocalInfile: the file that the server asks for is measured; where the level does not allow it the
// server itself refuses.
func TestLocalInfile(t *testing.T) {
	data := strings.Repeat("1\tgrüße\n", 5000)
	driver.RegisterReaderHandler("lines", func() io.Reader { return strings.NewReader(data) })
	for _, allowed := range []bool{true, false} {
		w := newWire(t, protocol.Level{LocalInfile: allowed})
		admin(t, "test", "DROP TABLE IF EXISTS bulk", "CREATE TABLE bulk (a INT, b TEXT)", "SET GLOBAL local_infile = ON")
		c := w.connect("")
		_, err := c.ExecContext(t.Context(), "LOAD DATA LOCAL INFILE 'Reader::lines' INTO TABLE bulk")
		perform(t, c, "DO 1")
		hangUp(t, c)
		w.bye()
		got := show(w.sink(0).all()[1:])
		if !allowed {
			if err == nil || !strings.Contains(got, "errno=") || strings.Contains(got, "copy") {
				t.Errorf("%v\n%s", err, got)
			}
			continue
		}
		copied := fmt.Sprintf("copy of=1 n=0 in rows=5000 bytes=%d sha256=%x tag=\"Reader::lines\"\nresult of=1 n=0 rows=5000 bytes=%d tag=\"Records: 5000", len(data), sha256.Sum256([]byte(data)), len(data))
		if err != nil || !strings.Contains(got, copied) || super(t, "test", "SELECT COUNT(*) FROM bulk") != "5000" {
			t.Errorf("%v\n%s\nwanted\n%s", err, got, copied)
		}
	}
}

// TestPipeline: several commands in one write are answered in order, and paired in order.
func TestPipeline(t *testing.T) {
	w := newWire(t, protocol.Level{})
	c := w.raw(eofCaps)
	var commands [][]byte
	for i := range 300 {
		commands = append(commands, command(comQuery, fmt.Sprintf("SELECT %d; SELECT x%d", i, i)), []byte{comPing}, command(comQuery, fmt.Sprintf("DO %d", i)))
	}
	c.send(commands...)
	w.until(c, 900)
	c.quit()
	w.bye()
	answers := map[uint64][]recorder.Event{}
	for _, e := range w.sink(0).of(recorder.TypeResult) {
		answers[e.Of] = append(answers[e.Of], e)
	}
	for i := range uint64(300) {
		query, ping, do := answers[3*i+1], answers[3*i+2], answers[3*i+3]
		if len(query) != 2 || query[0].Rows != 1 || query[0].Bytes != uint64(1+len(fmt.Sprint(i))) || query[1].Errno != 1054 || !bytes.Contains(query[1].Message, []byte(fmt.Sprintf("'x%d'", i))) {
			t.Fatalf("query %d: %s", i, show(query))
		}
		if len(ping) != 1 || len(do) != 1 || ping[0].Code != nil || do[0].Code != nil {
			t.Fatalf("after query %d: %s%s", i, show(ping), show(do))
		}
	}
}

// TestExecuteDirect: MariaDB's clients run what they have just prepared without waiting to hear its name.
func TestExecuteDirect(t *testing.T) {
	w := newWire(t, protocol.Level{})
	onlyMariaDB(t)
	c := w.raw(plainCaps)
	c.send(command(comStmtPrepare, "SELECT ?, ?"), executeOf(lastPrepared, integer(7), str("x")), command(comStmtPrepare, "SELEC ?"), executeOf(lastPrepared, integer(8)))
	w.until(c, 4)
	c.quit()
	w.bye()
	want(t, w.sink(0),
		`statement 1 prepare "SELECT ?, ?"`,
		`statement 2 execute of=1 "" int="7" varchar="x"`,
		`statement 3 prepare "SELEC ?"`,
		`result of=2 n=0 rows=1 bytes=8 tx="idle"`,
		`result of=3 n=0 errno=1064 code="42000" message="You have an error in your SQL syntax; check the manual that corresponds to your MariaDB server version for the right syntax to use near 'SELEC ?' at line 1"`,
		`statement 4 execute of=3 "" unknown=hex:0001030008000000`,
		`result of=4 n=0 errno=1243 code="HY000" message="Unknown prepared statement handler (4294967295) given to mysqld_stmt_execute"`,
	)
}

func onlyMariaDB(t *testing.T) {
	t.Helper()
	if !need(t).IsMariaDB() {
		t.Skip("MariaDB's own")
	}
}

// TestBulk: MariaDB's bulk execute has rows of parameters.
func TestBulk(t *testing.T) {
	w := newWire(t, protocol.Level{})
	onlyMariaDB(t)
	admin(t, "test", "DROP TABLE IF EXISTS many", "CREATE TABLE many (a INT DEFAULT 5, b TEXT)")
	for _, caps := range []capability{plainCaps | capBulk, eofCaps | capBulk} {
		c := w.raw(caps)
		c.send(command(comStmtPrepare, "INSERT INTO many VALUES (?, ?)"))
		handle := w.until(c, 1)
		c.send(glue([]byte{comStmtBulkExecute}, le32(handle), le16(flagSendTypes), le16(typeLong), le16(typeString),
			[]byte{0}, le32(1), []byte{0, 1, 'x'}, []byte{2}, []byte{1}, []byte{0}, le32(3), []byte{0, 1, 'z'}))
		w.until(c, 2)
		c.quit()
		w.bye()
	}
	for i := range 2 {
		want(t, w.sink(i),
			`statement 1 prepare "INSERT INTO many VALUES (?, ?)"`,
			`statement 2 execute of=1 "" int="1" char="x" default=null char=null int="3" char="z"`,
			`result of=2 n=0 rows=3 tag="Records: 3  Duplicates: 0  Warnings: 0" tx="idle"`,
		)
	}
	if got := super(t, "test", "SELECT GROUP_CONCAT(a, '-', IFNULL(b, '') ORDER BY a) FROM many"); got != "1-x,1-x,3-z,3-z,5-,5-" {
		t.Error(got)
	}
}

// TestGrantNamed: the server hears which grant a session is for, whatever the client says of itself.
func TestGrantNamed(t *testing.T) {
	w := newWire(t, protocol.Level{})
	l := &link{client: &client{login: protocol.Login{Attributes: map[string]string{attrGrant: "forged"}}}, owner: w.account}
	if got := l.landing(); got.grant != w.account.spec.Grant || got.grant == "" {
		t.Errorf("the session is for %q", got.grant)
	}
	if testServer.IsMariaDB() {
		return // it keeps none unless it is told to
	}
	c := w.connect("connectionAttributes=" + attrGrant + ":forged")
	var got string
	row := c.QueryRowContext(t.Context(), "SELECT GROUP_CONCAT(attr_value) FROM performance_schema.session_account_connect_attrs WHERE processlist_id = CONNECTION_ID() AND attr_name = '"+attrGrant+"'")
	if err := row.Scan(&got); err != nil || got != w.account.spec.Grant {
		t.Errorf("the server was told %q, %v", got, err)
	}
	hangUp(t, c)
	w.bye()
}
