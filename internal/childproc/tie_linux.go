package childproc

import (
	"runtime"
	"syscall"
)

// tieToThread asks for the death signal and keeps the calling goroutine on its thread, at whose end the
// kernel sends it.
func tieToThread(attributes *syscall.SysProcAttr, death syscall.Signal) {
	runtime.LockOSThread()
	attributes.Pdeathsig = death
}
