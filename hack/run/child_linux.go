package main

import "syscall"

// setDeathSignal makes the kernel end the child when this process is killed.
// SIGKILL: the databases go at the same moment, so there is nothing to drain to.
func setDeathSignal(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGKILL }
