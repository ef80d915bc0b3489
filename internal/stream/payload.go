package stream

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-dev/weir/internal/record"
)

// The server's max_payload bounds a message: headers and data together, as they are sent, so after compression. The
// server announces it at each connect, and nats.go refuses larger messages before it sends them. Blocks are cut to the
// limit in force. A record that fits in no message alone is refused for good (ErrTooLargeForServer), or, when it is
// stored already and has to be stored in another stream, held and tried again every tooLargeRetry.
const (
	// DefaultMaxPayload is NATS' own default. All bounds of Weir keep below it; with less, requests that its routes allow
	// may be refused.
	DefaultMaxPayload = 1 << 20
	// payloadMargin is room for the headers of a message and of a block. The largest is the state of a job.
	payloadMargin = 8 << 10
	// tooLargeRetry is how often a held record is tried again. A changed setting reaches a client with its next connect,
	// which begins a new session anyway; this is for settings that NATS takes over without one.
	tooLargeRetry = 30 * time.Second
)

// ErrTooLargeForServer means that a message is larger than the server's max_payload: nothing was stored, and trying
// again changes nothing until that setting is raised.
var ErrTooLargeForServer = errors.New("stream: larger than a message of NATS may be: raise max_payload of the NATS server")

// Limits is how large messages may be.
type Limits interface {
	MaxPayload() int64
	Room(want int) int
}

// MaxPayload is the limit of the latest connection's server, in bytes; DefaultMaxPayload before the first.
func (c *Conn) MaxPayload() int64 {
	if n := c.maxPayload.Load(); n > 0 {
		return n
	}
	return DefaultMaxPayload
}

// Room is want, or as many bytes as a message takes besides its headers if that is less.
func (c *Conn) Room(want int) int {
	return int(min(int64(want), max(c.MaxPayload()-payloadMargin, 1)))
}

// learn takes over the limit that the server has announced. It is kept here because the client's own lock may be held
// by a write that blocks.
func (c *Conn) learn(nc *nats.Conn) {
	n := nc.MaxPayload()
	if before := c.maxPayload.Swap(n); n < DefaultMaxPayload && n != before {
		c.log.Warn("NATS takes smaller messages than Weir needs: requests that their route allows may be refused with 413",
			"max_payload", n, "needed", int64(DefaultMaxPayload), "fix", "raise max_payload of the NATS server")
	}
}

// fits reports whether r goes into a block with those in b: only a record alone may be past the limit in force, because
// it may shrink when it is compressed. So only a block of one record can be too large, unless the limit falls between
// here and the write.
func (c *Conn) fits(b *record.Builder, r *record.Record) bool {
	return b.Len() == 0 || b.Fits(r) && b.Bytes()+r.Size() <= c.Room(record.TargetBlockBytes)
}

// piece is a run of the records to be stored, as one block.
type piece struct {
	from, n int
	block   []byte
}

// pieces encodes rs as blocks that fit into messages.
func (c *Conn) pieces(rs []record.Record, codec record.Codec) ([]piece, error) {
	var out []piece
	var b record.Builder
	cut := func(end int) {
		out = append(out, piece{from: end - b.Len(), n: b.Len(), block: b.AppendBlock(nil, codec)})
		b.Reset()
	}
	for i := range rs {
		if !c.fits(&b, &rs[i]) {
			cut(i)
		}
		if err := b.Append(&rs[i]); err != nil {
			return nil, fmt.Errorf("record %s: %w", rs[i].ID, err)
		}
	}
	if b.Len() > 0 {
		cut(len(rs))
	}
	return out, nil
}

// eachPiece calls put with blocks of rs, until it fails. A block of several records that turns out to be too large,
// because the server's limit has fallen meanwhile, is halved. Records that are too large alone come last, so that they
// hold nothing else up.
func (c *Conn) eachPiece(rs []record.Record, codec record.Codec, put func(piece) error) error {
	pieces, err := c.pieces(rs, codec)
	if err != nil {
		return err
	}
	var large []piece
	for _, p := range pieces {
		if p.n == 1 && len(p.block) > c.Room(record.MaxBlockBytes) {
			large = append(large, p)
			continue
		}
		err := put(p)
		if errors.Is(err, ErrTooLargeForServer) && p.n > 1 {
			err = c.halve(rs, codec, p, put)
		}
		if err != nil {
			return err
		}
	}
	for _, p := range large {
		if err := put(p); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) halve(rs []record.Record, codec record.Codec, p piece, put func(piece) error) error {
	half := p.n / 2
	for _, part := range []piece{{from: p.from, n: half}, {from: p.from + half, n: p.n - half}} {
		err := c.eachPiece(rs[part.from:part.from+part.n], codec, func(q piece) error {
			q.from += part.from
			return put(q)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// storable reports whether each of rs fits into a message.
func (c *Conn) storable(rs []record.Record, codec record.Codec) (bool, error) {
	room := c.Room(record.MaxBlockBytes)
	for i := range rs {
		if rs[i].Size() <= room {
			continue
		}
		blocks, err := record.Encode(rs[i:i+1], codec)
		if err != nil {
			return false, err
		}
		if len(blocks[0]) > room {
			return false, nil
		}
	}
	return true, nil
}
