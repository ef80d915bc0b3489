// Command temporal is what `make bench` compares Weir's state machines with: a workflow of five activities one after the other,
// on a server of Temporal's whose PostgreSQL syncs each commit. The activities answer at once, in this process, which is also the
// worker and the one that starts the workflows.
//
//	temporal throughput ADDRESS WORKFLOWS AT-ONCE   prints how long it took from the first start to the last one's fifth activity
//	temporal latency ADDRESS RATE WORKFLOWS         prints the p50 and the p99 from when a start was due to its result
//
// Each prints its line once all workflows have succeeded, and then waits for SIGTERM. Another language's worker, or one of
// several processes, was not tried.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	namespace = "bench"
	taskQueue = "bench"
	steps     = 5
	// pollers of workflow tasks, and of activities. The latter have hardly anything to do: the server gives a worker its next
	// activity in the answer to the workflow task that asked for it (eager execution, the SDK's default).
	pollers = 16
	// upTimeout is how long the server may take until it runs workflows of the new namespace.
	upTimeout = time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "temporal: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("unknown arguments; bench starts it")
	}
	first, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	second, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	b, err := connect(ctx, args[1])
	if err != nil {
		return err
	}
	defer b.stop()
	switch args[0] {
	case "throughput":
		err = b.throughput(ctx, first, second)
	case "latency":
		err = b.latency(ctx, first, second)
	default:
		err = errors.New("unknown arguments; bench starts it")
	}
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// bench is a client and a worker.
type bench struct {
	client client.Client
	worker worker.Worker
	ended  chan struct{} // a fifth activity is done
	last   atomic.Int64  // its time, in nanoseconds since 1970
}

// order is the workflows' input, and that of each activity.
type order struct {
	Order string `json:"order"`
}

type result struct {
	Done bool `json:"done"`
}

// connect makes the namespace, starts the worker, and waits until workflows run.
func connect(ctx context.Context, address string) (*bench, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, upTimeout, errors.New("Temporal does not run workflows"))
	defer cancel()
	options := client.Options{HostPort: address, Namespace: namespace, Logger: log.NewStructuredLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))}
	if err := register(ctx, options); err != nil {
		return nil, err
	}
	c, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, err
	}
	b := &bench{client: c, ended: make(chan struct{}, 1<<20)}
	b.worker = worker.New(c, taskQueue, worker.Options{MaxConcurrentWorkflowTaskPollers: pollers, MaxConcurrentActivityTaskPollers: pollers})
	b.worker.RegisterWorkflowWithOptions(five, workflow.RegisterOptions{Name: "five"})
	b.worker.RegisterActivityWithOptions(b.step, activity.RegisterOptions{Name: "step"})
	if err := b.worker.Start(); err != nil {
		c.Close()
		return nil, err
	}
	for {
		err := b.one(ctx)
		if err == nil {
			break
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			b.stop()
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
	for range steps * pollers { // connections, caches and shards are warm
		if err := b.one(ctx); err != nil {
			b.stop()
			return nil, err
		}
	}
	for len(b.ended) > 0 {
		<-b.ended
	}
	return b, nil
}

func register(ctx context.Context, options client.Options) error {
	for {
		c, err := client.NewNamespaceClient(options)
		if err == nil {
			err = c.Register(ctx, &workflowservice.RegisterNamespaceRequest{Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(72 * time.Hour)})
			c.Close()
		}
		var there *serviceerror.NamespaceAlreadyExists
		if err == nil || errors.As(err, &there) {
			return nil
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func (b *bench) stop() {
	b.worker.Stop()
	b.client.Close()
}

func five(ctx workflow.Context, o order) (r result, err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	for n := range steps {
		if err := workflow.ExecuteActivity(ctx, "step", n, o).Get(ctx, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (b *bench) step(_ context.Context, n int, _ order) (result, error) {
	if n == steps-1 {
		b.last.Store(time.Now().UnixNano())
		b.ended <- struct{}{}
	}
	return result{true}, nil
}

func (b *bench) start(ctx context.Context) (client.WorkflowRun, error) {
	return b.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: taskQueue, EnableEagerStart: true}, "five", order{"0123456789abcdef"})
}

// one runs a workflow to its end.
func (b *bench) one(ctx context.Context) error {
	r, err := b.start(ctx)
	if err != nil {
		return err
	}
	return b.succeeded(ctx, r)
}

func (b *bench) succeeded(ctx context.Context, w client.WorkflowRun) error {
	var r result
	if err := w.Get(ctx, &r); err != nil {
		return err
	}
	if !r.Done {
		return errors.New("a workflow has another result")
	}
	return nil
}

// throughput has at most so many workflows under way at a time. Nobody asks for their results meanwhile.
func (b *bench) throughput(ctx context.Context, workflows, atOnce int) error {
	runs, errs := make([]client.WorkflowRun, workflows), make([]error, workflows)
	slots := make(chan struct{}, atOnce)
	for range atOnce {
		slots <- struct{}{}
	}
	var wg sync.WaitGroup
	begin := time.Now()
	for n := range workflows {
		select {
		case <-slots:
		case <-b.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wg.Go(func() { runs[n], errs[n] = b.start(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, r := range runs {
		if err := b.succeeded(ctx, r); err != nil {
			return err
		}
	}
	fmt.Println(time.Unix(0, b.last.Load()).Sub(begin))
	return nil
}

// latency starts workflows at fixed times, and awaits their results.
func (b *bench) latency(ctx context.Context, rate, workflows int) error {
	took, errs := make([]time.Duration, workflows), make([]error, workflows)
	var wg sync.WaitGroup
	begin := time.Now().Add(100 * time.Millisecond)
	for n := range workflows {
		due := begin.Add(time.Duration(n) * time.Second / time.Duration(rate))
		pause(ctx, time.Until(due))
		wg.Go(func() {
			errs[n] = b.one(ctx)
			took[n] = time.Since(due)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.Sort(took)
	fmt.Println(took[workflows/2], took[workflows*99/100])
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
