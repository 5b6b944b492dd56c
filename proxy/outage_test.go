package proxy

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// A database that is away for hours has accounts cut within seconds of its being back, and does not fill the
// ledger with alerts meanwhile.
func TestCutAfterALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		run(serverFor(w), w)
		w.mu.Lock()
		w.fail["cut"] = 1 << 30
		w.mu.Unlock()
		w.end(&protocol.Refusal{Code: recorder.EndRevoked, Public: "revoked"})
		time.Sleep(2 * time.Hour)
		alerts := 0
		for _, step := range strings.Fields(w.happened()) {
			if step == "alert" {
				alerts++
			}
		}
		if alerts < 11 || alerts > 13 {
			t.Errorf("%d alerts in two hours", alerts)
		}
		w.mu.Lock()
		w.fail["cut"] = 0
		w.mu.Unlock()
		time.Sleep(6 * time.Second)
		if log := strings.Fields(w.happened()); !slices.Contains(log, "receipt.cut") {
			t.Errorf("not cut 6 s after the database was back: %v", log[max(0, len(log)-5):])
		}
		time.Sleep(time.Minute)
	})
}
