package store

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile keeps a second Curfew off the same store: two would hand out two ledgers under one key.
// The kernel lets go of it when the process is gone, however it went.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another Curfew has it open")
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
}
