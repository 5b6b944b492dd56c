package recorder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// FuzzSealedText: whatever the bytes of a file, reading it by its seek table is an error, or gives what reading it from
// front to back gives; a frame at a time.
func FuzzSealedText(f *testing.F) {
	whole := packed(f, busy(f, 40))
	f.Add(whole, uint16(100))
	f.Add(whole[:len(whole)-9], uint16(0))
	f.Add(append(packed(f, []byte("hidden\n")), whole...), uint16(7))
	f.Add(packed(f, nil), uint16(0))
	f.Fuzz(func(t *testing.T, file []byte, at uint16) {
		text, err := SealedText(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		const most = 16 << 20
		got, err := io.ReadAll(io.LimitReader(text, most+1))
		s := text.(*sealedText)
		if cap(s.packed) > maxFrame || cap(s.frame) > 2*maxFrame {
			t.Fatalf("%d and %d bytes are held", cap(s.packed), cap(s.frame))
		}
		if err != nil || len(got) > most {
			return
		}
		z, err := newDecoder(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		want, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(got, want) || text.Size() != int64(len(want)) {
			t.Fatalf("%d bytes by the table, %d in turn, %v", len(got), len(want), err)
		}
		piece := make([]byte, 50)
		n, err := text.ReadAt(piece, int64(at))
		if from := min(int(at), len(want)); !bytes.Equal(piece[:n], want[from:min(from+50, len(want))]) || (n == 50) != (err == nil) || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("at %d: %q, %v", at, piece[:n], err)
		}
	})
}

// FuzzJump: a jump passes over nothing that is at or later, and a statement is found by its number, however events
// are spread over time and text. Where some lines are no events, it neither panics nor goes on for ever.
func FuzzJump(f *testing.F) {
	f.Add([]byte{1, 2, 3, 255, 0, 9, 100, 100}, uint32(500), uint16(3), []byte{})
	f.Add(bytes.Repeat([]byte{200, 0, 1}, 40), uint32(1<<20), uint16(60), []byte{})
	f.Add(bytes.Repeat([]byte{255}, 100), uint32(12000), uint16(1), []byte("no event\n"))
	head := firstLine(f)
	f.Fuzz(func(t *testing.T, shape []byte, at uint32, id uint16, wrong []byte) {
		if len(shape) > 300 {
			return
		}
		text, micros := bytes.Clone(head), int64(0)
		for i, b := range shape {
			e := statement(uint64(i+1), "")
			e.Text = bytes.Repeat([]byte("x"), int(b)*8)
			if b%4 == 3 {
				e = result(uint64(i))
			}
			micros += int64(b%16) * 100
			line, err := appendEvent(text, &stamp{seq: uint64(i + 1), micros: micros}, &e, body{text: e.Text, inline: maxPart})
			if err != nil {
				t.Fatal(err)
			}
			if text = append(line, '\n'); i == len(shape)/2 {
				text = append(text, wrong...)
			}
		}
		until := time.Duration(at) * time.Microsecond
		events := func(jump bool) (seqs []uint64, err error) {
			r := NewReader(bytes.NewReader(text))
			if _, _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
			if jump {
				r.Jump(until)
			}
			for {
				_, e, err := r.Next()
				if err != nil {
					return seqs, err
				}
				if time.Duration(e.Micros)*time.Microsecond >= until {
					seqs = append(seqs, e.Seq)
				}
			}
		}
		got, err := events(true)
		r := NewReader(bytes.NewReader(text))
		r.Next()
		found, ok := r.Statement(uint64(id))
		if len(wrong) > 0 {
			return
		}
		want, _ := events(false)
		if err != io.EOF || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("from %s on: %v, want %v, %v", until, got, want, err)
		}
		is := id > 0 && int(id) <= len(shape) && shape[id-1]%4 != 3
		if ok != is || ok && found.ID != uint64(id) {
			t.Fatalf("statement %d: %t %d, want %t", id, ok, found.ID, is)
		}
	})
}

// FuzzSealedJSON: what the ledger says of a recording, read from JSON, names no file outside the recordings.
func FuzzSealedJSON(f *testing.F) {
	f.Add([]byte(`{"session":"s1","file":"sealed/2026/08/11/s1.jsonl.zst","length":1}`))
	f.Add([]byte(`{"file":"sealed/../../../../etc/passwd"}`))
	f.Add([]byte(`{"file":"sealed/"}`))
	l := openLibrary(f, f.TempDir(), Options{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Sealed
		if json.Unmarshal(data, &s) != nil {
			return
		}
		file, err := l.File(s)
		if err != nil {
			return
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			t.Fatalf("%q opens %s", s.File, file.Name())
		}
	})
}
