package mysql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	osexec "os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

const overSentence = "your grant ended at 14:30 UTC; ask again: curfew request orders --level writer"

var errOver = &protocol.Refusal{Code: recorder.EndExpired, Public: overSentence}

// over says whether err is what a person reads whose grant is over.
func over(err error) bool {
	var said *driver.MySQLError
	return errors.As(err, &said) && said.Message == overSentence && (said.Number == errnoEndedMariaDB.code || said.Number == errnoEndedMySQL.code)
}

// TestLastWordsIdle: a client that waits for nothing reads why its session is over as the answer to what it
// sends next: the packet has the sequence number 1, as that answer would have.
func TestLastWordsIdle(t *testing.T) {
	w := newWire(t, protocol.Level{})
	raw := w.raw(eofCaps)
	raw.ok([]byte{comPing})
	w.sink(0)
	c := w.connect("")
	perform(t, c, "DO 1")
	w.end(errOver)
	for range 2 {
		if r := w.result(); !errors.Is(r.err, errOver) {
			t.Fatal(r.err)
		}
	}
	if e, _ := parseErr(raw.packet(1), raw.caps); string(e.message) != overSentence {
		t.Errorf("%d %s", e.code, e.message)
	}
	if _, err := c.ExecContext(t.Context(), "DO 2"); !over(err) {
		t.Errorf("the driver says %v", err)
	}
	if got := show(w.sink(1).of(recorder.TypeStatement)); got != "statement 1 simple \"DO 1\"\n" {
		t.Error(got)
	}
}

// TestRecordFails: what can't be recorded does not reach the server, and the client reads why.
func TestRecordFails(t *testing.T) {
	w := newWire(t, protocol.Level{})
	admin(t, "test", "DROP TABLE IF EXISTS unrecorded", "CREATE TABLE unrecorded (a INT)")
	c := w.connect("")
	m := w.sink(0)
	m.mu.Lock()
	m.fail = errors.New("the disk is full")
	m.mu.Unlock()
	_, err := c.ExecContext(t.Context(), "INSERT INTO unrecorded VALUES (1)")
	var said *driver.MySQLError
	if !errors.As(err, &said) || said.Number != errnoNotRecorded.code || said.Message != sentenceRecord {
		t.Errorf("the driver says %v", err)
	}
	var end *protocol.EndError
	if r := w.result(); !errors.As(r.err, &end) || end.Code != recorder.EndRecord {
		t.Errorf("the session ended with %v", r.err)
	}
	if got := super(t, "test", "SELECT COUNT(*) FROM unrecorded"); got != "0" {
		t.Error("it ran")
	}
}

// TestLastWordsStock: the mariadb client shows the sentence as an error of the statement that it sends next.
func TestLastWordsStock(t *testing.T) {
	w := newWire(t, protocol.Level{})
	path, err := osexec.LookPath("mariadb")
	if err != nil {
		t.Fatal("no mariadb client: apt-get install mariadb-client")
	}
	cmd := osexec.Command(path, "--no-defaults", "--protocol=tcp", "-h127.0.0.1", "-P"+strconv.Itoa(w.port()), "-u"+w.user, "-p"+personPassword, "--skip-ssl", "-N", "-n", "test")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	fmt.Fprintln(in, "SELECT 'first';")
	if !lines.Scan() || lines.Text() != "first" {
		t.Fatal(lines.Text())
	}
	w.end(errOver)
	w.result()
	fmt.Fprintln(in, "SELECT 'second';")
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
	}
	if got := strings.Join(said, "\n"); !strings.Contains(got, overSentence) {
		t.Errorf("the client says %q", got)
	}
}

// TestLastWordsBusy: a client that waits for an answer reads it as that, or as the end of what has come.
func TestLastWordsBusy(t *testing.T) {
	w := newWire(t, protocol.Level{})
	c := w.connect("multiStatements=true")
	failed := make(chan error, 1)
	go func() {
		rows, err := c.QueryContext(context.WithoutCancel(t.Context()), "SELECT 1; SELECT SLEEP(30)")
		if err == nil {
			for rows.Next() || rows.NextResultSet() {
			}
			err = rows.Err()
		}
		failed <- err
	}()
	m := w.sink(0)
	eventually(t, "the first result is there", func() bool { return len(m.of(recorder.TypeResult)) == 1 })
	w.end(errOver)
	r := w.result()
	if !errors.Is(r.err, errOver) || r.outcome.InFlight != 1 {
		t.Errorf("%v %+v", r.err, r.outcome)
	}
	select {
	case err := <-failed:
		if !over(err) {
			t.Errorf("the driver says %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the client hangs")
	}
}

// TestKill: an id that a client was greeted with is the backend's for KILL, in text and as a command, and
// the session that is cancelled has it on record.
func TestKill(t *testing.T) {
	w := newWire(t, protocol.Level{Sessions: 1})
	c := w.connect("")
	kills := []string{"KILL QUERY %d", "kill  hard query %d ; ", "COM"}
	if !testServer.IsMariaDB() {
		kills = []string{"KILL QUERY %d", "kill  query %d ; "} // MySQL has neither
	}
	for i, kill := range kills {
		failed := make(chan error, 1)
		go func() {
			var zero int
			err := c.QueryRowContext(context.WithoutCancel(t.Context()), "SELECT SLEEP(30)").Scan(&zero)
			if err == nil && zero == 1 {
				err = errors.New("interrupted")
			}
			failed <- err
		}()
		m := w.sink(0)
		eventually(t, "it sleeps", func() bool { return len(m.of(recorder.TypeStatement)) == i+1 })
		eventually(t, "it sleeps in the server", func() bool {
			return super(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(30)'") == "1"
		})
		id := w.greeted(0)
		// It is the one connection above the limit, in which nothing but KILL passes.
		k := w.raw(eofCaps)
		k.send(command(comQuery, "SELECT 1"))
		if e, _ := parseErr(k.packet(1), k.caps); e.code != errnoTooMany.code || string(e.message) != sentenceExtra {
			t.Errorf("%d %s", e.code, e.message)
		}
		if kill == "COM" {
			k.send(glue([]byte{comProcessKill}, le32(99999)))
			if e, _ := parseErr(k.packet(1), k.caps); e.code != errnoNoThread.code {
				t.Errorf("%d %s", e.code, e.message)
			}
			k.ok(glue([]byte{comProcessKill}, le32(id)))
		} else {
			k.ok(command(comQuery, fmt.Sprintf(kill, id)))
		}
		select {
		case err := <-failed:
			if err == nil {
				t.Error("it was not interrupted")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it sleeps on")
		}
		k.quit()
		if kill == "COM" { // that kills the connection, not the query
			w.result()
			w.result()
		} else {
			w.bye()
			got := show(w.sink(i+1).of(recorder.TypeStatement, recorder.TypeBlocked))
			if wanted := fmt.Sprintf("statement 1 simple \"SELECT 1\"\nblocked of=1 %q\nstatement 2 simple %q\n", sentenceExtra, fmt.Sprintf(kill, id)); got != wanted {
				t.Errorf("recorded\n%s\nwanted\n%s", got, wanted)
			}
		}
	}
	cancels := w.sink(0).of(recorder.TypeCancel)
	if len(cancels) != len(kills) || cancels[0].Of != 1 || !strings.HasPrefix(cancels[0].From, "127.0.0.1:") {
		t.Errorf("%s", show(cancels))
	}
}

// greeted is the id that the client of a session was greeted with.
func (w *wire) greeted(n int) uint32 {
	w.t.Helper()
	m := w.sink(n)
	for _, l := range w.account.Joined() {
		if l := l.(*link); l.live.Load() && l.obs.sink == protocol.Sink(m) { // it has a sink when it lives
			return l.greeted()
		}
	}
	w.t.Fatal("the session is gone")
	return 0
}

// TestKillElsewhere: an id of another grant's session is nobody's, and the server is asked as it was written.
func TestKillElsewhere(t *testing.T) {
	w, other := newWire(t, protocol.Level{}), newWire(t, protocol.Level{})
	victim := other.connect("")
	perform(t, victim, "DO 1")
	c := w.connect("")
	_, err := c.ExecContext(t.Context(), fmt.Sprintf("KILL %d", other.greeted(0)))
	var said *driver.MySQLError
	if !errors.As(err, &said) || said.Number != 1094 {
		t.Errorf("%v", err)
	}
	perform(t, victim, "DO 2")
	hangUp(t, c)
	w.bye()
	if got := other.sink(0).of(recorder.TypeCancel); len(got) > 0 {
		t.Errorf("%s", show(got))
	}
	hangUp(t, victim)
	other.bye()
}

// TestRefusedCommands: the server never sees them; the answer is ours, in their place.
func TestRefusedCommands(t *testing.T) {
	w := newWire(t, protocol.Level{})
	c := w.raw(eofCaps)
	secret := "curfew\x00\x14scrambled-by-the-pass\x00"
	refused := [][]byte{
		command(comChangeUser, secret), command(comBinlogDump, "\x04\x00\x00\x00\x00\x00\x01\x00\x00\x00log.000001"), {comBinlogDumpGTID}, command(comRegisterSlave, secret),
		{comShutdown, 0}, {comTime}, {comSleep}, {comDelayedInsert}, command(comMulti, "\x01\x00\x00\x0e"), {0x7f}, command(comCreateDB, "x"), command(comDropDB, "test"),
	}
	for _, r := range refused {
		c.send(r, command(comQuery, "DO 1"))
		if e, _ := parseErr(c.packet(1), c.caps); e.code != errnoUnknownCom.code || string(e.message) != sentenceCommand {
			t.Errorf("%d: %d %s", r[0], e.code, e.message)
		}
		if p := c.packet(1); p[0] != packetOK {
			t.Errorf("behind %d: %q", r[0], p)
		}
	}
	c.quit()
	w.bye()
	got := show(w.sink(0).all())
	if strings.Contains(got, "scrambled") || strings.Count(got, "blocked of=") != len(refused) || strings.Count(got, "errno=1047") != len(refused) {
		t.Error(got)
	}
	if super(t, "", "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'test'") != "1" {
		t.Error("the database is gone")
	}
}
