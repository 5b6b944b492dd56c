//go:build amd64 || arm64

package relay

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// detach takes two plain sockets out of Go's hands, whose own poller would wake a thread for every message
// else. Nothing has changed if it is not ok.
func detach(a, b net.Conn) (fdA, fdB int, ok bool) {
	if fdA, ok = duplicate(a); !ok {
		return -1, -1, false
	}
	if fdB, ok = duplicate(b); !ok {
		unix.Close(fdA)
		return -1, -1, false
	}
	Bare(a).Close()
	Bare(b).Close()
	return fdA, fdB, true
}

func duplicate(conn net.Conn) (fd int, ok bool) {
	var raw syscall.RawConn
	var err error
	if _, u := standing(conn); u != nil {
		conn = u.Conn
	}
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	default:
		return -1, false
	}
	if err != nil {
		return -1, false
	}
	cerr := raw.Control(func(p uintptr) { fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, cerr == nil && err == nil
}

// attach gives a socket back to Go. If there are no descriptors left for that, the socket is hung up on,
// and what is given back is the connection that it was, which is closed.
func attach(fd int, was net.Conn) net.Conn {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return was
	}
	return c
}

// receive and transmit are single system calls that never wait, whatever the descriptor's flags say; so
// Go's scheduler need not know of them.

func receive(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

func transmit(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return 0, errno
		default:
			return int(n), nil
		}
	}
}
