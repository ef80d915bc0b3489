// Package tracelog keeps the last traces of a process in memory, those of its own spans and of others that are sent to it by
// OTLP, to be looked at: as JSON over HTTP, and as a tree in a terminal. It is for `weir local`; a cluster has a back-end.
//
// Invariants: memory is bounded, whatever is exported or sent (maxBytes, maxTraces, maxTraceBytes, maxSpans), and the trace that was added to
// least recently goes first; what was left out of a trace is counted; nothing that a span says reaches a terminal raw.
//
// The data flows through the files in this order: export.go (the SDK's spans) and otlp.go (others'), tracelog.go, http.go, tree.go.
//
// May import: the standard library only, of Weir's own, and OpenTelemetry's SDK and protocol.
package tracelog

import (
	"container/list"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of what is kept.
const (
	maxBytes      = 16 << 20 // of all traces, about
	maxTraces     = 2000
	maxTraceBytes = maxBytes / 2 // of a trace, about: one must not fill all
	maxSpans      = 1000         // of a trace
	// Of a span. A value is cut.
	maxAttributes = 64
	maxEvents     = 32
	maxLinks      = 128
	maxValueBytes = 1 << 10

	spanBytes, itemBytes = 512, 64 // of a span, and of each attribute, event and link, besides its texts
)

// AttrRecordID is the attribute of spans that have to do with one record, by which its trace is found.
const AttrRecordID = "weir.record.id"

// attrEventID is the same of a span of a function.
const attrEventID = "cloudevents.event_id"

// attrExecution is the same of an execution of a state machine.
const attrExecution = "weir.execution"

// Attributes are a span's, by their keys, as text.
type Attributes map[string]string

// Span is an operation that has ended.
type Span struct {
	ID         string     `json:"spanId"`
	Parent     string     `json:"parentSpanId,omitempty"`
	Name       string     `json:"name"`
	Kind       string     `json:"kind"`    // internal, server, client, producer or consumer
	Service    string     `json:"service"` // service.name
	Scope      string     `json:"scope"`   // the package that made it
	Start      time.Time  `json:"start"`
	End        time.Time  `json:"end"`
	Failed     bool       `json:"failed,omitempty"`
	Status     string     `json:"status,omitempty"` // why it failed
	Attributes Attributes `json:"attributes,omitempty"`
	Events     []Event    `json:"events,omitempty"`
	Links      []Link     `json:"links,omitempty"`
	LeftOut    int        `json:"leftOut,omitempty"` // attributes, events and links
}

// Event happened during a span.
type Event struct {
	Time       time.Time  `json:"time"`
	Name       string     `json:"name"`
	Attributes Attributes `json:"attributes,omitempty"`
}

// Link names a span of another trace that this one has to do with.
type Link struct {
	Trace      string     `json:"traceId"`
	Span       string     `json:"spanId"`
	Attributes Attributes `json:"attributes,omitempty"`
}

// Trace is what is known of a trace.
type Trace struct {
	ID      string `json:"traceId"`
	Spans   []Span `json:"spans"`             // by their start
	LeftOut int    `json:"leftOut,omitempty"` // spans
}

// Summary is a trace in a list.
type Summary struct {
	ID       string    `json:"traceId"`
	Root     string    `json:"root"` // the first span's name
	Service  string    `json:"service"`
	Start    time.Time `json:"start"`
	Duration float64   `json:"durationSeconds"` // from the first start to the last end
	Spans    int       `json:"spans"`
	Failed   int       `json:"failed"` // of them
}

// Log is the last traces. The zero value is not ready: use New.
type Log struct {
	mux   *http.ServeMux
	posts chan struct{} // bounds the requests with spans that are read at a time

	mu     sync.Mutex
	traces map[string]*list.Element // of *kept, by id
	order  *list.List               // the one that was added to least recently first
	bytes  int
}

type kept struct {
	id      string
	spans   []Span
	bytes   int
	leftOut int
}

// New returns an empty log.
func New() *Log {
	l := &Log{posts: make(chan struct{}, maxPosts), traces: map[string]*list.Element{}, order: list.New()}
	l.mux = l.routes()
	return l
}

// add takes a span of a trace, which is within the bounds of one.
func (l *Log) add(trace string, s Span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.traces[trace]
	if e == nil {
		e = l.order.PushBack(&kept{id: trace})
		l.traces[trace] = e
	}
	l.order.MoveToBack(e)
	k := e.Value.(*kept)
	i, by := slices.IndexFunc(k.spans, func(o Span) bool { return o.ID == s.ID }), s.size()
	if i >= 0 { // sent again
		by -= k.spans[i].size()
	}
	switch {
	case k.bytes+by > maxTraceBytes, i < 0 && len(k.spans) >= maxSpans:
		k.leftOut++
	case i >= 0:
		k.grow(l, by)
		k.spans[i] = s
	default:
		k.grow(l, by)
		k.spans = append(k.spans, s)
	}
	for l.order.Len() > maxTraces || l.bytes > maxBytes {
		l.drop(l.order.Front())
	}
}

func (k *kept) grow(l *Log, by int) {
	k.bytes += by
	l.bytes += by
}

func (l *Log) drop(e *list.Element) {
	k := l.order.Remove(e).(*kept)
	delete(l.traces, k.id)
	l.bytes -= k.bytes
}

func (s *Span) size() int {
	n := spanBytes + len(s.Name) + len(s.Service) + len(s.Scope) + len(s.Status) + s.Attributes.size()
	for i := range s.Events {
		n += itemBytes + len(s.Events[i].Name) + s.Events[i].Attributes.size()
	}
	for i := range s.Links {
		n += 2*itemBytes + s.Links[i].Attributes.size()
	}
	return n
}

func (a Attributes) size() int {
	n := 0
	for k, v := range a {
		n += itemBytes + len(k) + len(v)
	}
	return n
}

// Find returns the trace of an id, which is the trace's or a record's.
func (l *Log) Find(id string) (Trace, bool) {
	id = strings.ToLower(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.traces[id]; e != nil {
		return e.Value.(*kept).trace(), true
	}
	if id == "" {
		return Trace{}, false
	}
	// First by what has to do with this record alone: a batch is in the trace of one of its records. Of a request that was
	// repeated the trace that goes on is the longer one.
	for _, names := range []func(*Span, string) bool{
		func(s *Span, id string) bool { return s.Attributes[AttrRecordID] == id },
		func(s *Span, id string) bool {
			return s.Attributes[attrEventID] == id || s.Attributes[attrExecution] == id
		},
		func(s *Span, id string) bool { return strings.Contains(s.Attributes[AttrRecordID], id) || s.linked(id) },
	} {
		var longest *kept
		for e := l.order.Back(); e != nil; e = e.Prev() {
			k := e.Value.(*kept)
			if (longest == nil || len(k.spans) > len(longest.spans)) && slices.ContainsFunc(k.spans, func(s Span) bool { return names(&s, id) }) {
				longest = k
			}
		}
		if longest != nil {
			return longest.trace(), true
		}
	}
	return Trace{}, false
}

func (s *Span) linked(id string) bool {
	return slices.ContainsFunc(s.Links, func(l Link) bool {
		return l.Attributes[AttrRecordID] == id || l.Attributes[attrEventID] == id
	})
}

// trace is a copy.
func (k *kept) trace() Trace {
	t := Trace{ID: k.id, Spans: slices.Clone(k.spans), LeftOut: k.leftOut}
	slices.SortStableFunc(t.Spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return t
}

// Last returns at most n traces, those that were added to last first.
func (l *Log) Last(n int) []Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Summary, 0, min(n, l.order.Len()))
	for e := l.order.Back(); e != nil && len(out) < n; e = e.Prev() {
		t := e.Value.(*kept).trace()
		out = append(out, t.summary())
	}
	return out
}

func (t *Trace) summary() Summary {
	s := Summary{ID: t.ID, Spans: len(t.Spans) + t.LeftOut}
	if len(t.Spans) == 0 {
		return s
	}
	first, begin, end := t.root(), t.Spans[0].Start, t.end()
	s.Root, s.Service, s.Start, s.Duration = first.Name, first.Service, begin, end.Sub(begin).Seconds()
	for i := range t.Spans {
		if t.Spans[i].Failed {
			s.Failed++
		}
	}
	return s
}

// root is the first span whose parent isn't there.
func (t *Trace) root() *Span {
	for i := range t.Spans {
		parent := t.Spans[i].Parent
		if !slices.ContainsFunc(t.Spans, func(s Span) bool { return s.ID == parent }) {
			return &t.Spans[i]
		}
	}
	return &t.Spans[0]
}

func (t *Trace) end() time.Time {
	end := t.Spans[0].End
	for i := range t.Spans {
		if t.Spans[i].End.After(end) {
			end = t.Spans[i].End
		}
	}
	return end
}
