package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/s2"
)

// A block (integers are unsigned varints unless said otherwise):
//
//	"WL" 1             magic and format; format 2 if an entry has a time to live
//	crc                CRC-32C of the payload before compression, 4 bytes big endian
//	payload            compressed with s2:
//	  writer           16 bytes: who wrote it
//	  number           of the writer's blocks; 0 is its first, which has no entries and fences off the writer before it
//	  shown            all changes of blocks up to this one can be looked up
//	  count            entries, each of three texts with their lengths: key, header, body; in format 2 then its time to
//	                   live in seconds, 0 for ever
//
// TestBlockGolden holds it.
const (
	magic    = "WL"
	forever  = 1 // format in which all entries live for ever
	mortal   = 2
	formatAt = len(magic)
	prefix   = len(magic) + 1 + crc32.Size

	// targetBlock is the size before compression past which a block takes no further entry, and maxBlock what a decoder
	// allocates at most: one entry may be as large as a message of NATS.
	targetBlock = 512 << 10
	maxBlock    = 2 << 20
	maxTTL      = 100 * 365 * 24 * 3600 // seconds
)

// ErrUnknownBlock means that a block is damaged, or of a later version of Weir.
var ErrUnknownBlock = errors.New("ledger: a block can't be read")

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant table

type writerID [16]byte

// block is a decoded one.
type block struct {
	writer  writerID
	number  uint64
	shown   uint64
	entries []entry
}

type entry struct {
	key string
	Value
}

func (e *entry) size() int { return len(e.key) + len(e.Header) + len(e.Body) + 4*binary.MaxVarintLen32 }

// encode returns the block as it is stored.
func (b *block) encode() []byte {
	n, format := len(b.writer)+3*binary.MaxVarintLen64, byte(forever)
	for i := range b.entries {
		n += b.entries[i].size()
		if b.entries[i].TTL > 0 {
			format = mortal
		}
	}
	p := make([]byte, 0, n)
	p = append(p, b.writer[:]...)
	p = binary.AppendUvarint(p, b.number)
	p = binary.AppendUvarint(p, b.shown)
	p = binary.AppendUvarint(p, uint64(len(b.entries)))
	for i := range b.entries {
		e := &b.entries[i]
		p = append(binary.AppendUvarint(p, uint64(len(e.key))), e.key...)
		p = append(binary.AppendUvarint(p, uint64(len(e.Header))), e.Header...)
		p = append(binary.AppendUvarint(p, uint64(len(e.Body))), e.Body...)
		if format == mortal {
			p = binary.AppendUvarint(p, uint64(e.TTL/time.Second))
		}
	}
	data := binary.BigEndian.AppendUint32(append([]byte(magic), format), crc32.Checksum(p, castagnoli))
	return append(data, s2.Encode(nil, p)...)
}

// decode reads what encode wrote, or returns ErrUnknownBlock.
func decode(data []byte) (*block, error) {
	if len(data) < prefix || string(data[:len(magic)]) != magic || data[formatAt] != forever && data[formatAt] != mortal {
		return nil, fmt.Errorf("%w: it begins with % x", ErrUnknownBlock, data[:min(len(data), formatAt+1)])
	}
	if n, err := s2.DecodedLen(data[prefix:]); err != nil || n > maxBlock {
		return nil, fmt.Errorf("%w: %d bytes, %w", ErrUnknownBlock, n, errors.Join(err))
	}
	p, err := s2.Decode(nil, data[prefix:])
	if err != nil || crc32.Checksum(p, castagnoli) != binary.BigEndian.Uint32(data[formatAt+1:prefix]) {
		return nil, fmt.Errorf("%w: its checksum is another", ErrUnknownBlock)
	}
	b, r := &block{}, reader{rest: p}
	copy(b.writer[:], r.bytes(uint64(len(b.writer))))
	b.number, b.shown = r.number(), r.number()
	n := r.number()
	if r.bad || n > uint64(len(r.rest)) {
		return nil, fmt.Errorf("%w: it is cut off", ErrUnknownBlock)
	}
	b.entries = make([]entry, 0, n)
	for range n {
		var e entry
		e.key, e.Header = string(r.bytes(r.number())), string(r.bytes(r.number()))
		if body := r.bytes(r.number()); len(body) > 0 {
			e.Body = body
		}
		if data[formatAt] == mortal {
			seconds := r.number()
			if seconds > maxTTL {
				return nil, fmt.Errorf("%w: an entry lives for %d s", ErrUnknownBlock, seconds)
			}
			e.TTL = time.Duration(seconds) * time.Second
		}
		b.entries = append(b.entries, e)
	}
	if r.bad || len(r.rest) > 0 {
		return nil, fmt.Errorf("%w: it is cut off, or goes on", ErrUnknownBlock)
	}
	return b, nil
}

// reader takes what a payload has one after another; past its end it is bad.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}
