package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/e2e/harness"
)

// TestServerLogIsInTheRecording: whatever a client sends and however it slices it, each statement that the
// server says it ran stands in that session's recording, in the server's order, with the server's words
// and parameters; and each result stands at the statement that it is of.
func TestServerLogIsInTheRecording(t *testing.T) {
	s := shared
	ctx := t.Context()
	for _, sql := range []string{
		"ALTER SYSTEM SET log_line_prefix = '%p|%u|'", "ALTER DATABASE orders SET log_statement = 'all'",
		"ALTER DATABASE orders SET log_min_duration_statement = 0", "SELECT pg_reload_conf()",
	} {
		if err := s.pg.Exec(ctx, "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, sql := range []string{"ALTER DATABASE orders RESET ALL", "ALTER SYSTEM RESET log_line_prefix", "SELECT pg_reload_conf()"} {
			if err := s.pg.Exec(context.WithoutCancel(ctx), "postgres", sql); err != nil {
				t.Error(err)
			}
		}
	}()
	sessions, seed := 40, uint64(time.Now().UnixNano())
	if env := os.Getenv("CURFEW_SEED"); env != "" { // SEED or SEED:SESSIONS
		first, rest, _ := strings.Cut(env, ":")
		seed = must(strconv.ParseUint(first, 10, 64))(t)
		if rest != "" {
			sessions = must(strconv.Atoi(rest))(t)
		}
	}
	t.Logf("CURFEW_SEED=%d:%d", seed, sessions)
	g := must(s.alice.Granted(ctx, s.target, "writer", 10*time.Minute, s.bob))(t)
	creds := must(s.alice.Credentials(ctx, g.ID))(t)
	var side sync.WaitGroup
	for lane := range 3 {
		side.Go(func() {
			for i := lane; i < sessions; i += 3 {
				if err := converse(ctx, creds, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			}
		})
	}
	side.Wait()
	if _, err := s.alice.Run(ctx, "release", g.ID); err != nil {
		t.Fatal(err)
	}
	s.receipt(t, g.ID, "released")

	ran := serverLog(must(os.ReadFile(filepath.Join(s.pg.Dir, "postgres.log")))(t))
	statements, matched := 0, 0
	for _, file := range must(filepath.Glob(filepath.Join(s.exported(t, "--grant", g.ID), "recordings", "*")))(t) {
		rec := recording(t, plainLines(t, file))
		statements += len(rec.list)
		matched += rec.holds(t, ran[rec.backend])
		rec.results(t)
		delete(ran, rec.backend)
	}
	for backend, log := range ran {
		if len(log) > 0 && strings.HasSuffix(log[0].user, g.ID) {
			t.Errorf("backend %s is in no recording: %+v", backend, log)
		}
	}
	t.Logf("%d statements on record, %d of the server's log matched", statements, matched)
	if matched < 20*sessions {
		t.Errorf("only %d statements were compared", matched)
	}
}

// logged is what the server says it ran.
type logged struct{ user, kind, text, params string }

var (
	logLine = regexp.MustCompile(`^(\d+)\|([^|]*)\|(LOG|DETAIL):  `)
	logKind = regexp.MustCompile(`^(?:duration: [0-9.]+ ms  )?(statement|parse|bind|execute fetch from|execute|fastpath function call)(?: [^:]*)?: `)
)

// serverLog reads the server's log, backend by backend.
func serverLog(text []byte) map[string][]logged {
	text = bytes.ReplaceAll(text, []byte("\n\t"), []byte("\x00"))
	ran := map[string][]logged{}
	for line := range bytes.Lines(text) {
		line = bytes.ReplaceAll(bytes.TrimSuffix(line, []byte("\n")), []byte("\x00"), []byte("\n"))
		m := logLine.FindSubmatch(line)
		if m == nil || !bytes.HasPrefix(m[2], []byte("curfew_")) || string(m[2]) == "curfew_broker" {
			continue
		}
		rest, backend := line[len(m[0]):], string(m[1])
		list := ran[backend]
		if string(m[3]) == "DETAIL" {
			const words = "parameters: " // since 17 with a capital
			if bytes.EqualFold(rest[:min(len(words), len(rest))], []byte(words)) && len(list) > 0 {
				list[len(list)-1].params = string(rest[len(words):])
			}
			continue
		}
		if k := logKind.FindSubmatch(rest); k != nil {
			ran[backend] = append(list, logged{user: string(m[2]), kind: string(k[1]), text: string(rest[len(k[0]):])})
		}
	}
	return ran
}

// shows says whether a statement of the recording is what the server logged.
func (r *record) shows(st *statement, l logged) bool {
	if len(st.results) > 0 && st.results[0].Code == "skipped" {
		return false // it says that the server did not look at it
	}
	var params []string
	var b *statement
	text := st
	switch {
	case l.kind == "statement" && st.Kind == "simple", l.kind == "parse" && st.Kind == "prepare":
	case l.kind == "fastpath function call" && st.Kind == "function":
		return true
	case l.kind == "bind" && st.Kind == "bind":
		b = st
		text = r.at(b.Of)
	case strings.HasPrefix(l.kind, "execute") && st.Kind == "execute":
		if b, text = r.at(st.Of), nil; b != nil {
			text = r.at(b.Of)
		}
	default:
		return false
	}
	if text == nil { // of a statement that Curfew could not be sure of; but it is there
		return slices.ContainsFunc(r.list, func(p *statement) bool { return string(p.text) == l.text })
	}
	if b != nil {
		for i, p := range b.params {
			params = append(params, fmt.Sprintf("$%d = %s", i+1, p.logged()))
		}
	}
	return string(text.text) == l.text && strings.Join(params, ", ") == l.params
}

// holds checks that what the server ran is in the recording, in its order.
func (r *record) holds(t *testing.T, log []logged) (matched int) {
	t.Helper()
	next := 0
	for n, l := range log {
		from := next
		for next < len(r.list) && !r.shows(r.list[next], l) {
			next++
		}
		if next == len(r.list) {
			t.Errorf("session %s, backend %s: not in the recording behind statement %d: %s %.300q (%.100s)", r.name, r.backend, from, l.kind, l.text, l.params)
			for i := max(0, n-4); i < min(n+3, len(log)); i++ {
				t.Logf("log %d: %s %.100q (%.100s)", i, log[i].kind, log[i].text, log[i].params)
			}
			for i := max(0, from-4); i < min(from+5, len(r.list)); i++ {
				t.Logf("rec %d: %s of=%d %.100q with %d parameters", i+1, r.list[i].Kind, r.list[i].Of, r.list[i].text, len(r.list[i].params))
			}
			return matched
		}
		next++
		matched++
	}
	return matched
}

var mark = regexp.MustCompile(`^SELECT generate_series\(1, (\d+)\)|^DO .*RAISE EXCEPTION 'u(\d+)'`)

// results checks that what came back stands where it belongs, as far as a statement's text tells its result.
func (r *record) results(t *testing.T) {
	t.Helper()
	for i, st := range r.list {
		text := st
		if st.Kind == "execute" {
			for text = st; text.Of > 0 && text.Kind != "prepare"; {
				text = r.list[text.Of-1]
			}
		} else if st.Kind != "simple" {
			continue
		}
		m := mark.FindSubmatch(text.text)
		if m == nil {
			continue
		}
		for _, o := range st.results {
			good := o.Tag == "SELECT "+string(m[1])
			switch {
			case o.Code == "P0001":
				good = o.Message == "u"+string(m[2])
			case o.Code != "":
				good = true
			case st.Kind == "execute": // of a portal that has been run before, or in part
				good = m[1] != nil && (strings.HasPrefix(o.Tag, "SELECT ") || o.Tag == "portal suspended")
			}
			// A cancel that comes between a statement's last row and its commit adds an error to the result.
			cancelled := len(st.results) == 2 && st.results[0].Code == "" && st.results[1].Code == "57014"
			if !good || len(st.results) > 1 && !cancelled {
				t.Errorf("session %s: statement %d %.80q has the results %+v", r.name, i+1, text.text, st.results)
			}
		}
	}
}

// talker says what no client says.
type talker struct {
	*rand.Rand
	buf   []byte
	marks int
}

func (c *talker) message(typ byte, body ...string) {
	b := strings.Join(body, "")
	c.buf = append(c.buf, typ)
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(len(b)+4))
	c.buf = append(c.buf, b...)
}

func u16(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
func u32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

func (c *talker) pick(of ...string) string { return of[c.IntN(len(of))] }

// converse logs in, says whatever comes to mind, in slices of any size, and leaves in one way or another.
func converse(ctx context.Context, creds harness.Credentials, rng *rand.Rand) error {
	pc, err := pgconn.Connect(ctx, creds.URL())
	if err != nil {
		return err
	}
	h, err := pc.Hijack()
	if err != nil {
		return err
	}
	conn := h.Conn
	defer conn.Close()
	heard := make(chan error, 1)
	go func() { heard <- listen(conn) }()
	c := &talker{Rand: rng, marks: 1}
	for range 30 + c.IntN(60) {
		c.unit()
		if c.IntN(3) > 0 {
			continue // more in one go
		}
		if err := c.slice(conn); err != nil {
			break // it was hung up on for what it said
		}
		if c.IntN(8) == 0 {
			cancelKey(ctx, creds, h.PID, h.SecretKey)
		}
		if c.IntN(4) == 0 {
			time.Sleep(time.Duration(c.IntN(5)) * time.Millisecond)
		}
	}
	// Whatever is open, this ends it: the copy, the pipeline, the transaction.
	c.message('c')
	c.message('S')
	c.message('Q', "ROLLBACK\x00")
	switch c.IntN(4) {
	case 0: // vanish
		_ = c.slice(conn)
		return conn.Close()
	case 1:
		c.message('Q', "SELECT generate_series(1, 77)\x00")
		c.message('X')
		c.message('Q', "SELECT 'behind Terminate'\x00")
	default:
		c.message('X')
	}
	_ = c.slice(conn)
	select {
	case <-heard:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("the session does not end")
	}
}

func listen(conn net.Conn) error {
	buf := make([]byte, 64<<10)
	for {
		if _, err := conn.Read(buf); err != nil {
			return err
		}
	}
}

// slice sends what was said so far.
func (c *talker) slice(conn net.Conn) error {
	for len(c.buf) > 0 {
		n := len(c.buf)
		switch c.IntN(4) {
		case 0:
			n = 1 + c.IntN(min(n, 9))
		case 1:
			n = 1 + c.IntN(n)
		}
		if err := conn.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write(c.buf[:n]); err != nil {
			return err
		}
		c.buf = c.buf[n:]
	}
	return nil
}

func cancelKey(ctx context.Context, creds harness.Credentials, pid uint32, key []byte) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(creds.Host, strconv.Itoa(creds.Port)))
	if err != nil {
		return
	}
	defer conn.Close()
	msg := u32(12+len(key)) + u32(80877102) + u32(int(pid)) + string(key)
	msg = u32(len(msg)) + msg[4:]
	if _, err := conn.Write([]byte(msg)); err == nil {
		_, _ = conn.Read(make([]byte, 1))
	}
}

// sql is a statement that says by its result which it was, or one that is odd.
func (c *talker) sql() string {
	c.marks++
	switch c.IntN(16) {
	case 0:
		return fmt.Sprintf("DO $x$ BEGIN RAISE EXCEPTION 'u%d'; END $x$", c.marks)
	case 1:
		return "SELECT 1; SELECT 'two;' ; /* ; */ SELECT 3 --" + strconv.Itoa(c.marks)
	case 2:
		return c.pick("", ";", " ; ; ", "-- nothing", "/* nothing */")
	case 3:
		return c.pick("BEGIN", "COMMIT", "ROLLBACK", "BEGIN; SAVEPOINT a", "COMMIT; BEGIN")
	case 4:
		return "SELEKT " + strconv.Itoa(c.marks)
	case 5:
		return fmt.Sprintf("SELECT generate_series(1, %d) /* %s */", c.marks, strings.Repeat("é\n\t'", c.IntN(20000)))
	case 6:
		return fmt.Sprintf("PREPARE p%d AS SELECT %d", c.IntN(3), c.marks)
	case 7:
		return fmt.Sprintf("EXECUTE p%d", c.IntN(3))
	case 8:
		return c.pick("DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE p1", "CLOSE ALL")
	case 9:
		return fmt.Sprintf("DECLARE c%d CURSOR WITH HOLD FOR SELECT %d", c.IntN(3), c.marks)
	case 10:
		return "COPY (SELECT generate_series(1, 50)) TO STDOUT"
	case 11:
		return c.pick("NOTIFY a, 'b'", "LISTEN a", "SELECT pg_sleep(0.01)", "SET standard_conforming_strings TO off", "RESET ALL")
	case 12:
		return "INSERT INTO orders (item) VALUES ('differential') RETURNING id"
	}
	return fmt.Sprintf("SELECT generate_series(1, %d)", c.marks)
}

func (c *talker) name() string { return c.pick("", "", "a", "b", strings.Repeat("n", 70)) + "\x00" }

// unit adds something to say.
func (c *talker) unit() {
	switch c.IntN(13) {
	case 0, 1, 2:
		c.message('Q', c.sql(), "\x00")
	case 3, 4, 5, 6:
		for range 1 + c.IntN(8) {
			c.step()
		}
		if c.IntN(5) > 0 {
			c.message('S')
		}
	case 7:
		for range c.IntN(6) {
			c.message(byte(c.pick("S", "H", "S")[0]))
		}
	case 8: // copy in, with what may come amid it
		extended := c.IntN(2) == 0
		const sql = "COPY orders (item) FROM STDIN\x00"
		if extended {
			c.message('P', "\x00", sql, u16(0))
			c.message('B', "\x00\x00", u16(0), u16(0), u16(0))
			c.message('E', "\x00", u32(0))
			if c.IntN(2) == 0 {
				c.message('S')
			}
		} else {
			c.message('Q', sql)
		}
		for range c.IntN(5) {
			c.message('d', strings.Repeat("Q\x00\x00\x00\x20SELECT 'no statement'\n", c.IntN(40*c.IntN(100)+1)))
			if c.IntN(3) == 0 {
				c.message(byte(c.pick("H", "S")[0]))
			}
		}
		if c.IntN(40) == 0 {
			c.message('Q', c.sql(), "\x00") // the server hangs up on this
		}
		if c.IntN(3) == 0 {
			c.message('f', "enough\x00")
		} else {
			c.message('c')
		}
		if extended {
			c.message('S')
		}
	case 9: // copy messages without a copy
		c.message('d', "stray\n")
		c.message(byte(c.pick("c", "d")[0]))
		c.message('f', "stray\x00")
	case 10: // pg_backend_pid
		c.message('F', u32(2026), u16(0), u16(0), u16(0))
	case 11:
		for range c.IntN(200) {
			c.message('Q', "SELECT 1\x00")
		}
	case 12:
		c.message('Q', fmt.Sprintf("SELECT generate_series(1, %d)", c.marks), "\x00")
	}
}

// step adds a message of the extended protocol, which may fit or not.
func (c *talker) step() {
	switch c.IntN(10) {
	case 0, 1:
		c.message('P', c.name(), c.sql(), "\x00", u16(0))
	case 2:
		c.message('P', c.name(), fmt.Sprintf("SELECT $1::text, $2::int4 /* %d */", c.marks), "\x00", u16(2), u32(25), u32(23))
	case 3, 4:
		c.message('B', c.name(), c.name(), u16(0), u16(0), u16(0))
	case 5:
		value := strings.Repeat("it's é ", c.IntN(3)*c.IntN(9000))
		c.message('B', c.name(), c.name(), u16(2), u16(0), u16(1), u16(2), u32(len(value)), value, u32(4), u32(c.IntN(1<<31)), u16(0))
	case 6, 7:
		// The unnamed portal is run only right behind its Bind. Seen on PostgreSQL 15: run in an aborted transaction
		// in which a Query had failed, its text in the server's log is empty, and some such run ended the server.
		portal := c.name()
		if portal == "\x00" {
			c.message('B', portal, c.name(), u16(0), u16(0), u16(0))
		}
		c.message('E', portal, u32(c.IntN(3)*c.IntN(4)))
	case 8:
		c.message('D', c.pick("S", "P"), c.name())
		c.message('H')
	case 9:
		c.message('C', c.pick("S", "P"), c.name())
	}
}
