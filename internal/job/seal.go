package job

import (
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
)

// sealed is what ids and callbacks are made of. The body of its text:
//
//	queue    4 bytes: of the SHA-256 of namespace/name, to find the queue by
//	record  16 bytes
//	more     depends on the purpose
//
// The queue's whole name is signed with it. So whoever has the keys can verify it without looking anything up, and nobody
// else can forge it.
type sealed struct {
	queue  catalog.Key
	record record.ID
	more   []byte
}

const (
	tagBytes   = 4
	sealedBase = tagBytes + len(record.ID{}) // without more
	maxMore    = startedBytes + len(record.Client{})
)

// ErrNoKeys means that the signing keys are not there yet.
var ErrNoKeys = errors.New("job: no signing keys yet")

func (s sealed) text(ring sign.Ring, purpose string, at time.Time) (string, error) {
	body := slices.Concat(tag(s.queue), s.record[:], s.more)
	text, ok := ring.Seal(at, purpose, body, []byte(s.queue.String()))
	if !ok {
		return "", ErrNoKeys
	}
	return text, nil
}

// unseal reads a text of one of the queues, with so many further bytes (more).
func unseal(text string, ring sign.Ring, purpose string, more int, queues []catalog.Key) (sealed, bool) {
	t, ok := sign.Unseal(text, sealedBase+more, sealedBase+more)
	if !ok {
		return sealed{}, false
	}
	which, rest := string(t.Body[:tagBytes]), t.Body[tagBytes:]
	for _, q := range queues {
		if string(tag(q)) == which && t.Verify(ring, purpose, []byte(q.String())) {
			return sealed{q, record.ID(rest[:len(record.ID{})]), rest[len(record.ID{}):]}, true
		}
	}
	return sealed{}, false
}

func tag(queue catalog.Key) []byte {
	sum := sha256.Sum256([]byte(queue.String()))
	return sum[:tagBytes]
}
