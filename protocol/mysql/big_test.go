package mysql

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// digesting is a Sink that keeps no text: its hash, its length and the longest event.
type digesting struct {
	hash    hash.Hash
	n, most int
	rest    memory
}

func (d *digesting) Record(events ...recorder.Event) error {
	for _, e := range events {
		if len(e.Text) > 1024 || e.Type == recorder.TypePart {
			d.hash.Write(e.Text)
			d.n += len(e.Text)
			d.most = max(d.most, len(e.Text))
			continue
		}
		d.rest.Record(e)
	}
	return nil
}

// TestHugeStatement: a statement of three frames is on record, every byte of it, and runs; so does a row of
// three frames come back. Neither takes memory.
func TestHugeStatement(t *testing.T) {
	need(t)
	const size = 40 << 20
	admin(t, "test", "DROP TABLE IF EXISTS huge", "CREATE TABLE huge (a LONGBLOB)", "SET GLOBAL max_allowed_packet = 134217728")
	w := newWire(t, protocol.Level{})
	c := w.raw(eofCaps)
	c.conn.SetDeadline(time.Now().Add(60 * time.Second))
	m := w.sink(0)
	sum := sha256.New()
	n, most := 0, 0
	m.mu.Lock()
	m.hang = func(e recorder.Event) {
		if e.ID == 1 {
			sum.Write(e.Text)
			n += len(e.Text)
			most = max(most, len(e.Text))
		}
	}
	m.mu.Unlock()
	text := "INSERT INTO huge VALUES ('" + strings.Repeat("0123456789abcdef", size/16) + "')"
	before := heap()
	c.send(command(comQuery, text))
	if p := c.packet(3); p[0] != packetOK {
		t.Fatalf("%q", p)
	}
	c.send(command(comQuery, "SELECT a FROM huge"))
	go func() { _, _ = io.Copy(io.Discard, c.conn) }()
	w.until(c, 2)
	if n != len(text) || !bytes.Equal(sum.Sum(nil), digestOf(text)) || most > defaultWhole {
		t.Errorf("%d bytes on record in parts of up to %d, not %d", n, most, len(text))
	}
	results := m.of(recorder.TypeResult)
	if len(results) != 2 || results[1].Rows != 1 || results[1].Bytes != size+9 {
		t.Errorf("%s", show(results))
	}
	if got := super(t, "test", "SELECT CONCAT(LENGTH(a), ' ', SHA2(a, 256) = SHA2(REPEAT('0123456789abcdef', ?), 256)) FROM huge", size/16); got != fmt.Sprint(size, " 1") {
		t.Error(got)
	}
	c.quit()
	w.bye()
	t.Logf("the heap grew by %d KiB", (heap()-before)>>10)
}

func digestOf(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestHugeInBoundedMemory sends statements, values and rows of many frames through the observer alone.
func TestHugeInBoundedMemory(t *testing.T) {
	piece := []byte(strings.Repeat("SELECT 1; -- abcdefghijklmnopqrs", 1024))
	for _, name := range []string{"text", "value", "long data"} {
		p, _ := observing(observerConfig{status: statusAutocommit})
		p.keep = false
		d := &digesting{hash: sha256.New()}
		sum := sha256.New()
		var head []byte
		switch name {
		case "text":
			head = []byte{comQuery}
		case "value", "long data":
			p.client(t, command(comStmtPrepare, "SELECT ?"))
			p.server(t, prepareOK(7, 0, 1), column, eofWith(0))
			head = glue(executeOf(7, typedValue{typeLongBlob, []byte{0xfe}}), make([]byte, 8))
			if name == "long data" {
				head = glue([]byte{comStmtLongData}, le32(7), le16(0))
			}
		}
		const size = 64<<20 + 12345
		if name == "value" {
			copy(head[len(head)-8:], glue(le32(size), le32(0)))
		}
		p.o.sink = sinkFunc(func(events ...recorder.Event) error {
			for _, e := range events {
				for _, param := range e.Params {
					e.Text = append(e.Text, param.Value...)
				}
				if err := d.Record(e); err != nil {
					return err
				}
			}
			return nil
		})
		before := heap()
		stream(t, p, head, size, func(n int) []byte {
			b := piece[:min(n, len(piece))]
			sum.Write(b)
			return b
		})
		if grown := heap() - before; grown > 1<<20 {
			t.Errorf("%s: the heap grew by %d", name, grown)
		}
		if !bytes.Equal(d.hash.Sum(nil), sum.Sum(nil)) || d.n != size || d.most > defaultWhole {
			t.Errorf("%s: %d bytes on record in parts of up to %d", name, d.n, d.most)
		}
		if len(p.held) != 0 || (p.o.inFlight() == 0) != (name == "long data") {
			t.Errorf("%s: %d bytes are held, in flight %d", name, len(p.held), p.o.inFlight())
		}
	}
}

// stream sends a packet of head and size bytes more, in as many frames as it takes.
func stream(t *testing.T, p *pump, head []byte, size int, next func(n int) []byte) {
	t.Helper()
	left := len(head) + size
	for seq := byte(0); ; seq++ {
		n := min(left, maxFrame)
		p.write(t, []byte{byte(n), byte(n >> 8), byte(n >> 16), seq})
		left -= n
		for n > 0 {
			b := head
			if head = nil; b == nil {
				b = next(n)
			}
			p.write(t, b)
			n -= len(b)
		}
		if left == 0 && int(seq) != (len(head)+size)/maxFrame+1 {
			return
		}
	}
}

// TestFrameBoundary: what a frame's end falls into is put together again: a length, a number, a character.
func TestFrameBoundary(t *testing.T) {
	step := 3
	if raceDetector {
		step = 19
	}
	for shift := 0; shift < 40; shift += step {
		p, m := observing(observerConfig{})
		p.keep = false
		p.client(t, command(comStmtPrepare, "SELECT ?, ?, ?, ?"))
		p.server(t, prepareOK(7, 0, 4), column, column, column, column, eofWith(0))
		filler := maxFrame - 60 + shift
		execute := executeOf(7, str(strings.Repeat("x", filler)), integer(4711), typedValue{typeDatetime, []byte{11, 0xea, 7, 2, 28, 23, 59, 58, 7, 0, 0, 0}}, str("✓ grüße ✓"))
		p.write(t, appendPacket(nil, 0, execute))
		last := m.of(recorder.TypeStatement, recorder.TypePart)
		if got := show(last[len(last)-1:]); !strings.HasSuffix(got, ` int="4711" datetime="2026-02-28 23:59:58.000007" varchar="✓ grüße ✓"`+"\n") && !strings.HasSuffix(got, `varchar="✓ grüße ✓"`+"\n") {
			t.Fatalf("%d: %s", shift, got[max(0, len(got)-300):])
		}
		var all []recorder.Param
		total := 0
		for _, e := range last {
			for _, param := range e.Params {
				if total += len(param.Value); !param.More {
					all = append(all, param)
				}
			}
		}
		if len(all) != 4 || string(all[1].Value) != "4711" || string(all[3].Value) != "✓ grüße ✓" || p.o.queue.at(0).seq != byte(1+len(execute)/maxFrame) {
			t.Fatalf("%d: %d parameters, %d bytes", shift, len(all), total)
		}
		p, m = observing(observerConfig{})
		p.keep = false
		text := strings.Repeat("x", filler+40) + "✓✓✓✓✓✓✓✓✓✓"
		p.write(t, appendPacket(nil, 0, command(comQuery, text)))
		var back []byte
		for _, e := range m.all() {
			back = append(back, e.Text...)
			if !utf8.Valid(e.Text) && len(back) == 0 {
				t.Fatal("a part within a character")
			}
		}
		if string(back) != text {
			t.Fatalf("%d: the text is not what was sent", shift)
		}
	}
}

// TestManyRows: a row that has a successor is one row, and what looks like an EOF packet's first byte in its
// second frame is none.
func TestManyRows(t *testing.T) {
	p, m := observing(observerConfig{})
	p.keep = false
	p.client(t, command(comQuery, "SELECT"))
	row := bytes.Repeat([]byte{0xfe}, maxFrame+5)
	exact := bytes.Repeat([]byte{0xff}, 2*maxFrame)
	exact[0] = 0xfd
	if err := p.inbound(packets(1, []byte{1}, column, eofWith(0), row, exact, []byte{0xfb}, eofWith(0))); err != nil {
		t.Fatal(err)
	}
	if got, wanted := show(m.of(recorder.TypeResult)), fmt.Sprintf("result of=1 n=0 rows=3 bytes=%d tx=\"idle\"\n", len(row)+len(exact)+1); got != wanted {
		t.Errorf("%s wanted %s", got, wanted)
	}
}
