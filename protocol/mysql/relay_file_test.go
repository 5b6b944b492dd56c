package mysql

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// load sends one LOAD DATA LOCAL INFILE and its file, and gives the packet behind it that ends the answer.
// reports counts those of MariaDB's progress that came before.
func (c *rawClient) load(text, data string) (end []byte, reports int) {
	c.t.Helper()
	c.send(command(comQuery, text))
	if p := c.packet(1); p[0] != packetLocal {
		c.t.Fatalf("%q is answered by %q", text, p)
	}
	if _, err := c.conn.Write(appendPacket(appendPacket(nil, 2, []byte(data)), 3, nil)); err != nil {
		c.t.Fatal(err)
	}
	for seq := byte(4); ; seq++ {
		p := c.packet(seq)
		if e, ok := parseErr(p, c.caps); !ok || e.code != errnoProgress {
			return p, reports
		}
		reports++
	}
}

// TestFileAnswered: what the server says behind a file is the statement's answer, be it an error, and be
// reports of its progress before it.
func TestFileAnswered(t *testing.T) {
	w := newWire(t, protocol.Level{LocalInfile: true})
	admin(t, "test", "DROP TABLE IF EXISTS loaded", "CREATE TABLE loaded (a INT)", "SET GLOBAL local_infile = ON",
		"CREATE TRIGGER no_three BEFORE INSERT ON loaded FOR EACH ROW IF NEW.a = 3 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF")
	s, err := w.account.engine.prober.server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	caps := plainCaps | capLocalFiles
	if s.mariadb {
		caps |= capProgress
	}
	c := w.raw(caps)
	const text = "LOAD DATA LOCAL INFILE 'f' INTO TABLE loaded"
	if end, reports := c.load(text, "1\n2\n"); end[0] != packetOK || s.mariadb == (reports == 0) {
		t.Errorf("%d reports, then %q", reports, end)
	}
	if end, _ := c.load(text, "3\n"); end[0] != packetErr {
		t.Errorf("the trigger refuses: %q", end)
	}
	c.ok(command(comQuery, "DO 1"))
	c.quit()
	w.bye()

	var got []string
	for _, e := range w.sink(0).all() {
		switch {
		case e.Direction != "":
			got = append(got, fmt.Sprintf("copy of=%d bytes=%d sha256=%x", e.Of, e.Bytes, e.SHA256))
		case e.Of != 0:
			got = append(got, fmt.Sprintf("%s of=%d errno=%d", e.Type, e.Of, e.Errno))
		}
	}
	want := []string{
		fmt.Sprintf("copy of=1 bytes=4 sha256=%x", sha256.Sum256([]byte("1\n2\n"))), "result of=1 errno=0",
		fmt.Sprintf("copy of=2 bytes=2 sha256=%x", sha256.Sum256([]byte("3\n"))), "result of=2 errno=1644", "result of=3 errno=0",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("recorded %q\nwanted   %q", got, want)
	}
}
