package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// toTheEnd runs a text, reads all of its results and gives the first error.
func (c *rawClient) toTheEnd(text string) *errPacket {
	c.t.Helper()
	c.send(command(comQuery, text))
	seq := byte(1)
	rows := 0 // of a result's two ends, those that were seen
	for {
		p := c.packet(seq)
		seq++
		switch {
		case p[0] == packetErr:
			e, _ := parseErr(p, c.caps)
			return &e
		case p[0] == packetEOF || p[0] == packetOK && rows == 0:
			rows = 0
			if ok, _ := parseOK(p, c.caps); ok.status&statusMoreResults == 0 {
				return nil
			}
		default:
			rows++
		}
	}
}

// inHex writes a text as a literal of bytes.
func inHex(text string) string { return fmt.Sprintf("0x%x", text) }

// XA does not pass a level that has none by what the server reads otherwise than it looks.
func TestXAInDisguise(t *testing.T) {
	need(t)
	if !testServer.IsMariaDB() {
		admin(t, "", "SET GLOBAL log_bin_trust_function_creators = ON")
	}
	admin(t, "test", "DROP PROCEDURE IF EXISTS bare", "CREATE PROCEDURE bare() SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
		"DROP FUNCTION IF EXISTS plain", "CREATE FUNCTION plain() RETURNS INT BEGIN SET sql_mode = ''; RETURN 1; END")
	t.Cleanup(func() { admin(t, "test", "DROP PROCEDURE bare", "DROP FUNCTION plain") })
	for name, test := range map[string]struct {
		before, text string
		mariadb      bool
	}{
		"a comment behind a minus":   {text: "SELECT 1--- '\n5; XA START 'hidden' -- '"},
		"a comment behind a star":    {text: "SELECT 2*/*'*/3; XA START 'hidden' -- '"},
		"a routine's sql_mode":       {before: "CALL bare()", text: "SELECT 'a\\' , ' ; XA START 'hidden' -- '"},
		"a function's sql_mode":      {before: "SET sql_mode = 'NO_BACKSLASH_ESCAPES', @x = plain()", text: "SELECT '\\'; XA START 'hidden' -- '"},
		"a name of two bytes":        {before: "SET @v = " + inHex("XA START 'hidden'") + "; SET NAMES gbk", text: "PREPARE \x81@ FROM @v; EXECUTE \x81@", mariadb: true},
		"a parameter beyond ASCII":   {text: "CREATE PROCEDURE p(é TEXT) EXECUTE IMMEDIATE é", mariadb: true},
		"a name beyond ASCII":        {before: "SET @v = " + inHex("XA START 'hidden'"), text: "PREPARE é FROM @v; EXECUTE é", mariadb: true},
		"a name with such a middle":  {before: "SET @v = " + inHex("XA START 'hidden'"), text: "PREPARE aéb FROM @v; EXECUTE aéb", mariadb: true},
		"a name that ends in such":   {before: "SET @v = " + inHex("XA START 'hidden'"), text: "PREPARE é1é FROM @v; EXECUTE é1é", mariadb: true},
		"a name in quotes with such": {before: "SET @v = " + inHex("XA START 'hidden'"), text: "PREPARE `é` FROM @v; EXECUTE é", mariadb: true},
	} {
		t.Run(name, func(t *testing.T) {
			if test.mariadb {
				onMariaDB(t)
			}
			w := newWire(t, protocol.Level{})
			c := w.raw(eofCaps)
			if test.before != "" {
				if e := c.toTheEnd(test.before); e != nil {
					t.Fatalf("%d %s", e.code, e.message)
				}
			}
			if e := c.toTheEnd(test.text); e == nil || e.code != errnoForbidden.code {
				t.Errorf("it passes: %+v", e)
			}
			if n := len(w.sink(0).of(recorder.TypeBlocked)); n != 1 {
				t.Errorf("%d are blocked on record", n)
			}
			c.quit()
			w.bye()
		})
	}
}

// prepareXA prepares a transaction with an xid written in a way; preparing, it may be written in another.
func prepareXA(c *rawClient, xid, preparing string) *errPacket {
	for _, text := range []string{"XA START " + xid, "INSERT INTO xad VALUES (1)", "XA END " + xid, "XA PREPARE " + preparing} {
		if e := c.toTheEnd(text); e != nil {
			return e
		}
	}
	return nil
}

// preparedNow is what the server has prepared.
func preparedNow(t *testing.T, e *Engine) (list []string) {
	t.Helper()
	err := e.here(t.Context(), func(ctx context.Context, c *conn) (err error) {
		list, err = recovered(ctx, c)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What a session prepares is on record by the xid that it has: an empty one, and one that only looks like what
// must not pass without its last digit.
func TestXidOnRecord(t *testing.T) {
	need(t)
	admin(t, "test", "DROP TABLE IF EXISTS xad", "CREATE TABLE xad (a INT) ENGINE = InnoDB")
	type test struct{ set, xid, preparing string }
	tests := []test{
		{"", "'A','B',429496729", "'A','B',4294967295"},
		{"", "'A','B',429496729", "'A','B'," + strings.Repeat(" ", 3*defaultWhole) + "4294967295"},
		{"", "''", "''"},
		{"", "0x41,0x42,0x1f", "0x41,0x42,0x1f"}, // as JDBC drivers write it
		{"SET character_set_connection = swe7", "'a[b'", "'a[b'"},
	}
	for _, charset := range []string{"ucs2", "utf16", "utf16le", "utf32", "filename"} {
		if charset != "filename" || testServer.IsMariaDB() {
			tests = append(tests, test{"SET character_set_connection = " + charset, "'g-1','b'", "'g-1','b',1"},
				test{"SET character_set_connection = " + charset, "'g-1',X'0062'", "'g-1',X'0062'"})
		}
	}
	for _, test := range tests {
		w := newWire(t, protocol.Level{PreparedTransactions: true})
		before := preparedNow(t, w.account.engine)
		c := w.raw(eofCaps)
		if test.set != "" {
			if e := c.toTheEnd(test.set); e != nil {
				t.Fatalf("%s: %s", test.set, e.message)
			}
		}
		e := prepareXA(c, test.xid, test.preparing)
		if e != nil && e.code != errnoForbidden.code && e.code != errnoMalformed.code && e.code != 1398 { // XAER_INVAL: a MariaDB's word for ''
			t.Errorf("%s: %d %s", test.xid, e.code, e.message)
		}
		known := w.account.Prepared()
		for _, xid := range preparedNow(t, w.account.engine) {
			if !slices.Contains(before, xid) && !onRecord(known, xid) {
				t.Errorf("%s%s is prepared, and on record are %s", test.set, xid, known)
				admin(t, "", "XA ROLLBACK "+xid)
			}
		}
		c.conn.Close()
		var ended *protocol.EndError
		if r := w.result(); !errors.As(r.err, &ended) {
			t.Error(r.err)
		}
		if _, err := w.account.Cut(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := w.account.rollBack(t.Context()); err != nil {
			t.Error(err)
		}
		if now := preparedNow(t, w.account.engine); !slices.Equal(now, before) {
			t.Errorf("%s%s: %s is left", test.set, test.xid, now)
		}
	}
}

// What is the server's xid as it was written, and what could be another's is taken for nobody's.
func TestSpellings(t *testing.T) {
	for xid, want := range map[string]string{
		"X'61',X'',1":               "X'61',X'',1",
		"X'0061',X'',1":             "X'0061',X'',1 X'61',X'',1",
		"X'61006200',X'0063',7":     "X'61006200',X'0063',7 X'61006200',X'63',7 X'6162',X'0063',7 X'6162',X'63',7",
		"X'00000061',X'',1":         "X'00000061',X'',1 X'0061',X'',1 X'61',X'',1",
		"X'61403030326462',X'',1":   "X'61403030326462',X'',1 X'612d62',X'',1",
		"X'006161',X'',1":           "X'006161',X'',1",
		"X'6162',X'" + "zz" + "',1": "X'6162',X'zz',1",
	} {
		if got := strings.Join(spellings(xid), " "); got != want {
			t.Errorf("%s: %s, wanted %s", xid, got, want)
		}
	}
}
