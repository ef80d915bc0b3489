// Package catalog holds the immutable snapshot of all resources as the data plane needs them:
// plain, serialisable structs with every default filled in and every reference resolved.
//
// A Catalog is built once (by package manifest, from YAML files or cluster objects), checked there,
// and never changed afterwards; a change makes a new Catalog that replaces the old one behind an
// atomic pointer. It is published as entries that change one by one (entries.go). Nothing here knows Kubernetes, NATS or
// HTTP.
//
// May import: the standard library only.
package catalog

import (
	"encoding/json"
	"strings"
	"time"
)

// Key names a resource of one kind: unique within a catalog.
type Key struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String returns "namespace/name".
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Catalog is everything that the data plane needs to know.
type Catalog struct {
	APIs     []API     `json:"apis,omitempty"`
	Queues   []Queue   `json:"queues,omitempty"`
	Machines []Machine `json:"machines,omitempty"`
	Services []Service `json:"services,omitempty"` // those beside state machines whose bound is known
	Mappings []Mapping `json:"mappings,omitempty"`

	revision string // set by a Builder; empty means that it has to be computed
}

// API is a set of routes with a throttle over all of them.
type API struct {
	Key
	Throttle *Throttle `json:"throttle,omitempty"` // nil means none
	CORS     *CORS     `json:"cors,omitempty"`     // nil means that pages of other origins may not use it
	Routes   []Route   `json:"routes,omitempty"`
}

// CORS says which pages of other origins may use an API.
type CORS struct {
	Origins     []string      `json:"origins"`
	Methods     []string      `json:"methods"`
	Headers     []string      `json:"headers,omitempty"`
	Expose      []string      `json:"expose,omitempty"`
	Credentials bool          `json:"credentials,omitempty"`
	MaxAge      time.Duration `json:"maxAge"`
}

// Throttle is a token bucket: Rate tokens a second, at most Burst at once.
type Throttle struct {
	Rate  float64 `json:"rate"`
	Burst int     `json:"burst"`
}

// Route says what happens to a request. Exactly one of Queue, Job and Function is set.
type Route struct {
	Name         string          `json:"name"`
	Method       string          `json:"method"`
	Host         string          `json:"host,omitempty"` // in lower case, without a port; empty means any
	Path         string          `json:"path"`           // a net/http.ServeMux path pattern, such as /orders/{id}
	Throttle     *Throttle       `json:"throttle,omitempty"`
	MaxBodyBytes int64           `json:"maxBodyBytes"`
	ContentTypes []string        `json:"contentTypes,omitempty"` // ranges of package mediatype that a body may be of; none means all
	MaxDepth     int             `json:"maxDepth,omitempty"`     // nesting of a JSON body; 0 means the gateway's default
	Schema       json.RawMessage `json:"schema,omitempty"`       // JSON Schema 2020-12 of the body
	Attributes   []Attribute     `json:"attributes,omitempty"`   // of Queue and Job, sorted by name
	Queue        *QueueTarget    `json:"queue,omitempty"`
	Job          *QueueTarget    `json:"job,omitempty"`
	MaxUpload    int64           `json:"maxUpload,omitempty"` // of Job: bytes that a client may upload instead of a body; 0 means no uploads
	Function     *FunctionTarget `json:"function,omitempty"`
}

// Pattern is the net/http.ServeMux pattern of the requests that the route matches.
func (r *Route) Pattern() string { return r.Method + " " + r.Host + r.Path }

// Fills is the queue that takes the route's requests; nil if a function does.
func (r *Route) Fills() *Key {
	switch {
	case r.Queue != nil:
		return &r.Queue.Queue
	case r.Job != nil:
		return &r.Job.Queue
	}
	return nil
}

// Attribute names a value of a request that goes into its event.
type Attribute struct {
	Name     string `json:"name"`
	From     string `json:"from"` // an expression of package value
	Required bool   `json:"required,omitempty"`
}

// QueueTarget is where a buffered write or an asynchronous request is stored.
type QueueTarget struct {
	Queue Key `json:"queue"`
}

// FunctionTarget makes a route a synchronous call.
type FunctionTarget struct {
	Function Function      `json:"function"`
	Timeout  time.Duration `json:"timeout"`
}

// Function is where an HTTP function answers.
type Function struct {
	Name string `json:"name"` // the Knative Service's name, or the host of a bare URL: for people
	URL  string `json:"url"`
	H2C  bool   `json:"h2c,omitempty"` // it speaks HTTP/2 by prior knowledge; else HTTP/1.1
}

// ServiceURL is where a Knative Service answers within its cluster, by Knative's convention.
func ServiceURL(k Key) string {
	return "http://" + k.Name + "." + k.Namespace + ".svc.cluster.local"
}

// StartPath is below which an orchestrator starts executions, as a function takes records: NAMESPACE/NAME of the state machine.
const StartPath = "/starts/"

// StartURL is where an orchestrator starts executions of machine k.
func StartURL(orchestrator string, k Key) string {
	return strings.TrimSuffix(orchestrator, "/") + StartPath + k.Namespace + "/" + k.Name
}

// Queue is a durable buffer and its dead-letter queue.
type Queue struct {
	Key
	Ordering         string        `json:"ordering"` // "none"
	MaxAge           time.Duration `json:"maxAge"`
	MaxBytes         int64         `json:"maxBytes"`
	DeadLetterMaxAge time.Duration `json:"deadLetterMaxAge"`
	Jobs             bool          `json:"jobs,omitempty"` // a route submits jobs to it
	Results          Results       `json:"results"`
	Objects          Objects       `json:"objects"`
	// Closed means that the queue is being deleted: it takes no new records and is drained of the ones it has.
	Closed bool `json:"closed,omitempty"`
}

// Results bounds what is kept of a queue's jobs.
type Results struct {
	MaxAge   time.Duration `json:"maxAge"` // not below the queue's
	MaxBytes int64         `json:"maxBytes"`
}

// Objects bounds what is kept of a queue's objects: large results and uploaded inputs of jobs.
type Objects struct {
	MaxAge   time.Duration `json:"maxAge"` // longer than the results'
	MaxBytes int64         `json:"maxBytes"`
}

// MaxObject bounds one of them, so that it can't take the room of all.
func (o Objects) MaxObject() int64 { return o.MaxBytes / 2 }

// Machine is a state machine.
type Machine struct {
	Key
	Type       string          `json:"type"` // of package statelang
	Definition json.RawMessage `json:"definition"`
}

// Service is a Knative Service that tasks of state machines may call, as they are in its namespace.
type Service struct {
	Key
	MaxConcurrency int `json:"maxConcurrency"` // calls that it takes at once
}

// Mapping is an event source mapping: it moves records from one queue to one function.
type Mapping struct {
	Key
	Queue          Key           `json:"queue"`
	Function       Function      `json:"function"`          // the orchestrator, if Machine is set
	Machine        *Key          `json:"machine,omitempty"` // of which records start executions
	Batch          Batch         `json:"batch"`
	MaxConcurrency int           `json:"maxConcurrency"`
	Timeout        time.Duration `json:"timeout"`   // of one function call
	Heartbeat      time.Duration `json:"heartbeat"` // of jobs that go on after their call
	Retry          Retry         `json:"retry"`
	BisectOnError  bool          `json:"bisectOnError"`
	MaxResultBytes int64         `json:"maxResultBytes"` // of a job: its queue's Objects.MaxObject
}

// Batch bounds one function call. A batch is complete at the first bound that is met.
type Batch struct {
	MaxRecords int           `json:"maxRecords"`
	MaxBytes   int64         `json:"maxBytes"` // sum of the records' bodies
	Window     time.Duration `json:"window"`   // how long the first record waits for more; 0 means not at all
}

// Retry is the policy for counted failures; a throttled call never counts.
type Retry struct {
	MaxAttempts    int           `json:"maxAttempts"`
	InitialBackoff time.Duration `json:"initialBackoff"`
	MaxBackoff     time.Duration `json:"maxBackoff"`
	MaxAge         time.Duration `json:"maxAge"` // a failed record older than this is dead-lettered
	// Permanent are the statuses after which there is no further attempt; nil means invoke's defaults.
	Permanent []int `json:"permanent,omitempty"`
}

// JobQueues are the queues that routes submit jobs to.
func (c *Catalog) JobQueues() []Key {
	var keys []Key
	for _, q := range c.Queues {
		if q.Jobs {
			keys = append(keys, q.Key)
		}
	}
	return keys
}
