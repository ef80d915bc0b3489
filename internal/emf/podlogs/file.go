package podlogs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/weir-dev/weir/internal/emf"
)

var (
	errNotDir  = syscall.ENOTDIR
	errNotFile = errors.New("it is no regular file: only those of a container runtime that speaks CRI are read")
)

// file is a container's log.
type file struct {
	path   string
	f      *os.File
	offset int64
	lines  *criReader
}

// openFile opens a file, at its end or at its beginning.
func openFile(path string, atEnd bool, source *emf.Source) (*file, error) {
	f := &file{path: path, lines: newCRIReader(source)}
	if err := f.open(); err != nil {
		return nil, err
	}
	if !atEnd {
		return f, nil
	}
	end, err := f.f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, f.f.Close())
	}
	f.offset = end
	if last := make([]byte, 1); end > 0 {
		if _, err := f.f.ReadAt(last, end-1); err != nil || last[0] != '\n' {
			f.lines.skipLine() // it began before
		}
	}
	return f, nil
}

// open opens what the path names now. A link isn't followed: it would lead out of the folder.
func (f *file) open() error {
	opened, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if info, err := opened.Stat(); err != nil || !info.Mode().IsRegular() {
		if err == nil {
			err = errNotFile
		}
		return errors.Join(fmt.Errorf("%s: %w", f.path, err), opened.Close())
	}
	f.f, f.offset = opened, 0
	return nil
}

// read reads what has come since the last time. goesOn is false when the file is gone and has been read to its end. more:
// it has used up its turn.
func (f *file) read(buf []byte) (goesOn, more bool) {
	// In this order: the runtime opens the next file after its last write to this one, so what is read after the next one
	// was seen is all of it.
	now, err := os.Lstat(f.path)
	gone := errors.Is(err, os.ErrNotExist)
	mine, serr := f.f.Stat()
	if serr != nil {
		return false, false
	}
	if mine.Size() < f.offset { // it was cut
		f.offset = 0
		f.lines.restart()
	}
	for left := maxFileBytes; ; {
		n, err := f.f.ReadAt(buf, f.offset)
		f.offset += int64(n)
		f.lines.read(buf[:n])
		if left -= n; err != nil {
			break // the end; another error is one of the disk, and the next turn finds the same
		}
		if left <= 0 {
			return true, true
		}
	}
	switch {
	case gone && removed(mine):
		return false, false
	case gone || err != nil || os.SameFile(now, mine):
		return true, false // a file that is renamed is written to until there is the next one
	}
	if err := f.f.Close(); err != nil {
		return false, false
	}
	f.lines.restart()
	if err := f.open(); err != nil {
		f.f = nil
		return false, false
	}
	return true, true
}

// removed reports whether a file has no name any more.
func removed(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

func (f *file) close() {
	f.lines.close()
	if f.f != nil {
		_ = f.f.Close() // it was only read
	}
}
