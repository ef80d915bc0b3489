package orchestrator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// What is stored of an execution is a line of JSON that says what it began with, and a line for each event that it was told
// since. The execution is made again of them: its state, its history and what it waits for.

// beginning is the first line.
type beginning struct {
	Version    int             `json:"v"`
	Definition string          `json:"def"` // definitionKey of it
	Type       statelang.Type  `json:"type"`
	At         int64           `json:"at"` // Unix milliseconds, by the server's clock
	Input      json.RawMessage `json:"input"`
	// The trace context of its start; empty if that was not sampled.
	TraceParent string `json:"tp,omitempty"`
	TraceState  string `json:"ts,omitempty"`
}

const codecVersion = 1

// errUnknown means that what is stored was written by a later version, or is damaged.
var errUnknown = errors.New("orchestrator: an execution can't be read")

// line is an event: its short form.
type line struct {
	Kind   string          `json:"k"`
	Call   uint32          `json:"c,omitempty"`
	After  int64           `json:"t"` // milliseconds since the beginning
	Output json.RawMessage `json:"o,omitempty"`
	Error  *string         `json:"e,omitempty"`
	Cause  *string         `json:"x,omitempty"`
	Failed bool            `json:"f,omitempty"` // there is a failure, maybe without a name and a cause
	Worker string          `json:"n,omitempty"`
}

// kinds of events in a line. They are stored: none may change its meaning.
func kindToLetter(k statelang.EventKind) string {
	switch k {
	case statelang.Succeeded:
		return "s"
	case statelang.Failed:
		return "f"
	case statelang.Submitted:
		return "u"
	case statelang.Beat:
		return "b"
	case statelang.Woke:
		return "w"
	case statelang.Continued:
		return "c"
	case statelang.Taken:
		return "t"
	case statelang.Stopped:
		return "x"
	default: // statelang.Redriven
		return "r"
	}
}

func letterToKind(letter string) (statelang.EventKind, bool) {
	for _, k := range []statelang.EventKind{
		statelang.Succeeded, statelang.Failed, statelang.Submitted, statelang.Beat, statelang.Woke, statelang.Continued, statelang.Taken,
		statelang.Stopped, statelang.Redriven,
	} {
		if kindToLetter(k) == letter {
			return k, true
		}
	}
	return "", false
}

func appendBeginning(dst []byte, b beginning) ([]byte, error) {
	b.Version = codecVersion
	text, err := marshal(b)
	if err != nil {
		return nil, err
	}
	return append(append(dst, text...), '\n'), nil
}

func appendEvent(dst []byte, e statelang.Event, began time.Time) ([]byte, error) {
	l := line{Kind: kindToLetter(e.Kind), Call: e.Call, After: e.At.Sub(began).Milliseconds(), Worker: e.Worker}
	if e.Kind == statelang.Succeeded || e.Output != nil {
		text, err := jsontree.Append(nil, e.Output)
		if err != nil {
			return nil, err
		}
		l.Output = text
	}
	if e.Failure != nil {
		l.Failed, l.Error, l.Cause = true, e.Failure.Error, e.Failure.Cause
	}
	text, err := marshal(l)
	if err != nil {
		return nil, err
	}
	return append(append(dst, text...), '\n'), nil
}

// decode reads what is stored of an execution.
func decode(body []byte) (b beginning, events []statelang.Event, err error) {
	for n := 0; len(body) > 0; n++ {
		text, rest, ok := bytes.Cut(body, []byte{'\n'})
		if !ok {
			return b, nil, fmt.Errorf("%w: line %d has no end", errUnknown, n)
		}
		body = rest
		if n == 0 {
			if err := json.Unmarshal(text, &b); err != nil || b.Version != codecVersion {
				return b, nil, fmt.Errorf("%w: version %d: %w", errUnknown, b.Version, err)
			}
			continue
		}
		e, err := decodeEvent(text, time.UnixMilli(b.At))
		if err != nil {
			return b, nil, fmt.Errorf("%w: line %d: %w", errUnknown, n, err)
		}
		events = append(events, e)
	}
	if b.Version == 0 {
		return b, nil, fmt.Errorf("%w: it is empty", errUnknown)
	}
	return b, events, nil
}

func decodeEvent(text []byte, began time.Time) (statelang.Event, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return statelang.Event{}, err
	}
	kind, ok := letterToKind(l.Kind)
	if !ok {
		return statelang.Event{}, fmt.Errorf("the kind %q is unknown", l.Kind)
	}
	e := statelang.Event{Kind: kind, Call: l.Call, Worker: l.Worker, At: began.Add(time.Duration(l.After) * time.Millisecond).UTC()}
	if l.Output != nil {
		v, err := jsontree.Parse(l.Output)
		if err != nil {
			return statelang.Event{}, err
		}
		e.Output = v
	}
	if l.Failed {
		e.Failure = &statelang.Failure{Error: l.Error, Cause: l.Cause}
	}
	return e, nil
}

// summary is the header of an execution's state: what a list shows of it, and what its owner must do for it.
type summary struct {
	Status statelang.Status `json:"s"`
	Type   statelang.Type   `json:"k"`
	Began  int64            `json:"t"`           // Unix milliseconds
	Ended  int64            `json:"e,omitempty"` // the same
	Wake   int64            `json:"w,omitempty"` // the same: the first time that it waits for
	Busy   bool             `json:"c,omitempty"` // it waits for calls
	Error  string           `json:"x,omitempty"`
	Sealed int              `json:"n,omitempty"` // chunks of lines that are in states of their own
	// Callback is of the job whose work the execution is, until its end was reported.
	Callback string `json:"b,omitempty"`
	// Untaken says of which activities it has tasks that no worker has, by taskapi.Text, and since when: Unix milliseconds.
	Untaken map[string]int64 `json:"a,omitempty"`
}

func (s summary) encode() (string, error) {
	text, err := marshal(s)
	return string(text), err
}

func decodeSummary(header string) (s summary, err error) {
	if err := json.Unmarshal([]byte(header), &s); err != nil {
		return s, fmt.Errorf("%w: its summary: %w", errUnknown, err)
	}
	return s, nil
}
