package recorder

import "testing"

// TestWaits: a Writer waits for the disk with Disk durability, and with no other.
func TestWaits(t *testing.T) {
	for _, d := range []Durability{Disk, Process} {
		if w := (&Writer{lib: &Library{durability: d}}); w.Waits() != (d == Disk) {
			t.Errorf("%s: %v", d, w.Waits())
		}
	}
}
