package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/recorder"
)

// want compares events in show's words; the first, attached, is left out.
func want(t *testing.T, m *memory, lines ...string) {
	t.Helper()
	events := m.all()
	if len(events) == 0 || events[0].Type != recorder.TypeAttached {
		t.Fatalf("the first event is not attached:\n%s", show(events))
	}
	got, expected := show(events[1:]), strings.Join(lines, "\n")+"\n"
	if got != expected {
		t.Errorf("recorded:\n%s\nwanted:\n%s", got, expected)
	}
}

func TestSimple(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("&application_name=tester")
	ctx := t.Context()
	exec(t, c, "BEGIN", "INSERT INTO orders (what) VALUES ('x'), ('y')", "SELECT 1; SELECT 2 WHERE false; ", "")
	if _, err := c.Exec(ctx, "SELECT 1; SELECT 1/0; SELECT 3", pgx.QueryExecModeSimpleProtocol); err == nil {
		t.Fatal("no error")
	}
	exec(t, c, "ROLLBACK", "DO $$BEGIN RAISE NOTICE 'look %', 1; END$$")
	w.bye(c)
	want(t, w.sink,
		`statement 1 simple of=0 name="" portal="" text="BEGIN"`,
		`result of=1 n=0 tag="BEGIN" rows=0 bytes=0 code="" message="" tx="open"`,
		`statement 2 simple of=0 name="" portal="" text="INSERT INTO orders (what) VALUES ('x'), ('y')"`,
		`result of=2 n=0 tag="INSERT 0 2" rows=2 bytes=0 code="" message="" tx="open"`,
		`statement 3 simple of=0 name="" portal="" text="SELECT 1; SELECT 2 WHERE false; "`,
		`result of=3 n=0 tag="SELECT 1" rows=1 bytes=1 code="" message="" tx=""`,
		`result of=3 n=1 tag="SELECT 0" rows=0 bytes=0 code="" message="" tx="open"`,
		`statement 4 simple of=0 name="" portal="" text=""`,
		`result of=4 n=0 tag="" rows=0 bytes=0 code="" message="" tx="open"`,
		`statement 5 simple of=0 name="" portal="" text="SELECT 1; SELECT 1/0; SELECT 3"`,
		`result of=5 n=0 tag="SELECT 1" rows=1 bytes=1 code="" message="" tx=""`,
		`result of=5 n=1 tag="" rows=0 bytes=0 code="22012" message="division by zero" tx="failed"`,
		`statement 6 simple of=0 name="" portal="" text="ROLLBACK"`,
		`result of=6 n=0 tag="ROLLBACK" rows=0 bytes=0 code="" message="" tx="idle"`,
		`statement 7 simple of=0 name="" portal="" text="DO $$BEGIN RAISE NOTICE 'look %', 1; END$$"`,
		`notice of=7 from=server NOTICE 00000 "look 1"`,
		`result of=7 n=0 tag="DO" rows=0 bytes=0 code="" message="" tx="idle"`,
	)
	a := w.sink.all()[0].Attached
	if a.Backend == "" || !strings.HasPrefix(a.Server, "1") || a.Address == "" {
		t.Errorf("attached: %+v", a)
	}
}

func TestExtended(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("&default_query_exec_mode=cache_statement")
	ctx := t.Context()
	var n int
	for i := range 2 {
		if err := c.QueryRow(ctx, "SELECT $1::int4 + $2::int8", int32(i), int64(40)).Scan(&n); err != nil || n != 40+i {
			t.Fatal(n, err)
		}
	}
	name := ""
	for _, e := range w.sink.of(recorder.TypeStatement) {
		if e.Kind == recorder.KindPrepare {
			name = string(e.Name)
		}
	}
	if _, err := c.Exec(ctx, "INSERT INTO nowhere VALUES ($1)", 1); err == nil {
		t.Fatal("no error")
	}
	w.bye(c)
	want(t, w.sink,
		`statement 1 prepare of=0 name="`+name+`" portal="" text="SELECT $1::int4 + $2::int8"`,
		`statement 2 bind of=1 name="`+name+`" portal="" text="" int4="0" int8="40"`,
		`statement 3 execute of=2 name="" portal="" text=""`,
		`result of=3 n=0 tag="SELECT 1" rows=1 bytes=8 code="" message="" tx="idle"`,
		`statement 4 bind of=1 name="`+name+`" portal="" text="" int4="1" int8="40"`,
		`statement 5 execute of=4 name="" portal="" text=""`,
		`result of=5 n=0 tag="SELECT 1" rows=1 bytes=8 code="" message="" tx="idle"`,
		strings.Replace(show(w.sink.of(recorder.TypeStatement)[5:6]), "\n", "", 1),
		`result of=6 n=0 tag="" rows=0 bytes=0 code="42P01" message="relation \"nowhere\" does not exist" tx="idle"`,
	)
}

// TestPipeline: replies pair in order, and after an error everything up to the Sync is marked as skipped.
func TestPipeline(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	f.send(
		&pgproto3.Parse{Name: "a", Query: "SELECT 1/(g-1) FROM generate_series($1::int, 1) g", ParameterOIDs: []uint32{23}},
		&pgproto3.Bind{PreparedStatement: "a", Parameters: [][]byte{[]byte("2")}}, &pgproto3.Execute{},
		&pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "a", ParameterFormatCodes: []int16{1}, Parameters: [][]byte{{0, 0, 0, 1}}}, &pgproto3.Execute{Portal: "p"},
		&pgproto3.Parse{Name: "b", Query: "SELECT 2"}, &pgproto3.Bind{PreparedStatement: "b"}, &pgproto3.Execute{},
		&pgproto3.Query{String: "SELECT 'skipped, too'"},
		&pgproto3.Close{ObjectType: 'S', Name: "a"},
		&pgproto3.Sync{},
		&pgproto3.Bind{PreparedStatement: "a", Parameters: [][]byte{nil}}, &pgproto3.Execute{MaxRows: 5}, &pgproto3.Sync{},
		&pgproto3.Bind{PreparedStatement: "b"}, &pgproto3.Sync{},
	)
	f.until('Z', 'Z', 'Z')
	f.bye()
	want(t, w.sink,
		`statement 1 prepare of=0 name="a" portal="" text="SELECT 1/(g-1) FROM generate_series($1::int, 1) g"`,
		`statement 2 bind of=1 name="a" portal="" text="" int4="2"`,
		`statement 3 execute of=2 name="" portal="" text=""`,
		`statement 4 bind of=1 name="a" portal="p" text="" int4="1"`,
		`statement 5 execute of=4 name="" portal="p" text=""`,
		`statement 6 prepare of=0 name="b" portal="" text="SELECT 2"`,
		`statement 7 bind of=6 name="b" portal="" text=""`,
		`statement 8 execute of=7 name="" portal="" text=""`,
		`statement 9 simple of=0 name="" portal="" text="SELECT 'skipped, too'"`,
		`statement 10 bind of=0 name="a" portal="" text="" unknown=null`,
		`statement 11 execute of=10 name="" portal="" text="" max=5`,
		`statement 12 bind of=0 name="b" portal="" text=""`,
		`result of=3 n=0 tag="SELECT 0" rows=0 bytes=0 code="" message="" tx=""`,
		`result of=5 n=0 tag="" rows=0 bytes=0 code="22012" message="division by zero" tx="idle"`,
		`result of=6 n=0 tag="" rows=0 bytes=0 code="skipped" message="" tx=""`,
		`result of=7 n=0 tag="" rows=0 bytes=0 code="skipped" message="" tx=""`,
		`result of=8 n=0 tag="" rows=0 bytes=0 code="skipped" message="" tx=""`,
		`result of=9 n=0 tag="" rows=0 bytes=0 code="skipped" message="" tx=""`,
		`result of=11 n=0 tag="SELECT 0" rows=0 bytes=0 code="" message="" tx="idle"`,
		`result of=12 n=0 tag="" rows=0 bytes=0 code="26000" message="prepared statement \"b\" does not exist" tx="idle"`,
	)
}
