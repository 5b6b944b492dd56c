//go:build !linux

package recorder

import "os"

func datasync(f *os.File) error { return f.Sync() }

// lock does nothing where flock(2) may be missing: only Linux is a supported server.
func lock(*os.File) error { return nil }
