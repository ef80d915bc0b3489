package job

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// ID names a job: the record that is its work, and the queue that holds it.
type ID struct {
	Queue   catalog.Key
	Record  record.ID
	Client  record.Client
	Created time.Time // milliseconds
}

// Callback names one attempt at a job: with it a function that goes on after its answer reports how the work goes.
type Callback struct {
	Queue   catalog.Key
	Record  record.ID
	Client  record.Client
	Started time.Time // of the attempt, nanoseconds
}

const (
	createdBytes = 6 // Unix milliseconds
	startedBytes = 8 // Unix nanoseconds

	purposeID       = "job"
	purposeCallback = "callback"
)

// Errors of texts that were never issued.
var (
	// ErrNoID means that a text is no id that was ever issued for a job in one of the queues.
	ErrNoID = errors.New("job: no such job")
	// ErrNoCallback means the same of a callback.
	ErrNoCallback = errors.New("job: no such callback")
)

// NewID returns the id of the job whose work is r, accepted at created.
func NewID(queue catalog.Key, r *record.Record, created time.Time) ID {
	return ID{Queue: queue, Record: r.ID, Client: r.Client, Created: time.UnixMilli(created.UnixMilli()).UTC()}
}

// Key names the job among those of its queue.
func (id ID) Key() stream.JobKey { return stream.JobKey{Client: id.Client, ID: id.Record} }

// Text signs the id: the same id has the same text as long as the key of its time is kept. It returns ErrNoKeys
// without keys.
func (id ID) Text(ring sign.Ring) (string, error) {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(id.Created.UnixMilli()))
	return sealed{id.Queue, id.Record, withClient(ms[8-createdBytes:], id.Client)}.text(ring, purposeID, id.Created)
}

// ParseID reads the text of an id of a job in one of the queues, or returns ErrNoID.
func ParseID(text string, ring sign.Ring, queues []catalog.Key) (ID, error) {
	s, client, ok := unsealOfClient(text, ring, purposeID, createdBytes, queues)
	if !ok {
		return ID{}, ErrNoID
	}
	var ms [8]byte
	copy(ms[8-createdBytes:], s.more)
	return ID{s.queue, s.record, client, time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:]))).UTC()}, nil
}

func (t Callback) key() stream.JobKey { return stream.JobKey{Client: t.Client, ID: t.Record} }

// Text signs the callback. It returns ErrNoKeys without keys.
func (t Callback) Text(ring sign.Ring) (string, error) {
	started := binary.BigEndian.AppendUint64(nil, uint64(t.Started.UnixNano()))
	return sealed{t.Queue, t.Record, withClient(started, t.Client)}.text(ring, purposeCallback, t.Started)
}

// ParseCallback reads the text of a callback of a job in one of the queues, or returns ErrNoCallback.
func ParseCallback(text string, ring sign.Ring, queues []catalog.Key) (Callback, error) {
	s, client, ok := unsealOfClient(text, ring, purposeCallback, startedBytes, queues)
	if !ok {
		return Callback{}, ErrNoCallback
	}
	return Callback{s.queue, s.record, client, time.Unix(0, int64(binary.BigEndian.Uint64(s.more))).UTC()}, nil
}

// withClient appends the client, if there is one: without one the text is shorter.
func withClient(more []byte, c record.Client) []byte {
	if c == (record.Client{}) {
		return more
	}
	return append(more, c[:]...)
}

// unsealOfClient reads a text of one of the queues, with so many further bytes (more) and maybe a client behind them.
func unsealOfClient(text string, ring sign.Ring, purpose string, more int, queues []catalog.Key) (s sealed, c record.Client, ok bool) {
	if s, ok = unseal(text, ring, purpose, more, queues); ok {
		return s, c, true
	}
	if s, ok = unseal(text, ring, purpose, more+len(c), queues); ok {
		copy(c[:], s.more[more:])
		s.more = s.more[:more]
	}
	return s, c, ok
}
