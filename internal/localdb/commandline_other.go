//go:build !linux

package localdb

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
)

// commandLine returns a process's arguments separated by spaces, "" when
// there is no such process.
func commandLine(pid int) string {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	line, err := exec.CommandContext(ctx, "/bin/ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(line))
}
