package proxy

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

func intent() Intent {
	return Intent{AccountIntended: ledger.AccountIntended{Grant: "g1", Account: "curfew_i_g1", Target: "orders"}}
}

// Until an account is taken over it is as the earlier process left it, and nobody watches it: a database
// that is down when Curfew starts must not leave that so until somebody connects.
func TestAdoptionIsTriedUntilItIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.intents = []Intent{intent()}
		w.fail["provision"] = 12 // ten minutes and more
		if err := serverFor(w).Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := w.happened(), "hold intend provision!"; got != want {
			t.Errorf("after Resume: %s, want %s", got, want)
		}
		time.Sleep(20 * time.Minute)
		if got, want := w.happened(), "hold intend"+strings.Repeat(" provision!", 12)+" provision"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
		time.Sleep(time.Minute)
		if got := w.happened(); !strings.HasSuffix(got, "provision cut receipt.cut clean receipt.clean release") {
			t.Error(got)
		}
	})
}

// An adoption that never succeeds ends with its grant, and the account is ended all the same.
func TestAdoptionEndsWithItsGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.intents = []Intent{intent()}
		w.fail["provision"] = 1000
		if err := serverFor(w).Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
		time.Sleep(time.Minute)
		if got := w.happened(); !strings.HasSuffix(got, "provision! recall cut receipt.cut clean receipt.clean release") {
			t.Error(got)
		}
	})
}

// What an earlier process's sessions prepared for two-phase commit is rolled back at the grant's end,
// whether the grant outlived the restart or not.
func TestWhatWasPreparedBeforeARestartIsKnown(t *testing.T) {
	for _, over := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.intents, w.gids = []Intent{intent()}, []string{"transfer-1"}
			w.fail["prepares"] = 1 // it is damaged behind that
			if over {
				w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
			}
			if err := serverFor(w).Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
			time.Sleep(time.Minute)
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.specs) == 0 || !slices.Equal(w.specs[0].Prepared, w.gids) {
				t.Errorf("over %v: the account does not know what was prepared: %+v", over, w.specs)
			}
		})
	}
}

// An intent that nobody stands for, because the store could not be read when Curfew started or wrote
// what it reported as failed, is taken up by the next sweep.
func TestSweepTakesUpOrphanedIntents(t *testing.T) {
	for _, over := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.intents = []Intent{intent()}
			w.fail["of_grant"] = 1
			end := func() { w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"}) }
			want := "of_grant! hold intend provision"
			if over {
				end()
				want = "of_grant! recall cut receipt.cut clean receipt.clean"
			}
			s := serverFor(w)
			if err := s.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.sweep(t.Context(), "orders", engine{w}, nil)
			time.Sleep(time.Minute)
			if got := w.happened(); got != want {
				t.Errorf("over %v: got %s, want %s", over, got, want)
			}
			end()
			time.Sleep(time.Minute)
		})
	}
}

// A sweep leaves alone what has a tenure, and takes up nothing once the node stops.
func TestSweepTakesUpNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := serverFor(w)
		run(s, w)
		w.intents = []Intent{intent()}
		s.sweep(t.Context(), "orders", engine{w}, nil)
		s.Drain()
		s.tenures.forget(s.tenures.of("curfew_i_g1"))
		s.sweep(t.Context(), "orders", engine{w}, nil)
		time.Sleep(time.Minute)
		if got := w.happened(); strings.Count(got, "provision") != 1 || strings.Contains(got, "clean") {
			t.Error(got)
		}
	})
}

// A grant whose receipt is begun has ended, even if Curfew died before it could write the end: it does
// not come back to life.
func TestWhatWasCutStaysCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.intents = []Intent{intent()}
		w.intents[0].Cut = true
		if err := serverFor(w).Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got, want := w.happened(), "end:revoked recall cut clean receipt.clean"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// A Curfew that took up what was left and then can't serve leaves no account open: that of a live grant
// is locked, that of one that is over is gone.
func TestDrainWithoutServe(t *testing.T) {
	for _, over := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.intents = []Intent{intent()}
			want := "hold intend provision cut release"
			if over {
				w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
				want = "recall cut receipt.cut clean receipt.clean"
			}
			s := serverFor(w)
			if err := s.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Drain()
			if got := w.happened(); got != want {
				t.Errorf("over %v: got %s, want %s", over, got, want)
			}
			w.end(draining())
		})
	}
}
