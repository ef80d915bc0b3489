//go:build !linux

package chaos_test

import "syscall"

func setDeathSignal(*syscall.SysProcAttr) {}
