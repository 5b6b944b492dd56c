package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/recorder"
)

// steady is one round of a session that does the same thing over and over.
type steady struct{ out, in []byte }

func rounds(t testing.TB) map[string]steady {
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("12345"), []byte("abcdefgh")}}
	done := &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	bind := &pgproto3.Bind{PreparedStatement: "s", ParameterFormatCodes: []int16{1, 0}, Parameters: [][]byte{{0, 0, 0, 9}, []byte("x")}}
	anonymous := &pgproto3.Bind{ParameterFormatCodes: []int16{1, 0}, Parameters: [][]byte{{0, 0, 0, 9}, []byte("x")}}
	return map[string]steady{
		"simple": {encode(t, &pgproto3.Query{String: "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"}), encode(t, &pgproto3.RowDescription{}, row, done, ready)},
		"prepared": {encode(t, bind, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{}),
			encode(t, &pgproto3.BindComplete{}, &pgproto3.RowDescription{}, row, done, ready)},
		"extended": {encode(t, &pgproto3.Parse{Query: "SELECT $1, $2", ParameterOIDs: []uint32{23, 25}}, anonymous, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{}),
			encode(t, &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, &pgproto3.RowDescription{}, row, done, ready)},
		"copy out row": {nil, encode(t, &pgproto3.CopyData{Data: []byte("1\t2\n")})},
	}
}

// settled is an observer of a session that has prepared s.
func settled(t testing.TB) *observer {
	o := newObserver(0, false)
	o.sink = sinkFunc(func(...recorder.Event) error { return nil })
	p := newPump(o)
	if err := p.outbound(encode(t, &pgproto3.Parse{Name: "s", Query: "SELECT $1, $2", ParameterOIDs: []uint32{23, 25}}, &pgproto3.Sync{})); err != nil {
		t.Fatal(err)
	}
	if err := p.inbound(encode(t, &pgproto3.ParseComplete{}, &pgproto3.ReadyForQuery{TxStatus: 'I'})); err != nil {
		t.Fatal(err)
	}
	return o
}

func (s steady) run(t testing.TB, o *observer) {
	if len(s.out) > 0 {
		if n, _, err := o.Outbound(s.out); n != len(s.out) || err != nil {
			t.Fatal(n, err)
		}
	}
	if n, _, err := o.Inbound(s.in); n != len(s.in) || err != nil {
		t.Fatal(n, err)
	}
}

// TestNoAllocations: a session in steady state allocates nothing, and leaves nothing behind.
func TestNoAllocations(t *testing.T) {
	for name, s := range rounds(t) {
		o := settled(t)
		if name == "copy out row" {
			q := encode(t, &pgproto3.Query{String: "COPY t TO STDOUT"})
			steady{q, encode(t, &pgproto3.CopyOutResponse{})}.run(t, o)
		}
		s.run(t, o)
		if n := testing.AllocsPerRun(1000, func() { s.run(t, o) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if o.inFlight() != 0 && name != "copy out row" {
			t.Errorf("%s: something is in flight", name)
		}
	}
}

func BenchmarkObserver(b *testing.B) {
	for name, s := range rounds(b) {
		if name == "copy out row" {
			continue
		}
		b.Run(name, func(b *testing.B) {
			o := settled(b)
			b.ReportAllocs()
			for b.Loop() {
				s.run(b, o)
			}
		})
	}
}

// BenchmarkRows is what a row costs on its way.
func BenchmarkRows(b *testing.B) {
	o := settled(b)
	row := encode(b, &pgproto3.DataRow{Values: [][]byte{[]byte("12345"), []byte("abcdefgh")}})
	var chunk []byte
	for len(chunk)+len(row) < 64<<10 {
		chunk = append(chunk, row...)
	}
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, _, err := o.Inbound(chunk); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(chunk)/len(row)), "ns/row")
}

// BenchmarkCopyOut is what a row of copy data costs on its way.
func BenchmarkCopyOut(b *testing.B) {
	for name, width := range map[string]int{"narrow": 20, "wide": 8000} {
		b.Run(name, func(b *testing.B) {
			o := settled(b)
			steady{encode(b, &pgproto3.Query{String: "COPY t TO STDOUT"}), encode(b, &pgproto3.CopyOutResponse{})}.run(b, o)
			row := encode(b, &pgproto3.CopyData{Data: make([]byte, width)})
			var chunk []byte
			for len(chunk)+len(row) < 64<<10 {
				chunk = append(chunk, row...)
			}
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, _, err := o.Inbound(chunk); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(chunk)/len(row)), "ns/row")
		})
	}
}

// BenchmarkLexer is what a long statement costs to be read for PREPARE TRANSACTION, by byte.
func BenchmarkLexer(b *testing.B) {
	for name, text := range map[string]string{
		"rows":    strings.Repeat("(12345, 'some words in quotes', now()),\n", 1000),
		"literal": "'" + strings.Repeat("0123456789abcdef", 2000) + "'",
	} {
		b.Run(name, func(b *testing.B) {
			l := newLexer(settings{known: true})
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				l.scan([]byte(text), false)
			}
		})
	}
}
