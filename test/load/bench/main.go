// Command bench is `make bench`: it measures the buffered write path, with real parts in processes of
// their own, prints a table and writes bench/latest.json. bench/README.md says what each figure is.
//
//	ONLY=ingest,drain,latency,memory,limit,images,job,waiting,machine,socket,catalog,schema,many   what to measure; default: all
//	ROUNDS=5                           of ingest, drain, limit, job, machine, fan-outs and the images' starts; figures are medians over them
//	SECONDS=4                          of one ingest measurement, after a second of warm-up
//	VARIANTS=ingest,ingest_without     of ingest only these; the ratios of others are left out. Of machine: machine_per_s,
//	                                   machine_latency, machine_express, machine_waiting
//	DRAIN_ORDERS=200000 LATENCY_SECONDS=20 MEMORY_ORDERS=1000000 LIMIT_RECORDS=4000 JOB_DRAIN=100000   smaller for a smoke test
//	MACHINES=20000 WAITING=1000000     executions of a round, and that wait; likewise smaller
//	TEMPORAL_AT_ONCE=128               its workflows under way at a time
//	PROFILE=DIR                        perf's profiles of the servers under load go there
//	BEFORE=FILE                        a gateway of another commit: ingest measures it, too, in turns with this one's
//	BEFORE=FOLDER                      gateway, dispatcher, realtime and bench of another commit: the same of job
//	KEEP=1                             the run's data stays in .weir/bench-*, until make clean-data
//	BENCH_WRITER_CONNS=10              order-writer's database connections
//
// This process is also the load generator. It starts itself again as the small servers to compare with (servers.go)
// and builds gateway, dispatcher, order-writer and weir from the checkout it runs in.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/localdb"
)

func main() {
	if len(os.Args) > 1 {
		if err := runChild(os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// config is the configuration, from the environment.
type config struct {
	only, variants                []string
	rounds                        int
	window                        time.Duration // of one ingest measurement
	drainOrders                   int
	latency                       time.Duration
	memoryOrders                  int
	limitRecords                  int
	profile                       string // folder; empty means no profiles
	before                        string // a gateway to compare with; empty means none
	jobDrain                      int    // jobs
	jobWaiting                    int    // outcomes
	jobBefore                     string // folder with the programs to compare jobs with; empty means none
	machineCount, machineSleepers int    // executions: of a round, and that wait
	temporalAtOnce                int    // workflows under way at a time
	withoutTemporal               bool
	keep                          bool   // the data folders, to look at them
	root, dir, bin                string // the checkout, this run's data, the binaries
	exe                           string // this program
}

func configFromEnv() (config, error) {
	var errs []error
	number := func(name string, fallback int) int {
		s := os.Getenv(name)
		if s == "" {
			return fallback
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			errs = append(errs, fmt.Errorf("%s is %q: use a number of at least 1", name, s))
		}
		return n
	}
	all := []string{"ingest", "drain", "latency", "memory", "limit", "images", "job", "waiting", "machine", "socket", "catalog", "schema", "many"}
	c := config{
		only: all, rounds: number("ROUNDS", 5), window: time.Duration(number("SECONDS", 4)) * time.Second,
		drainOrders: number("DRAIN_ORDERS", 200_000), latency: time.Duration(number("LATENCY_SECONDS", 20)) * time.Second,
		memoryOrders: number("MEMORY_ORDERS", 1_000_000), limitRecords: number("LIMIT_RECORDS", 4000), profile: os.Getenv("PROFILE"), jobDrain: number("JOB_DRAIN", 100_000), jobWaiting: number("JOB_WAITING", 1_000_000), machineCount: number("MACHINES", 20_000), machineSleepers: number("WAITING", 1_000_000), temporalAtOnce: number("TEMPORAL_AT_ONCE", 128), keep: os.Getenv("KEEP") != "",
	}
	if before := os.Getenv("BEFORE"); before != "" {
		errs = append(errs, c.setBefore(before))
	}
	if only := os.Getenv("ONLY"); only != "" {
		c.only = strings.Split(only, ",")
		for _, name := range c.only {
			if !slices.Contains(all, name) {
				errs = append(errs, fmt.Errorf("ONLY names %q: use some of %s", name, strings.Join(all, ",")))
			}
		}
	}
	if v := os.Getenv("VARIANTS"); v != "" {
		c.variants = strings.Split(v, ",")
	}
	var err error
	if c.root, err = os.Getwd(); err != nil {
		return c, err
	}
	if c.exe, err = os.Executable(); err != nil {
		return c, err
	}
	if _, err := os.Stat(filepath.Join(c.root, "test", "load", "bench", "main.go")); err != nil {
		return c, fmt.Errorf("start it from the checkout's root (make bench): %w", err)
	}
	c.bin = filepath.Join(c.root, ".weir", "bench-bin")
	return c, errors.Join(errs...)
}

// setBefore takes a gateway, or a folder with what jobs need.
func (c *config) setBefore(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("BEFORE: %w", err)
	}
	if !info.IsDir() {
		c.before = path
		return nil
	}
	c.jobBefore = path
	var errs []error
	for _, name := range []string{"gateway", "dispatcher", "realtime", "bench"} {
		if _, err := os.Stat(filepath.Join(path, name)); err != nil {
			errs = append(errs, fmt.Errorf("BEFORE: %w; bench/README.md says how to build it", err))
		}
	}
	return errors.Join(errs...)
}

func run(ctx context.Context) (err error) {
	cfg, err := configFromEnv()
	if err != nil {
		return err
	}
	// Below the checkout, on a real disk: what is measured are synced writes.
	parent := filepath.Join(cfg.root, ".weir")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if cfg.dir, err = os.MkdirTemp(parent, "bench-"); err != nil {
		return err
	}
	if err := os.Chmod(cfg.dir, 0o755); err != nil { // PostgreSQL runs as another user when this is root
		return err
	}
	defer func() {
		if !cfg.keep {
			err = errors.Join(err, os.RemoveAll(cfg.dir))
		}
	}()
	b := &bench{config: cfg, results: newResults()}
	defer b.stopChildren()
	if err := b.machine(ctx); err != nil {
		return err
	}
	b.say("building the servers")
	if err := b.build(ctx); err != nil {
		return err
	}
	b.say("making the orders")
	b.orders = newOrderBook(maxConns, ordersPerConn, "/orders", "")

	stages := []struct {
		name string
		run  func(context.Context) error
	}{{"ingest", b.ingest}, {"drain", b.drain}, {"latency", b.latencyStage}, {"memory", b.memory}, {"limit", b.limit}, {"images", b.images}, {"job", b.job}, {"waiting", b.waiting}, {"machine", b.machineStage}, {"socket", b.socket}, {"catalog", b.catalog}, {"schema", b.schema}, {"many", b.manySeries}}
	defer func() { err = errors.Join(err, b.stopDatabase()) }() //nolint:contextcheck // it must stop when ctx is over, too
	for _, s := range stages {
		if !slices.Contains(cfg.only, s.name) {
			continue
		}
		b.say("%s", s.name)
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.stopChildren()
	}
	b.results.table(os.Stdout)
	return b.results.write(filepath.Join(cfg.root, "bench", "latest.json"))
}

// bench is one run.
type bench struct {
	config
	results   *results
	orders    *orderBook
	described *orderBook // orders with attributes; nil until they are posted
	children  []*child
	db        *localdb.DB // nil until a stage needs it
	serial    int         // of data folders
	peer      *bool       // whether Centrifugo could be built; nil until it was tried
}

func (b *bench) say(format string, args ...any) {
	fmt.Printf("==> %s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// folder returns the path of a folder of this run that does not exist yet.
func (b *bench) folder(name string) string {
	b.serial++
	return filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, b.serial))
}

func (b *bench) build(ctx context.Context) error {
	if err := os.MkdirAll(b.bin, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", b.bin+string(filepath.Separator),
		"./services/gateway", "./services/dispatcher", "./services/realtime", "./services/orchestrator", "./services/functions/order-writer", "./cmd/weir")
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.root, os.Stdout, os.Stderr
	return cmd.Run()
}
