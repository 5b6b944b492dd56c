package relay

import (
	"crypto/tls"
	"net"
)

// Under gives a connection for TLS to stand on, of which read was read before. A session whose TLS stands on one can
// be moved by a loop.
func Under(conn net.Conn, read []byte) net.Conn { return &under{Conn: conn, head: read} }

// Bare is the connection below TLS, or conn itself where there is no TLS.
func Bare(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if u, ok := conn.(*under); ok {
		conn = u.Conn
	}
	return conn
}

// under is what TLS reads from and writes to. While a loop has its socket the loop is asked, and no call waits.
type under struct {
	net.Conn
	head []byte // is read first
	leg  *leg   // nil unless a loop has the socket: then the seat makes all calls, and guards this
}

// standing gives the TLS of a connection that stands on an under.
func standing(conn net.Conn) (*tls.Conn, *under) {
	if t, ok := conn.(*tls.Conn); ok {
		if u, ok := t.NetConn().(*under); ok {
			return t, u
		}
	}
	return nil, nil
}

func (u *under) Read(b []byte) (int, error) {
	switch {
	case len(u.head) > 0:
		n := copy(b, u.head)
		u.head = u.head[n:]
		return n, nil
	case u.leg != nil:
		return u.leg.readUnder(b)
	}
	return u.Conn.Read(b)
}

func (u *under) Write(b []byte) (int, error) {
	if u.leg != nil {
		return u.leg.writeUnder(b)
	}
	return u.Conn.Write(b)
}

// errAgain is what TLS reads when there is nothing yet. It calls itself temporary: any other error stays with TLS.
var errAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "nothing to read yet" }
func (again) Timeout() bool   { return false }
func (again) Temporary() bool { return true }
