package mysql

import (
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// A backend that is gone before it can be killed, because another session of the same grant has killed it, say,
// may have committed what it was asked to do: nobody has heard its answer.
func TestGoneBefore(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	for statement, want := range map[uint64]string{0: protocol.FateNone, 7: protocol.FateUnknown} {
		f := &fakeSession{statement: statement}
		f.backend.Store(1<<31 - 1)
		if _, err := a.add(f); err != nil {
			t.Fatal(err)
		}
		o, err := a.kill(t.Context(), f)
		if err != nil || o.Fate != want || o.InFlight != statement || o.Backend != "2147483647" {
			t.Errorf("%+v %v, wanted %s", o, err, want)
		}
		a.Leave(f)
	}
	finish(t, a)
}
