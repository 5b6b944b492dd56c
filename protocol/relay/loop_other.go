//go:build !linux || !(amd64 || arm64)

package relay

// Loops is what sessions share. Its zero value is ready.
type Loops struct{ buffers buffers }

// takeSeat returns nil: there is no loop here.
func takeSeat(*Relay) carrier { return nil }
