package recorder

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// everyEvent has each field of each type set at least once.
func everyEvent() []Event {
	return []Event{
		{Type: TypeAttached, Attached: &Attached{Backend: "4711", Server: "15.20", TLS: "TLS 1.3", Address: "db:5432"}},
		{Type: TypeStatement, ID: 1, Kind: KindSimple, Text: []byte("select \"a\\b\"\n\t\x00\x1b[2J'\x7f\u009b✓")},
		{Type: TypeResult, Of: 1, Tag: []byte("SELECT 2"), Rows: 2, Bytes: 20, Duration: 5 * time.Millisecond, FirstRow: time.Millisecond, Tx: TxOpen},
		{Type: TypeResult, Of: 1, N: 1, Code: []byte("23505"), Message: []byte("duplicate \xff key"), Severity: []byte("ERROR"), Tx: TxFailed},
		{Type: TypeStatement, ID: 2, Kind: KindPrepare, Text: []byte("insert $1 \xff"), Name: []byte("s1"), Portal: []byte("p\xfe")},
		{Type: TypeStatement, ID: 3, Kind: KindBind, Of: 2, Name: []byte("s1"), Portal: []byte("p1"), Params: []Param{
			{Type: "int4", Value: []byte("42")}, {Type: "text", Null: true}, {Type: "bytea", Value: []byte{0, 255}, Hex: true},
			{Type: "text", Value: []byte("")}, {Type: "text", Value: []byte("\xff")}, {Type: "bytea", Value: []byte{}, Hex: true},
			{Type: "oid:99", Value: []byte("x"), More: true}}},
		{Type: TypePart, Of: 3, Field: FieldParam, Index: 6, Text: []byte("yz")},
		{Type: TypeStatement, ID: 4, Kind: KindExecute, Of: 3, Portal: []byte("p1"), MaxRows: 100},
		{Type: TypeCopy, Of: 4, Direction: "in", Rows: 3, Bytes: 30, Duration: time.Second, SHA256: bytes.Repeat([]byte{7}, 32), Tag: []byte("COPY 3")},
		{Type: TypeCancel, Of: 4, From: "127.0.0.1:1"},
		{Type: TypeNotice, From: "server", Severity: []byte("WARNING"), Code: []byte("01000"), Message: []byte("careful")},
		{Type: TypeStatement, ID: 5, Kind: KindSimple, Text: []byte("PREPARE TRANSACTION 'x'"), Prepares: []byte("x")},
		{Type: TypeBlocked, Of: 5, Reason: "not allowed at this level"},
		{Type: TypeStatement, ID: 6, Kind: KindSimple},
		{Type: TypeStatement, ID: 7, Kind: KindFunction, Params: []Param{{Type: "int4", Value: []byte("1")}}},
		{Type: TypeStatement, ID: math.MaxUint64, Kind: KindCommand, Name: []byte("COM_INIT_DB"), Text: []byte("db")},
	}
}

// same compares what a format keeps: empty and nil are one, durations are in microseconds.
func same(a, b Event) bool {
	for _, e := range []*Event{&a, &b} {
		e.Seq, e.Micros = 0, 0
		e.Duration, e.FirstRow = e.Duration.Truncate(time.Microsecond), e.FirstRow.Truncate(time.Microsecond)
		v := reflect.ValueOf(e).Elem()
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Slice && f.Len() == 0 {
				f.SetZero()
			}
		}
		params := make([]Param, len(e.Params))
		for i, p := range e.Params {
			if len(p.Value) == 0 || p.Null {
				p.Value = nil
			}
			params[i] = p
		}
		if e.Params = params; len(params) == 0 {
			e.Params = nil
		}
	}
	return reflect.DeepEqual(a, b)
}

func TestEveryEventComesBack(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	record(t, w, everyEvent()...)
	s := seal(t, w)
	lines, events := content(t, l, "s1")
	want := everyEvent()
	if len(events) != len(want)+2 {
		t.Fatalf("%d events, want %d", len(events), len(want)+2)
	}
	header := testHeader("s1")
	header.Format = Format
	if !reflect.DeepEqual(*events[0].Header, header) {
		t.Errorf("header is %+v", *events[0].Header)
	}
	for i, e := range want {
		if !same(e, events[i+1]) {
			t.Errorf("event %d:\nwant %+v\n got %+v\nline %s", i, e, events[i+1], lines[i+1])
		}
	}
	if end := events[len(events)-1].End; end == nil || *end != s.End || end.Statements != math.MaxUint64 {
		t.Errorf("end is %+v", end)
	}
	salts := map[string]bool{}
	for i, line := range lines {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("line %d is not JSON: %v", i, err)
		}
		if m["seq"] != float64(i) {
			t.Errorf("line %d has seq %v", i, m["seq"])
		}
		salts[m["salt"].(string)] = true
		if strings.ContainsFunc(line, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("line %d holds a control character: %q", i, line)
		}
	}
	if len(salts) != len(lines) {
		t.Error("a salt was used twice")
	}
}

func TestUnknownFieldsArePassedOver(t *testing.T) {
	line := `{"seq":3,"us":9,"type":"weather","salt":"000102030405060708090a0b0c0d0e0f","rain":{"mm":[1,2]},"text":"x"}`
	e, err := decodeEvent([]byte(line))
	if err != nil || e.Type != "weather" || string(e.Text) != "x" || e.Micros != 9 {
		t.Fatalf("%+v, %v", e, err)
	}
}

// FuzzEvent: what is encoded is one line of JSON, and reads back as it was.
func FuzzEvent(f *testing.F) {
	f.Add([]byte("select 1"), []byte("name"), []byte("value"), "from", uint64(3), true, int64(5))
	f.Add([]byte("\xff\x00\u009b\\\""), []byte("\xc3"), []byte(""), "\xff", uint64(0), false, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, text, name, value []byte, from string, n uint64, flag bool, d int64) {
		e := Event{
			Type: TypeStatement, ID: n, Kind: KindBind, Of: n, Text: text, Name: name, Portal: value, MaxRows: n, More: flag,
			Prepares: name, Tag: value, Rows: n, Bytes: n, Duration: time.Duration(max(d, 0)), Code: name, Message: text,
			Severity: value, From: from, Reason: from,
			Params: []Param{{Type: from, Value: value, More: flag}, {Type: "x", Null: true}, {Type: "y", Value: text, Hex: true}},
		}
		line, err := appendEvent(nil, &stamp{seq: 7, micros: 8}, &e, body{text: text, more: flag, inline: maxPart})
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(line) || !utf8.Valid(line) || bytes.ContainsAny(line, "\n\x1b") {
			t.Fatalf("not a line of JSON: %q", line)
		}
		got, err := decodeEvent(line)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if !utf8.ValidString(from) { // texts of Curfew's own making are not kept to the byte
			e.From, e.Reason, e.Params[0].Type = got.From, got.Reason, got.Params[0].Type
		}
		if got.Seq != 7 || got.Micros != 8 || !same(e, got) {
			t.Fatalf("\nwant %+v\n got %+v\nline %s", e, got, line)
		}
	})
}

// FuzzReader: whatever the bytes, a Reader neither panics nor takes more than its limit, and what it
// lets through is numbered without a gap.
func FuzzReader(f *testing.F) {
	var lines []string
	h := testHeader("s1")
	h.Format = Format
	for i, e := range append([]Event{{Type: TypeHeader, Header: &h}}, append(everyEvent(), *endEvent(&End{Code: EndClient}))...) {
		line, err := appendEvent(nil, &stamp{seq: uint64(i)}, &e, body{text: e.Text, more: e.More, inline: maxPart})
		if err != nil {
			f.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	f.Add([]byte(strings.Join(lines, "\n")+"\n"), 16)
	f.Add([]byte(lines[0]+"\n"+lines[1][:20]), 1000)
	f.Add([]byte(lines[0]+"\n"+`{"seq":1,"erased":"`+strings.Repeat("0", 64)+`"}`+"\n"), 100)
	f.Add([]byte("\n\n{}"), 0)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		r := NewReader(iotestReader{bytes.NewReader(data)})
		r.Limit(max(limit&0xffff, 1))
		for i := uint64(0); ; i++ {
			line, e, err := r.Next()
			if cap(r.buf) > r.limit+1 {
				t.Fatalf("took %d bytes of %d", cap(r.buf), r.limit)
			}
			if err != nil {
				return
			}
			if e.Seq != i || len(line) > r.limit {
				t.Fatalf("line %d: seq %d, %d bytes", i, e.Seq, len(line))
			}
			Leaf(line, e)
		}
	})
}

// iotestReader gives a few bytes at a time.
type iotestReader struct{ r *bytes.Reader }

func (r iotestReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), 13)]) }

func TestReaderRefuses(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	record(t, w, statement(1, "select 1"), statement(2, "select 2"))
	seal(t, w)
	lines, _ := content(t, l, "s1")
	join := func(lines ...string) string { return strings.Join(lines, "\n") + "\n" }
	for name, c := range map[string]struct{ text, want string }{
		"torn":         {lines[0] + "\n" + lines[1], "line 2: ends in the middle"},
		"gap":          {join(lines[0], lines[2]), "line 2: has number 2 where 1 is due"},
		"swapped":      {join(lines[0], lines[2], lines[1]), "line 2: has number 2"},
		"no header":    {join(strings.Replace(lines[1], `"seq":1`, `"seq":0`, 1)), "line 1: is not a header"},
		"other format": {join(strings.Replace(lines[0], `"format":1`, `"format":2`, 1)), "has format 2"},
		"second head":  {join(lines[0], strings.Replace(lines[0], `"seq":0`, `"seq":1`, 1)), "second header"},
		"after end":    {join(append(lines, strings.Replace(lines[1], `"seq":1`, `"seq":4`, 1))...), "line 5: follows the end"},
		"not json":     {join(lines[0], "hello"), "line 2: is not an event"},
		"empty line":   {join(lines[0], ""), "line 2: is not an event"},
		"not utf-8":    {join(lines[0], "\"\xff\""), "line 2: is not UTF-8"},
		"salt":         {join(lines[0], strings.Replace(lines[1], `"salt":"`, `"salt":"0`, 1)), "salt"},
		"bad hash":     {join(lines[0], `{"seq":1,"erased":"00"}`), "erased is not a hash"},
		"long":         {lines[0] + "\n" + strings.Repeat("x", 5000) + "\n", "line 2: is longer than 4096 bytes"},
		"long, no end": {lines[0] + "\n" + strings.Repeat("x", 500000), "line 2: is longer than 4096 bytes"},
	} {
		r := NewReader(strings.NewReader(c.text))
		r.Limit(4096)
		_, _, err := readAll(r)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if _, _, again := r.Next(); again != err {
			t.Errorf("%s: the error did not stay: %v", name, again)
		}
	}
}
