package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"
)

// TestCancelKeys: a key has the length of its client's protocol, and is good for its own session alone, whole.
func TestCancelKeys(t *testing.T) {
	var c cancels
	c.init()
	for minor, size := range map[uint32]int{0: 4, 1: 4, 2: 32} {
		l := &link{}
		ticket := c.issue(l, minor)
		if len(ticket.key) != size || ticket.pid == 0 || ticket.pid>>31 != 0 {
			t.Errorf("3.%d: pid %d, key %x", minor, ticket.pid, ticket.key)
		}
		ask := func(pid uint32, key []byte) *ticketFound {
			if found := c.find(append(binary.BigEndian.AppendUint32(nil, pid), key...)); found != nil {
				return &ticketFound{found.link}
			}
			return nil
		}
		if got := ask(ticket.pid, ticket.key); got == nil || got.link != l {
			t.Errorf("3.%d: its own key finds %+v", minor, got)
		}
		wrong := bytes.Clone(ticket.key)
		wrong[size-1] ^= 1
		for name, got := range map[string]*ticketFound{
			"another key": ask(ticket.pid, wrong), "the beginning": ask(ticket.pid, ticket.key[:size-1]), "half": ask(ticket.pid, ticket.key[:size/2]),
			"more": ask(ticket.pid, append(bytes.Clone(ticket.key), 0)), "none": ask(ticket.pid, nil),
			"zeros": ask(ticket.pid, make([]byte, size)), "nobody's": ask(ticket.pid^1, ticket.key), "nobody's zeros": ask(ticket.pid^1, make([]byte, size)),
			"too long": ask(ticket.pid, make([]byte, keyLongest+1)),
		} {
			if got != nil {
				t.Errorf("3.%d: %s finds a session", minor, name)
			}
		}
		c.revoke(ticket)
		if ask(ticket.pid, ticket.key) != nil {
			t.Errorf("3.%d: a session that is over is found", minor)
		}
	}
	if c.find([]byte{1, 2}) != nil {
		t.Error("a request that is too short finds a session")
	}
}

type ticketFound struct{ link *link }

// TestCancelTurns: a session's cancel requests go to the server one at a time and not too fast, and no more
// than a few wait for that.
func TestCancelTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cancels
		c.init()
		ticket := c.issue(&link{}, 0)
		const flood = 50
		sent := make(chan time.Duration, flood)
		began := time.Now()
		for range flood {
			go func() {
				if !ticket.enter(t.Context()) {
					return
				}
				sent <- time.Since(began)
				time.Sleep(time.Millisecond) // at the server
				ticket.leave()
			}()
		}
		time.Sleep(time.Minute)
		if len(sent) < 1 || len(sent) > 1+cancelsWaiting {
			t.Errorf("%d of %d were sent", len(sent), flood)
		}
		for i, n := 0, len(sent); i < n; i++ {
			if at := <-sent; at != time.Duration(i)*(cancelPause+time.Millisecond) {
				t.Errorf("number %d was sent after %s", i, at)
			}
		}
		if !ticket.enter(t.Context()) { // and later they are taken again
			t.Error("none is taken any more")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if ticket.enter(ctx) {
			t.Error("two at a time")
		}
		ticket.leave()
		synctest.Wait()
	})
}
