package mysql

import (
	"strings"
	"testing"

	"github.com/curfewdb/curfew/recorder"
)

// steady is one round of a session that does the same thing over and over.
type steady struct{ out, in []byte }

func rounds() map[string]steady {
	row := glue([]byte{5}, []byte("12345"), []byte{8}, []byte("abcdefgh"))
	rows := packets(1, []byte{2}, column, column, eofWith(statusAutocommit), row, row, eofWith(statusAutocommit))
	return map[string]steady{
		"query":   {packets(0, command(comQuery, "SELECT c FROM sbtest1 WHERE id = 4711 AND k = 'prepare';")), rows},
		"max":     {packets(0, command(comQuery, "SELECT xa FROM t WHERE b = '"+strings.Repeat("x", 200)+"' AND c = \"a\\\"b\"")), rows},
		"update":  {packets(0, command(comQuery, "UPDATE t SET a = 1")), packets(1, okWith(statusInTrans))},
		"execute": {packets(0, executeOf(7, integer(4711), str("abc"), typedValue{typeDouble, make([]byte, 8)}, typedValue{typeDatetime, []byte{7, 0xe8, 7, 1, 2, 3, 4, 5}})), rows},
		"ping":    {packets(0, []byte{comPing}), packets(1, okWith(statusAutocommit))},
	}
}

// settled is an observer of a session that has prepared a statement.
func settled(t testing.TB) *observer {
	p, _ := observing(observerConfig{mariadb: true, status: statusAutocommit})
	p.o.sink = sinkFunc(func(...recorder.Event) error { return nil })
	p.client(t, command(comStmtPrepare, "SELECT ?, ?, ?, ?"))
	p.server(t, prepareOK(7, 2, 4), column, column, column, column, eofWith(0), column, column, eofWith(0))
	return p.o
}

func (s steady) run(t testing.TB, o *observer) {
	if n, _, err := o.Outbound(s.out); n != len(s.out) || err != nil {
		t.Fatal(n, err)
	}
	if n, _, err := o.Inbound(s.in); n != len(s.in) || err != nil {
		t.Fatal(n, err)
	}
}

// TestNoAllocations: a session in steady state allocates nothing, and leaves nothing behind.
func TestNoAllocations(t *testing.T) {
	for name, s := range rounds() {
		o := settled(t)
		s.run(t, o)
		if n := testing.AllocsPerRun(1000, func() { s.run(t, o) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if o.inFlight() != 0 {
			t.Errorf("%s: something is in flight", name)
		}
	}
}

func BenchmarkObserver(b *testing.B) {
	for name, s := range rounds() {
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
	steady{packets(0, command(comQuery, "SELECT")), packets(1, []byte{1}, column, eofWith(0))}.run(b, o)
	row := []byte("\x0512345\x08abcdefgh")
	var chunk []byte
	n := 0
	for seq := o.in.seq; ; n++ {
		if n%256 == 0 && len(chunk)+256*(len(row)+headerSize) > 64<<10 {
			break // the sequence numbers come round
		}
		chunk = appendPacket(chunk, seq, row)
		seq++
	}
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, _, err := o.Inbound(chunk); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/row")
}

// BenchmarkLexer is what a long statement costs to be read for XA, by byte.
func BenchmarkLexer(b *testing.B) {
	for name, text := range map[string]string{
		"rows":    strings.Repeat("(12345, 'some words in quotes', now()),\n", 1000),
		"literal": "'" + strings.Repeat("0123456789abcdef", 2000) + "'",
		"escapes": "'" + strings.Repeat("gr\xc3\xbc\xc3\x9fe\\n it\\'s ", 2000) + "'",
	} {
		b.Run(name, func(b *testing.B) {
			l := &lexer{dynamic: true}
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				l.begin()
				l.scan([]byte(text), false)
			}
		})
		b.Run(name+" at a glance", func(b *testing.B) {
			l := &lexer{dynamic: true}
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				l.mayMatter([]byte(text))
			}
		})
	}
}
