// Package testport gives tests the ports of servers that are started, stopped and started again.
//
// What a caller may rely on: no two callers are given the same port, in one process or in several that run side by
// side, also while nobody listens on it, and the kernel gives it to nobody who asks it for any, for which its own begin at 32768 (Linux, ip(7),
// ip_local_port_range): a server that is restarted finds its port free.
package testport

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	first  = 10000
	number = 22000
	share  = 1000 // a process's, until it has asked for that many
)

// begin is where this process's share begins. A lock on a file says that it is taken, for as long as the process lives.
var begin = sync.OnceValue(func() int64 {
	for n := range number / share {
		name := filepath.Join(os.TempDir(), "curfew-testport-"+strconv.Itoa(n))
		fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CREAT|syscall.O_CLOEXEC, 0o666)
		if err != nil {
			continue // somebody else's, who ran tests here before
		}
		if syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			return int64(n * share) // never closed
		}
		_ = syscall.Close(fd)
	}
	return int64(os.Getpid() % number)
})

// asked counts the ports that were looked at.
var asked atomic.Int64

// Next gives a port on which nobody listens on 127.0.0.1 now.
func Next() (port int, err error) {
	for range 100 {
		port = first + int((begin()+asked.Add(1))%number)
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}
