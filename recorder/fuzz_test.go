package recorder

import (
	"bytes"
	"context"
	"os"
	"testing"
)

// FuzzHeal: whatever stands in an open file, healing neither panics nor loses what was right before the first
// wrong line, and what it seals verifies.
func FuzzHeal(f *testing.F) {
	l := openLibrary(f, f.TempDir(), Options{})
	w := create(f, l, "s1")
	record(f, w, statement(1, "select 1"), result(1), statement(2, "select 2"))
	text, err := os.ReadFile(l.openPath("s1"))
	if err != nil {
		f.Fatal(err)
	}
	l.Close()
	f.Add(text)
	f.Add(text[:len(text)-7])
	f.Add(append(bytes.Clone(text), 0, '\n', '{'))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := openLibrary(t, t.TempDir(), Options{})
		if err := os.WriteFile(l.openPath("s1"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		right := &summary{}
		right.scan(NewReader(bytes.NewReader(text)), nil) // up to the first wrong line
		healed, err := l.Heal(context.Background(), []string{"s1"})
		if err != nil || len(healed) != 1 {
			t.Fatalf("%+v, %v", healed, err)
		}
		ours := right.header != nil && right.header.Session == "s1"
		if h := healed[0]; h.Lost == ours || ours && h.Sealed.Count != right.tree.Count() {
			t.Fatalf("%d events were right: %+v", right.tree.Count(), h)
		}
		if ours && right.backwards == 0 {
			verify(t, l, healed[0].Sealed)
		}
		l.Close()
	})
}

// FuzzVerifyFile: whatever the bytes of a sealed file, the container and its seek table included, reading it
// neither panics nor takes it for another.
func FuzzVerifyFile(f *testing.F) {
	l := openLibrary(f, f.TempDir(), Options{})
	w := create(f, l, "s1")
	record(f, w, statement(1, "select 1"), result(1))
	s := seal(f, w)
	file, err := l.File(s)
	if err != nil {
		f.Fatal(err)
	}
	var whole bytes.Buffer
	if _, err := whole.ReadFrom(file); err != nil {
		f.Fatal(err)
	}
	file.Close()
	l.Close()
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-9])
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := VerifyFile(bytes.NewReader(data), s)
		if (err == nil) != bytes.Equal(data, whole.Bytes()) {
			t.Fatalf("%v", err)
		}
	})
}
