// Package testport gives tests the ports of servers that are started, stopped and started again.
//
// What a caller may rely on: no two callers in a process are given the same port, also while nobody listens on
// it, and the kernel gives it to nobody who asks it for any, for which its own begin at 32768 (Linux, ip(7),
// ip_local_port_range): a server that is restarted finds its port free.
package testport

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

const (
	first  = 10000
	number = 22000
	apart  = 1000 // how far from each other test binaries that run side by side begin
)

// asked counts the ports that were looked at.
var asked atomic.Int64

// Next gives a port on which nobody listens on 127.0.0.1 now.
func Next() (port int, err error) {
	for range 100 {
		port = first + int((int64(os.Getpid()%(number/apart))*apart+asked.Add(1))%number)
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}
