package recorder

import (
	"strings"
	"testing"
)

// redactAll runs a text through a redactor in slices of n bytes.
func redactAll(engine, text string, n int) (string, int) {
	r := redactor{backslashes: engine == "mysql"}
	var out []byte
	for len(text) > 0 {
		k := min(n, len(text))
		out = r.append(out, []byte(text[:k]))
		text = text[k:]
	}
	return string(out), r.take()
}

func TestRedact(t *testing.T) {
	const pg, my = "postgres", "mysql"
	for _, c := range []struct{ engine, in, want string }{
		{pg, `ALTER ROLE a PASSWORD 'hunter2'`, `ALTER ROLE a PASSWORD '***'`},
		{pg, `create user a encrypted password'hunter2' valid until '2030-01-01'`, `create user a encrypted password'***' valid until '2030-01-01'`},
		{pg, "ALTER ROLE a PASSWORD /* it's /* nested */ */ -- so\n 'hunter2'; SELECT 'kept'", "ALTER ROLE a PASSWORD /* it's /* nested */ */ -- so\n '***'; SELECT 'kept'"},
		{pg, `ALTER ROLE a PASSWORD E'hun\'ter2' VALID UNTIL 'x'`, `ALTER ROLE a PASSWORD E'***' VALID UNTIL 'x'`},
		{pg, `ALTER ROLE a PASSWORD E'hun''ter\'2''' VALID UNTIL 'x'`, `ALTER ROLE a PASSWORD E'***' VALID UNTIL 'x'`},
		{pg, `ALTER ROLE a PASSWORD U&'h\0075nter2' UESCAPE '!'`, `ALTER ROLE a PASSWORD U&'***' UESCAPE '!'`},
		{pg, `ALTER ROLE a PASSWORD $$hunter2$$; SELECT 1`, `ALTER ROLE a PASSWORD $$***$$; SELECT 1`},
		{pg, `ALTER ROLE a PASSWORD $x1$hun$$t$x$er2$x1$; SELECT 1`, `ALTER ROLE a PASSWORD $x1$***$x1$; SELECT 1`},
		{pg, "ALTER ROLE a PASSWORD 'hun'\n'ter2' CREATEDB", "ALTER ROLE a PASSWORD '***'\n'***' CREATEDB"},
		{pg, `ALTER ROLE a PASSWORD 'hun''ter2' CREATEDB`, `ALTER ROLE a PASSWORD '***' CREATEDB`},
		{pg, `ALTER ROLE a PASSWORD NULL; SELECT 'kept'`, `ALTER ROLE a PASSWORD NULL; SELECT 'kept'`},
		{pg, `ALTER ROLE a PASSWORD 'hunter2`, `ALTER ROLE a PASSWORD '***'`},
		{pg, `DO $body$ BEGIN ALTER ROLE a PASSWORD 'hunter2'; END $body$; SELECT 'it''s'`, `DO $body$ BEGIN ALTER ROLE a PASSWORD '***'; END $body$; SELECT 'it''s'`},
		{pg, `DO $$ -- it's a note` + "\n" + `BEGIN END $$; ALTER ROLE a PASSWORD 'hunter2'`, `DO $$ -- it's a note` + "\n" + `BEGIN END $$; ALTER ROLE a PASSWORD '***'`},
		{pg, `SELECT $$it's$$; ALTER ROLE a PASSWORD 'hunter2'`, `SELECT $$it's$$; ALTER ROLE a PASSWORD '***'`},
		{pg, `CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'kept', password 'hunter2')`, `CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'kept', password '***')`},
		// what is no secret stays
		{pg, `SELECT 'PASSWORD ', 'kept'`, `SELECT 'PASSWORD ', 'kept'`},
		{pg, `SELECT "password" 'kept'`, `SELECT "password" 'kept'`},
		{pg, `SELECT password, 'kept' FROM users WHERE password = 'kept'`, `SELECT password, 'kept' FROM users WHERE password = 'kept'`},
		{pg, `SET password_encryption = 'md5'`, `SET password_encryption = 'md5'`},
		{pg, `-- PASSWORD` + "\n" + `SELECT 'kept'`, `-- PASSWORD` + "\n" + `SELECT 'kept'`},
		{pg, `SELECT a$password$b, 'kept'`, `SELECT a$password$b, 'kept'`},
		{pg, `SELECT passwordless 'kept', my_password 'kept'`, `SELECT passwordless 'kept', my_password 'kept'`},
		{pg, `SELECT 'a-'-'b', password '-'`, `SELECT 'a-'-'b', password '***'`},
		{pg, `SELECT $1, password $1, 'kept'`, `SELECT $1, password $1, 'kept'`},
		{pg, `SELECT identified, by 'kept'`, `SELECT identified, by 'kept'`},

		{my, `CREATE USER 'a'@'%' IDENTIFIED BY 'hunter2' REQUIRE SSL`, `CREATE USER 'a'@'%' IDENTIFIED BY '***' REQUIRE SSL`},
		{my, `CREATE USER a IDENTIFIED BY "hun\"ter2" COMMENT 'kept'`, `CREATE USER a IDENTIFIED BY '***' COMMENT 'kept'`},
		{my, `CREATE USER a IDENTIFIED BY 'hun\'ter2'; SELECT 'kept'`, `CREATE USER a IDENTIFIED BY '***'; SELECT 'kept'`},
		{my, `CREATE USER a IDENTIFIED WITH 'caching_sha2_password' BY 'hunter2'`, `CREATE USER a IDENTIFIED WITH 'caching_sha2_password' BY '***'`},
		{my, `CREATE USER a IDENTIFIED WITH mysql_native_password AS '*hunter2'`, `CREATE USER a IDENTIFIED WITH mysql_native_password AS '***'`},
		{my, `CREATE USER a IDENTIFIED VIA x USING PASSWORD('hunter2') OR y USING 'hunter2'`, `CREATE USER a IDENTIFIED VIA x USING PASSWORD('***') OR y USING '***'`},
		{my, `ALTER USER a IDENTIFIED BY 'hunter2' REPLACE 'hunter2'`, `ALTER USER a IDENTIFIED BY '***' REPLACE '***'`},
		{my, `GRANT ALL ON *.* TO a IDENTIFIED BY PASSWORD '*hunter2'`, `GRANT ALL ON *.* TO a IDENTIFIED BY PASSWORD '***'`},
		{my, `SET PASSWORD = 'hunter2'`, `SET PASSWORD = '***'`},
		{my, `SET PASSWORD = PASSWORD('hunter2')`, `SET PASSWORD = PASSWORD('***')`},
		{my, "SET PASSWORD FOR 'a'@`h` = 'hunter2'", "SET PASSWORD FOR 'a'@`h` = '***'"},
		{my, `CHANGE MASTER TO MASTER_HOST='kept', MASTER_PASSWORD='hunter2'`, `CHANGE MASTER TO MASTER_HOST='kept', MASTER_PASSWORD='***'`},
		{my, `/*!50000 CREATE USER a IDENTIFIED BY 'hunter2' */`, `/*!50000 CREATE USER a IDENTIFIED BY '***' */`},
		{my, `/*M!100000 CREATE USER a IDENTIFIED BY 'hunter2' */`, `/*M!100000 CREATE USER a IDENTIFIED BY '***' */`},
		{my, "CREATE USER a # it's\nIDENTIFIED BY /* x */ _utf8 'hunter2'", "CREATE USER a # it's\nIDENTIFIED BY /* x */ _utf8 '***'"},
		{my, `SELECT 5--'x', PASSWORD('hunter2')`, `SELECT 5--'x', PASSWORD('***')`},
		{my, `UPDATE t SET a = 'kept' WHERE b = "kept"`, `UPDATE t SET a = 'kept' WHERE b = "kept"`},
	} {
		for _, n := range []int{1, 2, 3, 7, 1 << 20} {
			got, count := redactAll(c.engine, c.in, n)
			if got != c.want {
				t.Errorf("%s, slices of %d:\n got %s\nwant %s", c.engine, n, got, c.want)
			}
			if want := strings.Count(c.want, "***"); count != want {
				t.Errorf("%s: counted %d secrets, want %d", c.in, count, want)
			}
		}
		if strings.Contains(c.want, "***") && !mayHoldSecret([]byte(c.in)) {
			t.Errorf("the fast path would pass %s", c.in)
		}
	}
}

func TestFastPath(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "select 1": false, "where w": false, "passw": false, "wpassword": true,
		"PassWord": true, "password": true, "w w w pAssword": true, "identifie": false,
		"IDENTIFIED": true, "if identified": true, "f": false, "password_": true,
	} {
		if got := mayHoldSecret([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// However a text is sliced, what comes out is the same, and a text without the words is untouched.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{
		"ALTER ROLE a PASSWORD E'x\\'y' -- c\n", "DO $b$ PASSWORD $$x$$ $b$", "IDENTIFIED BY 'x' /*! */ REPLACE \"y\"",
		"SET PASSWORD FOR 'a' = 'b'", "PASSWORD U&'x' 'y'", "/*M!PASSWORD 'x'*/",
	} {
		f.Add(s, uint8(1), true)
		f.Add(s, uint8(5), false)
	}
	f.Fuzz(func(t *testing.T, text string, n uint8, mysql bool) {
		engine := "postgres"
		if mysql {
			engine = "mysql"
		}
		whole, count := redactAll(engine, text, len(text)+1)
		sliced, scount := redactAll(engine, text, int(n)+1)
		if whole != sliced || count != scount {
			t.Fatalf("whole:  %q (%d)\nsliced: %q (%d)", whole, count, sliced, scount)
		}
		if count == 0 && whole != text {
			t.Fatalf("changed without a secret:\n%q\n%q", text, whole)
		}
		if count > 0 && !mayHoldSecret([]byte(text)) {
			t.Fatalf("the fast path would pass %q", text)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	long := []byte(strings.Repeat("INSERT INTO t VALUES (1, 'some text', now()); ", 1400))
	b.Run("fast path", func(b *testing.B) {
		b.SetBytes(int64(len(long)))
		for b.Loop() {
			if mayHoldSecret(long) {
				b.Fatal("no")
			}
		}
	})
	b.Run("tokens", func(b *testing.B) {
		b.SetBytes(int64(len(long)))
		var r redactor
		dst := make([]byte, 0, len(long))
		for b.Loop() {
			r.reset()
			dst = r.append(dst[:0], long)
		}
	})
}

// How an engine's SQL is written is what the library is told of it by name.
func TestLibraryRedactsInTheEnginesDialect(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{Dialects: map[string]Dialect{"other": DialectBackslashes}})
	for session, c := range map[string]struct{ engine, want string }{
		"s1": {"postgres", `SET PASSWORD = '***' hunter2'`},
		"s2": {"other", `SET PASSWORD = '***'`},
	} {
		h := testHeader(session)
		h.Engine = c.engine
		w, err := l.Create(h)
		if err != nil {
			t.Fatal(err)
		}
		record(t, w, statement(1, `SET PASSWORD = 'a\' hunter2'`))
		seal(t, w)
		if _, events := content(t, l, session); texts(events)[1] != c.want {
			t.Errorf("%s: %s", c.engine, texts(events)[1])
		}
	}
}
