package ledger

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func TestEncodeDecode(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 123456000, time.FixedZone("x", 7200))
	e, err := NewEntry(7, at, TypeRequestDecided, RequestDecided{Request: "r1", Comment: "a < b & c\nd \u2028"})
	if err != nil {
		t.Fatal(err)
	}
	line, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(line), `{"n":7,"time":"2026-05-01T10:00:00.123456Z","type":"request.decided","salt":"`) {
		t.Errorf("line %s", line)
	}
	if strings.Contains(string(line), "\n") || !strings.Contains(string(line), "a < b & c") {
		t.Errorf("line %q", line)
	}
	got, err := Decode(line)
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Fatalf("decoded %+v, %v; want %+v", got, err, e)
	}
	var d RequestDecided
	if err := got.Into(&d); err != nil || d.Comment != "a < b & c\nd \u2028" {
		t.Errorf("data %+v, %v", d, err)
	}
	again, err := NewEntry(7, at, TypeRequestDecided, d)
	if err != nil || again.Salt == e.Salt {
		t.Errorf("the same facts give the same salt (%v)", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := `{"n":0,"time":"2026-05-01T10:00:00Z","type":"x","salt":"00112233445566778899aabbccddeeff","data":{}}`
	if _, err := Decode([]byte(good)); err != nil {
		t.Fatal(err)
	}
	if _, err := Decode([]byte(strings.Replace(good, `{"n"`, `{"later":[1],"n"`, 1))); err != nil {
		t.Errorf("an unknown field: %v", err)
	}
	for _, bad := range []string{
		"", "null", "{}", "[]", good + good, good + "x", good[:len(good)-1],
		strings.Replace(good, `"n":0`, `"n":-1`, 1), strings.Replace(good, `"n":0,`, ``, 1),
		strings.Replace(good, `"type":"x",`, ``, 1), strings.Replace(good, `,"data":{}`, ``, 1),
		strings.Replace(good, `0011`, ``, 1), strings.Replace(good, `"time":"2026-05-01T10:00:00Z",`, ``, 1),
		strings.Replace(good, `"x"`, "\"\xff\"", 1),
	} {
		if e, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%q decodes to %+v", bad, e)
		}
	}
}

// The tree is held against the reference implementation of the Go checksum database, at every size.
func TestTreeIsRFC6962(t *testing.T) {
	var tree Tree
	if tree.Root() != tlog.Hash(sha256.Sum256(nil)) {
		t.Error("root of the empty tree")
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	roots := []tlog.Hash{tree.Root()}
	for n := range int64(130) {
		line := fmt.Appendf(nil, "line %d", n)
		hashes, err := tlog.StoredHashes(n, line, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		before := tree.Clone()
		tree.Append(LeafHash(line))
		if before.Size() != n || before.Root() != roots[n] {
			t.Fatalf("a clone at %d moved with its original", n)
		}
		want, err := tlog.TreeHash(n+1, reader)
		if err != nil || tree.Root() != want || tree.Size() != n+1 {
			t.Fatalf("root at %d is %v, want %v (%v)", n+1, tree.Root(), want, err)
		}
		roots = append(roots, want)
	}
	// Consistency: every earlier root is a prefix of the last one, and of no other tree.
	last := tree.Size()
	for n := int64(1); n <= last; n++ {
		proof, err := tlog.ProveTree(last, n, reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(proof, last, roots[last], n, roots[n]); err != nil {
			t.Errorf("%d is no prefix of %d: %v", n, last, err)
		}
		if err := tlog.CheckTree(proof, last, roots[last], n, roots[n-1]); err == nil {
			t.Errorf("a wrong root at %d is consistent", n)
		}
	}
}

func TestCheckpoint(t *testing.T) {
	skey, err := NewKey(KeyName("abc123"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(skey + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.Name() != "curfew-abc123" || !strings.HasPrefix(s.VerifierKey(), "curfew-abc123+") {
		t.Errorf("key %s, %s", s.Name(), s.VerifierKey())
	}
	want := Checkpoint{Origin: Origin("abc123"), Size: 42, Root: LeafHash([]byte("x"))}
	msg, err := s.Sign(want)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(msg), "curfew/abc123\n42\n"+want.Root.String()+"\n\n— curfew-abc123 ") {
		t.Errorf("note %s", msg)
	}
	if got, err := ParseCheckpoint(msg, s.VerifierKey()+"\n"); err != nil || got != want {
		t.Errorf("parsed %+v, %v", got, err)
	}
	other, err := NewKey(KeyName("abc123"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewSigner(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseCheckpoint(msg, o.VerifierKey()); err == nil {
		t.Error("another key of the same name verifies it")
	}
	for _, bad := range []string{
		strings.Replace(string(msg), "42", "43", 1), strings.Replace(string(msg), "abc123\n", "abc124\n", 1),
		string(msg[:len(msg)-10]), "", "x" + string(msg),
	} {
		if c, err := ParseCheckpoint([]byte(bad), s.VerifierKey()); err == nil {
			t.Errorf("%q parses to %+v", bad, c)
		}
	}
	for _, text := range []string{"curfew/x\n42\n", "curfew/x\n042\n" + want.Root.String() + "\n", "curfew/x\n-1\n" + want.Root.String() + "\n"} {
		if c, err := parseText(text); err == nil {
			t.Errorf("%q parses to %+v", text, c)
		}
	}
}

func TestReadAnchors(t *testing.T) {
	note := func(size string) string { return "curfew/abc123\n" + size + "\nroot\n\n— curfew-abc123 signature\n" }
	for name, c := range map[string]struct {
		file string
		want string
	}{
		"empty":                  {"", ""},
		"one":                    {note("1"), "1:whole"},
		"two":                    {note("1") + "\n" + note("2"), "1:whole 7:whole"},
		"no blank line between":  {note("1") + note("2"), "1:whole 6:whole"},
		"several signatures":     {note("1") + "— witness sig\n\n" + note("2"), "1:whole 8:whole"},
		"torn in the text":       {note("1") + "\ncurfew/abc123\n2\n\n\n" + note("3"), "1:whole 7:torn 11:whole"},
		"torn in the origin":     {note("1") + "\ncurf\n\n" + note("3"), "1:whole 7:torn 9:whole"},
		"torn at the end":        {note("1") + "\n" + note("2")[:20], "1:whole 7:torn"},
		"rubbish between":        {note("1") + "rubbish\n" + note("2"), "1:whole 6:torn 7:whole"},
		"blank lines everywhere": {"\n\n" + note("1") + "\n\n\n" + note("2") + "\n\n", "3:whole 11:whole"},
	} {
		anchors, err := ReadAnchors(strings.NewReader(c.file))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range anchors {
			got = append(got, fmt.Sprintf("%d:%s", a.Line, map[bool]string{true: "torn", false: "whole"}[a.Torn]))
			if !a.Torn && !strings.HasPrefix(string(a.Note), "curfew/abc123\n") {
				t.Errorf("%s: note %q", name, a.Note)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"n":0,"time":"2026-05-01T10:00:00Z","type":"x","salt":"00112233445566778899aabbccddeeff","data":{"a":1}}`))
	f.Add([]byte(`{"n":1e3}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Decode(line)
		if err != nil {
			return
		}
		again, err := Encode(e)
		if err != nil {
			t.Fatalf("decoded, not encoded: %v", err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("encoded, not decoded: %v", err)
		}
	})
}
