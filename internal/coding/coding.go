// Package coding undoes the content codings of HTTP bodies (RFC 9110, section 8.4.1): gzip, deflate and zstd.
//
// Invariants: what Decode returns is bounded by its limit; a reader's memory is bounded by zstd's window, and what it
// gives by whoever reads.
//
// May import: the compression library.
package coding

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Supported are the codings that are undone, as Accept-Encoding has them.
const Supported = "gzip, deflate, zstd"

// maxWindow is the largest window of zstd over HTTP (RFC 9659).
const maxWindow = 8 << 20

var (
	// ErrUnsupported means a coding that is not among Supported, or more than one.
	ErrUnsupported = errors.New("coding: content coding not supported")
	// ErrTooLarge means more than the limit.
	ErrTooLarge = errors.New("coding: the decoded body is too large")
)

// Of returns the coding of a message; empty if it has none.
func Of(h http.Header) string {
	name := strings.ToLower(strings.TrimSpace(strings.Join(h["Content-Encoding"], ",")))
	if name == "identity" {
		return ""
	}
	return name
}

// Supports reports whether a coding can be undone.
func Supports(name string) bool {
	_, err := NewReader(name, http.NoBody) // it reads nothing yet
	return err == nil
}

// Memory is about what undoing a coding takes besides its input and output, in bytes.
func Memory(name string) int64 {
	if name == "zstd" {
		return maxWindow + 1<<20
	}
	return 64 << 10
}

// Decode returns what body holds, of which name says the coding: at most limit bytes, else ErrTooLarge. An error that is
// neither of this package's says that body is corrupt.
func Decode(name string, body []byte, limit int64) ([]byte, error) {
	r, err := NewReader(name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	out, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(out)) > limit:
		return nil, ErrTooLarge
	}
	return out, nil
}

// NewReader returns what body holds, of which name says the coding. Its reader ends with an error for a body that is
// corrupt or ends early. Close doesn't close body.
func NewReader(name string, body io.Reader) (io.ReadCloser, error) {
	switch name {
	case "":
		return io.NopCloser(body), nil
	case "gzip", "x-gzip":
		return &lazy{body: body, open: func(b *bufio.Reader) (io.Reader, error) { return gzip.NewReader(b) }}, nil
	case "deflate":
		return &lazy{body: body, open: inflate}, nil
	case "zstd":
		return &lazy{body: body, open: func(b *bufio.Reader) (io.Reader, error) {
			d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
			if err != nil {
				return nil, err
			}
			return d.IOReadCloser(), nil
		}}, nil
	}
	return nil, fmt.Errorf("%w: %.64q", ErrUnsupported, name)
}

// inflate reads the zlib format, and the bare deflate that some senders take for it.
func inflate(b *bufio.Reader) (io.Reader, error) {
	head, err := b.Peek(2)
	if err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return zlib.NewReader(b)
	}
	return flate.NewReader(b), nil
}

// lazy opens a decoder with the first Read: opening one reads from the body.
type lazy struct {
	body io.Reader
	open func(*bufio.Reader) (io.Reader, error)
	r    io.Reader
	err  error
}

// Read implements io.Reader.
func (l *lazy) Read(p []byte) (int, error) {
	if l.r == nil && l.err == nil {
		l.begin()
	}
	if l.err != nil {
		return 0, l.err
	}
	return l.r.Read(p)
}

func (l *lazy) begin() {
	b := bufio.NewReaderSize(l.body, 4<<10)
	_, err := b.Peek(1)
	begun := err == nil
	var r io.Reader
	if err == nil {
		r, err = l.open(b)
	}
	switch {
	case !begun && errors.Is(err, io.EOF):
		l.err = io.EOF // no body at all, as of a 204
	case errors.Is(err, io.EOF):
		l.err = io.ErrUnexpectedEOF
	case err != nil:
		l.err = err
	default:
		l.r = r
	}
}

// Close implements io.Closer.
func (l *lazy) Close() error {
	if c, ok := l.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
