// Package filelock locks a folder for one process at a time. The lock is the kernel's: a process that was killed
// leaves none, and children don't inherit it.
//
// May import: the standard library only.
package filelock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrHeld means that another process, or another holder in this one, has the lock.
var ErrHeld = errors.New("filelock: held by another")

// Acquire locks the file at path, which it creates if need be (mode 0600). Closing the file unlocks it; what the file
// holds is the caller's. On ErrHeld the returned file is open all the same, unlocked, so that the holder's note can be
// read: the caller closes it.
func Acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return f, ErrHeld
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}
