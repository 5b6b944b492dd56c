//go:build !linux || !(amd64 || arm64)

package relay

import "net"

// Loops is what sessions share. Its zero value is ready.
type Loops struct{ buffers buffers }

// Sessions is how many sessions loops carry.
func (l *Loops) Sessions() int { return 0 }

// takeSeat returns nil: there is no loop here.
func takeSeat(*Relay) carrier { return nil }

// leg is a socket that a loop has.
type leg struct{}

func (*leg) readUnder([]byte) (int, error)  { return 0, net.ErrClosed }
func (*leg) writeUnder([]byte) (int, error) { return 0, net.ErrClosed }
