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

// ID names a job: the record that is its work, and the queue that holds it.
type ID struct {
	Queue   catalog.Key
	Record  record.ID
	Created time.Time // milliseconds
}

// The text of an ID, before base64url:
//
//	key      4 bytes: the id of the signing key
//	queue    4 bytes: of the SHA-256 of namespace/name, to find the queue by
//	record  16 bytes
//	created  6 bytes: Unix milliseconds
//	code    15 bytes: of the queue's whole name, record and created
//
// So whoever knows the keys tells an id that was given from one that was made up, without looking anything up, and
// nobody else can guess one.
const (
	tagBytes     = 4
	createdBytes = 6
	idBytes      = sign.KeyIDBytes + tagBytes + 16 + createdBytes + sign.MACBytes
	purposeID    = "job"
)

// TextBytes is the length of an id's text.
const TextBytes = idBytes / 3 * 4

// ErrNoID means that a text is no id that was ever given for a job of the queues at hand.
var ErrNoID = errors.New("job: no such job")

// ErrNoKeys means that the signing keys are not there yet.
var ErrNoKeys = errors.New("job: no signing keys yet")

// NewID returns the id of the job whose work is record id, accepted at created.
func NewID(queue catalog.Key, id record.ID, created time.Time) ID {
	return ID{Queue: queue, Record: id, Created: time.UnixMilli(created.UnixMilli()).UTC()}
}

// Text signs the id: the same id has the same text as long as the key of its time is kept. It returns ErrNoKeys
// without keys.
func (id ID) Text(ring sign.Ring) (string, error) {
	var b [idBytes]byte
	created := id.appendCreated(nil)
	key, mac, ok := ring.Sign(id.Created, purposeID, []byte(id.Queue.String()), id.Record[:], created)
	if !ok {
		return "", ErrNoKeys
	}
	p := binary.BigEndian.AppendUint32(b[:0], key)
	p = append(p, tag(id.Queue)...)
	p = append(p, id.Record[:]...)
	p = append(p, created...)
	p = append(p, mac[:]...)
	return base64.RawURLEncoding.EncodeToString(p), nil
}

// ParseID reads the text of an id of a job in one of the queues, or returns ErrNoID.
func ParseID(text string, ring sign.Ring, queues []catalog.Key) (ID, error) {
	var b [idBytes]byte
	if len(text) != TextBytes {
		return ID{}, ErrNoID
	}
	if n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(text)); err != nil || n != idBytes {
		return ID{}, ErrNoID
	}
	p := b[:]
	take := func(n int) (part []byte) {
		part, p = p[:n], p[n:]
		return part
	}
	key, t := binary.BigEndian.Uint32(take(sign.KeyIDBytes)), take(tagBytes)
	id := ID{}
	copy(id.Record[:], take(len(id.Record)))
	created := take(createdBytes)
	id.Created = time.UnixMilli(int64(binary.BigEndian.Uint64(append(make([]byte, 8-createdBytes, 8), created...)))).UTC()
	for _, q := range queues {
		if string(tag(q)) == string(t) && ring.Verify(key, p, purposeID, []byte(q.String()), id.Record[:], created) {
			id.Queue = q
			return id, nil
		}
	}
	return ID{}, ErrNoID
}

func (id ID) appendCreated(p []byte) []byte {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(id.Created.UnixMilli()))
	return append(p, ms[8-createdBytes:]...)
}

func tag(queue catalog.Key) []byte {
	sum := sha256.Sum256([]byte(queue.String()))
	return sum[:tagBytes]
}
