package postgres

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/recorder"
)

// copies tells of each copy event what it must say of data.
func copyLine(of uint64, direction string, rows int, data []byte) string {
	return fmt.Sprintf("copy of=%d n=0 %s rows=%d bytes=%d sha256=%x\n", of, direction, rows, len(data), sha256.Sum256(data))
}

func TestCopyIn(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("")
	var data bytes.Buffer
	for i := range 50_000 {
		fmt.Fprintf(&data, "%d\tthing %d\n", 1_000_000+i, i)
	}
	whole := bytes.Clone(data.Bytes())
	if _, err := c.PgConn().CopyFrom(t.Context(), &data, "COPY orders FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	bad := "notanumber\tx\n"
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(bad), "COPY orders FROM STDIN"); err == nil {
		t.Fatal("no error")
	}
	exec(t, c, "SELECT 'after'")
	w.bye(c)
	if got := show(w.sink.of(recorder.TypeCopy)[:1]); got != copyLine(1, "in", 50_000, whole) {
		t.Errorf("got %swant %s", got, copyLine(1, "in", 50_000, whole))
	}
	if got := show(w.sink.of(recorder.TypeCopy)[1:]); !strings.HasPrefix(got, "copy of=2 n=0 in rows=0 bytes=") {
		t.Error(got)
	}
	results := show(w.sink.of(recorder.TypeResult))
	for _, line := range []string{
		`of=1 n=0 tag="COPY 50000" rows=50000 bytes=` + fmt.Sprint(len(whole)) + ` code="" message="" tx="idle"`,
		`of=2 n=0 tag="" rows=0 bytes=`, `code="22P02"`,
		`of=3 n=0 tag="SELECT 1" rows=1 bytes=5 code="" message="" tx="idle"`,
	} {
		if !strings.Contains(results, line) {
			t.Errorf("no %q in\n%s", line, results)
		}
	}
	admin(t, "orders", "DELETE FROM orders WHERE id >= 1000000")
}

// TestCopyInPipeline: in copy-in mode a Sync is none (libpq sends one behind the Execute), and messages
// pair again afterwards.
func TestCopyInPipeline(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	for _, fail := range []bool{false, true, false} {
		f.send(&pgproto3.Parse{Query: "COPY orders (what) FROM STDIN"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
		f.until('G')
		f.send(&pgproto3.CopyData{Data: []byte("one\ntw")}, &pgproto3.CopyData{Data: []byte("o\n")})
		if fail {
			f.send(&pgproto3.CopyFail{Message: "changed my mind"}, &pgproto3.Sync{})
			f.until('E', 'Z')
		} else {
			f.send(&pgproto3.CopyDone{}, &pgproto3.Sync{})
			f.until('C', 'Z')
		}
		f.send(&pgproto3.Query{String: "SELECT 1"})
		f.until('C', 'Z')
	}
	f.bye()
	data := []byte("one\ntwo\n")
	if got, want := show(w.sink.of(recorder.TypeCopy)), copyLine(3, "in", 2, data)+copyLine(7, "in", 0, data)+copyLine(11, "in", 2, data); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	results := w.sink.of(recorder.TypeResult)
	for i, of := range []uint64{3, 4, 7, 8, 11, 12} {
		if results[i].Of != of {
			t.Fatalf("results pair wrongly:\n%s", show(results))
		}
	}
	if len(results) != 6 || string(results[2].Code) != "57014" {
		t.Errorf("results:\n%s", show(results))
	}
}

func TestCopyOut(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("")
	for i, sql := range []string{
		"COPY (SELECT g, repeat('x', 20) FROM generate_series(1, 20000) g) TO STDOUT",
		"COPY (SELECT repeat(g::text, 100000) FROM generate_series(1, 9) g) TO STDOUT",
	} {
		var data bytes.Buffer
		tag, err := c.PgConn().CopyTo(t.Context(), &data, sql)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := show(w.sink.of(recorder.TypeCopy)[i:]), copyLine(uint64(i+1), "out", int(tag.RowsAffected()), data.Bytes()); got != want {
			t.Errorf("got %swant %s", got, want)
		}
	}
	w.bye(c)
}

// TestLongRows: rows longer than a buffer pass and are counted.
func TestLongRows(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	c := w.connect("")
	rows, err := c.Query(t.Context(), "SELECT repeat('x', 300000 + g), g FROM generate_series(1, 5) g", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for rows.Next() {
		for _, v := range rows.RawValues() {
			total += len(v)
		}
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	w.bye(c)
	r := w.sink.of(recorder.TypeResult)[0]
	if r.Rows != 5 || r.Bytes != uint64(total) {
		t.Errorf("rows %d bytes %d, want 5 and %d", r.Rows, r.Bytes, total)
	}
}
