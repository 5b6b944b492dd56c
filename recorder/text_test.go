package recorder

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"
)

// packed is the sealed form of a text.
func packed(t testing.TB, text []byte) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	frames, err := seekable.NewWriter(&out, encoder)
	if err != nil {
		t.Fatal(err)
	}
	f := &framer{to: frames, b: make([]byte, 0, frameSize)}
	f.Write(text)
	if err := f.flush(); err != nil {
		t.Fatal(err)
	}
	if err := frames.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func textOf(t testing.TB, file []byte) Text {
	t.Helper()
	text, err := SealedText(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSealedText(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	for id := uint64(1); id < 5000; id++ {
		record(t, w, statement(id, fmt.Sprint("select ", id)), result(id))
	}
	f, err := l.File(seal(t, w))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	z, err := newDecoder(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	text := textOf(t, file)
	if got, err := io.ReadAll(text); err != nil || !bytes.Equal(got, want) || text.Size() != int64(len(want)) || len(want) < 2*frameSize {
		t.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
	}
	across := make([]byte, 1000)
	if _, err := text.ReadAt(across, frameSize-500); err != nil || !bytes.Equal(across, want[frameSize-500:][:1000]) {
		t.Errorf("across two frames: %v", err)
	}
	if n, err := text.ReadAt(across, int64(len(want))-10); n != 10 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	// Nothing hides beside what the table names.
	extra := packed(t, []byte("hidden\n"))
	empty := bytes.Clone(extra)
	clear(empty[len(empty)-9-8:][:4]) // the size of what is in its only frame; a checksum and the table's end follow
	for name, bad := range map[string][]byte{
		"a frame in which the table says that there is nothing": empty,
		"more in front": append(bytes.Clone(extra[:len(extra)/2]), file...), "cut": file[1:], "no table": file[:len(file)-40], "none": nil,
	} {
		if _, err := SealedText(bytes.NewReader(bad), int64(len(bad))); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	broken := bytes.Clone(file)
	broken[len(broken)/3] ^= 1
	if got, err := io.ReadAll(textOf(t, broken)); err == nil {
		t.Errorf("a flipped bit: %d bytes, equal: %t", len(got), bytes.Equal(got, want))
	}
}

// TestSealedTextAnywhere: however one goes from front to back and elsewhere in between, what is read is what is there.
func TestSealedTextAnywhere(t *testing.T) {
	want := busy(t, 12000)
	text := textOf(t, packed(t, want))
	random := rand.New(rand.NewPCG(1, 2))
	for at, i := int64(0), 0; i < 300; i++ {
		if random.IntN(8) == 0 {
			at = random.Int64N(int64(len(want)))
		}
		piece := make([]byte, min(int64(1+random.IntN(frameSize)), int64(len(want))-at))
		if n, err := text.ReadAt(piece, at); n != len(piece) || err != nil || !bytes.Equal(piece, want[at:][:n]) {
			t.Fatalf("%d bytes of %d at %d: %v", n, len(piece), at, err)
		}
		at = (at + int64(len(piece))) % int64(len(want))
	}
}

// failing can be read up to a place.
type failing struct {
	io.ReaderAt
	to int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.to {
		return 0, io.ErrNoProgress
	}
	return f.ReaderAt.ReadAt(p, off)
}

// TestSealedTextAhead: what is wrong with a frame is said to who comes to it, and not before.
func TestSealedTextAhead(t *testing.T) {
	want := busy(t, 12000)
	file := packed(t, want)
	text := textOf(t, file)
	e, ok := text.(*sealedText).table.EntryByID(3)
	if !ok {
		t.Fatal("too few frames")
	}
	text.(*sealedText).f = failing{bytes.NewReader(file), int64(e.CompressedOffset)}
	for range 2 {
		if got, err := io.ReadAll(text); err != io.ErrNoProgress || !bytes.Equal(got, want[:len(got)]) || len(got) != 3*frameSize {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		text.(*sealedText).Reader = io.NewSectionReader(text, 0, text.Size())
	}
}

// TestSought: a text is found where bytes.Contains finds it, by whichever of its bytes.
func TestSought(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	piece := func(most int) (b []byte) {
		for range 1 + random.IntN(most) {
			b = append(b, "abc"[random.IntN(3)])
		}
		return b
	}
	for range 20000 {
		lines, text := piece(120), piece(7)
		for i := range text {
			s := sought{text, i}
			if got := s.in(lines); got != bytes.Contains(lines, text) {
				t.Fatalf("%q in %q by %d: %t", text, lines, i, got)
			}
		}
	}
	list := seek([]byte(`{"text":"mmm","hex":`), []byte(`"hex"`), []byte("e.m"))
	if list[0].rare != 1 || list[1].rare != 1 {
		t.Errorf("%+v", list)
	}
}

func TestJump(t *testing.T) {
	text := busy(t, 20000)
	file := packed(t, text)
	last := uint64(40001)
	for _, seq := range []uint64{0, 1, 2, 500, 20000, 39990, last, last + 5} {
		at := time.Duration(seq*50) * time.Microsecond
		r := NewReader(textOf(t, file))
		r.Next()
		r.Jump(at)
		passed := r.seq
		if seq > 2000 && passed+1000 < min(seq, last) {
			t.Errorf("jumped to %d for %d", passed, seq)
		}
		for {
			_, e, err := r.Next()
			if err == io.EOF && seq > last {
				break
			}
			if err != nil || e.Seq > seq && seq > 0 {
				t.Fatalf("passed over %d: at %d, %v", seq, e.Seq, err)
			}
			if e.Seq >= seq {
				break
			}
		}
		_, rest, err := readAll(r)
		if want := max(int(last)-int(max(seq, 1)), 0); err != nil || len(rest) != want {
			t.Errorf("%d events behind %d, want %d: %v", len(rest), seq, want, err)
		}
	}
	// Where there is nothing to jump in, everything is read.
	r := NewReader(struct{ io.Reader }{bytes.NewReader(text)})
	r.Next()
	r.Jump(time.Second)
	if _, e, _ := r.Next(); e.Seq != 1 {
		t.Errorf("went on with %d", e.Seq)
	}
}

func TestStatementByNumber(t *testing.T) {
	r := NewReader(textOf(t, packed(t, busy(t, 20000))))
	for _, id := range []uint64{1, 2, 333, 10000, 19999, 20000} {
		if e, ok := r.Statement(id); !ok || e.ID != id || e.Type != TypeStatement {
			t.Errorf("%d: %t, %+v", id, ok, e)
		}
	}
	for _, id := range []uint64{0, 20001, 1 << 60} {
		if e, ok := r.Statement(id); ok {
			t.Errorf("%d: %+v", id, e)
		}
	}
	if lines, _, err := readAll(r); err != nil || len(lines) != 40002 {
		t.Errorf("looking a statement up moved the reader: %d lines, %v", len(lines), err)
	}
}

// hits gives the numbers of the events that hold a text.
func hits(t *testing.T, text []byte, what string) []uint64 {
	t.Helper()
	r := NewReader(bytes.NewReader(text))
	if _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	r.Find([]byte(what))
	var at []uint64
	for {
		_, e, err := r.Next()
		if err == io.EOF {
			return at
		}
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, e.Seq)
	}
}

func TestFind(t *testing.T) {
	head := block(t, "jsonl")
	head = head[:strings.Index(head, "\n")+1]
	text := head
	for i, l := range []string{
		`"type":"statement",S,"id":1,"kind":"simple","text":"select 'a\\b\n\"c\"' /* é */"`,                     // 1
		`"type":"statement",S,"id":2,"kind":"simple","text":"\u0073elect\/x"`,                                   // 2
		`"type":"statement",S,"id":3,"kind":"simple","text_b64":"c2VjcmV0/w=="`,                                 // 3 secret
		`"type":"statement",S,"id":4,"kind":"bind","params":[{"type":"bytea","hex":"73656372657400"}]`,          // 4 secret
		`"type":"statement",S,"id":5,"kind":"simple","text":"abc","more":true`,                                  // 5
		`"type":"result",S,"of":4,"rows":0,"duration_us":1,"message":"defective"`,                               // 6
		`"type":"part",S,"of":5,"field":"text","text":"de","more":true`,                                         // 7
		`"type":"part",S,"of":5,"field":"text","text":"fg"`,                                                     // 8
		`"type":"statement",S,"id":6,"kind":"bind","params":[{"type":"text","value":"12","more":true}]`,         // 9
		`"type":"part",S,"of":6,"field":"param","text":"34"`,                                                    // 10
		`"type":"statement",S,"id":7,"kind":"bind","params":[{"type":"t","value":"7","more":true}],"more":true`, // 11
		`"type":"part",S,"of":7,"field":"param","params":[{"type":"t","value":"89"},{"type":"t","value":"zz"}]`, // 12
		`"type":"blocked",S,"of":7,"reason":"not here"`,                                                         // 13
		`"type":"statement",S,"id":8,"kind":"prepare","text":"","name":"pn","portal":"pp","prepares":"gid"`,     // 14
		`"type":"notice",S,"from":"server","code":"01000","message_b64":"c2VjcmV0/w=="`,                         // 15 secret
		`"id":9,"kind":"simple","text":"free order","type":"statement",S`,                                       // 16
		`"type":"statement",S,"id":10,"kind":"simple","text":"` + "\u0085" + `"`,                                // 17
		`"type":"end",S,"end":{"code":"client","reason":"good bye"}`,                                            // 18
	} {
		l = strings.Replace(l, "S", `"salt":"000102030405060708090a0b0c0d0e0f"`, 1)
		text += fmt.Sprintf(`{"seq":%d,"us":%d,%s}`+"\n", i+1, i+1, l)
	}
	for what, want := range map[string]string{
		`a\b` + "\n" + `"c"`: "[1]", "é": "[1]", "select": "[1 2]", "select/": "[2]", "SELECT": "[]",
		"secret": "[3 4 15]", "secret\xff": "[3 15]", "cdefg": "[8]", "cde": "[7]", "def": "[6 8]", "abc": "[5]", "bcdef": "[8]",
		"1234": "[10]", "23": "[10]", "789": "[12]", "zz": "[12]", "89zz": "[]", "not here": "[13]", "pn": "[14]", "pp": "[14]", "gid": "[14]",
		"01000": "[15]", "free": "[16]", "\u0085": "[17]", "good": "[18]", "statement": "[]", "000102": "[]", `\n`: "[]",
	} {
		if got := fmt.Sprint(hits(t, []byte(text), what)); got != want {
			t.Errorf("%q is in %s, want %s", what, got, want)
		}
	}
	if n := len(hits(t, []byte(text), "")); n != 18 {
		t.Errorf("looking for nothing gives %d events", n)
	}
}

// In a long recording, of which most is looked through at once.
func TestFindFarAndWide(t *testing.T) {
	text := busy(t, 20000)
	for _, what := range []string{"aid = 7919;", "aid = 77", "aid = 1;", "SELECT 1", "client"} {
		var want []uint64
		lines := bytes.Split(text, []byte("\n"))
		for i, line := range lines[1 : len(lines)-1] {
			if bytes.Contains(line, []byte(what)) && i < 40000 {
				want = append(want, uint64(i+1))
			}
		}
		if got := hits(t, text, what); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q is in %d events, want %d", what, len(got), len(want))
		}
	}
}

// What is passed over is numbered without a gap all the same.
func TestFindCounts(t *testing.T) {
	lines := strings.SplitAfter(string(busy(t, 10)), "\n")
	for name, text := range map[string]string{
		"gap":       strings.Join(append(lines[:5:5], lines[6:]...), ""),
		"after end": strings.Join(lines, "") + strings.Replace(lines[1], `"seq":1,`, `"seq":22,`, 1),
		"torn":      strings.TrimSuffix(strings.Join(lines, ""), "\n"),
	} {
		r := NewReader(strings.NewReader(text))
		r.Next()
		r.Find([]byte("nowhere"))
		if _, e, err := r.Next(); err == nil || err == io.EOF {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

// FuzzFind: no event that holds a text is passed over, however its line is written.
func FuzzFind(f *testing.F) {
	f.Add([]byte("select 'é\\\n'"), []byte("\xff\x00"), "é\\")
	f.Add([]byte("a\x7fb"), []byte("12"), "\x7f")
	f.Fuzz(func(t *testing.T, text, value []byte, what string) {
		e := Event{Type: TypeStatement, ID: 1, Kind: KindBind, Text: text, Name: value, Params: []Param{{Type: "t", Value: value}, {Type: "b", Value: text, Hex: true}}}
		line, err := appendEvent(nil, &stamp{seq: 1}, &e, body{text: text, inline: maxPart})
		if err != nil {
			t.Fatal(err)
		}
		want := what == "" || bytes.Contains(text, []byte(what)) || bytes.Contains(value, []byte(what))
		head := firstLine(t)
		if got := len(hits(t, append(head, append(line, '\n')...), what)) == 1; got != want {
			t.Fatalf("%q: found %t, want %t: %s", what, got, want, line)
		}
	})
}

func firstLine(t testing.TB) []byte {
	text := busy(t, 0)
	return bytes.Clone(text[:bytes.IndexByte(text, '\n')+1])
}

func benchmarkMillion(b *testing.B, work func(r *Reader) bool) {
	file := packed(b, busy(b, 1_000_000))
	b.ReportAllocs()
	for b.Loop() {
		r := NewReader(textOf(b, file))
		r.Next()
		if !work(r) {
			b.Fatal("not found")
		}
	}
}

// BenchmarkJumpMillion: from opening the file to the event at 90 % of a million statements.
func BenchmarkJumpMillion(b *testing.B) {
	benchmarkMillion(b, func(r *Reader) bool {
		at := 1_800_000 * 50 * time.Microsecond
		r.Jump(at)
		for {
			if _, e, err := r.Next(); err != nil || e.Micros >= at.Microseconds() {
				return err == nil && e.Seq == 1_800_000
			}
		}
	})
}

// BenchmarkFindMillion: from opening the file to having looked through a million statements.
func BenchmarkFindMillion(b *testing.B) {
	benchmarkMillion(b, func(r *Reader) bool {
		r.Find([]byte("no such text"))
		_, _, err := r.Next()
		return err == io.EOF
	})
}
