package postgres

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/recorder"
)

// joined puts the parts of statements together again.
func joined(t *testing.T, events []recorder.Event) map[uint64]*recorder.Event {
	t.Helper()
	all := map[uint64]*recorder.Event{}
	for _, e := range events {
		switch e.Type {
		case recorder.TypeStatement:
			whole := copyEvent(e)
			all[e.ID] = &whole
		case recorder.TypePart:
			whole := all[e.ID]
			if whole == nil || !whole.More {
				t.Fatalf("a part of statement %d that has none to come", e.ID)
			}
			whole.More = e.More
			whole.Text = append(whole.Text, e.Text...)
			for i, p := range e.Params {
				if n := len(whole.Params); i == 0 && n > 0 && whole.Params[n-1].More {
					if e.Index != n-1 {
						t.Fatalf("statement %d: a part goes on with parameter %d, not %d", e.ID, e.Index, n-1)
					}
					last := &whole.Params[n-1]
					last.Value, last.More = append(last.Value, p.Value...), p.More
					continue
				}
				if i == 0 && e.Index != len(whole.Params) {
					t.Fatalf("statement %d: a part begins with parameter %d, not %d", e.ID, e.Index, len(whole.Params))
				}
				whole.Params = append(whole.Params, p)
			}
		}
	}
	for id, e := range all {
		if e.More {
			t.Fatalf("statement %d has no end", id)
		}
	}
	return all
}

// TestBigStatements: what is longer than a buffer is recorded in parts, every byte of it, before it runs.
func TestBigStatements(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("")
	text := "SELECT length('" + strings.Repeat("grüße ✓ ", 500_000) + "')"
	exec(t, c, text)
	long := strings.Repeat("längere Wörter ", 200_000)
	raw := bytes.Repeat([]byte{0, 1, 2, 0xff}, 100_000)
	doc := `{"a": "` + strings.Repeat("ß", 100_000) + `"}`
	var n, m, k int
	err := c.QueryRow(t.Context(), "SELECT length($1::text), length($2::bytea), length(($3::jsonb)->>'a'), $4::int, $5::int",
		long, raw, doc, 7, nil).Scan(&n, &m, &k, new(int), new(*int))
	if err != nil || m != len(raw) || k != 100_000 {
		t.Fatal(n, m, k, err)
	}
	var many []any
	var places []string
	for i := range 60_000 {
		many = append(many, i)
		places = append(places, fmt.Sprintf("$%d::int4", i+1))
	}
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM unnest(ARRAY["+strings.Join(places, ",")+"])", many...).Scan(&n); err != nil || n != 60_000 {
		t.Fatal(n, err)
	}
	w.bye(c)
	all := joined(t, w.sink.all())
	if string(all[1].Text) != text {
		t.Error("the text of statement 1 is not what was sent")
	}
	for _, e := range w.sink.all() {
		if len(e.Text) > defaultWhole || e.Type == recorder.TypePart && !utf8.Valid(e.Text) {
			t.Fatalf("a part of %d bytes, valid %v", len(e.Text), utf8.Valid(e.Text))
		}
	}
	var binds []*recorder.Event
	for id := uint64(1); all[id] != nil; id++ {
		if all[id].Kind == recorder.KindBind {
			binds = append(binds, all[id])
		}
	}
	got := binds[0].Params
	for i, want := range []string{long, string(raw), doc, "7"} {
		if string(got[i].Value) != want {
			t.Errorf("parameter %d (%s, %d bytes) is not what was sent (%d bytes)", i, got[i].Type, len(got[i].Value), len(want))
		}
	}
	if !got[1].Hex || got[0].Hex || !got[4].Null || len(got) != 5 {
		t.Errorf("shapes: %v %v %v %d", got[0].Hex, got[1].Hex, got[4].Null, len(got))
	}
	if len(binds[1].Params) != 60_000 {
		t.Fatalf("%d parameters", len(binds[1].Params))
	}
	for i, p := range binds[1].Params {
		if string(p.Value) != fmt.Sprint(i) || p.Type != "int4" {
			t.Fatalf("parameter %d: %s %q", i, p.Type, p.Value)
		}
	}
}

// TestHugeStatementInBoundedMemory sends a statement of 64 MB through the observer alone.
func TestHugeStatementInBoundedMemory(t *testing.T) {
	h := sha256.New()
	most := 0
	o := newObserver(0, false)
	o.settings.known = true
	o.sink = sinkFunc(func(events ...recorder.Event) error {
		for _, e := range events {
			h.Write(e.Text)
			most = max(most, len(e.Text))
		}
		return nil
	})
	const size = 64 << 20
	piece := bytes.Repeat([]byte("SELECT 1; -- abcdefghijklmnopqrs"), 1024)
	sent := sha256.New()
	stream := newPump(o)
	stream.write(t, append([]byte{'Q'}, be32(size+5)...))
	for n := 0; n < size; n += len(piece) {
		sent.Write(piece)
		stream.write(t, piece)
	}
	stream.write(t, []byte{0})
	if !bytes.Equal(h.Sum(nil), sent.Sum(nil)) {
		t.Error("what was recorded is not what was sent")
	}
	if most > defaultWhole || len(stream.held) != 0 || o.inFlight() != 1 {
		t.Errorf("parts of up to %d bytes, %d bytes held, in flight %d", most, len(stream.held), o.inFlight())
	}
	if n := cap(o.out.events) + cap(o.out.text) + cap(o.out.params); n > 4096 {
		t.Errorf("the observer kept %d", n)
	}
}

// TestTypes: what a real client sends in binary is shown as the server would write it.
func TestTypes(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("")
	values := []string{
		"bool:t", "int2:-3", "int4:2147483647", "int8:-9223372036854775808", "oid:4000000000", "float4:1.5e-07", "float8:1234567.891", "float8:-Infinity", "float8:1e+20",
		"text:grüße", "varchar:x", "bpchar:y", "name:z", "json:{\"a\": 1}", `jsonb:{"a": [1, 2]}`, "uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
		"date:2026-02-28", "date:infinity", "date:0044-03-15 BC", "date:1970-01-01", "time:23:59:59.000001", "time:00:00:00", "timestamp:2024-12-31 23:59:59.5", "timestamp:0001-01-01 00:00:00 BC",
		"timestamptz:1999-12-31 12:00:00+00", "timestamptz:-infinity", "interval:1 year 2 mons -3 days +04:05:06.7", "interval:-1 mons", "interval:00:00:00", "interval:1 day",
		"numeric:0", "numeric:-12345.6700", "numeric:0.00001234", "numeric:100000000", "numeric:NaN", "numeric:1.000", "numeric:99999999999999999999.5",
		"int4[]:{1,2,NULL}", "int4[]:{}", `text[]:{a,"b c","","d\"e\\",NULL,"null"}`, "int4[]:{{1,2},{3,4}}", "int4[]:[0:1]={7,8}", "numeric[]:{1.5,NaN}", "uuid[]:{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
		`timestamptz[]:{"2024-01-01 00:00:00+00"}`, "bool[]:{t,f}", `jsonb[]:{"{\"a\": 1}"}`,
	}
	for _, v := range values {
		typ, text, _ := strings.Cut(v, ":")
		oid := oidOf(t, c, typ)
		asked := c.PgConn().ExecParams(t.Context(), "SELECT $1::"+typ, [][]byte{[]byte(text)}, []uint32{oid}, nil, []int16{1}).Read()
		if asked.Err != nil {
			t.Fatalf("%s: %v", v, asked.Err)
		}
		raw := asked.Rows[0][0]
		result := c.PgConn().ExecParams(t.Context(), "SELECT $1::"+typ, [][]byte{raw}, []uint32{oid}, []int16{1}, []int16{0}).Read()
		if result.Err != nil {
			t.Fatalf("%s: %v", v, result.Err)
		}
		var last recorder.Param
		for _, e := range w.sink.of(recorder.TypeStatement) {
			if e.Kind == recorder.KindBind {
				last = e.Params[0]
			}
		}
		if string(last.Value) != text || last.Type != typ || last.Hex || string(result.Rows[0][0]) != text {
			t.Errorf("%s: recorded as %s %q hex=%v, the server writes %q", v, last.Type, last.Value, last.Hex, result.Rows[0][0])
		}
	}
	w.bye(c)
}

func oidOf(t *testing.T, c *pgx.Conn, typ string) uint32 {
	t.Helper()
	pt, ok := c.TypeMap().TypeForName(arrayName(typ))
	if !ok {
		t.Fatalf("no type %s", typ)
	}
	return pt.OID
}

func arrayName(typ string) string {
	if elem, ok := strings.CutSuffix(typ, "[]"); ok {
		return "_" + elem
	}
	return typ
}
