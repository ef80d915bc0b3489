// Package dispatcher is the event source mapping: it takes blocks from a queue, forms batches, calls the
// function with at most maxConcurrency calls in flight in the whole cluster, and settles every record:
// done, rescheduled, or dead-lettered.
//
// Invariants: a block is acknowledged only after all its records are settled, and a record is settled
// only after its outcome is durable elsewhere; a throttled call is never counted as failed; one process at a time
// works on a queue (by its lease), which is how maxConcurrency holds in the cluster.
//
// The data flows through the files in this order: dispatcher.go (which mappings run), mapping.go (the lease,
// shared by package sharing), session.go (blocks in, batches out,
// acknowledgements; memory.go: how much may be in hand), expiry.go (what waited too long; sweep.go and caretaker.go: in queues without a mapping), batchrun.go (calls and
// outcomes), job.go (the same of one whose answer somebody waits for), objects.go (large inputs and results). Beside them
// are metrics.go and trace.go.
//
// May import: record, batch, catalog, sign, telemetry, stream, sharing, invoke, ledger, blob, job.
package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/sharing"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Streams is what a dispatcher does with NATS.
type Streams interface {
	stream.Link
	stream.Clock
	stream.Limits
	stream.Readers
	stream.Output
	stream.Jobs
	stream.Ledgers
	stream.Leases
	stream.Tallies
}

// Config is what a dispatcher needs.
type Config struct {
	Conn   Streams
	Caller *invoke.Caller
	// Objects stores the large inputs and results of jobs.
	Objects blob.Store
	// Owner names this process among all dispatchers of the cluster. A process that starts under the
	// name of one that is gone takes over its leases at once.
	Owner string
	// CallbackURL is the gateway's URL as functions reach it, for those that go on with a job after their answer.
	// Empty disables callbacks.
	CallbackURL string
	// DrainTimeout bounds how long calls in flight may go on after Run's context was cancelled.
	// Zero means DefaultDrainTimeout.
	DrainTimeout time.Duration
	// Memory is the budget, in bytes, of what grows with the work: records in hand, calls and their answers, objects that
	// pass. Zero means MemoryFor of the process's limit.
	Memory int64
	// Telemetry makes its instruments and spans; the zero value makes none.
	Telemetry telemetry.Providers
	Log       *slog.Logger
}

// DefaultDrainTimeout is below Kubernetes' default grace period.
const DefaultDrainTimeout = 25 * time.Second

// Validate names the first field that is missing.
func (c *Config) Validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("dispatcher: Conn is missing")
	case c.Caller == nil:
		return errors.New("dispatcher: Caller is missing")
	case c.Objects == nil:
		return errors.New("dispatcher: Objects is missing")
	case c.Owner == "":
		return errors.New("dispatcher: Owner is missing: give each process a name of its own, such as its pod's")
	case c.Memory < MinMemory:
		return fmt.Errorf("dispatcher: Memory is %d bytes: give it %d at least", c.Memory, int64(MinMemory))
	case c.Log == nil:
		return errors.New("dispatcher: Log is missing")
	}
	return nil
}

// Dispatcher runs the mappings of the current catalog.
type Dispatcher struct {
	cfg       Config
	metrics   *metrics
	keys      atomic.Pointer[sign.Ring]
	transfers *transfers
	memory    *memory
	sharing   *sharing.Sharing
	catalog   chan *catalog.Catalog // capacity 1: the newest, if Run has not seen it

	mu         sync.Mutex
	revision   string                        // of the catalog in use; empty before the first
	running    map[catalog.Key]*mapping      // by mapping
	latest     map[catalog.Key]*mapping      // by queue: the newest, running or draining
	caretakers map[catalog.Key]*caretaker    // of the queues of jobs that no mapping names
	ages       map[catalog.Key]time.Duration // by queue: its maxAge
	swept      chan struct{}                 // capacity 1: the sweep has not seen the catalog
}

// New returns a dispatcher. It does nothing before Use and Run.
func New(cfg Config) (*Dispatcher, error) {
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}
	if cfg.Memory == 0 {
		cfg.Memory = MemoryFor(debug.SetMemoryLimit(-1)) // which only reads it
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	metrics, err := newMetrics(cfg.Telemetry.Meter(scope))
	if err != nil {
		return nil, err
	}
	return &Dispatcher{
		cfg: cfg, metrics: metrics, transfers: newTransfers(cfg.Memory, cfg.Objects.PutBytes()), memory: &memory{limit: cfg.Memory}, sharing: sharing.New(sharing.Config{Conn: cfg.Conn, Owner: cfg.Owner, Log: cfg.Log}), catalog: make(chan *catalog.Catalog, 1),
		running: map[catalog.Key]*mapping{}, latest: map[catalog.Key]*mapping{}, caretakers: map[catalog.Key]*caretaker{}, swept: make(chan struct{}, 1),
	}, nil
}

// UseKeys makes ring the signing keys.
func (d *Dispatcher) UseKeys(ring sign.Ring) { d.keys.Store(&ring) }

// callback is the URL for the function's reports; empty if callbacks are disabled.
func (d *Dispatcher) callback(t job.Callback) string {
	ring := d.keys.Load()
	if d.cfg.CallbackURL == "" || ring == nil {
		return ""
	}
	text, err := t.Text(*ring)
	if err != nil {
		return "" // no keys yet
	}
	return strings.TrimSuffix(d.cfg.CallbackURL, "/") + ownpath.Callbacks + text
}

// Use makes cat the current catalog. It never blocks; only the newest counts.
func (d *Dispatcher) Use(cat *catalog.Catalog) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.catalog:
	default:
	}
	d.catalog <- cat
}

// Run works until ctx is cancelled, then drains: no new calls, the ones in flight may finish. It calls
// ready after each catalog that it has taken into use.
func (d *Dispatcher) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.sharing.Run(ctx) })
	wg.Go(func() { d.sweep(ctx) })
	for {
		select {
		case cat := <-d.catalog:
			d.apply(ctx, &wg, cat)
			ready()
		case <-ctx.Done():
			return nil
		}
	}
}

// apply starts, changes and stops mappings. A changed spec is taken over live, unless the queue changed: that is a
// stop and a new mapping. A new mapping starts once the previous one on the same queue has drained, however many
// catalogs came in between.
func (d *Dispatcher) apply(ctx context.Context, wg *sync.WaitGroup, cat *catalog.Catalog) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wanted, queues := make(map[catalog.Key]catalog.Mapping, len(cat.Mappings)), make(map[catalog.Key]bool, len(cat.Mappings))
	for _, m := range cat.Mappings {
		wanted[m.Key], queues[m.Queue] = m, true
	}
	d.sharing.Use(cat.Revision(), queues)
	d.ages = make(map[catalog.Key]time.Duration, len(cat.Queues))
	for _, q := range cat.Queues {
		d.ages[q.Key] = q.MaxAge
	}
	for k, m := range d.running {
		if spec, ok := wanted[k]; ok && spec.Queue == m.queue {
			m.age.Store(int64(d.ages[spec.Queue]))
			m.change(spec)
			delete(wanted, k)
			continue
		}
		m.stop()
		delete(d.running, k)
	}
	maps.DeleteFunc(d.latest, func(_ catalog.Key, m *mapping) bool { return m.over() })
	d.care(ctx, wg, cat.JobQueues(), queues)
	for k, spec := range wanted {
		m := newMapping(ctx, d, spec)
		m.age.Store(int64(d.ages[spec.Queue]))
		former, cared := d.latest[spec.Queue], d.caretakers[spec.Queue]
		d.running[k], d.latest[spec.Queue] = m, m
		wg.Go(func() {
			defer close(m.done)
			if former != nil {
				<-former.done
			}
			cared.wait()
			m.run()
		})
	}
	d.metrics.keep(func(k catalog.Key) bool {
		_, inCatalog := d.ages[k]
		return inCatalog || d.latest[k] != nil
	})
	d.revision = cat.Revision()
	select {
	case d.swept <- struct{}{}:
	default:
	}
}

// Revision is the revision of the catalog in use; empty before the first.
func (d *Dispatcher) Revision() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.revision
}

// Stats counts the records of one mapping since it started here. At every moment
// Taken = Done + Retried + Dead + InHand + Returned.
type Stats struct {
	Taken    int // delivered, first deliveries and retries alike
	Done     int // the function took them, or there was nothing to do: duplicates, jobs that had ended
	Retried  int // rescheduled, or written back at the end of a session
	Dead     int // dead-lettered
	InHand   int // not settled yet
	Returned int // left unsettled at the end of a session: they are redelivered

	Calls     int // function calls that ended
	Throttled int // those with the outcome "not now"
	Failed    int // those with an attempt counted
}

// Stats returns the counts of mapping k; ok is false when it doesn't run here.
func (d *Dispatcher) Stats(k catalog.Key) (s Stats, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.running[k]
	if !ok {
		return Stats{}, false
	}
	return m.stats(), true
}
