package mysqltest

import "syscall"

// dieWithUs has the server shut down when the tests are killed or panic.
func dieWithUs(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
