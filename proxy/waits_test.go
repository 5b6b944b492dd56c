package proxy

import (
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// waiting is a recording that waits for a disk by design.
type waiting struct{ Recording }

func (waiting) Waits() bool { return true }

// TestWaitsIsPassedOn: an engine hears through the meter that a recording waits for a disk, or it would
// let it hold up the other sessions of a loop.
func TestWaitsIsPassedOn(t *testing.T) {
	if !protocol.Waiter(&meter{Recording: waiting{}}).Waits() {
		t.Error("the meter keeps it to itself")
	}
	if (&meter{Recording: recording{}}).Waits() {
		t.Error("it waits where nobody said so")
	}
	var _ protocol.Waiter = (*recorder.Writer)(nil)
}
