package testkit

import (
	"syscall"
	"testing"
	"time"
)

// ProcessorTime is the user and system time of this process: what a benchmark costs whatever else the machine does.
func ProcessorTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
