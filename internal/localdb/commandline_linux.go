package localdb

import (
	"bytes"
	"fmt"
	"os"
)

// commandLine returns a process's arguments separated by spaces, "" when
// there is no such process. From /proc: a bare machine may lack ps.
func commandLine(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
}
