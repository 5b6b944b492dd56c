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

// Who waits for a disk keeps a processor of Go's: only then there are more than Go would take, and never fewer.
func TestProcessors(t *testing.T) {
	for n, want := range map[int]int{1: 4, 2: 8, 16: 64, 96: 96} {
		if got := Disk.Processors(n); got != want {
			t.Errorf("%d for %d", got, n)
		}
		if got := Process.Processors(n); got != n {
			t.Errorf("%d for %d without a disk to wait for", got, n)
		}
	}
}
