package intended

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

const (
	dollars     = recorder.DialectDollars
	backslashes = recorder.DialectBackslashes
)

var engines = map[string]recorder.Dialect{"0": dollars, "1": backslashes}

// begin begins a session of a dialect.
func begin(j *Judge, d recorder.Dialect) *Session {
	s := j.Session()
	s.See(&recorder.Event{Type: recorder.TypeHeader, Header: &recorder.Header{Session: "s1", Engine: fmt.Sprint(int(d))}})
	return s
}

func TestWhatIsTheSame(t *testing.T) {
	for _, c := range []struct {
		name          string
		d             recorder.Dialect
		intended, ran string
		same          bool
	}{
		{"white space", dollars, "update orders set paid = true where id = 7", "UPDATE orders\n\tSET paid=true WHERE  id =7;", true},
		{"comments", dollars, "delete from t -- all of them\n;", "delete /* all /* of */ them */ from t", true},
		{"a comment parts words", dollars, "select a", "select/**/a", true},
		{"and is no white space in one", dollars, "select ab", "select a/**/b", false},
		{"names in any case", dollars, "select Id from Orders", "SELECT id FROM orders", true},
		{"but not in quotes", dollars, `select "Id" from t`, `select "id" from t`, false},
		{"a literal", dollars, "select 'A  b'", "select 'a  b'", false},
		{"its white space", dollars, "select 'a  b'", "select 'a b'", false},
		{"a number", dollars, "delete from t where id = 1", "delete from t where id = 12", false},
		{"a number apart", dollars, "select 1 2", "select 12", false},
		{"a parameter", dollars, "delete from t where id = $1", "delete from t where id=$1", true},
		{"its number", dollars, "select $1, $2", "select $2, $1", true},
		{"one twice", dollars, "select $1, $1", "select $1, $2", false},
		{"a literal for a parameter", dollars, "delete from t where id = $1", "delete from t where id = 7", false},
		{"a parameter for a literal", dollars, "delete from t where id = 7", "delete from t where id = $1", false},
		{"another behind it", dollars, "select 1", "select 1 where false", false},
		{"a condition less", dollars, "delete from t where id = 1", "delete from t", false},
		{"what is commented out", dollars, "delete from t where id = 1", "delete from t -- where id = 1", false},
		{"a comment's begin in a literal", dollars, "select '--', 1", "select '--', 2", false},
		{"a comment's begin in a name", dollars, `select "/*", 1`, `select "/*", 2 /* */`, false},
		{"dollar quotes", dollars, "select $a$ x $$ -- $a$, 1", "select $a$ x $$ -- $a$,1", true},
		{"in them", dollars, "select $$A b$$", "select $$a b$$", false},
		{"escapes", dollars, `select E'it\'s', 1`, `select  E'it\'s',1`, true},
		{"a backslash that may escape", dollars, `select 'a\', 1`, `select 'a\' , 1`, false},
		{"to the byte", dollars, `select 'a\', 1`, `select 'a\', 1;`, true},
		{"a backslash that means the same", dollars, `select 'C:\dir', 1`, `SELECT 'C:\dir',1`, true},
		{"an operator", dollars, "select a- -1", "select a - -1", true},
		{"two operators", dollars, "select a < = b", "select a <= b", false},
		{"U& apart", dollars, `select u & 'x'`, `select U&'x'`, false},
		{"what does not end", dollars, "select 'a", "select 'a ", true},
		{"nor that", dollars, "select 'a", "select  'a", false},
		{"a password", dollars, "alter role x password 'one'", "alter role x password '***'", true},
		{"a routine", dollars, "create function f() returns int begin atomic select case when true then 1 end; select 2; end", "create function f() returns int begin atomic select case when true then 1 end; select 2; end;", true},
		{"a rule", dollars, "create rule r as on insert to t do (select 1; select 2)", "create rule r as on insert to t do (select 1;select 2)", true},
		{"no UTF-8", dollars, "select 'x'", "select 'x'\xff", false},

		{"comments to the end of the line", backslashes, "select 1 # one", "select 1 -- two", true},
		{"-- that is none", backslashes, "select 3--1", "select 3", false},
		{"tables in another case", backslashes, "select * from Orders", "select * from orders", false},
		{"keywords in another case", backslashes, "select * from orders where id in (1, 2)", "SELECT * FROM orders WHERE id IN(1,2)", true},
		{"a keyword that is a name", backslashes, "select * from shop.Table", "select * from shop.table", false},
		{"a variable", backslashes, "select @Select", "select @select", false},
		{"backticks", backslashes, "select `a;b` from t", "SELECT `a;b` FROM t", true},
		{"double quotes", backslashes, `select "a -- b", 1`, `select "a -- b",1`, true},
		{"escaped quotes, to the byte", backslashes, `select 'it\'s', 1`, `select 'it\'s', 1`, true},
		{"escaped quotes", backslashes, `select 'it\'s', 1`, `select 'it\'s',1`, false},
		{"a question mark", backslashes, "delete from t where id = ?", "DELETE FROM t WHERE id=?", true},
		{"a literal for it", backslashes, "delete from t where id = ?", "delete from t where id = 7", false},
		{"code in a comment", backslashes, "delete from t where id = 7", "delete from t /*!50000 */ where id = 7", false},
		{"code that is left out", backslashes, "delete from t /*! where id = 7 */", "delete from t", false},
		{"MariaDB's", backslashes, "select 1", "select 1 /*M! , password */", false},
		{"a hint", backslashes, "select 1 from t", "select /*+ BKA(t) */ 1 from t", false},
		{"comments don't nest", backslashes, "select 1 /* /* */", "select 1", true},
		{"a password", backslashes, "create user u identified by 'one'", "create user u identified by '***'", true},
		{"a dollar quote of new servers", backslashes, "select $$a  b$$", "select $$a b$$", false},
		{"a routine", backslashes, "create procedure p() begin if a then select 1; end if; case b when 1 then select 2; end case; end", "CREATE procedure p() begin if a then select 1; end if; case b when 1 then select 2; end case; end;", true},
		{"a block", backslashes, "begin not atomic select 1; select 2; end", "BEGIN NOT ATOMIC select 1; select 2; end", false}, // NOT is a keyword, ATOMIC none
	} {
		t.Run(c.name, func(t *testing.T) {
			j := NewJudge("r1", c.intended, engines)
			s := begin(j, c.d)
			text := recorder.Redact(c.d, []byte(c.ran))
			v, _ := s.See(&recorder.Event{Type: recorder.TypeStatement, Kind: recorder.KindSimple, ID: 1, Text: text})
			s.Close()
			want := map[bool]Verdict{true: Inside, false: Outside}[c.same]
			r := j.Report(fmt.Sprint(int(c.d)))
			if v != want || r.Executed != r.Inside+r.Outside || (r.Inside == r.Executed) != c.same {
				t.Errorf("%q of %q is %s: %+v", c.ran, c.intended, v, r)
			}
			if len(r.Planned) != 1 {
				t.Errorf("it is %d statements: %+v", len(r.Planned), r.Planned)
			}
		})
	}
}

// story tells a session: what is said of it stands behind each event.
type story struct {
	t *testing.T
	s *Session
}

func (s story) see(e recorder.Event, want Verdict) {
	s.t.Helper()
	if got, complete := s.s.See(&e); got != want || complete != (want != "") {
		s.t.Errorf("%s #%d: %q, want %q", e.Type, e.ID, got, want)
	}
}

func stmt(id uint64, kind recorder.Kind, of uint64, text string) recorder.Event {
	return recorder.Event{Type: recorder.TypeStatement, ID: id, Kind: kind, Of: of, Text: []byte(text), Micros: int64(id)}
}

func answer(of uint64, code string) recorder.Event {
	return recorder.Event{Type: recorder.TypeResult, Of: of, Code: []byte(code)}
}

func TestASessionIsJudged(t *testing.T) {
	began := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	for _, d := range []recorder.Dialect{dollars, backslashes} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			param := map[recorder.Dialect]string{dollars: "$1", backslashes: "?"}[d]
			j := NewJudge("r1", "begin; update t set a = "+param+" where id = 7;\n-- and then\ncommit; vacuum", engines)
			s := story{t, begin(j, d)}
			s.see(recorder.Event{Type: recorder.TypeHeader, Header: &recorder.Header{Session: "s1", Began: began, Engine: fmt.Sprint(int(d))}}, "")
			s.see(stmt(1, recorder.KindSimple, 0, "BEGIN"), Inside)
			s.see(answer(1, ""), "")
			s.see(stmt(2, recorder.KindPrepare, 0, "UPDATE t SET a="+param+" WHERE id=7"), "")
			s.see(stmt(3, recorder.KindBind, 2, ""), "")
			s.see(stmt(4, recorder.KindExecute, 3, ""), Inside)
			s.see(answer(4, ""), "")
			s.see(stmt(5, recorder.KindExecute, 2, ""), Inside)
			s.see(answer(5, ""), "")
			s.see(stmt(6, recorder.KindExecute, 99, ""), Outside) // nobody knows what it is
			s.see(answer(6, ""), "")
			s.see(stmt(7, recorder.KindSimple, 0, "select 1; commit; select 2; commit"), Outside)
			s.see(answer(7, ""), "")
			s.see(answer(7, ""), "")
			s.see(answer(7, "22012"), "")
			s.see(stmt(8, recorder.KindSimple, 0, "drop table t"), Outside)
			s.see(recorder.Event{Type: recorder.TypeBlocked, Of: 8}, "")
			s.see(stmt(9, recorder.KindSimple, 0, "-- nothing\n;;"), "")
			s.see(recorder.Event{Type: recorder.TypeStatement, Kind: recorder.KindCommand, ID: 10, Name: []byte("ping")}, "")
			s.see(recorder.Event{Type: recorder.TypeStatement, Kind: recorder.KindCommand, ID: 11, Micros: 11, Name: []byte("process_kill"), Text: []byte("7")}, Outside)
			long := stmt(12, recorder.KindSimple, 0, "com")
			long.More = true
			s.see(long, "")
			s.see(recorder.Event{Type: recorder.TypePart, Of: 12, Field: recorder.FieldText, Text: []byte("mi"), More: true}, "")
			s.see(recorder.Event{Type: recorder.TypePart, Of: 12, Field: recorder.FieldText, Text: []byte("t")}, Inside)
			s.see(recorder.Event{Erased: "00"}, "")
			s.s.Close()

			r := j.Report(fmt.Sprint(int(d)))
			if r.Sessions != 1 || r.Executed != 9 || r.Inside != 5 || r.Outside != 4 || r.NotExecuted != 2 || r.Erased != 1 || r.LeftOut != 0 {
				t.Errorf("%+v", r)
			}
			var planned, ran []string
			for _, p := range r.Planned {
				planned = append(planned, fmt.Sprintf("%s %d %s", p.Verdict, p.Executed, strings.Fields(p.Text)[0]))
			}
			if want := []string{"inside 1 begin", "inside 2 update", "inside 2 commit", "not executed 0 vacuum"}; !slices.Equal(planned, want) {
				t.Errorf("%q, want %q", planned, want)
			}
			for _, l := range r.Statements {
				ran = append(ran, strings.TrimSpace(fmt.Sprintf("%d %s %s", l.ID, l.Verdict, l.Error)))
				if l.Session != "s1" || l.At.Sub(began) != time.Duration(l.ID)*time.Microsecond {
					t.Errorf("%+v", l)
				}
			}
			if want := []string{"1 inside", "4 inside", "5 inside", "6 outside", "7 outside", "7 inside", "7 outside 22012", "7 not executed",
				"8 not executed", "11 outside", "12 inside"}; !slices.Equal(ran, want) {
				t.Errorf("%q, want %q", ran, want)
			}
		})
	}
}

// A text whose statements can't be told apart for certain is inside if it was agreed to as it is.
func TestAWholeTextThatWasAgreedTo(t *testing.T) {
	const text = `insert into t values ('it\'s'); delete from u where a = 1`
	for ran, want := range map[string]Verdict{
		text: Inside, text + ";": Inside, `insert into t values ('it\'s')`: Inside, "delete  from u where a = 1": Inside,
		`insert into t values ('it\'s');  delete from u where a = 1`: Outside,
	} {
		j := NewJudge("r1", text, engines)
		s := begin(j, backslashes)
		if got, _ := s.See(&recorder.Event{Type: recorder.TypeStatement, Kind: recorder.KindSimple, ID: 1, Text: []byte(ran)}); got != want {
			t.Errorf("%s is %s", ran, got)
		}
	}
}

// Whatever comes, what is held of it is bounded, and nothing is lost from the counts.
func TestMuchIsCounted(t *testing.T) {
	j := NewJudge("r1", "select 1", engines)
	s := begin(j, dollars)
	const n = 3 * many
	for id := uint64(1); id <= n; id++ {
		e := stmt(id, recorder.KindSimple, 0, "select "+strings.Repeat("x", 500))
		s.See(&e)
	}
	big := stmt(n+1, recorder.KindSimple, 0, "select 1")
	big.More = true
	s.See(&big)
	for range 40 {
		s.See(&recorder.Event{Type: recorder.TypePart, Of: n + 1, Field: recorder.FieldText, Text: []byte(strings.Repeat(" ", 64<<10)), More: true})
	}
	if v, _ := s.See(&recorder.Event{Type: recorder.TypePart, Of: n + 1, Field: recorder.FieldText, Text: []byte(" ")}); v != Outside {
		t.Errorf("a text that is too long to look at is %q", v)
	}
	s.Close()
	r := j.Report(fmt.Sprint(int(dollars)))
	if r.Outside != n+1 || len(r.Statements) != maxLines || r.LeftOut != n+1-maxLines || len(r.Statements[0].Text) > shown+len("…") {
		t.Errorf("%d outside, %d listed, %d left out", r.Outside, len(r.Statements), r.LeftOut)
	}
	if len(s.pending.all)+len(s.texts.all)+len(s.open.all) != 0 {
		t.Error("something is still held")
	}
}

// A backslash in one statement of a text makes no other one of it another.
func TestABackslashInAnotherStatement(t *testing.T) {
	for _, d := range []recorder.Dialect{dollars, backslashes} {
		const text = `insert into t values ('C:\dir'); update t set a = 1`
		j := NewJudge("r1", text, engines)
		s := begin(j, d)
		for id, ran := range []string{text, "UPDATE t SET a=1; " + `insert into t values ('C:\dir')`} {
			if v, _ := s.See(&recorder.Event{Type: recorder.TypeStatement, Kind: recorder.KindSimple, ID: uint64(id + 1), Text: []byte(ran)}); v != Inside {
				t.Errorf("%s is %s", ran, v)
			}
		}
	}
}

// FuzzSplit holds the promise that no two texts are taken for one if they differ in more than the normal form
// leaves out: what is left of a text is the same when it is read again without its comments.
func FuzzSplit(f *testing.F) {
	for _, text := range []string{"select 1; select '2;' -- x\n;", `select E'\'', "a""b", $1, $a$;$a$ /* /* */ */`, "select `a`, ? # x\n, /*! 1 */ 'a\\'b'", "u&'x' n'y' 1e5 .5"} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, other bool) {
		d := dollars
		if other {
			d = backslashes
		}
		all := split(d, []byte(text))
		for _, s := range all {
			again := split(d, s.text)
			if len(all) > 1 && (len(again) != 1 || again[0].key != s.key) {
				t.Fatalf("%q has %q, which is read again as %q", text, s, again)
			}
			if !strings.Contains(text, string(s.text)) {
				t.Fatalf("%q is no part of %q", s.text, text)
			}
		}
		for _, s := range plan(d, []byte(text)) {
			if len(s.key) == 0 || len(s.text) == 0 {
				t.Fatalf("%q plans nothing: %q", text, s)
			}
		}
	})
}
