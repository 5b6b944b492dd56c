package postgres

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/recorder"
)

// TestPrepareHiddenInEncodings: in some client encodings the second byte of a character may be one that
// means something in SQL, a backslash above all. The server reads characters; bytes hide nothing from us.
func TestPrepareHiddenInEncodings(t *testing.T) {
	w := newWire(t, 1, FrontConfig{})
	f := w.frontend("")
	query := func(sql string) (said string) {
		f.send(&pgproto3.Query{String: sql})
		for {
			m, err := f.next()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.ErrorResponse:
				said += fmt.Sprintf("%s %s;", m.Code, m.Message)
			case *pgproto3.ReadyForQuery:
				return said
			}
		}
	}
	query("SET backslash_quote TO on")
	sent := 0
	for encoding, char := range map[string]string{
		"SJIS": "\x83\x5c", "SHIFT_JIS_2004": "\x83\x5c", "BIG5": "\xa5\x5c", "GBK": "\x81\x5c", "GB18030": "\x81\x5c",
	} {
		if said := query("SET client_encoding TO " + encoding); said != "" {
			t.Errorf("%s: %s", encoding, said)
			continue
		}
		for i, attack := range []string{
			`SELECT E'` + char + `'; PREPARE TRANSACTION 'hidden' --'`,
			`SELECT $` + char + `$ ' $` + char + `$; PREPARE TRANSACTION 'hidden' --'`,
			`SELECT E'\` + char + `\''; PREPARE TRANSACTION 'hidden' --'`,
			`SELECT '` + char + `'; PREPARE TRANSACTION 'hidden' --'`,
			`SELECT 1 AS ` + char + `; PREPARE TRANSACTION 'hidden' --'`,
		} {
			sent++
			query("BEGIN")
			if said := query(attack); !strings.HasPrefix(said, stateForbidden) {
				t.Errorf("%s %d: the server was asked and said %q", encoding, i, said)
			}
			query("ROLLBACK")
		}
	}
	// Half-width kana stand for themselves: a backslash behind one is a backslash.
	query("SET client_encoding TO SJIS")
	for _, attack := range []string{
		"SELECT E'\xb1\\''; PREPARE TRANSACTION 'hidden' --'",
		"SELECT E'\xb1\\\\'; PREPARE TRANSACTION 'hidden' --'",
		"SELECT E'\xb1\x83\\'; PREPARE TRANSACTION 'hidden' --'",
	} {
		sent++
		query("BEGIN")
		if said := query(attack); !strings.HasPrefix(said, stateForbidden) {
			t.Errorf("%q: the server was asked and said %q", attack, said)
		}
		query("ROLLBACK")
	}
	// Some characters can be written in two ways, and are one to the server.
	sent++
	query("BEGIN")
	if said := query("SELECT $\xfa\x5c$ x $\xed\x40$; PREPARE TRANSACTION 'hidden'"); !strings.HasPrefix(said, stateForbidden) {
		t.Errorf("a tag in two spellings: the server was asked and said %q", said)
	}
	query("ROLLBACK")
	// The server tells of a setting when it is ready for the next request, which is behind the Sync.
	query("SET client_encoding TO UTF8")
	sent++
	f.send(&pgproto3.Parse{Query: "SET client_encoding TO SJIS"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{})
	f.until('C')
	query("BEGIN")
	query("SET client_encoding TO UTF8")
	f.send(&pgproto3.Parse{Query: "SET client_encoding TO SJIS"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{})
	f.until('C')
	if said := query("SELECT E'\x83\x5c'; PREPARE TRANSACTION 'hidden' --'"); !strings.HasPrefix(said, stateForbidden) {
		t.Errorf("a setting not told yet: the server was asked and said %q", said)
	}
	query("ROLLBACK")
	if n := len(w.sink.of(recorder.TypeBlocked)); n != sent {
		t.Errorf("%d of %d were refused", n, sent)
	}
	query("SET client_encoding TO UTF8")
	if left := super(t, "orders", "SELECT count(*) FROM pg_prepared_xacts"); left != "0" {
		t.Errorf("%s transactions are prepared", left)
	}
	f.bye()
}

// TestGidsThatNobodyCanWrite: a global id that the statement's text does not show as the server will
// store it (another encoding, a NUL, a tag too long to follow) is neither kept nor in the way of the
// grant's end.
func TestGidsThatNobodyCanWrite(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("")
	tag := "$" + strings.Repeat("x", 300) + "$"
	group := "SET ROLE orders_writer" // before PostgreSQL 16 every member may; what it prepares is the group's
	if version(t) >= versionSetFalse {
		group = "SELECT 1"
	}
	exec(t, c, group)
	for _, attack := range []string{
		`PREPARE TRANSACTION E'a\000b'`, `PREPARE TRANSACTION E'\xff'`, "PREPARE TRANSACTION E'\\uD800'",
		"SET client_encoding TO LATIN1; BEGIN; PREPARE TRANSACTION 'caf\xe9'", `PREPARE TRANSACTION U&'caf\00e9'`,
		"SELECT " + tag + " ' " + tag + "; PREPARE TRANSACTION 'long' --'",
		`PREPARE TRANSACTION E'caf\u00e9'`, "PREPARE TRANSACTION 'caf\xc3\xa9'",
	} {
		exec(t, c, "SET client_encoding TO UTF8", "BEGIN")
		if strings.Contains(attack, "LATIN1") {
			exec(t, c, "SET client_encoding TO LATIN1")
			attack = attack[strings.Index(attack, "PREPARE"):]
		}
		_, err := c.PgConn().Exec(t.Context(), attack).ReadAll()
		t.Log(attack, err)
		exec(t, c, "ROLLBACK")
	}
	w.bye(c)
	_, clean := finish(t, w.account)
	left := super(t, "orders", "SELECT coalesce(string_agg(gid, ','), '') FROM pg_prepared_xacts")
	if left != "" {
		t.Errorf("still prepared: %q; rolled back: %q", left, clean.RolledBack)
		for _, gid := range slices.Compact(strings.Split(left, ",")) {
			admin(t, "orders", "ROLLBACK PREPARED "+literal(gid))
		}
	}
}
