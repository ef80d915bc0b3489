package podlogs

import (
	"bytes"

	"github.com/weir-dev/weir/internal/emf"
)

// maxHeader bounds a line's time, stream and tags, before its text: a longer one is no line of a container runtime.
const maxHeader = 128

// criReader reads the lines that a container runtime writes (Kubernetes: "CRI container log format"):
//
//	2026-11-28T00:00:00.000000000Z stdout F text
//
// Of a line that is longer than the runtime's buffer it writes parts, with the tag P, and F at the last one. The two
// streams take turns in a file, so that each is put together by itself.
type criReader struct {
	stdout, stderr *emf.Splitter

	header []byte        // of a line whose header hasn't come whole
	to     *emf.Splitter // of a line whose text has begun; nil before, and for one that is skipped
	inText bool
	part   bool // the line's text goes on in the next one
}

func newCRIReader(source *emf.Source) *criReader {
	return &criReader{stdout: source.Splitter(), stderr: source.Splitter()}
}

// skipLine passes over the rest of a line.
func (r *criReader) skipLine() { r.inText, r.to, r.part = true, nil, true }

// restart forgets what has been read of a line.
func (r *criReader) restart() { r.header, r.inText, r.to = r.header[:0], false, nil }

func (r *criReader) read(p []byte) {
	for len(p) > 0 {
		if !r.inText {
			p = r.readHeader(p)
			continue
		}
		text, rest, ended := bytes.Cut(p, []byte{'\n'})
		if r.to != nil {
			if ended && !r.part {
				text = p[:len(text)+1] // in one piece, so that a short line needn't be copied
			}
			_, _ = r.to.Write(text) // it never fails
		}
		r.inText = !ended
		p = rest
	}
}

// readHeader takes what belongs to the header, and returns the rest.
func (r *criReader) readHeader(p []byte) (rest []byte) {
	i := 0
	for spaces := bytes.Count(r.header, []byte{' '}); i < len(p) && p[i] != '\n'; i++ {
		if p[i] != ' ' {
			continue
		}
		if spaces++; spaces == 3 {
			r.header = append(r.header, p[:i]...)
			r.begin(bytes.Split(r.header, []byte{' '}))
			r.header = r.header[:0]
			return p[i+1:]
		}
	}
	switch {
	case i < len(p): // the line has ended: an empty text may come without the space before it
		r.header = r.header[:0]
		return p[i+1:]
	case len(r.header)+len(p) > maxHeader:
		r.header = r.header[:0]
		r.skipLine()
		return p
	}
	r.header = append(r.header, p...)
	return nil
}

// begin decides what becomes of the text after a header.
func (r *criReader) begin(fields [][]byte) {
	r.skipLine()
	tag, _, _ := bytes.Cut(fields[2], []byte{':'})
	partial := string(tag) == "P"
	if !partial && string(tag) != "F" || len(r.header) > maxHeader {
		return
	}
	switch string(fields[1]) {
	case "stdout":
		r.to = r.stdout
	case "stderr":
		r.to = r.stderr
	}
	r.part = partial
}

// close takes what was printed last, and has no end, as a line.
func (r *criReader) close() {
	_ = r.stdout.Close() // it never fails
	_ = r.stderr.Close()
}
