//go:build !linux

package main

import "syscall"

// setDeathSignal does nothing: only Linux has one.
func setDeathSignal(*syscall.SysProcAttr) {}
