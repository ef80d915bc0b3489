package emf

import (
	"bytes"
	"sync"
)

// Bounds of what splitters hold.
const (
	maxHeldBytes = 32 << 20 // of all of a recorder: a further line that is held counts as too long
	maxKept      = 16 << 10 // a larger buffer is not kept for the next line
)

// Splitter cuts what is written to it into the lines of a source. Write never fails and waits for nothing but other
// writers, so it may stand beside the writer that the output is meant for (io.MultiWriter, io.TeeReader). It holds the
// beginning of a line whose end hasn't come, if it looks as if it could be of the format, up to MaxLineBytes, and up to
// maxHeldBytes of all splitters of a recorder.
type Splitter struct {
	source *Source

	mu   sync.Mutex
	held []byte // the beginning of a line
	skip bool   // until the line ends: it is none of the format, or too long
}

// Splitter returns a splitter of its own, for one stream of bytes: the standard output of one process, say.
func (s *Source) Splitter() *Splitter { return &Splitter{source: s} }

// Write takes the next bytes of the output.
func (w *Splitter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		switch {
		case !ended:
			w.hold(line)
		case w.skip:
			w.skip = false
		case len(w.held) > 0:
			w.hold(line)
			w.flush()
		default:
			w.source.Line(line)
		}
		p = rest
	}
	return n, nil
}

// Close takes what was written last as a line, although its end hasn't come.
func (w *Splitter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
	return nil
}

// hold keeps a part of a line.
func (w *Splitter) hold(part []byte) {
	if len(w.held) == 0 {
		part = bytes.TrimLeft(part, " \t\r")
	}
	switch {
	case w.skip || len(part) == 0:
	case len(w.held) == 0 && part[0] != '{':
		w.skip = true
	case len(w.held)+len(part) > MaxLineBytes || w.source.r.held.Load()+int64(len(part)) > maxHeldBytes:
		if aws := []byte(`"_aws"`); bytes.Contains(w.held, aws) || bytes.Contains(part, aws) { // it was to be a metric: other long lines are nothing to tell of
			w.source.tooLong()
		}
		w.drop()
		w.skip = true
	default:
		w.source.r.held.Add(int64(len(part)))
		w.held = append(w.held, part...)
	}
}

// flush hands over what is held. A long line's memory isn't kept for the next one.
func (w *Splitter) flush() {
	if len(w.held) > 0 {
		w.source.Line(w.held)
	}
	w.skip = false
	w.drop()
}

func (w *Splitter) drop() {
	w.source.r.held.Add(-int64(len(w.held)))
	if w.held = w.held[:0]; cap(w.held) > maxKept {
		w.held = nil
	}
}
