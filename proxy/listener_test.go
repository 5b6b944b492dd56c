package proxy

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
)

// told keeps what the client was told.
type told struct {
	client
	why *error
}

func (c told) Close(why error) {
	*c.why = why
	c.client.Close(why)
}

// A listener that is one target's own serves no other, and says where to go instead.
func TestPinnedListener(t *testing.T) {
	for name, c := range map[string]struct {
		listener Listener
		served   bool
	}{
		"every target of its engine": {Listener{Engine: "fake"}, true},
		"the grant's own":            {Listener{Engine: "fake", Target: "orders"}, true},
		"another's":                  {Listener{Engine: "fake", Target: "stock"}, false},
		"another engine's":           {Listener{Engine: "other"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, why := newWorld(), error(nil)
				serverFor(w).serve(context.Background(), c.listener, told{client{w}, &why})
				synctest.Wait()
				if got := w.happened(); strings.Contains(got, "relay") != c.served {
					t.Errorf("happened: %s", got)
				}
				if !c.served && (why == nil || !strings.Contains(why.Error(), "for the target orders") || !strings.Contains(why.Error(), "`curfew credentials g1` says where")) {
					t.Errorf("told %v", why)
				}
				if c.served && why != nil {
					t.Errorf("told %v", why)
				}
				w.end(draining())
			})
		})
	}
}
