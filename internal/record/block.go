package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// The block (integers are unsigned varints unless said otherwise):
//
//	"WB" format        magic, and the format of the records: 2, or 1 of the version before (format.go, format1.go)
//	codec              1 byte: 0 none, 1 s2, 2 zstd
//	count              records
//	length             bytes of the payload before compression
//	crc                CRC-32C of the payload before compression, 4 bytes big endian
//	payload            count records, compressed with the codec
//
// TestBlockGolden holds the formats; TestFormatMatrix what the version before does with this one's blocks.

// Bounds of a block. A stream's message is at most 1 MiB by the NATS server's default, so a block is
// closed before it grows past TargetBlockBytes and one record alone is at most MaxRecordBytes.
const (
	MaxBlockRecords  = 512
	TargetBlockBytes = 512 << 10
	MaxRecordBytes   = 896 << 10
	MaxBlockBytes    = 1 << 20 // of the payload before compression: what a decoder allocates at most

	format = 2 // that is written
)

// Codec is the compression of a block's payload.
type Codec byte

// String returns the codec's name, as ParseCodec reads it.
func (c Codec) String() string {
	switch c {
	case None:
		return "none"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	default:
		return fmt.Sprintf("codec %d", byte(c))
	}
}

// ParseCodec reads the name of a codec: none, s2 or zstd.
func ParseCodec(s string) (Codec, error) {
	for _, c := range []Codec{None, S2, Zstd} {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%q is no compression: use s2, zstd or none", s)
}

// The codecs. The default is the one that costs an ingesting gateway less than a tenth of its throughput:
// see docs/decisions/0002-block-compression.md.
const (
	None Codec = 0
	S2   Codec = 1
	Zstd Codec = 2

	DefaultCodec = S2
)

// The ways in which a block can't be read. Every error of Decode wraps one of them.
var (
	// ErrCorrupt means that no version can read it.
	ErrCorrupt = errors.New("record: corrupt block")
	// ErrUnsupported means that a later version has written it, and has marked something in it that a reader must know.
	// The block is sound: a reader leaves it to that version.
	ErrUnsupported = errors.New("record: the block needs a later version of Weir")
)

// ErrTooLarge is returned for a record that fits in no block.
var ErrTooLarge = fmt.Errorf("record: larger than %d bytes", MaxRecordBytes)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant table

// Encoders and decoders are safe for concurrent use by EncodeAll and DecodeAll.
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder { //nolint:gochecknoglobals // costly to make, stateless in use
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(MaxBlockBytes), zstd.WithLowerEncoderMem(true), zstd.WithEncoderConcurrency(2))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder { //nolint:gochecknoglobals // costly to make, stateless in use
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(MaxBlockBytes), zstd.WithDecoderConcurrency(2))
		if err != nil {
			panic(err) // the options are constants
		}
		return d
	})
)

// Builder collects records into one block. The zero value is ready; it is not safe for concurrent use.
type Builder struct {
	payload []byte
	count   int
}

// Fits reports whether r can be appended without the block growing past its bounds. An empty builder
// takes any record of at most MaxRecordBytes.
func (b *Builder) Fits(r *Record) bool {
	return b.count == 0 || b.count < MaxBlockRecords && len(b.payload)+r.Size() <= TargetBlockBytes
}

// Append adds a copy of r. It refuses a record that fits in no block with ErrTooLarge; the caller asks
// Fits first.
func (b *Builder) Append(r *Record) error {
	if r.Size() > MaxRecordBytes {
		return ErrTooLarge
	}
	b.payload = appendRecord(b.payload, r)
	b.count++
	return nil
}

// Len is the number of records in the builder.
func (b *Builder) Len() int { return b.count }

// Bytes is the size of the payload so far, before compression.
func (b *Builder) Bytes() int { return len(b.payload) }

// Reset empties the builder and keeps its memory.
func (b *Builder) Reset() { b.payload, b.count = b.payload[:0], 0 }

// AppendBlock appends the encoded block to dst.
func (b *Builder) AppendBlock(dst []byte, codec Codec) []byte {
	dst = append(dst, 'W', 'B', format, byte(codec))
	dst = binary.AppendUvarint(dst, uint64(b.count))
	dst = binary.AppendUvarint(dst, uint64(len(b.payload)))
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(b.payload, castagnoli))
	switch codec {
	case S2:
		n := len(dst)
		dst = append(dst, make([]byte, s2.MaxEncodedLen(len(b.payload)))...)
		return dst[:n+len(s2.Encode(dst[n:], b.payload))]
	case Zstd:
		return zstdEncoder().EncodeAll(b.payload, dst)
	default:
		return append(dst, b.payload...)
	}
}

// Encode returns rs as blocks, each within the bounds; it is for the slow paths (retries, dead letters,
// redrive). A record that fits in no block gives ErrTooLarge.
func Encode(rs []Record, codec Codec) ([][]byte, error) {
	var out [][]byte
	var b Builder
	for i := range rs {
		if !b.Fits(&rs[i]) {
			out = append(out, b.AppendBlock(nil, codec))
			b.Reset()
		}
		if err := b.Append(&rs[i]); err != nil {
			return nil, fmt.Errorf("record %s: %w", rs[i].ID, err)
		}
	}
	if b.Len() > 0 {
		out = append(out, b.AppendBlock(nil, codec))
	}
	return out, nil
}

// Decode returns the records of a block. Their strings and bodies share one buffer of their own, not
// block's memory.
func Decode(block []byte) ([]Record, error) {
	if len(block) < 4 || block[0] != 'W' || block[1] != 'B' {
		return nil, fmt.Errorf("%w: no magic", ErrCorrupt)
	}
	if block[2] > format {
		return nil, fmt.Errorf("%w: format %d; this one reads %d", ErrUnsupported, block[2], format)
	}
	if block[2] == 0 {
		return nil, fmt.Errorf("%w: format 0", ErrCorrupt)
	}
	codec := Codec(block[3])
	d := decoder{p: block[4:]}
	count, length := d.uvarint(), d.uvarint()
	crc := binary.BigEndian.Uint32(d.fixed(4))
	if d.failed || count > MaxBlockRecords || length > MaxBlockBytes || count*recordMinimum > length {
		return nil, fmt.Errorf("%w: header", ErrCorrupt)
	}
	payload, err := decompress(codec, d.p, int(length))
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli) != crc {
		return nil, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	d = decoder{p: payload}
	read := d.record
	if block[2] == 1 {
		read = d.record1
	}
	rs := make([]Record, count)
	for i := range rs {
		read(&rs[i])
		if d.failed {
			return nil, fmt.Errorf("%w: record %d of %d", ErrCorrupt, i+1, count)
		}
	}
	if len(d.p) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last record", ErrCorrupt, len(d.p))
	}
	if d.beyond != "" {
		return nil, fmt.Errorf("%w: %s", ErrUnsupported, d.beyond)
	}
	return rs, nil
}

// Count is how many records a block says that it holds, of any version's format; one if it says nothing plausible.
func Count(block []byte) int {
	if len(block) < 5 || block[0] != 'W' || block[1] != 'B' {
		return 1
	}
	d := decoder{p: block[4:]}
	if n := d.uvarint(); !d.failed && n >= 1 && n <= MaxBlockRecords {
		return int(n)
	}
	return 1
}

func decompress(codec Codec, p []byte, length int) ([]byte, error) {
	switch codec {
	case None:
		if len(p) != length {
			return nil, fmt.Errorf("%w: %d bytes of payload, want %d", ErrCorrupt, len(p), length)
		}
		return append(make([]byte, 0, length), p...), nil
	case S2:
		n, err := s2.DecodedLen(p)
		if err != nil || n != length {
			return nil, fmt.Errorf("%w: s2 length", ErrCorrupt)
		}
		out, err := s2.Decode(make([]byte, length), p)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return out, nil
	case Zstd:
		out, err := zstdDecoder().DecodeAll(p, make([]byte, 0, length))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if len(out) != length {
			return nil, fmt.Errorf("%w: zstd length %d, want %d", ErrCorrupt, len(out), length)
		}
		return out, nil
	default:
		return nil, fmt.Errorf("%w: %s", ErrUnsupported, codec)
	}
}

// decoder consumes p; after a failure it returns zero values and stays failed.
type decoder struct {
	p      []byte
	failed bool
	beyond string // what only a later version can handle; empty if nothing

	// Neighbours mostly share these: the last value is reused instead of allocated anew.
	source, contentType, method, path string
	names                             []string // of attributes
}

func (d *decoder) unsupported(what string) {
	if d.beyond == "" {
		d.beyond = what
	}
}

func (d *decoder) time() time.Time {
	return time.Unix(0, int64(binary.BigEndian.Uint64(d.fixed(8)))).UTC()
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.p)
	if n <= 0 {
		d.failed = true
		return 0
	}
	d.p = d.p[n:]
	return v
}

// fixed returns the next n bytes (n at most 16), zeros after a failure.
func (d *decoder) fixed(n int) []byte {
	var zeros [16]byte
	if d.failed || len(d.p) < n {
		d.failed = true
		return zeros[:n]
	}
	b := d.p[:n]
	d.p = d.p[n:]
	return b
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.failed || n > uint64(len(d.p)) {
		d.failed = true
		return nil
	}
	b := d.p[:n:n]
	d.p = d.p[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes()) }

// count reads what is a small number unless the block is garbage.
func (d *decoder) count() int { return int(min(d.uvarint(), 1<<30)) }

// shared reads a string into last, which keeps its memory if it is the same.
func (d *decoder) shared(last *string) string {
	if b := d.bytes(); string(b) != *last {
		*last = string(b)
	}
	return *last
}
