package chaos_test

import "syscall"

// setDeathSignal makes the kernel kill the child when this process is gone, a test timeout's panic included.
func setDeathSignal(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
