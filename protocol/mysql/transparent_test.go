package mysql

import (
	"bytes"
	"encoding/binary"
	osexec "os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// transcript sends commands, one by one, and gives every byte of the answers. In them, and in the commands,
// the first statement that was prepared is called 1, whatever the server calls it.
func (c *rawClient) transcript(commands [][]byte) (out [][]byte) {
	c.t.Helper()
	o := newObserver(observerConfig{caps: c.caps, mariadb: c.server.mariadb}) // knows where an answer ends
	o.sink = sinkFunc(func(...recorder.Event) error { return nil })
	p := &pump{o: o}
	buf := make([]byte, 32<<10)
	var handles []uint32
	for _, command := range commands {
		msg := appendPacket(nil, 0, command)
		switch command[0] {
		case comStmtExecute, comStmtFetch, comStmtReset:
			if i := int(command[1]); i <= len(handles) {
				binary.LittleEndian.PutUint32(msg[headerSize+1:], handles[i-1])
			}
		}
		if err := p.outbound(msg); err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.conn.Write(msg); err != nil {
			c.t.Fatal(err)
		}
		var answer []byte
		for o.queue.n > 0 {
			n, err := c.conn.Read(buf)
			if err != nil {
				c.t.Fatalf("%q: %v", command, err)
			}
			answer = append(answer, buf[:n]...)
			if err := p.inbound(buf[:n]); err != nil {
				c.t.Fatalf("%q: %v", command, err)
			}
		}
		if command[0] == comStmtPrepare && answer[headerSize] == packetOK {
			handle := answer[headerSize+1 : headerSize+5]
			handles = append(handles, binary.LittleEndian.Uint32(handle))
			binary.LittleEndian.PutUint32(handle, uint32(len(handles)))
		}
		out = append(out, answer)
	}
	return out
}

// nobodys is the number of no statement: servers count theirs up from 1, some of them through all connections.
const nobodys = 1<<30 | 99

// TestTransparent: a conversation through Curfew is, byte for byte, the one with the server itself.
func TestTransparent(t *testing.T) {
	w := newWire(t, protocol.Level{})
	admin(t, "test", "DROP TABLE IF EXISTS seen", "CREATE TABLE seen (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT, b DOUBLE, c DATETIME(6))",
		"DROP PROCEDURE IF EXISTS outs", "CREATE PROCEDURE outs(OUT x INT, IN y INT) BEGIN SELECT y; SELECT y + 1, 'two'; SET x = y * 2; END",
		"INSERT INTO seen (a, b, c) WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 300) SELECT REPEAT('x', n), n / 3, '2026-01-02 03:04:05.000006' FROM s")
	ps := func(handle uint32) [][]byte {
		return [][]byte{executeOf(handle, integer(5)), executeOf(handle, typedValue{typeString, []byte("\x01x")}), executeCursor(handle, integer(200)),
			fetch(handle, 150), fetch(handle, 150), fetch(handle, 1), command(comStmtReset, string(le32(handle)))}
	}
	script := [][]byte{
		command(comQuery, "SELECT * FROM seen"), command(comQuery, "SELECT 1; SELECT * FROM seen WHERE id < 3; DO 1; SELECT * FROM nowhere; DO 2"), command(comQuery, ""),
		command(comQuery, "CALL outs(@x, 4)"), command(comQuery, "SELECT @x, NULL, '', REPEAT('y', 70000), _binary 0xfeff"), command(comQuery, "SELECT CAST('a' AS INT)"), command(comQuery, "SHOW WARNINGS"),
		command(comQuery, "BEGIN"), command(comQuery, "INSERT INTO seen (a) VALUES ('new')"), command(comQuery, "ROLLBACK"), command(comQuery, "SET NAMES latin1"), command(comQuery, "SET NAMES utf8mb4, autocommit = 1"),
		{comPing}, command(comInitDB, "test"), command(comInitDB, "nowhere"), command(comFieldList, "seen\x00"), command(comFieldList, "nowhere\x00"), {comSetOption, 0, 0}, {comSetOption, 9, 0},
		command(comStmtPrepare, "SELECT * FROM seen WHERE id < ?"), command(comStmtPrepare, "SELEC"), command(comStmtPrepare, "DO 1"), command(comStmtPrepare, "CALL outs(?, ?)"),
	}
	script = append(script, ps(1)...)
	script = append(script, executeOf(3, integer(1), integer(2)), executeOf(nobodys, integer(1)), fetch(nobodys, 1), []byte{comResetConnection}, executeOf(1, integer(2)))
	mariadb := plainCaps | capSessionTrack | capProgress | capBulk | capExtendedMetadata | capCacheMetadata
	for name, caps := range map[string]capability{"plain": plainCaps, "no EOF": eofCaps, "MariaDB's client": mariadb, "MariaDB, no EOF": mariadb | capDeprecateEOF} {
		t.Run(name, func(t *testing.T) {
			s, err := w.front.cfg.Engine.prober.server(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			caps &= s.caps
			through := dialRaw(t, w.port(), w.user, personPassword, caps)
			direct := dialRaw(t, testServer.Port, w.account.spec.Name, w.account.secret, caps)
			got, want := through.transcript(script), direct.transcript(script)
			for i := range script {
				if !bytes.Equal(got[i], want[i]) && !counting(script[i], got[i]) {
					t.Errorf("%q\nis answered  %.300q\ninstead of %.300q", script[i], got[i], want[i])
				}
			}
			through.quit()
			w.bye()
			direct.quit()
		})
	}
}

// counting says whether an answer holds a number that counts up from one conversation to the next.
func counting(command, answer []byte) bool {
	return bytes.Contains(command, []byte("INSERT INTO seen")) || answer[headerSize] == packetErr && bytes.Contains(answer, []byte("(")) && bytes.Contains(answer, []byte("tatement"))
}

// TestStockClients: the mariadb client and mariadb-dump find nothing amiss.
func TestStockClients(t *testing.T) {
	w := newWire(t, protocol.Level{})
	admin(t, "test", "DROP TABLE IF EXISTS stocked", "CREATE TABLE stocked (id INT, a TEXT)",
		"INSERT INTO stocked WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 500) SELECT n, REPEAT('ü', n) FROM s")
	for _, args := range [][]string{
		{"mariadb", "test", "-e", "SELECT COUNT(*), SHA2(GROUP_CONCAT(a), 256) FROM stocked; SHOW TABLES; HELP 'select'; \\s"},
		{"mariadb-dump", "--skip-dump-date", "test", "stocked"},
	} {
		program, err := osexec.LookPath(args[0])
		if err != nil {
			t.Fatal(err)
		}
		run := func(port int, user, password string) string {
			all := append([]string{"--no-defaults", "--protocol=tcp", "-h127.0.0.1", "-P" + strconv.Itoa(port), "-u" + user, "-p" + password, "--skip-ssl"}, args[1:]...)
			out, err := osexec.CommandContext(t.Context(), program, all...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", args[0], err, out)
			}
			return string(out)
		}
		got, direct := run(w.port(), w.user, personPassword), run(testServer.Port, w.account.spec.Name, w.account.secret)
		w.bye()
		for _, line := range strings.Split(direct, "\n") { // what tells one connection from another
			if !strings.Contains(line, "onnection id:") && !strings.Contains(line, "TCP port:") && !strings.Contains(line, "Uptime") && !strings.Contains(line, "Threads:") && !strings.Contains(got, line) {
				t.Errorf("%s: %q is missing in\n%s", args[0], line, got)
			}
		}
	}
}
