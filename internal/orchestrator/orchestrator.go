// Package orchestrator runs state machines: durably (STANDARD), each execution in the hands of one owner, on the log of states of
// package ledger; and it serves the API for them.
//
// Invariants: a step is durable before anything that it asks for is done; an execution is stepped by the owner of its partition
// alone, which the partition's lease and the fence of its log guard; what is stored of an execution makes it again, with the
// same history; memory is bounded however many executions wait.
//
// The data flows through the files in this order: api.go (HTTP), asks.go (to the partition's owner), partition.go (what is in
// memory, and times), execution.go (the steps of one), tasks.go (what they call), activities.go (what workers take), starts.go and
// jobs.go (records and jobs that start some). functions.go bounds the calls of functions; integrations.go, tables.go, objects.go,
// http.go, statements.go, batch.go and listeners.go are what tasks call besides; express.go runs what is not stored. codec.go is the
// format, names.go are the keys, machines.go the definitions,
// metrics.go and trace.go what is told of all that.
//
// May import: packages of lower rank, such as ledger, statelang, taskapi, job, stream, invoke and telemetry.
package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/egress"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/sharing"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Conn is what the orchestrator does with NATS.
type Conn interface {
	stream.Machines
	stream.Leases
	stream.Link
	ledger.Streams
	stream.Jobs
	State(ctx context.Context, k catalog.Key, key string) (stream.StoredState, error)
	Room(want int) int
	Followed(ctx context.Context, k catalog.Key, id stream.JobKey) (bool, error)
}

// Config is the orchestrator's configuration.
type Config struct {
	Conn   Conn
	Caller *invoke.Caller
	// Function finds the function of a name in a namespace.
	Function func(namespace, name string) (catalog.Function, bool)
	// Objects is the object store that tasks and maps use as S3; nil if they may not.
	Objects blob.Store
	// Batch: the controller runs Kubernetes Jobs for tasks.
	Batch bool
	// Egress is where http:invoke may go besides public addresses.
	Egress egress.Policy
	Owner  string // unique among the processes that run at the same time
	// DrainTimeout is how long calls in flight may go on when a partition is given up; default: DefaultDrainTimeout.
	DrainTimeout time.Duration
	// Keep is how long an execution is kept after its end, in whole seconds; default: DefaultKeep.
	Keep time.Duration
	Base ownpath.Base // of the addresses that workers are given
	// Waits is told about how many executions wait for a time: again when they are twice as many, or half. Nil if nobody asks.
	Waits     func(executions int64)
	Telemetry telemetry.Providers // the zero value makes none
	Log       *slog.Logger
}

// DefaultKeep is Config.Keep's.
const DefaultKeep = 7 * 24 * time.Hour

// DefaultDrainTimeout is Config.DrainTimeout's.
const DefaultDrainTimeout = 10 * time.Second

// Validate reports what is missing.
func (c Config) Validate() error {
	switch {
	case c.Conn == nil, c.Caller == nil, c.Function == nil, c.Log == nil:
		return errors.New("orchestrator: Conn, Caller, Function and Log must be set")
	case c.Owner == "":
		return errors.New("orchestrator: Owner must be set: a name that is unique among the processes that run at the same time")
	}
	return nil
}

// Orchestrator runs the executions of the partitions that this process owns.
type Orchestrator struct {
	cfg       Config
	machines  *machines
	tasks     *taskapi.API
	catalog   atomic.Pointer[catalog.Catalog]
	calls     chan struct{} // slots
	functions functions
	waits     waits
	keyed     chan struct{} // closed by the first UseKeys
	keys      sync.Once
	listed    chan struct{} // closed by the first Use
	lists     sync.Once
	unserved  atomic.Int32  // partitions that were not served yet
	serving   chan struct{} // closed when there are none
	http      *http.Client  // of http:invoke
	said      atomic.Int64  // when the log was last told of a call that is tried for long; Unix nanoseconds
	metrics   *metrics
	tracer    trace.Tracer // nil if disabled
}

const (
	// maxCalls bounds the calls of tasks in flight from this process.
	maxCalls = 1024
	// leaseAgain is the wait after a partition could not be served.
	leaseAgain = time.Second
)

// New returns an orchestrator. Nothing runs before Run.
func New(cfg Config) (*Orchestrator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.DrainTimeout, cfg.Keep = cmp.Or(cfg.DrainTimeout, DefaultDrainTimeout), cmp.Or(cfg.Keep, DefaultKeep)
	o := &Orchestrator{cfg: cfg, machines: newMachines(cfg.Conn), calls: make(chan struct{}, maxCalls), keyed: make(chan struct{}), listed: make(chan struct{}), serving: make(chan struct{})}
	o.unserved.Store(stream.MachinePartitions)
	o.waits.tell, o.functions.gates = cfg.Waits, map[string]*gate{}
	o.tasks = taskapi.New(taskapi.Config{Conn: cfg.Conn, Tasks: tasksPath})
	var err error
	if o.metrics, err = newMetrics(cfg.Telemetry, func() int { return len(o.calls) }); err != nil {
		return nil, fmt.Errorf("metrics of state machines: %w", err)
	}
	guard, err := egress.New(egress.Config{Policy: cfg.Egress})
	if err != nil {
		return nil, err
	}
	o.http = guard.Client()
	o.tracer = cfg.Telemetry.Tracer(scope)
	return o, nil
}

// waits counts the executions that wait for a time.
type waits struct {
	tell    func(int64)
	n, told atomic.Int64
}

// minTold is the least that is told of: fewer are as none.
const minTold = 1024

func (w *waits) add(d int64) {
	n, told := w.n.Add(d), w.told.Load()
	if w.tell != nil && (n >= 2*max(told, minTold) || n <= told/2) && n != told && w.told.CompareAndSwap(told, n) {
		w.tell(n)
	}
}

// UseKeys sets the keys that task tokens are signed with. Before the first ones no partition is owned: a call must not be made
// without its token.
func (o *Orchestrator) UseKeys(ring sign.Ring) {
	o.tasks.UseKeys(ring)
	if len(ring.Keys) > 0 {
		o.keys.Do(func() { close(o.keyed) })
	}
}

// Use makes cat the resources that are known: its state machines can be started by their names. Before the first one no
// partition is owned: a machine must not seem to be missing.
func (o *Orchestrator) Use(cat *catalog.Catalog) {
	o.catalog.Store(cat)
	o.machines.use(cat)
	o.functions.use(cat, o.cfg.Function)
	o.lists.Do(func() { close(o.listed) })
}

// Serving is closed once this process has served each partition: the only one of its kind can be asked for all executions then.
func (o *Orchestrator) Serving() <-chan struct{} { return o.serving }

// Run owns its share of the partitions until ctx ends, and then gives them up.
func (o *Orchestrator) Run(ctx context.Context, ready func()) error {
	shared := sharing.New(sharing.Config{Conn: o.cfg.Conn, Owner: o.cfg.Owner, Kind: leaseKind, TTL: leaseTTL, Log: o.cfg.Log})
	partitions := map[catalog.Key]bool{}
	for n := range stream.MachinePartitions {
		partitions[stream.MachinePartition(n)] = true
	}
	shared.Use(planned, partitions)
	var wg sync.WaitGroup
	defer wg.Wait()
	for n := range stream.MachinePartitions {
		wg.Go(func() { o.own(ctx, shared, n) })
	}
	// It announces this process until its partitions are given up: the others take them at once.
	wg.Go(func() { shared.Run(ctx) })
	ready()
	<-ctx.Done()
	defer o.http.CloseIdleConnections()
	o.tasks.Drain()
	return nil
}

const (
	leaseKind = "machines."
	// leaseTTL is shorter than of queues: after an owner has vanished its executions go on within seconds, and should it still
	// live it can write nothing, because the log has a fence.
	leaseTTL = 5 * time.Second
	// planned is the note of those who share the partitions: all have the same.
	planned = "1"
)

// own serves a partition whenever it is this process's turn, anew after each loss of the connection: NATS may have lost what was
// not synced.
func (o *Orchestrator) own(ctx context.Context, shared *sharing.Sharing, n int) {
	for _, there := range []chan struct{}{o.keyed, o.listed} {
		select {
		case <-there:
		case <-ctx.Done():
			return
		}
	}
	var busy atomic.Int64
	served := sync.OnceFunc(func() {
		if o.unserved.Add(-1) == 0 {
			close(o.serving)
		}
	})
	c := shared.Add(stream.MachinePartition(n), func() int { return int(busy.Load()) })
	defer shared.Remove(c)
	for ctx.Err() == nil {
		lease, err := shared.Acquire(ctx, c)
		if err != nil {
			return // stopping
		}
		for again := true; again && o.cfg.Conn.WaitUp(lease.Context()) == nil; { //nolint:contextcheck // as long as the lease holds
			err := o.serve(ctx, turn{n, lease, c.Leave(), &busy, served})
			again = err != nil && ctx.Err() == nil && lease.Context().Err() == nil
			if again && o.cfg.Conn.Ready() == nil {
				o.cfg.Log.Warn("the executions of a partition stand still for a moment", "partition", n, "error", err)
				pause(ctx, leaseAgain)
			}
		}
		lease.Release()
		shared.Left(c)
	}
}

// tries yields until ctx ends, with waits between that double from first up to most.
func tries(ctx context.Context, first, most time.Duration) func(yield func() bool) {
	return func(yield func() bool) {
		for wait := first; yield(); wait = min(2*wait, most) {
			pause(ctx, wait)
			if ctx.Err() != nil {
				return
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
