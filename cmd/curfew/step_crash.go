//go:build crash

package main

import "syscall"

// crashStep ends the process, as kill -9 does, right after the step that CURFEW_CRASH_AT names.
func crashStep(env func(string) string) func(string) error {
	at := env("CURFEW_CRASH_AT")
	return func(step string) error {
		if step == at {
			syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
}
