package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// watchSyncs returns a function that returns how often a process has called fsync or fdatasync since. perf counts in the
// kernel; strace would stop the process at each call.
func (b *bench) watchSyncs(pid int) func() (float64, error) {
	c, err := b.start("perf", "perf", []string{"stat", "-x", ",", "-e", "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync", "-p", strconv.Itoa(pid)}, nil)
	return func() (float64, error) {
		if err != nil {
			return 0, err
		}
		c.Signal(syscall.SIGINT) // it prints the counts then
		<-c.Done()
		text, err := os.ReadFile(c.log)
		if err != nil {
			return 0, err
		}
		return countOf(string(text))
	}
}

// countOf adds up what perf stat printed.
func countOf(text string) (sum float64, err error) {
	lines := 0
	for l := range strings.Lines(text) {
		fields := strings.Split(l, ",")
		if len(fields) < 3 || !strings.HasPrefix(fields[2], "syscalls:") {
			continue
		}
		n, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, fmt.Errorf("perf: %s", l)
		}
		sum, lines = sum+n, lines+1
	}
	if lines != 2 {
		return 0, fmt.Errorf("perf printed no counts: %s", text)
	}
	return sum, nil
}
