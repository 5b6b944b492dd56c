package proxy

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// A store that hangs holds up no cut, although cutting that fails puts alerts into it.
func TestHungStoreHoldsUpNoCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		run(serverFor(w), w)
		store := make(chan struct{})
		w.hang["alert"] = store
		w.fail["cut"] = 5
		w.end(&protocol.Refusal{Code: recorder.EndRevoked, Public: "revoked"})
		time.Sleep(10 * time.Minute)
		if got := w.happened(); !strings.Contains(got, "cut! cut! cut! cut! cut! cut ") {
			t.Error(got)
		}
		close(store)
	})
}

// A target that takes a login and then says nothing keeps neither the session nor the grant's end waiting.
func TestHungProvisionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.deaf = true
		run(serverFor(w), w)
		if got := w.happened(); !strings.Contains(got, "provision! seal sealed release hangup") {
			t.Error(got)
		}
		w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
		time.Sleep(time.Minute)
	})
}

// A disk that hangs while a recording is begun keeps no client waiting, and the recording that comes of
// it after all is taken back.
func TestHungDiskRefusesTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		disk := make(chan struct{})
		w.hang["create"] = disk
		began := time.Now()
		run(serverFor(w), w)
		if waited := time.Since(began); waited > 2*endTimeout {
			t.Errorf("the client waited %s", waited)
		}
		if got := w.happened(); got != "find hold hold release hangup" {
			t.Error(got)
		}
		close(disk)
		time.Sleep(time.Minute)
		if got := w.happened(); !strings.HasSuffix(got, "hangup create discard") {
			t.Error(got)
		}
		w.end(draining())
		time.Sleep(time.Minute)
	})
}

// What keeps a recording from being sealed, or the seal from the ledger, is over some day: that must not
// take a restart.
func TestSealIsRetried(t *testing.T) {
	for _, step := range []string{"seal", "sealed"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.fail[step] = 3
			run(serverFor(w), w)
			time.Sleep(10 * time.Minute)
			if got := w.happened(); !strings.HasSuffix(got, "seal sealed") || strings.Count(got, step+"!") != 3 {
				t.Errorf("%s: %s", step, got)
			}
			w.end(draining())
			time.Sleep(time.Minute)
		})
	}
}

// A target that stops answering is asked anew, so that the watch and the sweep go on when it is back.
func TestDeafTargetIsAskedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.deaf = true
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { serverFor(w).Tend(ctx); close(done) }()
		time.Sleep(time.Hour)
		if got := w.happened(); strings.Count(got, "watch") < 100 || strings.Count(got, "sweep") < 10 {
			t.Errorf("in an hour: %s", got)
		}
		stop()
		<-done
	})
}

// Whoever waits to hold one grant, for a store that hangs, keeps nobody from looking after the others.
func TestHoldThatHangsHoldsUpNobodyElse(t *testing.T) {
	w := newWorld()
	store := make(chan struct{})
	w.hang["hold"] = store
	s := serverFor(w)
	asked, found := make(chan struct{}), make(chan struct{})
	go func() {
		s.tenures.find(context.Background(), w.grant)
		close(asked)
	}()
	time.Sleep(50 * time.Millisecond) // it may hang by now; if it doesn't yet, the test only sees less
	go func() {
		s.tenures.of("curfew_i_g2")
		close(found)
	}()
	select {
	case <-found:
	case <-time.After(5 * time.Second):
		t.Error("the tenures can't be looked at")
	}
	close(store)
	<-asked
	<-found
	w.end(draining())
	s.Drain()
}

// A revocation while the account is being made ends the session with its reason, and looks for what was made.
func TestRevokedWhileProvisioning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.deaf = true
		go run(serverFor(w), w)
		time.Sleep(time.Second)
		w.end(&protocol.Refusal{Code: recorder.EndRevoked, Public: "revoked"})
		time.Sleep(time.Minute)
		w.mu.Lock()
		ends, cuts := w.ends, w.cuts
		w.mu.Unlock()
		if len(ends) != 1 || ends[0].Code != recorder.EndRevoked || len(cuts) != 1 || cuts[0].Code != recorder.EndRevoked {
			t.Errorf("ends %+v, cuts %+v", ends, cuts)
		}
		if got := w.happened(); !strings.Contains(got, "recall") || !strings.Contains(got, "clean receipt.clean") {
			t.Error(got)
		}
	})
}
