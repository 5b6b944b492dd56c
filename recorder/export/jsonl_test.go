package export

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// shelf is a recording that is opened again and again.
type shelf []byte

func (s shelf) File(recorder.Sealed) (*os.File, error) { return nil, os.ErrNotExist }
func (s shelf) Open(string) (io.ReadCloser, error)     { return io.NopCloser(bytes.NewReader(s)), nil }

// counter counts what is written.
type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// BenchmarkJSONL: MB/s are of the output; decompressing the recording is not in it.
func BenchmarkJSONL(b *testing.B) {
	var text shelf
	add := func(i int, what string) {
		text = fmt.Appendf(text, `{"seq":%d,"us":%d,"type":%s}`+"\n", i, i*50, what)
	}
	const salt = `"salt":"000102030405060708090a0b0c0d0e0f"`
	add(0, `"header",`+salt+`,"header":{"format":1,"session":"s1","began":"2026-08-11T09:30:00Z"}`)
	for i := 1; i < 40000; i += 2 {
		add(i, fmt.Sprintf(`"statement",%s,"id":%d,"kind":"simple","text":"SELECT abalance FROM pgbench_accounts WHERE aid = %d;"`, salt, i, i*7919))
		add(i+1, fmt.Sprintf(`"result",%s,"of":%d,"tag":"SELECT 1","rows":1,"bytes":4,"duration_us":131,"first_row_us":99,"tx":"idle"`, salt, i))
	}
	c := &catalog{
		grants:   map[string]*grantInfo{"g1": {GrantCreated: ledger.GrantCreated{Request: "r1", Level: "writer", Person: alice}}},
		sessions: map[string]*sessionInfo{"s1": {began: time.Now()}},
	}
	c.sessions["s1"].Grant, c.sessions["s1"].Account, c.sessions["s1"].Client = "g1", "curfew_abc123_g1", "127.0.0.1:50000"
	var n counter
	out := bufio.NewWriterSize(&n, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.flatten(context.Background(), out, Source{Recordings: text}, "s1"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/1e6/b.Elapsed().Seconds(), "MB/s")
}
