//go:build !linux

package mysqltest

import "syscall"

// dieWithUs can't be had here: a server outlives tests that are killed.
func dieWithUs(*syscall.SysProcAttr) {}
