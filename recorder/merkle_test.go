package recorder

import (
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// The tree must be the one that the Go checksum database uses, at every size.
func TestTreeIsRFC6962(t *testing.T) {
	var tree Tree
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(idx []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(idx))
		for i, x := range idx {
			out[i] = stored[x]
		}
		return out, nil
	})
	for n := int64(0); n < 1100; n++ {
		want, err := tlog.TreeHash(n, read)
		if err != nil {
			t.Fatal(err)
		}
		if got := tree.Root(); tlog.Hash(got) != want && n > 0 {
			t.Fatalf("root of %d leaves is %x, want %v", n, got, want)
		}
		if tree.Count() != uint64(n) {
			t.Fatalf("count is %d, want %d", tree.Count(), n)
		}
		line := []byte(fmt.Sprintf(`{"seq":%d}`, n))
		leaf := LeafHash(line)
		if tlog.Hash(leaf) != tlog.RecordHash(line) {
			t.Fatalf("leaf hash of %s is %x", line, leaf)
		}
		hs, err := tlog.StoredHashes(n, line, read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		tree.Append(leaf)
	}
}

func TestEmptyTree(t *testing.T) {
	var tree Tree
	const want = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := fmt.Sprintf("%x", tree.Root()); got != want {
		t.Fatalf("root of the empty tree is %s", got)
	}
}
