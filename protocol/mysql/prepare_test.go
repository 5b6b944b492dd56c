package mysql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// general turns the server's general log on, in a table, for this test.
func general(t *testing.T) {
	t.Helper()
	need(t)
	admin(t, "test", "SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = ON")
	t.Cleanup(func() { admin(t, "test", "SET GLOBAL general_log = OFF", "SET GLOBAL log_output = 'FILE'") })
}

// TestRefusedXA: XA does not reach the server, however it is written; what stands before it does. The
// server's own general log is the witness.
func TestRefusedXA(t *testing.T) {
	w := newWire(t, protocol.Level{})
	admin(t, "test", "DROP TABLE IF EXISTS xat", "CREATE TABLE xat (a INT)")
	general(t)
	c := w.raw(eofCaps)
	texts := []string{
		"XA START 'hidden'", "xa/**/begin 'hidden'", "INSERT INTO xat VALUES (%d); XA START 'hidden'; INSERT INTO xat VALUES (-1)",
		"/*!50000 XA START 'hidden' */", "/*M!100100XA*/ START 'hidden'", "INSERT INTO xat VALUES (%d);XA PREPARE X'68'",
		"-- ' \n XA START 'hidden'", "# \"\nXA START 0x6869", "XA COMMIT \"hidden\"", "CREATE PROCEDURE p() XA START 'hidden'",
		"BEGIN NOT ATOMIC XA START 'hidden'; END",
	}
	harmless, logged := []string{"SELECT 'XA START ''a'''", "SELECT 1 AS xa", "PREPARE s FROM 'SELECT 1'", "DO 1 /* XA START 'a' */"}, ""
	if testServer.IsMariaDB() { // MySQL itself prepares no XA, and wants a privilege for XA RECOVER
		texts = append(texts, "PREPARE s FROM 'XA START ''hidden'''", "EXECUTE IMMEDIATE 'X\\A START ''hidden'''",
			"SET @v = 'hidden'; EXECUTE IMMEDIATE @v", "PREPARE s FROM CONCAT('X', 'A START ''hidden''')")
		harmless = append(harmless, "XA RECOVER", "EXECUTE IMMEDIATE 'SELECT ?' USING 1")
		logged = "SET @v = 'hidden';\x00"
	}
	for i, text := range texts {
		if strings.Contains(text, "%d") {
			text = fmt.Sprintf(text, i)
		}
		c.send(command(comQuery, text))
		var p []byte
		for seq := byte(1); ; seq++ {
			if p = c.packet(seq); p[0] == packetErr {
				break
			}
			if ok, _ := parseOK(p, c.caps); ok.status&statusMoreResults == 0 {
				t.Fatalf("%s: %q", text, p)
			}
		}
		e, _ := parseErr(p, c.caps)
		if e.code != errnoForbidden.code || string(e.state) != errnoForbidden.state || !strings.Contains(string(e.message), "XA") {
			t.Errorf("%s: %d %s %s", text, e.code, e.state, e.message)
		}
		// The session goes on as if the server had said it.
		c.ok([]byte{comPing})
	}
	c.send(command(comStmtPrepare, "XA START 'hidden'"))
	if e, _ := parseErr(c.packet(1), c.caps); e.code != errnoForbidden.code {
		t.Errorf("prepare: %d %s", e.code, e.message)
	}
	for _, text := range harmless {
		c.send(command(comQuery, text))
		seq := byte(1)
		p := c.packet(seq)
		if p[0] == packetErr {
			t.Errorf("%s: %s", text, p)
			continue
		}
		for ends := 0; p[0] != packetOK && ends < 1; {
			seq++
			if q := c.packet(seq); q[0] == packetEOF {
				ends++
			}
		}
	}
	c.quit()
	w.bye()
	if got := super(t, "test", "SELECT COALESCE(GROUP_CONCAT(argument), '') FROM mysql.general_log WHERE argument LIKE '%hidden%' AND argument NOT LIKE 'SELECT COALESCE%'"); !strings.HasPrefix(got, logged) || strings.Count(got, "hidden") != strings.Count(logged, "hidden") {
		t.Errorf("in the server's log: %q", got)
	}
	if got := super(t, "test", "SELECT GROUP_CONCAT(a ORDER BY a) FROM xat"); got != "2,5" {
		t.Errorf("ran: %s", got)
	}
	blocked, statements := w.sink(0).of(recorder.TypeBlocked), w.sink(0).of(recorder.TypeStatement)
	if len(blocked) != len(texts)+1 || !strings.Contains(show(statements), `"XA START 'hidden'"`) {
		t.Errorf("%d are blocked on record:\n%s", len(blocked), show(w.sink(0).all()))
	}
}

// TestHideAndSeek: what the lexer finds, and what it leaves alone, in all readings of a text.
func TestHideAndSeek(t *testing.T) {
	known := lexer{dynamic: true} // MariaDB
	mysqls := lexer{dollars: true}
	for _, test := range []struct {
		l    lexer
		text string
		want finding
	}{
		{known, "SELECT 1", foundNothing},
		{known, "XA", foundNothing},
		{known, "XA RECOVER FORMAT = 'SQL'", foundNothing},
		{known, "XA START 'a'", foundXA},
		{known, "XA START \"a\"", foundXA},
		{known, "XA END x'61', b'1', 3", foundXA},
		{known, "XA ROLLBACK 0x61", foundXA},
		{known, "XA COMMIT 'a' ONE PHASE", foundXA},
		{known, "XA PREPARE 'a'", foundXA},
		{known, "SELECT xa FROM t", foundNothing},
		{known, "SELECT a AS xa, 'start' FROM t", foundNothing},
		{known, "SELECT 'XA START ''a'''", foundNothing},
		{known, "SELECT `XA` START, 'a'", foundNothing},
		{known, "SELECT 1; xa\tstart\n'a'", foundXA},
		{known, "xa -- c\n start # '\n 'a'", foundXA},
		{known, "xa --start 'a'", foundNothing},
		{known, "SELECT 5--1; XA START 'a'", foundXA},
		{known, "XA/* */START/**/'a'", foundXA},
		{known, "/* XA START 'a' */", foundNothing},
		{known, "/* /* */ XA START 'a'", foundXA},
		{known, "/*! XA START 'a' */", foundXA},
		{known, "/*!99999 ' */ XA START 'a' -- '", foundXA},
		{known, "/*!99999 /* */ XA START 'a' */", foundXA},
		{known, "/*M!999999 \" */ XA START 'a' # \"", foundXA},
		{known, "/*+ ' */ XA START 'a' # '", foundXA},
		{known, "/*!50000XA*/ /*!START*/ 'a'", foundXA},
		{known, "XA\xa0START 'a'", foundXA},
		{known, "SELECT '\\'; XA START \\'a'", foundNothing},
		{known, "SELECT 'a\\\\'; XA START 'a'", foundXA},
		{known, "SELECT '\\'; XA START 'a'", foundXA},
		{known, "SELECT '\\\\'; XA START 'a'", foundXA},
		{known, "SELECT '\\'; XA START 'a'", foundXA},
		{known, "SELECT '\\''; XA START 'a'", foundXA},
		{known, "SELECT \"\\\"; XA START 'a'", foundXA},
		{known, "INSERT INTO t VALUES ('it\\'s', 'gr\xc3\xbc\xc3\x9fe\\n', \"a\\\"b\")", foundNothing},
		{known, "SELECT `\x81`' `; XA START 'a'", foundXA}, // 0x81 0x60 is one in gbk and the like
		// 0x83 0x5c and the like are one character in sjis, cp932, big5, gbk and gb18030, and none in others.
		{known, "SELECT '\x83\\'; XA START 'a'", foundXA},
		{known, "SELECT '\x83\\''; XA START 'a'", foundXA},
		{known, "SELECT '\xe2\x9c\x93\\'; XA START 'a'", foundXA},
		{known, "SELECT `\x83`; XA START 'a' -- `", foundXA},
		{known, "SELECT \x83`, '`; XA START 'a' -- '", foundXA},
		{known, "SELECT '\x81\x30\x81\x5c'; XA START 'a'", foundXA},
		{known, "SET sql_mode = 'NO_BACKSLASH_ESCAPES'; SELECT '\\'; XA START 'a'", foundXA},
		{known, "SET sql_mode = 'ANSI_QUOTES'; SELECT \"\\\"; XA START 'a'", foundXA},
		{known, "SET @@`sql_mode` = 'ANSI_QUOTES'; SELECT \"\\\"; XA START 'a'", foundXA},
		{known, "EXECUTE s; SELECT '\\'; XA START 'a'", foundXA},
		{known, "UPDATE t SET a = 'it\\'s; prepare one from many'; DO 1", foundDynamic}, // if a backslash does not escape
		{known, "UPDATE t SET a = 'it\\'s time to prepare one from many'", foundNothing},
		{known, "CREATE PROCEDURE p() BEGIN XA START 'a'; END", foundXA},
		{known, "PREPARE s FROM 'SELECT 1'", foundNothing},
		{known, "PREPARE s FROM \"SELECT 1\"", foundNothing},
		{known, "PREPARE `s` FROM 'SELECT ''x'' -- it''s \\n'; EXECUTE s USING @a", foundNothing},
		{known, "PREPARE `s` FROM 'SELECT ''x'' -- it\\'s'; EXECUTE s USING @a", foundDynamic},
		{known, "PREPARE s FROM 'XA START ''a'''", foundXA},
		{known, "PREPARE s FROM 'X\\A START'", foundXA},
		{known, "PREPARE s FROM 'xa'", foundXA},
		{known, "PREPARE s FROM 'X' 'A START ''a'''", foundDynamic},
		{known, "PREPARE s FROM 'X' || 'A START ''a'''", foundDynamic},
		{known, "PREPARE s FROM @v", foundDynamic},
		{known, "PREPARE s FROM x'5841'", foundDynamic},
		{known, "PREPARE s FROM _utf8'XA START'", foundDynamic},
		{known, "PREPARE s FROM N'XA START'", foundDynamic},
		{known, "PREPARE s FROM (SELECT a)", foundDynamic},
		{known, "EXECUTE IMMEDIATE 'SELECT ?' USING 1", foundNothing},
		{known, "EXECUTE IMMEDIATE 'SELECT 1' /* */;", foundNothing},
		{known, "EXECUTE IMMEDIATE concat('X','A')", foundDynamic},
		{known, "EXECUTE /**/ IMMEDIATE v", foundDynamic},
		{known, "EXECUTE IMMEDIATE `v`", foundDynamic},
		{known, "EXECUTE IMMEDIATE 'CREATE PROCEDURE p() EXECUTE IMMEDIATE v'", foundDynamic},
		{known, "EXECUTE s USING @a", foundNothing},
		{known, "CREATE PROCEDURE p(v TEXT) EXECUTE IMMEDIATE \"v\"", foundDynamic},
		{known, "EXECUTE IMMEDIATE \"SELECT 1\"", foundNothing},
		// -- and */ that are none.
		{known, "SELECT 1--- '\n5; XA START 'a' -- '", foundXA},
		{known, "SELECT 1---- '\n5; XA START 'a' -- '", foundXA},
		{known, "SELECT 1--\t'\n5; XA START 'a' -- '", foundXA},
		{known, "SELECT 2*/*'*/3; XA START 'a' -- '", foundXA},
		{known, "SELECT 2**/*'*/3; XA START 'a' -- '", foundXA},
		{known, "/*! SELECT 2*//*'*/; XA START 'a' -- '", foundXA},
		// Names beyond ASCII, of characters whose second half may be any.
		{known, "PREPARE \xe9 FROM @v", foundDynamic},
		{known, "PREPARE a\xe9b FROM @v", foundDynamic},
		{known, "PREPARE \x81@ FROM @v", foundDynamic},
		{known, "PREPARE a\x81\\b FROM @v", foundDynamic},
		{known, "PREPARE \x81|\x81} FROM @v", foundDynamic},
		{known, "PREPARE \x81\x30\x81\x30 FROM @v", foundDynamic},
		{known, "CREATE PROCEDURE p(\xe9 TEXT) EXECUTE IMMEDIATE \xe9", foundDynamic},
		// Where a statement may begin within another.
		{known, "IF 1 THEN PREPARE s FROM @v; END IF", foundDynamic},
		{known, "IF 1 THEN DO 1; ELSE EXECUTE IMMEDIATE @v; END IF", foundDynamic},
		{known, "BEGIN NOT ATOMIC PREPARE s FROM @v; END", foundDynamic},
		{known, "BEGIN NOT ATOMIC BEGIN EXECUTE IMMEDIATE @v; END; END", foundDynamic},
		{known, "l: LOOP PREPARE s FROM @v; END LOOP", foundDynamic},
		{known, "<<l>> PREPARE s FROM @v", foundDynamic},
		{known, "WHILE 1 DO EXECUTE IMMEDIATE @v; END WHILE", foundDynamic},
		{known, "REPEAT EXECUTE IMMEDIATE @v; UNTIL 1 END REPEAT", foundDynamic},
		{known, "FOR i IN 1..3 DO EXECUTE IMMEDIATE @v; END FOR", foundDynamic},
		{known, "CASE 1 WHEN 1 THEN EXECUTE IMMEDIATE @v; END CASE", foundDynamic},
		{known, "SET STATEMENT max_statement_time = 1 FOR EXECUTE IMMEDIATE @v", foundDynamic},
		{known, "CREATE PROCEDURE p() PREPARE s FROM @v", foundDynamic},
		{known, "CREATE PROCEDURE p() COMMENT 'x' PREPARE s FROM @v", foundDynamic},
		{known, "ALTER EVENT e DO EXECUTE IMMEDIATE @v", foundDynamic},
		{known, "BEGIN NOT ATOMIC DECLARE EXIT HANDLER FOR c PREPARE s FROM @v; END", foundDynamic},
		{known, "/*!50000 PREPARE*/ s FROM @v", foundDynamic},
		{mysqls, "PREPARE s FROM @v", foundNothing},
		{mysqls, "SELECT $$ ' $$; XA START 'a' -- '", foundXA},
		{mysqls, "SELECT $x$ ' $x$; XA START 'a' -- '", foundXA},
	} {
		for _, size := range []int{1 << 20, 1, 3} {
			l := test.l
			l.begin()
			at := -1
			for i := 0; i < len(test.text) && at < 0; i += size {
				end := min(i+size, len(test.text))
				at = l.scan([]byte(test.text[i:end]), end == len(test.text))
			}
			if l.found != test.want || (at >= 0) != (test.want != foundNothing) {
				t.Errorf("%q in pieces of %d: %d at %d, wanted %d", test.text, size, l.found, at, test.want)
			}
		}
		if l := test.l; test.want != foundNothing && !l.mayMatter([]byte(test.text)) {
			t.Errorf("%q is not even looked at", test.text)
		}
	}
}

// ordinary are texts that nobody wrote to confuse.
var ordinary = []string{
	`INSERT INTO docs (body) VALUES ('{"name": "O\'Brien", "path": "C:\\Users\\xa\\Documents", "note": "line\nline\ttab", "quote": "\"xa\" prepare"}')`,
	`UPDATE files SET path = 'C:\Program Files\XA\bin\', name = 'it\'s' WHERE path LIKE '\\\\server\\share\\%'`,
	`SELECT * FROM log WHERE line REGEXP '^\\[[0-9]+\\] \'?(prepare|execute) [\\w\'-]+ from .*;$' AND host RLIKE "\\.example\\.com$"`,
	`INSERT INTO recipes VALUES ('Don\'t prepare pasta from scratch', 'We\'ll prepare it; then cook', "Mum's \"quick\" xa sauce -- for 4 # people")`,
	`INSERT INTO notes VALUES ('L\'équipe n\'a pas préparé l\'été; à l\'œuvre'), ('Das Gerät geht\'s nicht; prüfe xa'), ('日本語のテキスト\'、表\\ソース'), ('это\'тест; ещё')`,
	`INSERT INTO crm VALUES (1, 'Please don\'t execute the contract; we\'ll prepare a new one', NULL), (2, 'she said \"execute immediately\"', '')`,
	"INSERT INTO t VALUES (1, 'a\\\\'), (2, '\\\\b'), (3, 'c\\''d') ON DUPLICATE KEY UPDATE a = VALUES(a) /* it's fine */",
	"CREATE PROCEDURE move(a INT) BEGIN DECLARE done INT DEFAULT 0; DECLARE c CURSOR FOR SELECT x FROM y; DECLARE CONTINUE HANDLER FOR NOT FOUND SET done = 1; OPEN c; l: LOOP FETCH c INTO a; IF done THEN LEAVE l; END IF; UPDATE t SET b = CONCAT('it\\'s ', a); END LOOP; CLOSE c; END",
	"CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN IF NEW.x LIKE '%\\_%' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'can\\'t xa'; END IF; END",
	"CREATE FUNCTION f(a TEXT) RETURNS TEXT DETERMINISTIC RETURN REPLACE(REPLACE(a, '\\\\', '/'), '\\'', \"\\\"\")",
	"SELECT xa.id, xa.`start`, 'it\\'s' FROM accounts xa JOIN b ON xa.id = b.xa WHERE xa.name <> 'x\\'a'",
	"PREPARE s FROM 'SELECT ? + ?'; SET @a = 'it\\'s'; EXECUTE s USING @a, @a; DEALLOCATE PREPARE s",
}

// TestOrdinary: what is ordinary passes, with any backslashes in it.
func TestOrdinary(t *testing.T) {
	for _, text := range ordinary {
		for _, l := range []lexer{{dynamic: true}, {dollars: true}, {dynamic: true, allowed: true}} {
			l.begin()
			if at := l.scan([]byte(text), true); at >= 0 || l.lost {
				t.Errorf("%s: %d at %d, lost %v", text, l.found, at, l.lost)
			}
		}
	}
}

// TestXids: what an allowed XA PREPARE prepares is on record in the one form that can be pasted behind XA
// ROLLBACK; what can't be made out for certain is refused.
func TestXids(t *testing.T) {
	for _, test := range []struct{ text, xids string }{
		{"XA START 'a'", ""},
		{"XA COMMIT 'a'", ""},
		{"XA PREPARE 'a'", "X'61',X'',1"},
		{" xa  prepare 'a' , 'bc' ; DO 1", "X'61',X'6263',1"},
		{"XA PREPARE 'a','b',7", "X'61',X'62',7"},
		{"XA PREPARE X'6f', 0x6162 ,0", "X'6f',X'6162',0"},
		{"XA PREPARE 0x61", "X'61',X'',1"},
		{"SELECT 1; XA PREPARE 'a'; XA PREPARE 'b'", "X'61',X'',1 X'62',X'',1"},
		{"XA PREPARE 'a''b'", "refused"},
		{"XA PREPARE 'a' 'b'", "refused"},
		{"XA PREPARE 'a\\'b'", "refused"},
		{"XA PREPARE '\xc3\xbc'", "refused"},
		{"XA PREPARE \"a\"", "refused"},
		{"XA PREPARE b'1'", "refused"},
		{"XA PREPARE 'a' /* c */", "refused"},
		{"/*! XA PREPARE 'a' */", "refused"},
		{"CREATE PROCEDURE p() XA PREPARE 'a'", "refused"},
		{"PREPARE s FROM 'XA PREPARE ''a'''", "refused"},
		{"XA PREPARE '" + strings.Repeat("a", 65) + "'", "refused"},
		{"XA PREPARE 'a','b',99999999999", "refused"},
		{"SELECT 'XA PREPARE ''a'''", ""},
		{"PREPARE s FROM @v; EXECUTE s", ""},
	} {
		for _, size := range []int{1 << 20, 1, 4} {
			l := lexer{dynamic: true, allowed: true}
			l.begin()
			at, got := -1, []string(nil)
			for i := 0; i < len(test.text) && at < 0; i += size {
				end := min(i+size, len(test.text))
				at = l.scan([]byte(test.text[i:end]), end == len(test.text))
				for _, x := range l.xid.take() {
					got = append(got, string(x))
				}
			}
			if at >= 0 {
				got = []string{"refused"}
			}
			if g := strings.Join(got, " "); g != test.xids {
				t.Errorf("%q in pieces of %d: %s, wanted %s", test.text, size, g, test.xids)
			}
		}
	}
}

// TestAllowedXA: where the level allows XA, the recording knows what is prepared, and the server rolls it
// back by the name that stands there.
func TestAllowedXA(t *testing.T) {
	w := newWire(t, protocol.Level{PreparedTransactions: true})
	admin(t, "test", "DROP TABLE IF EXISTS xat", "CREATE TABLE xat (a INT) ENGINE=InnoDB")
	c := w.connect("multiStatements=true")
	perform(t, c, "XA START 'gt', X'00ff27', 5", "INSERT INTO xat VALUES (1)", "XA END 'gt', X'00ff27', 5; XA PREPARE 'gt', X'00ff27', 5")
	hangUp(t, c)
	w.bye()
	statements := w.sink(0).of(recorder.TypeStatement)
	xid := string(statements[2].Prepares)
	if xid != "X'6774',X'00ff27',5" {
		t.Errorf("on record as %q", xid)
	}
	if got := w.account.Prepared(); len(got) != 1 || got[0] != xid {
		t.Errorf("the account knows %q", got)
	}
	eventually(t, "the server has let go of the session", func() bool {
		return testServer.SQL(t.Context(), "test", "XA ROLLBACK "+xid) == nil
	})
}
