package mysql

import (
	"fmt"
	"testing"

	"filippo.io/edwards25519"
)

// Whose name nobody has is asked by a key that could be somebody's: what is none is refused twenty times as
// fast, which can be measured from outside.
func TestDecoysAreKeys(t *testing.T) {
	f := NewFront(FrontConfig{})
	for i := range 64 {
		v := f.decoyFor(fmt.Sprint("nobody", i))
		if _, err := new(edwards25519.Point).SetBytes(v.ed25519[:]); err != nil {
			t.Fatalf("decoy %d: %v", i, err)
		}
	}
}
