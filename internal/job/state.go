package job

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Status is where a job stands.
type Status string

// The statuses. A job without a stored state is Queued or, by its age, Expired: every id that was issued has a status.
const (
	Queued    Status = "queued"  // waits for its first or next attempt
	Running   Status = "running" // an attempt has begun
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
	Expired   Status = "expired" // not called within its queue's maxAge, or so old that nothing is kept of it
)

// Final reports whether nothing more happens to the job, unless an operator redrives it.
func (s Status) Final() bool { return s != Queued && s != Running }

// redrivable reports whether the record of a job with this final status is a dead letter, so that it may come back.
func (s Status) redrivable() bool { return s == Failed || s == Expired }

// State is what is known of a job.
type State struct {
	Status   Status    `json:"status"`
	Attempts int       `json:"attempts,omitempty"` // that began
	Created  time.Time `json:"created"`
	Started  time.Time `json:"started,omitzero"`   // of the latest attempt
	Changed  time.Time `json:"changed,omitzero"`   // the latest change of the status
	Finished time.Time `json:"finished,omitzero"`  // with a final status
	Progress *Progress `json:"progress,omitempty"` // of the latest attempt, as the function reports it
	Error    *Error    `json:"error,omitempty"`    // of the latest attempt that failed
	Result   *Result   `json:"result,omitempty"`   // Succeeded
	// Print is the request's Fingerprint, by which another request under the same idempotency key is noticed; empty if its
	// job has no such key. Former versions have stored it always.
	Print string `json:"print,omitempty"`

	// Trace is the context of the job's record (W3C traceparent), for reports that come without one; empty if it has none.
	// A dispatcher of a former version drops it: the reports are in traces of their own then.
	Trace string `json:"trace,omitempty"`

	// Redrives is how often the record of the latest attempt had been redriven.
	Redrives int `json:"redrives,omitempty"`

	// Running, once the function has answered that it goes on: the attempt has failed when the state is older than
	// Heartbeat, or when Broken: the function reported that, or Begin found the heartbeat overdue. Storing the state
	// anew renews the heartbeat.
	Heartbeat time.Duration `json:"heartbeat,omitempty"`
	Broken    bool          `json:"broken,omitempty"`

	seq    uint64    // of the stream; zero if nothing is stored
	sum    uint32    // checksum of the stored text
	stored time.Time // by the server's clock; zero unless it was read to decide on the next attempt
	body   []byte    // of one that a Hub has told
	whole  bool      // body is all of it
}

// Told is the result of a state that a Hub has told, unless that is an object; known is false if it has to be looked up.
func (s *State) Told() (result []byte, known bool) { return s.body, s.whole }

// Version is higher for a later state of the job; zero if nothing is stored. That holds only as long as the queue's
// streams exist: what clients send back is compared with Sum as well.
func (s *State) Version() uint64 { return s.seq }

// Sum is a checksum of the state as it is stored, without its result.
func (s *State) Sum() uint32 { return s.sum }

// keptAs records the text and the sequence under which s is stored.
func (s *State) keptAs(header string, seq uint64) {
	s.seq, s.sum = seq, crc32.ChecksumIEEE([]byte(header))
}

// Progress is how far an attempt has come.
type Progress struct {
	Percent float64 `json:"percent"` // 0 to 100
	Message string  `json:"message,omitempty"`
}

// Error says why an attempt failed.
type Error struct {
	Status int    `json:"status,omitempty"` // the function's HTTP status; zero if there was no answer
	Type   string `json:"type,omitempty"`   // of the function's problem (RFC 9457); empty if it gave none
	Title  string `json:"title,omitempty"`  // likewise
	Detail string `json:"detail"`
}

// Result describes the function's answer.
type Result struct {
	ContentType string `json:"contentType,omitempty"`
	Size        int64  `json:"size"` // bytes
	// Object is the key of the queue's object that holds it, and ETag identifies its bytes. Empty if it is stored with
	// the state.
	Object string `json:"object,omitempty"`
	ETag   string `json:"etag,omitempty"`
}

// MaxInlineBytes bounds a result that is stored with the state. A larger one is an object.
const MaxInlineBytes = 256 << 10

// Fingerprint distinguishes requests under one idempotency key.
func Fingerprint(r *record.Record) string {
	b := make([]byte, 0, 512)
	b = append(strconv.AppendInt(b, int64(len(r.ContentType)), 10), ':')
	b = append(b, r.ContentType...)
	if in := r.Input; in != nil {
		b = append(strconv.AppendInt(b, in.Size, 10), ':')
		b = append(b, in.ETag...)
	}
	if q := r.Request; q != (record.Request{}) { // there is none in records of format 1
		b = append(append(b, q.Method...), ' ')
		b = append(strconv.AppendQuote(b, q.Path), ' ')
		b = strconv.AppendQuote(b, q.Query)
	}
	for _, a := range r.Attributes {
		b = append(append(b, a.Name...), '=')
		b = strconv.AppendQuote(b, a.Value)
	}
	h := sha256.New()
	h.Write(b)
	h.Write(r.Body)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// printOf is what a job of this record has as its Print.
func printOf(r *record.Record) string {
	if !r.Keyed() {
		return "" // no other request gets its id
	}
	return Fingerprint(r)
}

// another reports whether s is the job of another request than r, under the same idempotency key.
func (s *State) another(r *record.Record, fingerprint string) bool {
	return r.Keyed() && s.Print != "" && s.Print != fingerprint
}

// encode cuts texts: with a state that fits in no message its record would be redelivered for ever. The header of one
// holds 64 KiB.
func (s *State) encode() (string, error) {
	for _, t := range []*time.Time{&s.Created, &s.Started, &s.Changed, &s.Finished} {
		*t = t.UTC() // clients see them
	}
	if s.Error != nil {
		e := s.Error
		s.Error = &Error{e.Status, record.CutReason(e.Type), record.CutReason(e.Title), record.CutReason(e.Detail)}
	}
	if s.Progress != nil {
		s.Progress = &Progress{s.Progress.Percent, record.CutReason(s.Progress.Message)}
	}
	b, err := s.append(make([]byte, 0, 512))
	if err != nil {
		return "", fmt.Errorf("encode a job's state: %w", err)
	}
	return string(b), nil
}

// append appends s as its tags say. Each job needs it: a library takes six times as long. TestStoredText holds it against
// encoding/json.
func (s *State) append(b []byte) (_ []byte, err error) {
	text := func(name, v string) {
		if v != "" {
			b, _ = jsontext.AppendQuote(append(b, name...), v) // what is no UTF-8 is replaced
		}
	}
	number := func(name string, v int64) {
		if v != 0 {
			b = strconv.AppendInt(append(b, name...), v, 10)
		}
	}
	at := func(name string, t time.Time) {
		if !t.IsZero() {
			b = append(t.AppendFormat(append(append(b, name...), '"'), time.RFC3339Nano), '"')
		}
	}
	rare := func(name string, v any) {
		if err != nil {
			return
		}
		var j []byte
		j, err = jsonv2.Marshal(v, storedFormat())
		b = append(append(b, name...), j...)
	}
	b = append(b, `{"status":"`...)
	b = append(append(b, s.Status...), '"')
	number(`,"attempts":`, int64(s.Attempts))
	b = append(s.Created.AppendFormat(append(b, `,"created":"`...), time.RFC3339Nano), '"')
	at(`,"started":`, s.Started)
	at(`,"changed":`, s.Changed)
	at(`,"finished":`, s.Finished)
	if s.Progress != nil {
		rare(`,"progress":`, s.Progress)
	}
	if s.Error != nil {
		rare(`,"error":`, s.Error)
	}
	if r := s.Result; r != nil {
		b = append(b, `,"result":{`...)
		if r.ContentType != "" {
			text(`"contentType":`, r.ContentType)
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `"size":`...), r.Size, 10)
		text(`,"object":`, r.Object)
		text(`,"etag":`, r.ETag)
		b = append(b, '}')
	}
	text(`,"print":`, s.Print)
	text(`,"trace":`, s.Trace)
	number(`,"redrives":`, int64(s.Redrives))
	number(`,"heartbeat":`, int64(s.Heartbeat))
	if s.Broken {
		b = append(b, `,"broken":true`...)
	}
	return append(b, '}'), err
}

// errState means that the stored state can't be read.
var errState = errors.New("job: the stored state can't be read")

// storedFormat is that of encoding/json, which former versions wrote it with, and which takes three times as long.
func storedFormat() jsonv2.Options {
	return jsonv2.JoinOptions(
		jsonv1.FormatDurationAsNano(true), jsonv1.OmitEmptyWithLegacySemantics(true), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true),
	)
}

// decode returns, with errState, a state that has only its sequence.
func decode(header string, seq uint64) (*State, error) {
	s := &State{}
	if err := jsonv2.Unmarshal([]byte(header), s, storedFormat()); err != nil {
		return &State{seq: seq}, fmt.Errorf("%w: %w", errState, err)
	}
	s.keptAs(header, seq)
	return s, nil
}

// told is decode of a state that somebody who follows the job is told.
func told(st stream.JobState) (*State, error) {
	s, err := decode(st.Header, st.Seq)
	s.body, s.whole = st.Body, st.Whole
	return s, err
}
