package proxy

import (
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
