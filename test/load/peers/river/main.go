// Command river is what Weir's jobs are compared with: the same API on River, the job queue on PostgreSQL.
//
//	river fill DATABASE FILE                      River's schema, and a job for each line of the file, which is JSON
//	river serve DATABASE FUNCTION WORKERS         POST /orders inserts a job and answers with its output; prints its address
//	river drain DATABASE FUNCTION WORKERS JOBS    works the jobs that there are; prints the time from the first call until
//	                                              the last one's completion was committed
//
// Each goes on until it is told to end. What River needs is all in one process, so that a request gets River's own event
// of its job; there is no schema, no throttle and no telemetry, which Weir's gateway has. It is tuned by trial: bench/README.md
// says what else was tried.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

func main() {
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "river: %v\n", err)
		os.Exit(1)
	}
}

const (
	connections   = 64  // 16 to 128 made no difference that shows
	gcPercent     = 400 // as Weir's services
	insertBatch   = 10_000
	pollInterval  = 100 * time.Millisecond // beside PostgreSQL's notifications
	serveCooldown = 10 * time.Millisecond  // between two fetches: many new jobs in each
	drainCooldown = time.Millisecond       // the least that River takes: there are always jobs
	longestWait   = 29 * time.Second
)

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 3 && args[0] == "fill":
		return fill(ctx, args[1], args[2])
	case len(args) == 4 && args[0] == "serve":
		return serve(ctx, args[1], args[2], args[3])
	case len(args) == 5 && args[0] == "drain":
		return drain(ctx, args[1], args[2], args[3], args[4])
	}
	return errors.New("unknown arguments; bench starts it")
}

// order is a job's arguments: the request's body as it came.
type order struct{ json.RawMessage }

func (order) Kind() string { return "order" }

func fill(ctx context.Context, database, file string) (err error) {
	pool, err := open(ctx, database)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: logger()})
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var jobs []river.InsertManyParams
	insert := func() error {
		_, err := client.InsertManyFast(ctx, jobs)
		jobs = jobs[:0]
		return err
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		jobs = append(jobs, river.InsertManyParams{Args: order{bytes.Clone(lines.Bytes())}})
		if len(jobs) == insertBatch {
			if err := insert(); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if len(jobs) > 0 {
		if err := insert(); err != nil {
			return err
		}
	}
	if _, err := pool.Exec(ctx, "VACUUM ANALYZE river_job"); err != nil { // as autovacuum would have by then
		return err
	}
	pool.Close() // nobody may be connected when the database is copied
	fmt.Println("filled")
	<-ctx.Done()
	return nil
}

// open connects and brings the schema.
func open(ctx context.Context, database string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(database)
	if err != nil {
		return nil, err
	}
	config.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func prepare(ctx context.Context, pool *pgxpool.Pool) error {
	for _, name := range []string{"fsync", "synchronous_commit"} {
		var value string
		if err := pool.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return err
		}
		if value != "on" {
			return fmt.Errorf("%s is %s: figures would say nothing", name, value)
		}
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: logger()})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// worker calls the function with a job's arguments; its answer is the job's output.
type worker struct {
	river.WorkerDefaults[order]
	client   *http.Client
	function string

	once  sync.Once
	first time.Time // call
}

func (w *worker) Work(ctx context.Context, job *river.Job[order]) error {
	w.once.Do(func() { w.first = time.Now() })
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.function, bytes.NewReader(job.EncodedArgs))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the function answered %d", resp.StatusCode)
	}
	return river.RecordOutput(ctx, json.RawMessage(answer))
}

// start starts a client with so many workers, and returns the events of jobs that have ended. At most size of them may wait
// to be read: River drops what is more.
func start(ctx context.Context, pool *pgxpool.Pool, w *worker, workers string, cooldown time.Duration, size int) (*river.Client[pgx.Tx], <-chan *river.Event, error) {
	n, err := strconv.Atoi(workers)
	if err != nil {
		return nil, nil, err
	}
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n, MaxConnsPerHost: n}}
	registry := river.NewWorkers()
	river.AddWorker(registry, w)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: n}},
		Workers:       registry,
		FetchCooldown: cooldown, FetchPollInterval: pollInterval,
		Logger: logger(),
	})
	if err != nil {
		return nil, nil, err
	}
	events, _ := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: size, Kinds: []river.EventKind{river.EventKindJobCompleted, river.EventKindJobFailed},
	})
	return client, events, client.Start(ctx)
}

func drain(ctx context.Context, database, function, workers, jobs string) error {
	total, err := strconv.Atoi(jobs)
	if err != nil {
		return err
	}
	pool, err := open(ctx, database)
	if err != nil {
		return err
	}
	defer pool.Close()
	w := &worker{function: function}
	client, events, err := start(ctx, pool, w, workers, drainCooldown, total)
	if err != nil {
		return err
	}
	for range total {
		select {
		case e := <-events:
			if e.Kind != river.EventKindJobCompleted {
				return fmt.Errorf("job %d failed: %v", e.Job.ID, e.Job.Errors)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	took := time.Since(w.first)
	fmt.Println(took)
	<-ctx.Done()
	return client.StopAndCancel(context.WithoutCancel(ctx))
}

// waiters brings a job's end to the request that waits for it. The end may come before the request knows the job's id.
type waiters struct {
	mu   sync.Mutex
	jobs map[int64]chan *river.Event
}

func (s *waiters) of(id int64) chan *river.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.jobs[id]
	if ok {
		delete(s.jobs, id) // both have come
		return c
	}
	c = make(chan *river.Event, 1)
	s.jobs[id] = c
	return c
}

func serve(ctx context.Context, database, function, workers string) error {
	pool, err := open(ctx, database)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, events, err := start(ctx, pool, &worker{function: function}, workers, serveCooldown, insertBatch)
	if err != nil {
		return err
	}
	ends := &waiters{jobs: map[int64]chan *river.Event{}}
	go func() { // ends with the client
		for e := range events {
			ends.of(e.Job.ID) <- e
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		job, err := client.Insert(r.Context(), order{body}, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		select {
		case e := <-ends.of(job.Job.ID):
			if e.Kind != river.EventKindJobCompleted {
				http.Error(w, fmt.Sprint(e.Job.Errors), http.StatusBadGateway)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(e.Job.Output()) // the client notices
		case <-time.After(longestWait):
			w.WriteHeader(http.StatusAccepted)
		case <-r.Context().Done():
		}
	})
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	fmt.Println(l.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	err = srv.Close()
	<-served
	return errors.Join(err, client.StopAndCancel(context.WithoutCancel(ctx)))
}
