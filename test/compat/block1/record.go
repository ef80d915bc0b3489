package block1

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ID names a record for ever: a UUID, version 7 when made here, version 8 when derived from a
// client's idempotency key (RFC 9562).
type ID = uuid.UUID

// NewID returns a new time-ordered id (UUIDv7). It fails only when the system has no randomness.
func NewID() (ID, error) { return uuid.NewV7() }

// IDFromKey derives an id from an idempotency key within a scope: the same pair always gives the
// same id, so that a client that retries writes the same record.
func IDFromKey(scope, key string) ID {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%d:%s%s", len(scope), scope, key)
	var id ID
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant RFC 9562
	return id
}

// ParseID reads an id in the canonical 36-character form.
func ParseID(s string) (ID, error) {
	if len(s) != 36 {
		return ID{}, errors.New("record: an id has 36 characters, such as 01890a5d-ac96-774b-bcce-b302099a8057")
	}
	return uuid.Parse(s)
}

// Record is one accepted request on its way to a function.
type Record struct {
	ID          ID
	Time        time.Time // when it was accepted, UTC, nanoseconds kept
	Source      string    // CloudEvents source: the route that accepted it
	ContentType string    // of Body, as the client sent it
	TraceParent string    // W3C trace context, empty if none
	TraceState  string
	Attempts    int  // counted failures so far
	JSON        bool // Body is known to be one valid JSON text
	Job         bool // somebody waits for the function's answer: it is called with this record alone
	Body        []byte
	Input       *Input    // instead of Body, of a job; nil: Body it is
	Client      Client    // whose job it is
	Failure     *Failure  // the last counted failure; nil before the first
	Redriven    time.Time // when it last left the dead-letter queue; zero: never
}

// Age is how long r has been tried: since it was accepted, or since it was last redriven.
func (r *Record) Age(now time.Time) time.Duration {
	if r.Redriven.After(r.Time) {
		return now.Sub(r.Redriven)
	}
	return now.Sub(r.Time)
}

// Client tells whose a job is: a client that has a feed. The zero value: nobody's in particular.
type Client [12]byte

// Input is where a body is that is too large for a record.
type Input struct {
	Object string // key, among the objects of the queue
	Size   int64  // bytes
	ETag   string // of the bytes that were submitted: others are not them
}

// Failure says why a record was put back or dead-lettered.
type Failure struct {
	Time   time.Time
	Status int    // the function's HTTP status; 0 when there was no answer
	Reason string // for people, at most MaxReasonBytes
}

// MaxReasonBytes bounds a failure's reason; longer ones are cut.
const MaxReasonBytes = 1024

// CutReason returns s in at most MaxReasonBytes, without what is no UTF-8.
func CutReason(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), MaxReasonBytes)], "")
}

// Size is the memory and block space that r takes, in bytes, close enough for bounds.
func (r *Record) Size() int {
	n := recordOverhead + len(r.Source) + len(r.ContentType) + len(r.TraceParent) + len(r.TraceState) + len(r.Body)
	if r.Client != (Client{}) {
		n += len(r.Client)
	}
	if r.Input != nil {
		n += inputOverhead + len(r.Input.Object) + len(r.Input.ETag)
	}
	if r.Failure != nil {
		n += failureOverhead + len(r.Failure.Reason)
	}
	return n
}
