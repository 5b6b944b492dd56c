package testport

import (
	"fmt"
	"net"
	"sync"
	"testing"
)

func TestNobodyGetsAPortTwice(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				port, err := Next()
				mu.Lock()
				if err != nil || seen[port] || port < first || port >= first+number {
					t.Errorf("port %d: %v", port, err)
				}
				seen[port] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
}

func TestATakenPortIsPassedOver(t *testing.T) {
	port, err := Next()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1)) // the next in turn
	if err != nil {
		t.Skip("somebody else has it: ", err)
	}
	defer l.Close()
	if next, err := Next(); err != nil || next == port+1 {
		t.Errorf("port %d after %d: %v", next, port, err)
	}
}
