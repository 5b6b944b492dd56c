package recorder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

// everyLine has a line for each event of everyEvent.
func everyLine(t testing.TB) [][]byte {
	t.Helper()
	var lines [][]byte
	for i, e := range append(everyEvent(), *endEvent(&End{Code: EndClient})) {
		st := stamp{seq: uint64(i), micros: int64(i) * 1000}
		line, err := appendEvent(nil, &st, &e, body{text: e.Text, more: e.More, redacted: i % 2, inline: maxPart})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// agree holds the two decoders against each other: what the one that knows the lines takes, the other takes as the same.
func agree(t *testing.T, d *lineDecoder, line []byte) (known bool) {
	t.Helper()
	var got Event
	whole := bytes.Clone(line)
	known = d.event(line, &got)
	if !bytes.Equal(line, whole) {
		t.Fatalf("changed its line %q", whole)
	}
	if !known {
		return false
	}
	want, err := decodeEvent(whole)
	if err != nil {
		t.Fatalf("takes %q, which is wrong: %v", line, err)
	}
	clear(line) // an event owns what it holds
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s\nread as %+v\n   want %+v", whole, got, want)
	}
	return true
}

func TestKnownLines(t *testing.T) {
	var d lineDecoder
	for _, line := range everyLine(t) {
		nested := bytes.Contains(line, []byte(`":{`))
		if known := agree(t, &d, bytes.Clone(line)); known == nested {
			t.Errorf("known: %t, nested: %t: %s", known, nested, line)
		}
	}
}

// Lines that appendEvent does not write are left to encoding/json, which takes some and refuses others.
func TestUnknownLines(t *testing.T) {
	const salt = `"salt":"000102030405060708090a0b0c0d0e0f"`
	const head = `{"seq":1,"us":2,"type":"statement",` + salt
	var d lineDecoder
	for _, line := range []string{
		head + `,"of":3,"id":1}`, head + `,"id":1,"id":2}`, head + `,"text":"a","text_b64":"YQ=="}`, head + `,"rain":1}`,
		head + `,"id":1} `, head + `,"ID":1}`, head + `,"id":01}`, head + `,"id":18446744073709551616}`, head + `,"id":-1}`,
		head + `,"errno":65536}`, head + `,"n":9223372036854775808}`, head + `,"duration_us":9223372036854776}`,
		head + `,"text":"\/"}`, head + `,"text":"\u0100"}`, head + `,"text":"\ud834\udd73"}`, head + `,"text":"` + "\x01" + `"}`,
		head + `,"text":"` + "\xff" + `"}`, head + `,"text_b64":"*"}`, head + `,"text_b64":""}`, head + `,"more":false}`,
		head + `,"params":[]}`, head + `,"params":[{"type":"a"}]}`, head + `,"params":[{"type":"a","hex":"0"}]}`,
		head + `,"params":[{"type":"a","value":"1","hex":"00"}]}`, head + `,"sha256":""}`, head + `,"sha256":"00"}`,
		head, head + `,`, head + `,"id":1`, head + `,"text":"a`, head + `,"text":"a\`, head + `,"text":"\u00`, head + `}}`,
		`{"us":2,"seq":1,"type":"statement",` + salt + `}`, `{"seq":1,"us":9223372036854775808,"type":"a",` + salt + `}`,
		`{"seq":1,"us":1,"type":"",` + salt + `}`, `{"seq":1,"us":1,"type":"a","salt":"00"}`, `{"seq":1,"us":1,"type":"a","salt":"` + strings.Repeat("G", 32) + `"}`,
		`{ "seq":1,"us":1,"type":"a",` + salt + `}`, `{"seq":1,"erased":"` + strings.Repeat("0", 64) + `"}`, ``, `{`, `null`,
	} {
		if agree(t, &d, []byte(line)) {
			t.Errorf("known: %s", line)
		}
	}
}

// FuzzLine: whatever a line is, the decoder that knows the written ones takes nothing that encoding/json refuses or
// reads as something else.
func FuzzLine(f *testing.F) {
	for _, line := range everyLine(f) {
		f.Add(line)
		f.Add(bytes.Replace(line, []byte(":"), []byte(": "), 1))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var d lineDecoder
		agree(t, &d, line)
	})
}

// FuzzKnownEvent: what appendEvent writes is known, but for what is nested.
func FuzzKnownEvent(f *testing.F) {
	f.Add([]byte("select 1"), []byte("name"), []byte("value"), "from", uint64(3), true, int64(5))
	f.Add([]byte("\xff\x00\u009b\\\""), []byte("\xc3"), []byte(""), "\xff", uint64(0), false, int64(math.MaxInt64/2000))
	f.Fuzz(func(t *testing.T, text, name, value []byte, from string, n uint64, flag bool, us int64) {
		e := Event{
			Type: TypeStatement, ID: n >> 8, Kind: KindBind, Of: n >> 8, Text: text, Name: name, Portal: value, MaxRows: n >> 8, More: flag,
			Prepares: name, Tag: value, Rows: n >> 8, Duration: time.Duration(max(us, 0)), Code: name, Message: text, Errno: uint16(n), Field: FieldParam,
			Severity: value, From: from, Reason: from, Tx: Tx(from), Direction: from, SHA256: bytes.Repeat([]byte{byte(n)}, 32), N: int(n >> 8),
			Params: []Param{{Type: from, Name: name, Value: value, More: flag}, {Type: "x", Null: true}, {Type: "y", Value: text, Hex: true}},
		}
		line, err := appendEvent(nil, &stamp{seq: n >> 8, micros: max(us, 0)}, &e, body{text: text, more: flag, inline: maxPart})
		if err != nil {
			t.Fatal(err)
		}
		var d lineDecoder
		if known := agree(t, &d, bytes.Clone(line)); !known {
			t.Fatalf("not known: %s", line)
		}
	})
}

// busy is the text of a recording of n simple statements with their results.
func busy(t testing.TB, n int) []byte {
	t.Helper()
	h := testHeader("s1")
	h.Format = Format
	var text []byte
	seq := uint64(0)
	add := func(e Event) {
		st := stamp{seq: seq, micros: int64(seq) * 50}
		for i := range st.salt { // not random, yet not alike
			st.salt[i] = byte(seq*0x9e3779b97f4a7c15>>(i%8*8)) ^ byte(i)
		}
		line, err := appendEvent(text, &st, &e, body{text: e.Text, inline: maxPart})
		if err != nil {
			t.Fatal(err)
		}
		text = append(line, '\n')
		seq++
	}
	add(Event{Type: TypeHeader, Header: &h})
	for id := uint64(1); id <= uint64(n); id++ {
		add(statement(id, fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d;", id*7919%100000)))
		add(result(id))
	}
	add(*endEvent(&End{Code: EndClient}))
	return text
}

func BenchmarkReader(b *testing.B) {
	text := busy(b, 20000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		r := NewReader(bytes.NewReader(text))
		for {
			if _, _, err := r.Next(); err != nil {
				break
			}
		}
		if r.seq != 40002 {
			b.Fatal(r.err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/40002, "ns/event")
}

func BenchmarkDecodeJSON(b *testing.B) {
	line := bytes.Split(busy(b, 1), []byte("\n"))[1]
	if !json.Valid(line) {
		b.Fatal("no line")
	}
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		decodeEvent(line)
	}
}
