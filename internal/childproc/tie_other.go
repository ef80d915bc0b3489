//go:build !linux

package childproc

import "syscall"

// tieToThread does nothing: only Linux has a death signal.
func tieToThread(*syscall.SysProcAttr, syscall.Signal) {}
