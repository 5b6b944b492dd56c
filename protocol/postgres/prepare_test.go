package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/recorder"
)

// scan gives what the lexer finds in text, fed in pieces of every size.
func scan(t *testing.T, set settings, text string) (found, lost bool, gids []string) {
	t.Helper()
	first := ""
	for size := 1; size <= max(1, len(text)); size++ {
		l := newLexer(set)
		gids = nil
		for rest := []byte(text); ; {
			n := min(size, len(rest))
			found = l.scan(rest[:n], n == len(rest))
			for _, g := range l.take() {
				gids = append(gids, string(g))
			}
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		lost = l.lost()
		got := fmt.Sprint(found, lost, gids)
		if size == 1 {
			first = got
		}
		if got != first {
			t.Fatalf("%q in pieces of %d: %s, in pieces of 1: %s", text, size, got, first)
		}
	}
	return found, lost, gids
}

func TestLexer(t *testing.T) {
	for text, want := range map[string]string{
		`PREPARE TRANSACTION 'a'`:                                           "a",
		`prepare	transaction'a'`:                                            "a",
		`BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'a'; `:        "a",
		`PREPARE/* x */TRANSACTION--y` + "\n" + `'a'`:                       "a",
		`/* /* nested */ ; */ PREPARE TRANSACTION 'it''s'`:                  "it's",
		`PREPARE TRANSACTION $$a$$`:                                         "a",
		`PREPARE TRANSACTION $q$a$b$$q$`:                                    "a$b$",
		"PREPARE TRANSACTION 'a'\n'b'":                                      "ab",
		"PREPARE TRANSACTION 'a' -- c\n --d\n 'b'":                          "ab",
		`SELECT 1; PREPARE TRANSACTION 'a'; BEGIN; PREPARE TRANSACTION 'b'`: "a b",
		`SELECT '\'; PREPARE TRANSACTION 'a'; --'`:                          "conforming: a", // conforming strings: the quote ends behind the backslash
		`SELECT '\''; PREPARE TRANSACTION 'a'`:                              "backslash: a",  // the other way: it does not
		`SELECT E'\''; PREPARE TRANSACTION 'a'`:                             "a",
		"SELECT E'a'\n'\\''; PREPARE TRANSACTION 'a'":                       "a", // what goes on with an E'' is one, too
		`SELECT $1$x$; PREPARE TRANSACTION 'a'; $x$`:                        "",
		`SELECT 1$x$; PREPARE TRANSACTION 'a'; $x$`:                         "",
		`SELECT a$x$; PREPARE TRANSACTION 'a'; --$x$`:                       "a", // $ belongs to the name a$x$
		`SELECT "x;"; PREPARE TRANSACTION 'a'`:                              "a",
		`SELECT U&"x"";", b'1', X'1f', N'x'; PREPARE TRANSACTION 'a'`:       "a",
		`SELECT 1-- x` + "\r" + `;PREPARE TRANSACTION 'a'`:                  "a",
		`SELECT 'PREPARE TRANSACTION ''a'''`:                                "",
		`-- PREPARE TRANSACTION 'a'`:                                        "",
		`SELECT prepare transaction 'a'`:                                    "",
		`PREPARE transaction AS SELECT 1`:                                   "",
		`PREPARE TRANSACTION`:                                               "",
		`COMMIT PREPARED 'a'`:                                               "",
		`DO $$ BEGIN; PREPARE TRANSACTION 'a' $$`:                           "",
		`SELECT "PREPARE TRANSACTION 'a'"`:                                  "",
		`PREPARES TRANSACTION 'a'`:                                          "",
		`PREPARE TRANSACTIONAL 'a'`:                                         "",
	} {
		for _, set := range []settings{{known: true}, {known: true, backslash: true}} {
			found, lost, gids := scan(t, set, text)
			words := want
			if way, only, ok := strings.Cut(want, ": "); ok {
				words = only
				if set.backslash != (way == "backslash") {
					words = ""
				}
			}
			if strings.Join(gids, " ") != words || found != (words != "") || lost {
				t.Errorf("%q, backslash %v: found %v %q, lost %v; want %q", text, set.backslash, found, gids, lost, words)
			}
		}
		if found, _, _ := scan(t, settings{}, text); found != (want != "") {
			t.Errorf("%q read in every way: found %v", text, found)
		}
	}
}

// TestLexerLost: what can't be told for certain is found, and said to be lost.
func TestLexerLost(t *testing.T) {
	known := settings{known: true}
	for text, set := range map[string]settings{
		`PREPARE TRANSACTION E'a\'b'`:                      known,
		`PREPARE TRANSACTION 'a\b'`:                        {known: true, backslash: true},
		`PREPARE TRANSACTION U&'d\0061'`:                   known,
		`PREPARE TRANSACTION 'café'`:                       known,
		"PREPARE TRANSACTION 'a\tb'":                       known,
		`PREPARE TRANSACTION ''`:                           known,
		`PREPARE TRANSACTION '` + strings.Repeat("x", 200): known,
		`SELECT $` + strings.Repeat("x", 300) + `$`:        known,
		`SELECT '\'; PREPARE TRANSACTION 'a'; --'`:         {},
		"SELECT E'\x83\\'; PREPARE TRANSACTION 'a' --'":    {},
	} {
		if found, lost, _ := scan(t, set, text); !found || !lost {
			t.Errorf("%.40q: found %v, lost %v", text, found, lost)
		}
	}
}

// TestLexerEncodings: the second byte of a character means nothing by itself.
func TestLexerEncodings(t *testing.T) {
	for _, c := range []struct {
		width width
		text  string
		found bool
	}{
		{kana, "SELECT E'\x83\\'; PREPARE TRANSACTION 'a'", true},
		{kana, "SELECT E'\xb1\\'; PREPARE TRANSACTION 'a' --'", false},
		{pairs, "SELECT E'\xb1\\'; PREPARE TRANSACTION 'a'", true},
		{pairs, "SELECT $\x83\x24$ ' $\x83\x24$; PREPARE TRANSACTION 'a'", true},
		{triples, "SELECT E'\x8f\x81\\'; PREPARE TRANSACTION 'a'", true},
		{quads, "SELECT E'\x81\x30\x81\x30\x81\\'; PREPARE TRANSACTION 'a'", true},
		{quads, "SELECT E'\x81\x30\x81\x30\\'; PREPARE TRANSACTION 'a' --'", false},
		{single, "SELECT E'\x83\\'; PREPARE TRANSACTION 'a' --'", false},
	} {
		if found, _, _ := scan(t, settings{known: true, width: c.width}, c.text); found != c.found {
			t.Errorf("%d %q: found %v", c.width, c.text, found)
		}
	}
}

// TestPrepareRefused: a level that may not prepare transactions gets a native error at that place and
// the server never sees the statement, however it is sent and however long it is.
func TestPrepareRefused(t *testing.T) {
	w := newWire(t, 1, FrontConfig{})
	f := w.frontend("")
	query := func(sql string) string {
		f.send(&pgproto3.Query{String: sql})
		var said string
		for {
			m, err := f.next()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.ErrorResponse:
				said += fmt.Sprintf("%s %s %s;", m.Severity, m.Code, m.Message)
			case *pgproto3.CommandComplete:
				said += string(m.CommandTag) + ";"
			case *pgproto3.ReadyForQuery:
				return said + string(m.TxStatus)
			}
		}
	}
	refusal := "ERROR 42501 " + sentencePrepare + ";"
	long := strings.Repeat("-- and so on and so on and so on\n", 5000)
	for _, step := range [][2]string{
		{"BEGIN", "BEGIN;T"},
		{"PREPARE TRANSACTION 'mine'", refusal + "E"},
		{"SELECT 1", "ERROR 25P02 current transaction is aborted, commands ignored until end of transaction block;E"},
		{"ROLLBACK", "ROLLBACK;I"},
		{"SELECT 1; PREPARE/**/TRANSACTION 'mine'", refusal + "I"},
		{"BEGIN", "BEGIN;T"},
		{long + "PREPARE TRANSACTION 'mine';" + long, refusal + "E"},
		{"ROLLBACK", "ROLLBACK;I"},
		{"BEGIN", "BEGIN;T"},
		{"INSERT INTO owned VALUES (1)", "INSERT 0 1;T"},
	} {
		if got := query(step[0]); got != step[1] {
			t.Errorf("%.60q: %s, want %s", step[0], got, step[1])
		}
	}
	for _, sql := range []string{"PREPARE TRANSACTION 'mine'", long + "PREPARE TRANSACTION 'mine'"} {
		f.send(&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}, &pgproto3.Query{String: "ROLLBACK"})
		var said string
		for ready := 0; ready < 2; {
			m, err := f.next()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.ErrorResponse:
				said += m.Code + " " + m.Message + ";"
			case *pgproto3.ReadyForQuery:
				said += string(m.TxStatus)
				ready++
			case *pgproto3.CommandComplete:
				said += string(m.CommandTag) + ";"
			}
		}
		if want := "42501 " + sentencePrepare + ";EROLLBACK;I"; said != want && said != strings.Replace(want, "E", "I", 1) {
			t.Errorf("%.40q extended: %s", sql, said)
		}
		query("BEGIN")
	}
	f.bye()
	if n := super(t, "orders", "SELECT count(*) FROM pg_prepared_xacts"); n != "0" {
		t.Error("a transaction was prepared")
	}
	if log := server.Log(); strings.Contains(log, "TRANSACTION 'mine'") {
		t.Error("the server has seen the statement")
	}
	blocked := w.sink.of(recorder.TypeBlocked)
	if len(blocked) != 5 {
		t.Errorf("%d blocked events, want 5", len(blocked))
	}
	all := joined(t, w.sink.all())
	for _, b := range blocked {
		if !strings.Contains(string(all[b.Of].Text), "TRANSACTION 'mine'") || b.Reason != sentencePrepare {
			t.Errorf("statement %d is not on record: %q", b.Of, all[b.Of].Text)
		}
	}
	for _, r := range w.sink.of(recorder.TypeResult) {
		if string(r.Code) == stateProtocol {
			t.Errorf("the stand-in's own error is on record: %s", show([]recorder.Event{r}))
		}
	}
}

// TestPrepareAllowed: a level that may prepare has the global ids on record.
func TestPrepareAllowed(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("")
	exec(t, c, "BEGIN", "INSERT INTO orders (what) VALUES ('prepared')", "PREPARE TRANSACTION 'it''s mine'",
		"BEGIN", "PREPARE TRANSACTION $$two$$", "ROLLBACK PREPARED 'two'")
	var gids []string
	for _, e := range w.sink.all() {
		if e.Prepares != nil {
			gids = append(gids, string(e.Prepares))
		}
	}
	if got := strings.Join(gids, ","); got != "it's mine,two" {
		t.Errorf("on record: %s", got)
	}
	exec(t, c, "ROLLBACK PREPARED 'it''s mine'")
	w.bye(c)
	if got := strings.Join(w.account.Prepared(), ","); got != "it's mine,two" {
		t.Errorf("the account knows %s", got)
	}
}

// TestManyGids: one statement that prepares several transactions names them all.
func TestManyGids(t *testing.T) {
	m := &memory{}
	o := newObserver(0, true)
	o.sink = m
	query := &pgproto3.Query{String: "PREPARE TRANSACTION 'a'; BEGIN; PREPARE TRANSACTION 'b'"}
	b, err := query.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	newPump(o).write(t, b)
	if got := show(m.all()); got != `statement 1 simple of=0 name="" portal="" text="PREPARE TRANSACTION 'a'; BEGIN; PREPARE TRANSACTION 'b'" prepares="a" more`+"\n"+
		`part 1 text index=0 text="" prepares="b"`+"\n" {
		t.Error(got)
	}
}
