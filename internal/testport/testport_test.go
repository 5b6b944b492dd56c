package testport

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
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

// Processes that run side by side have no port in common.
func TestOtherProcesses(t *testing.T) {
	if os.Getenv("TESTPORT_SAY") != "" {
		for range 50 {
			port, err := Next()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("port", port)
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // until the others have theirs
		return
	}
	seen := map[string]bool{}
	for range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestOtherProcesses$")
		cmd.Env = append(os.Environ(), "TESTPORT_SAY=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { in.Close(); cmd.Wait() }()
		lines := bufio.NewScanner(out)
		for n := 0; n < 50 && lines.Scan(); n++ {
			if line := lines.Text(); seen[line] || !strings.HasPrefix(line, "port ") {
				t.Errorf("%q twice, or no port", line)
			}
			seen[lines.Text()] = true
		}
	}
	if len(seen) != 150 {
		t.Errorf("%d ports of 150", len(seen))
	}
}
