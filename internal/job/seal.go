package job

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
)

// sealed is what ids and tokens are made of. Its text, before base64url:
//
//	key      4 bytes: the id of the signing key
//	queue    4 bytes: of the SHA-256 of namespace/name, to find the queue by
//	record  16 bytes
//	more     its own
//	code    15 bytes: of the queue's whole name, record and more, for one purpose
//
// So whoever knows the keys tells what was given from what was made up, without looking anything up, and nobody else
// can guess it.
type sealed struct {
	queue  catalog.Key
	record record.ID
	more   []byte
}

const (
	tagBytes   = 4
	sealedBase = sign.KeyIDBytes + tagBytes + len(record.ID{}) + sign.MACBytes // without more
	maxMore    = startedBytes + len(record.Client{})
)

// ErrNoKeys means that the signing keys are not there yet.
var ErrNoKeys = errors.New("job: no signing keys yet")

func (s sealed) text(ring sign.Ring, purpose string, at time.Time) (string, error) {
	key, mac, ok := ring.Sign(at, purpose, s.message()...)
	if !ok {
		return "", ErrNoKeys
	}
	p := binary.BigEndian.AppendUint32(make([]byte, 0, sealedBase+maxMore), key)
	p = append(p, tag(s.queue)...)
	p = append(p, s.record[:]...)
	p = append(p, s.more...)
	return base64.RawURLEncoding.EncodeToString(append(p, mac[:]...)), nil
}

func (s sealed) message() [][]byte { return [][]byte{[]byte(s.queue.String()), s.record[:], s.more} }

// unseal reads a text with so many bytes more, of one of the queues.
func unseal(text string, ring sign.Ring, purpose string, more int, queues []catalog.Key) (sealed, bool) {
	if len(text) != base64.RawURLEncoding.EncodedLen(sealedBase+more) {
		return sealed{}, false
	}
	p, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(p) != sealedBase+more { // line breaks are skipped
		return sealed{}, false
	}
	take := func(n int) (part []byte) {
		part, p = p[:n], p[n:]
		return part
	}
	key, which := binary.BigEndian.Uint32(take(sign.KeyIDBytes)), string(take(tagBytes))
	s := sealed{record: record.ID(take(len(record.ID{}))), more: take(more)}
	for _, q := range queues {
		if s.queue = q; string(tag(q)) == which && ring.Verify(key, p, purpose, s.message()...) {
			return s, true
		}
	}
	return sealed{}, false
}

func tag(queue catalog.Key) []byte {
	sum := sha256.Sum256([]byte(queue.String()))
	return sum[:tagBytes]
}
