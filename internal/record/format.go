package record

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"time"
)

// A record of a block of format 2 (integers are unsigned varints unless said otherwise):
//
//	flags              bit 0: Body is JSON; bit 1: the record is a job
//	id                 16 bytes
//	time               Unix nanoseconds, 8 bytes big endian
//	attempts
//	source, contentType                     each length, bytes
//	count              extensions
//	extensions         each key, length, bytes; keys rise
//	body               length, bytes
//
// A key is twice the extension's number, plus 1 if it is required: a reader that doesn't know it must not handle the
// record. An unknown extension that isn't required is kept, and written again with the record. So a version can add to
// records without the version before it losing anything in a rolling update; TestFormatsGrow guards it. Numbers are
// never used again.
//
//	1 trace           traceparent, tracestate, each length, bytes
//	2 failure         time (8 bytes), status, reason
//	3 redrives
//	4 input           object, size, etag; required
//	5 client          12 bytes; required
//	6 request         method, path, query
//	7 attributes      pairs of name, value
//	8 age             nanoseconds
const (
	keyTrace      = 1 << 1
	keyFailure    = 2 << 1
	keyRedrives   = 3 << 1
	keyInput      = 4<<1 | required
	keyClient     = 5<<1 | required
	keyRequest    = 6 << 1
	keyAttributes = 7 << 1
	keyAge        = 8 << 1

	required = 1

	flagJSON   = 1 << 0
	flagJob    = 1 << 1
	flagsKnown = flagJSON | flagJob
)

// Bounds of what a record takes beside its texts, and of what a reader accepts.
const (
	recordOverhead    = 1 + 16 + 8 + 8 + 3 + 2 + 2 + 2 + 2 + 4 + 2*extensionOverhead + 6
	extensionOverhead = 1 + 3
	failureOverhead   = 8 + 3 + 2 + extensionOverhead
	inputOverhead     = 2 + 9 + 2 + extensionOverhead
	attributeOverhead = 1 + 3
	unknownOverhead   = 2 + 3

	maxExtensions = 1 << 10
	maxAttributes = 1 << 10

	// recordMinimum is the least a record takes, so that a header can't ask for more records than fit.
	recordMinimum = 1 + 16 + 8 + 1 + 1 + 1 + 1 + 1
)

// extension is one that this version doesn't know.
type extension struct {
	key  uint64
	data []byte
}

// appendRecord appends r in format 2.
func appendRecord(p []byte, r *Record) []byte {
	var flags byte
	if r.JSON {
		flags |= flagJSON
	}
	if r.Job {
		flags |= flagJob
	}
	p = append(p, flags)
	p = append(p, r.ID[:]...)
	p = appendTime(p, r.Time)
	p = binary.AppendUvarint(p, uint64(max(r.Attempts, 0)))
	p = appendString(p, r.Source)
	p = appendString(p, r.ContentType)
	p = appendExtensions(p, r)
	p = binary.AppendUvarint(p, uint64(len(r.Body)))
	return append(p, r.Body...)
}

// appendExtensions writes them in the order of their keys. A length comes before its data, so each is computed first.
func appendExtensions(p []byte, r *Record) []byte {
	later := r.writeLater()
	count := len(later)
	for _, there := range []bool{
		r.TraceParent != "", r.Failure != nil, r.Redrives > 0, r.Input != nil, r.Client != (Client{}), r.Request != (Request{}), len(r.Attributes) > 0, r.Age > 0,
	} {
		if there {
			count++
		}
	}
	p = binary.AppendUvarint(p, uint64(count))
	if r.TraceParent != "" {
		p = appendKey(p, keyTrace, sizeString(r.TraceParent)+sizeString(r.TraceState))
		p = appendString(p, r.TraceParent)
		p = appendString(p, r.TraceState)
	}
	if f := r.Failure; f != nil {
		reason, status := CutReason(f.Reason), uint64(max(f.Status, 0))
		p = appendKey(p, keyFailure, 8+sizeUvarint(status)+sizeString(reason))
		p = appendTime(p, f.Time)
		p = binary.AppendUvarint(p, status)
		p = appendString(p, reason)
	}
	if r.Redrives > 0 {
		p = appendKey(p, keyRedrives, sizeUvarint(uint64(r.Redrives)))
		p = binary.AppendUvarint(p, uint64(r.Redrives))
	}
	if in := r.Input; in != nil {
		size := uint64(max(in.Size, 0))
		p = appendKey(p, keyInput, sizeString(in.Object)+sizeUvarint(size)+sizeString(in.ETag))
		p = appendString(p, in.Object)
		p = binary.AppendUvarint(p, size)
		p = appendString(p, in.ETag)
	}
	if r.Client != (Client{}) {
		p = appendKey(p, keyClient, len(r.Client))
		p = append(p, r.Client[:]...)
	}
	if q := &r.Request; *q != (Request{}) {
		p = appendKey(p, keyRequest, sizeString(q.Method)+sizeString(q.Path)+sizeString(q.Query))
		p = appendString(p, q.Method)
		p = appendString(p, q.Path)
		p = appendString(p, q.Query)
	}
	if len(r.Attributes) > 0 {
		n := 0
		for i := range r.Attributes {
			n += sizeString(r.Attributes[i].Name) + sizeString(r.Attributes[i].Value)
		}
		p = appendKey(p, keyAttributes, n)
		for i := range r.Attributes {
			p = appendString(p, r.Attributes[i].Name)
			p = appendString(p, r.Attributes[i].Value)
		}
	}
	if r.Age > 0 {
		p = appendKey(p, keyAge, sizeUvarint(uint64(r.Age)))
		p = binary.AppendUvarint(p, uint64(r.Age))
	}
	for _, e := range later { // their keys are higher than all of the above: decoder.extension
		p = appendKey(p, e.key, len(e.data))
		p = append(p, e.data...)
	}
	return p
}

// record reads one in format 2. An unknown flag or required extension is noted in d.beyond, and the rest is read all
// the same: whether the block is sound is another question.
func (d *decoder) record(r *Record) {
	flags := d.fixed(1)[0]
	copy(r.ID[:], d.fixed(16))
	r.Time = d.time()
	r.Attempts = d.count()
	r.Source = d.shared(&d.source)
	r.ContentType = d.shared(&d.contentType)
	r.JSON, r.Job = flags&flagJSON != 0, flags&flagJob != 0
	if flags&^flagsKnown != 0 {
		d.unsupported(fmt.Sprintf("flags %#x", flags&^flagsKnown))
	}
	n := d.uvarint()
	if n > maxExtensions {
		d.failed = true
		return
	}
	last := uint64(0)
	for range n {
		key, data := d.uvarint(), d.bytes()
		if d.failed || key <= last {
			d.failed = true
			return
		}
		last = key
		d.extension(r, key, data)
	}
	r.Body = d.bytes()
	r.readLater()
}

// extension reads one of r's.
func (d *decoder) extension(r *Record, key uint64, data []byte) {
	outer := d.p
	d.p = data
	switch key {
	case keyTrace:
		r.TraceParent, r.TraceState = d.string(), d.string()
	case keyFailure:
		r.Failure = &Failure{Time: d.time(), Status: d.count(), Reason: d.string()}
	case keyRedrives:
		r.Redrives = d.count()
	case keyInput:
		r.Input = &Input{Object: d.string(), Size: int64(min(d.uvarint(), 1<<62)), ETag: d.string()}
	case keyClient:
		copy(r.Client[:], d.fixed(len(r.Client)))
	case keyRequest:
		r.Request = Request{Method: d.shared(&d.method), Path: d.shared(&d.path), Query: d.string()}
	case keyAttributes:
		d.attributes(r)
	case keyAge:
		r.Age = time.Duration(min(d.uvarint(), 1<<62))
	default:
		d.p = nil
		if key&required != 0 && !knownLater(key) {
			d.unsupported(fmt.Sprintf("extension %d", key>>1))
		}
		if key <= keyAge|required { // a known number that has become required, or the other way round
			d.unsupported(fmt.Sprintf("another extension %d", key>>1))
		}
		r.unknown = append(r.unknown, extension{key, data})
	}
	// A later version may have added to the end of one; what is left of it would be lost with the record's next write.
	if len(d.p) > 0 && !d.failed {
		d.unsupported(fmt.Sprintf("a longer extension %d", key>>1))
	}
	d.p = outer
}

func (d *decoder) attributes(r *Record) {
	for len(d.p) > 0 && !d.failed {
		if len(r.Attributes) == maxAttributes {
			d.failed = true
			return
		}
		i := len(r.Attributes)
		var name string
		if i < len(d.names) {
			name = d.shared(&d.names[i])
		} else {
			name = d.string()
			d.names = append(d.names, name)
		}
		r.Attributes = append(r.Attributes, Attribute{name, d.string()})
	}
	r.Attributes = slices.Clip(r.Attributes)
}

func appendKey(p []byte, key uint64, length int) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(p, key), uint64(length))
}

func appendTime(p []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(p, uint64(t.UnixNano()))
}

func appendString(p []byte, s string) []byte {
	return append(binary.AppendUvarint(p, uint64(len(s))), s...)
}

func sizeString(s string) int { return sizeUvarint(uint64(len(s))) + len(s) }

func sizeUvarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
