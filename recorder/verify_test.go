package recorder

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"
)

func zstdBytes(t testing.TB, text string) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll([]byte(text), nil)
}

// Whatever is done to a sealed file is found, by somebody who can also write a well-formed one.
func TestTamperingIsFound(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	record(t, w, statement(1, "select 1"), result(1), statement(2, "delete"), result(2))
	if err := w.sync(5); err != nil {
		t.Fatal(err)
	}
	moved := l.Moved()
	record(t, w, statement(3, "select 3"), result(3))
	s := seal(t, w)
	verify(t, l, s, moved...)
	lines, _ := content(t, l, "s1")
	file, err := os.ReadFile(l.dir + "/" + s.File)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(lines ...string) []byte { return zstdBytes(t, strings.Join(lines, "\n")+"\n") }
	edit := func(i int, old, new string) []string {
		out := append([]string(nil), lines...)
		out[i] = strings.Replace(out[i], old, new, 1)
		return out
	}
	renumber := func(out []string) []string {
		for i := range out {
			e, err := decodeEvent([]byte(out[i]))
			if err != nil {
				t.Fatal(err)
			}
			out[i] = strings.Replace(out[i], `"seq":`+itoa(e.Seq), `"seq":`+itoa(uint64(i)), 1)
		}
		return out
	}
	leaf := LeafHash([]byte(lines[3]))
	for name, c := range map[string]struct {
		file  []byte
		field string
	}{
		"repacked":       {pack(lines...), "sha256"},
		"edited":         {pack(edit(3, "delete", "select")...), "root"},
		"edited header":  {pack(edit(0, "alice", "mallory")...), "root"},
		"deleted":        {pack(renumber(append(append([]string(nil), lines[:3]...), lines[4:]...))...), "count"},
		"reordered":      {pack(renumber([]string{lines[0], lines[3], lines[2], lines[1], lines[4], lines[5], lines[6], lines[7]})...), "root"},
		"tail cut":       {pack(lines[:5]...), "count"},
		"end cut":        {pack(lines[:7]...), "interrupted"},
		"appended":       {pack(append(append([]string(nil), lines[:7]...), renumber(append(append([]string(nil), lines[:7]...), lines[1], lines[7]))[7:]...)...), "count"},
		"erased":         {pack(edit(3, lines[3], `{"seq":3,"erased":"`+hex.EncodeToString(leaf[:])+`"}`)...), "sha256"},
		"other end":      {pack(edit(7, `"code":"client"`, `"code":"expired"`)...), "end"},
		"file truncated": {file[:len(file)-40], "length"},
		"file extended":  {append(append([]byte(nil), file...), zstdBytes(t, "")...), "length"},
		"byte flipped":   {flip(file, len(file)/3), "sha256"},
		"empty":          {nil, "length"},
		"other session":  {pack(edit(0, `"session":"s1"`, `"session":"s2"`)...), "session"},
	} {
		_, err := VerifyFile(bytes.NewReader(c.file), s)
		if err == nil {
			t.Errorf("%s: not found", name)
			continue
		}
		if !strings.Contains(err.Error(), "recording: "+c.field+" is ") {
			t.Errorf("%s: %v does not name %s", name, err, c.field)
		}
		var m *MismatchError
		if !errors.As(err, &m) {
			t.Errorf("%s: no MismatchError in %v", name, err)
		}
	}

	// The key's holder replaced the recording and its seal: what the ledger said before tells.
	forged := pack(edit(3, "delete", "select")...)
	rep, _ := VerifyFile(bytes.NewReader(forged), s)
	if _, err := VerifyFile(bytes.NewReader(forged), rep.Sealed); err != nil {
		t.Fatalf("the forgery is not well made: %v", err)
	}
	if _, err := VerifyFile(bytes.NewReader(forged), rep.Sealed, moved...); err == nil || !strings.Contains(err.Error(), "prefix 5") {
		t.Errorf("a rewrite from the start: %v", err)
	}
	if _, err := VerifyFile(bytes.NewReader(file), s, TreeState{Session: "s1", Count: 99, Root: s.Root}); err == nil {
		t.Error("a recording shorter than the ledger says passed")
	}
}

// An event may be erased: its hash stands in for it, the rest still proves itself under a new seal entry.
func TestErasedEventsKeepTheRoot(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	record(t, w, statement(1, "select 'somebody'"), result(1))
	s := seal(t, w)
	lines, _ := content(t, l, "s1")
	leaf := LeafHash([]byte(lines[1]))
	lines[1] = `{"seq":1,"erased":"` + hex.EncodeToString(leaf[:]) + `"}`
	file := zstdBytes(t, strings.Join(lines, "\n")+"\n")
	rep, _ := VerifyFile(bytes.NewReader(file), s)
	if rep.Root != s.Root || rep.Count != s.Count || rep.Erased != 1 {
		t.Fatalf("%+v", rep)
	}
	s.Length, s.SHA256 = rep.Length, rep.SHA256
	if _, err := VerifyFile(bytes.NewReader(file), s); err != nil {
		t.Fatal(err)
	}
}

// A sealed file is plain zstd to everybody, and seekable to who knows how.
func TestSealedFileIsSeekable(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	for i := range 20 {
		record(t, w, statement(uint64(i+1), repeatText(60_000)))
	}
	s := seal(t, w)
	lines, _ := content(t, l, "s1")
	text := strings.Join(lines, "\n") + "\n"
	f, err := l.File(s)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	r, err := seekable.NewReader(f, dec)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, at := range []int64{0, 1, frameSize - 3, frameSize, 3*frameSize + 17, int64(len(text)) - 100} {
		got := make([]byte, 100)
		if _, err := r.ReadAt(got, at); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if string(got) != text[at:at+100] {
			t.Errorf("at %d: %q", at, got)
		}
	}
	out, err := exec.Command(program(t, "zstd"), "-dc", f.Name()).Output()
	if err != nil || string(out) != text {
		t.Errorf("zstd -dc: %v, %d bytes of %d", err, len(out), len(text))
	}
}

func flip(b []byte, i int) []byte {
	out := append([]byte(nil), b...)
	out[i] ^= 1
	return out
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// No event is earlier than the one before it, however well the rest fits.
func TestVerifyTimeGoesOn(t *testing.T) {
	lines := `{"seq":0,"us":0,"type":"header","salt":"000102030405060708090a0b0c0d0e0f","header":{"format":1,"session":"s1"}}
{"seq":1,"us":7,"type":"notice","salt":"000102030405060708090a0b0c0d0e0f"}
{"seq":2,"us":%d,"type":"end","salt":"000102030405060708090a0b0c0d0e0f","end":{"reason":"","code":"client"}}
`
	for us, want := range map[int]bool{6: true, 7: false, 8: false} {
		file := zstdBytes(t, fmt.Sprintf(lines, us))
		rep, _ := VerifyFile(bytes.NewReader(file), Sealed{})
		_, err := VerifyFile(bytes.NewReader(file), rep.Sealed)
		if (err != nil) != want || want && !strings.Contains(err.Error(), "event 2 is earlier") {
			t.Errorf("7, then %d: %v", us, err)
		}
	}
}
