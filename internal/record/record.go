// Package record defines the unit of work, the Record, and the block: the framed, compressed and
// checksummed group of records that is one message of a stream.
//
// Invariants: a block decodes to exactly the records that were appended, in order, or to an error;
// decoding never allocates more than MaxBlockBytes whatever the input; decoded records share the
// block's memory and are read-only; what a later version has added to a record and this one doesn't
// know is kept when the record is written again.
//
// May import: the standard library, the compressor and the UUID type only.
package record

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

// Keyed reports whether the record's id is derived from an idempotency key.
func (r *Record) Keyed() bool { return r.ID.Version() == 8 }

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
	Time        time.Time // when the gateway accepted it, by its clock; UTC, nanoseconds kept. Shown, never compared
	Source      string    // CloudEvents source: the route that accepted it
	Request     Request
	Attributes  []Attribute // what the route names of the request, in the order of the route; no name twice
	ContentType string      // of Body, as the client sent it
	TraceParent string      // W3C trace context; empty if none
	TraceState  string
	Attempts    int  // counted failures so far
	JSON        bool // Body is known to be one valid JSON text
	Job         bool // somebody waits for the function's answer: it is called with this record alone
	Body        []byte
	Input       *Input   // of a job, instead of Body; nil if it is in Body
	Client      Client   // whose job it is; zero if it has no client
	Failure     *Failure // the last counted failure; nil before the first
	// Redrives is how often it has left the dead-letter queue. A redrive resets Attempts, Failure and Age.
	Redrives int
	// Age is the time from its acceptance until its block was stored: a sum of durations, each measured by one clock.
	Age time.Duration

	unknown []extension // extensions of a later version, in the order of their numbers
}

// Request is what the client asked for. It is empty in records of format 1.
type Request struct {
	Method string
	Path   string // as sent: escaped
	Query  string // as sent, without the '?'
}

// Attribute is a CloudEvents extension attribute.
type Attribute struct{ Name, Value string }

// Client identifies the owner of a job: a client that has a feed. The zero value means none.
type Client [12]byte

// Input locates a body that is too large for a record.
type Input struct {
	Object string // key, among the objects of the queue
	Size   int64  // bytes
	ETag   string // of the bytes that were submitted, to notice others in their place
}

// Failure says why a record was put back or dead-lettered.
type Failure struct {
	Time   time.Time // by the clock of the process that saw it; shown, never compared
	Status int       // the function's HTTP status; zero if there was no answer
	Reason string    // for people, at most MaxReasonBytes
}

// Redrive makes r a record that starts over: no failures behind it, age 0.
func (r *Record) Redrive() {
	r.Attempts, r.Failure, r.Age = 0, nil, 0
	r.Redrives++
}

// MaxReasonBytes bounds a failure's reason; longer ones are cut.
const MaxReasonBytes = 1024

// CutReason returns s in at most MaxReasonBytes, without what is no UTF-8.
func CutReason(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), MaxReasonBytes)], "")
}

// Size is the memory and block space that r takes, in bytes, close enough for bounds.
func (r *Record) Size() int {
	n := recordOverhead + len(r.Source) + len(r.ContentType) + len(r.TraceParent) + len(r.TraceState) + len(r.Body) +
		len(r.Request.Method) + len(r.Request.Path) + len(r.Request.Query)
	for i := range r.Attributes {
		n += attributeOverhead + len(r.Attributes[i].Name) + len(r.Attributes[i].Value)
	}
	if r.Client != (Client{}) {
		n += len(r.Client)
	}
	if r.Input != nil {
		n += inputOverhead + len(r.Input.Object) + len(r.Input.ETag)
	}
	if r.Failure != nil {
		n += failureOverhead + len(r.Failure.Reason)
	}
	for _, e := range r.unknown {
		n += unknownOverhead + len(e.data)
	}
	return n
}
