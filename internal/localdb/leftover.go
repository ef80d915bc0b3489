package localdb

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// endLeftover ends the server that a killed starter left behind: the process
// that pidFile names, and only if its command line names mark, a path in this
// folder. A process id alone proves nothing: it may be somebody else's by now.
//
// The caller holds the folder's lock, so no living starter owns the server.
func (f *folder) endLeftover(ctx context.Context, name, pidFile, mark string, signals ...syscall.Signal) (found bool, err error) {
	content, err := os.ReadFile(pidFile)
	if err != nil {
		return false, nil //nolint:nilerr // no pid file: nothing is left over
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 || !strings.Contains(commandLine(pid), mark) {
		return false, nil //nolint:nilerr // a stale or broken pid file
	}
	ours := func() bool { return strings.Contains(commandLine(pid), mark) }
	for _, signal := range append(signals, syscall.SIGKILL) {
		if err := syscall.Kill(pid, signal); err != nil && ours() {
			return true, fmt.Errorf("localdb: end the %s that was left over as process %d: %w", name, pid, err)
		}
		if gone(ctx, ours) {
			return true, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return true, fmt.Errorf("localdb: the %s that was left over as process %d does not end: %w", name, pid, context.Cause(ctx))
}

// gone waits until the process is no longer there: no child of ours, so there
// is nothing to wait on but its absence.
func gone(ctx context.Context, there func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for there() {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
	return true
}
