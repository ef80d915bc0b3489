package items

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	chunkBytes = 64 << 10 // of a read, unless an item needs more
	// slack is what is read beyond the longest text of an item, to see that it ends: \r\n.
	slack = 2
	// maxEmptyReads is how often a reader may give nothing.
	maxEmptyReads = 100
)

// errEnd is the end of a text. It is not io.EOF, which an error that isn't the end may wrap.
var errEnd = errors.New("items: the end")

// source tells the error of the object's reader from one of its compression.
type source struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF { // a wrapped one is no end
		s.err = err
	}
	return n, err
}

// window is the part of a text that is in memory: from what is not taken yet to what has been read.
type window struct {
	r      io.Reader
	source *source
	buf    []byte
	from   int
	to     int
	offset int64 // of from in the text
	limit  int   // bytes of the text of an item
	item   int64 // that is read; -1 before the first
	err    error // that ended reading
}

func newWindow(r io.Reader, s *source, limit int) *window {
	return &window{r: r, source: s, limit: limit, item: -1, buf: make([]byte, chunkBytes)}
}

// rest is what is in memory; more makes it longer, and another place.
func (w *window) rest() []byte { return w.buf[w.from:w.to] }

func (w *window) skip(n int) {
	w.from += n
	w.offset += int64(n)
}

// more reads on. At the end of the text it returns errEnd.
func (w *window) more() error {
	if w.err != nil {
		return w.err
	}
	if w.to-w.from > w.limit+slack {
		return w.tooLarge()
	}
	if w.to == len(w.buf) {
		w.makeRoom()
	}
	for range maxEmptyReads {
		n, err := w.r.Read(w.buf[w.to:])
		w.to += n
		switch {
		case err == io.EOF && w.source.err == nil: // a wrapped one is no end
			w.err = errEnd
		case err == io.EOF: // a decoder has taken the other for one
			w.err = w.readError(w.source.err)
		case err != nil:
			w.err = w.readError(err)
		}
		if n > 0 {
			return nil
		}
		if w.err != nil {
			return w.err
		}
	}
	w.err = w.readError(io.ErrNoProgress)
	return w.err
}

func (w *window) makeRoom() {
	if w.from > 0 {
		w.to = copy(w.buf, w.rest())
		w.from = 0
	}
	if w.to == len(w.buf) { // more has seen that there is less than the limit
		bigger := make([]byte, min(2*len(w.buf), w.limit+slack+chunkBytes))
		copy(bigger, w.buf)
		w.buf = bigger
	}
}

// readError is an *Error at the end of what has been read.
func (w *window) readError(err error) error {
	e := &Error{Item: -1, Offset: w.offset + int64(w.to-w.from), err: err, text: "the object could not be read: " + err.Error()}
	if w.source.err == nil && !errors.Is(err, io.ErrNoProgress) {
		e.Kind, e.text = ErrSyntax, "the object's compression is damaged: "+err.Error()
	}
	return e
}

// fail is an error about the item that is read, which begins here.
func (w *window) fail(kind error, format string, args ...any) error {
	return &Error{Kind: kind, Item: w.item, Offset: w.offset, text: fmt.Sprintf(format, args...)}
}

func (w *window) tooLarge() error {
	return w.fail(ErrTooLarge, "it has more than %d bytes, or its text more than %d", w.limit/textPerItem, w.limit)
}

// line returns the line that begins n bytes from here, and how long it is with its end: \n, \r\n or that of the text. The text
// from here to its end is that of one item. Without a line it returns errEnd.
func (w *window) line(n int) (line []byte, size int, err error) {
	for seen := n; ; {
		if i := bytes.IndexByte(w.rest()[seen:], '\n'); i >= 0 {
			line, size = w.rest()[n:seen+i], seen+i+1-n
			break
		}
		seen = len(w.rest())
		err := w.more()
		if errors.Is(err, errEnd) && seen > n {
			line, size = w.rest()[n:], seen-n
			break
		}
		if err != nil {
			return nil, 0, err
		}
	}
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if n+len(line) > w.limit {
		return nil, 0, w.tooLarge()
	}
	return line, size, nil
}

// skipMark takes a byte order mark of UTF-8: our choice, for CSV.
func (w *window) skipMark() error {
	const mark = "\ufeff"
	for len(w.rest()) < len(mark) {
		if err := w.more(); errors.Is(err, errEnd) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if bytes.HasPrefix(w.rest(), []byte(mark)) {
		w.skip(len(mark))
	}
	return nil
}
