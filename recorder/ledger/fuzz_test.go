package ledger

import (
	"bytes"
	"testing"
)

// FuzzCheckpoint: whatever somebody else's file holds, reading its checkpoints does not panic, and one that is
// taken for signed by the key is one that the key signed.
func FuzzCheckpoint(f *testing.F) {
	skey, err := NewKey(KeyName("abc123"))
	if err != nil {
		f.Fatal(err)
	}
	key, err := NewSigner(skey)
	if err != nil {
		f.Fatal(err)
	}
	var tree Tree
	tree.Append(LeafHash([]byte("x")))
	signed := Checkpoint{Origin: Origin("abc123"), Size: tree.Size(), Root: tree.Root()}
	msg, err := key.Sign(signed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Add(append(append([]byte("curfew/abc123\n1\n\n"), msg...), msg[:len(msg)/2]...))
	f.Add([]byte("curfew/abc123\n-1\nAAAA\n\n\u2014 curfew-abc123 AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		anchors, err := ReadAnchors(bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, a := range anchors {
			if c, err := ParseCheckpoint(a.Note, key.VerifierKey()); err == nil && c != signed {
				t.Fatalf("%+v was never signed", c)
			}
		}
	})
}
