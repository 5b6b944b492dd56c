package recorder

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// A recording that was changed while it was open is not sealed as if nothing had been.
func TestSealOfAChangedFile(t *testing.T) {
	for name, change := range map[string]func(b []byte) []byte{
		"a letter":    func(b []byte) []byte { return bytes.Replace(b, []byte("drop"), []byte("crop"), 1) },
		"a line less": func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] },
		"a line more": func(b []byte) []byte { return append(b, "{}\n"...) },
		"torn":        func(b []byte) []byte { return b[:len(b)-1] },
		"nothing":     func(b []byte) []byte { return b },
	} {
		t.Run(name, func(t *testing.T) {
			l := openLibrary(t, t.TempDir(), Options{})
			w := create(t, l, "s1")
			if err := w.Record(statement(1, "drop table t"), result(1)); err != nil {
				t.Fatal(err)
			}
			w.sealing.Lock()
			err := w.finish(End{Code: EndClient})
			w.sealing.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			path := l.openPath("s1")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(b), 0o600); err != nil {
				t.Fatal(err)
			}
			sealed, err := w.Seal(End{Code: EndClient})
			if changed := name != "nothing"; changed != (err != nil) {
				t.Errorf("sealing gives %+v, %v", sealed, err)
			}
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	const statements = 100_000
	for b.Loop() {
		b.StopTimer()
		l := openLibrary(b, b.TempDir(), Options{})
		w := create(b, l, "s1")
		for i := range uint64(statements) {
			if err := w.Record(result(i), statement(i+1, fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d;", i*7919%1000000))); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if _, err := w.Seal(End{Code: EndClient}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/100k")
}
