package mysql

import (
	"strconv"
	"sync"
	"testing"

	"github.com/curfewdb/curfew/protocol"
)

// selects is how many questions the server has been asked so far.
func selects(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(super(t, "", "SELECT variable_value FROM "+statusTable()+" WHERE variable_name = 'Com_select'"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func statusTable() string {
	if testServer.IsMariaDB() {
		return "information_schema.global_status"
	}
	return "performance_schema.global_status"
}

// TestCrowd: many sessions of one grant end together, by their own links or with the account, without each
// of them asking the server for itself; and each has its outcome. Who is not meant stays.
func TestCrowd(t *testing.T) {
	const many = 24
	e := newEngine(t, nil)
	spec := newSpec(0)
	spec.Level.Sessions = many + 5
	for _, cut := range []bool{false, true} {
		a := provision(t, e, spec)
		var crowd []*fakeSession
		for range many {
			crowd = append(crowd, join(t, a, direct(t, a, "orders")))
		}
		stays := direct(t, a, "orders")
		join(t, a, stays)
		gone := &fakeSession{statement: 7}
		if _, err := a.add(gone); err != nil {
			t.Fatal(err)
		}
		gone.backend.Store(1 << 30) // of a backend that has ended by itself
		crowd = append(crowd, gone)
		before := selects(t)
		var all sync.WaitGroup
		outcomes := make([]protocol.Outcome, len(crowd))
		if err := take(t.Context(), a.killing); err != nil { // until all of them wait
			t.Fatal(err)
		}
		for i, f := range crowd {
			all.Go(func() {
				var err error
				if outcomes[i], err = a.kill(t.Context(), f); err != nil {
					t.Error(err)
				}
			})
		}
		eventually(t, "all are to be killed", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return len(a.doomed) == len(crowd)
		})
		if cut {
			a.shut()
		}
		give(a.killing)
		all.Wait()
		if asked := selects(t) - before; asked > many {
			t.Errorf("%d sessions ended, and the server was asked %d questions", len(crowd), asked)
		}
		for i, f := range crowd {
			want := protocol.FateNone
			if f == gone {
				want = protocol.FateUnknown
			}
			if o := outcomes[i]; o.Backend != strconv.Itoa(int(f.pid())) || o.Fate != want || o.InFlight != f.statement || o.Foreign {
				t.Errorf("session %d of backend %d: %+v", i, f.pid(), o)
			}
		}
		if stays.alive(t) == cut {
			t.Errorf("closing: %t, the one that was not meant is there: %t", cut, !cut)
		}
		if len(a.doomed) > 0 {
			t.Errorf("%d are still to be killed", len(a.doomed))
		}
		finish(t, a)
		e.forget(a)
	}
}
