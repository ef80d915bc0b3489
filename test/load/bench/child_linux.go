package main

import "syscall"

// setDeathSignal makes the kernel end the child when this process is killed.
func setDeathSignal(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGKILL }
